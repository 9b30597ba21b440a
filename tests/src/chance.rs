//! Repeatable chance: a run prints its seed, and `MEZZO_SEED` repeats it.

use std::time::{SystemTime, UNIX_EPOCH};

/// A small generator (xorshift64*). Good enough to choose moments and outcomes.
#[derive(Debug, Clone)]
pub struct Chance {
    state: u64,
}

impl Chance {
    /// Seeded by `MEZZO_SEED`, or by the time; `what` and the seed are printed.
    pub fn for_test(what: &str) -> Self {
        let given =
            std::env::var("MEZZO_SEED").ok().map(|seed| seed.parse().expect("MEZZO_SEED is a number"));
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos());
        let seed = given.unwrap_or_else(|| u64::try_from(nanos & u128::from(u64::MAX)).expect("masked"));
        println!("{what}: MEZZO_SEED={seed}");
        Self::new(seed)
    }

    /// With this seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1 }
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) % bound
    }
}
