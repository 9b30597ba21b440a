//! A seed is a script.

use mezzo_protocol::time::Timestamp;
use mezzo_storage::{Outcome, StorageError, Visibility};

use super::run::{Run, TOPICS};

/// A small deterministic generator (xorshift), so that a seed is a script.
pub struct Random(u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

impl Run {
    /// One random step.
    pub fn step(&mut self, random: &mut Random) -> Result<(), StorageError> {
        let topic = TOPICS[random.below(2) as usize];
        let size = [10, 200, 3000][random.below(3) as usize];
        let open: Vec<u64> = self.state.open.keys().copied().collect();
        let decided: Vec<u64> = self.state.decided.keys().copied().collect();
        let outcome = if random.below(2) == 0 { Outcome::Committed } else { Outcome::RolledBack };
        let with_id: Vec<u64> =
            self.state.open.iter().filter(|(_, open)| open.with_id).map(|(origin, _)| *origin).collect();
        let half = Visibility::Prepared { delay_ms: None };
        match random.below(24) {
            0..=3 => self.send(topic, Visibility::Now, size),
            4..=6 => self.send(topic, half, size),
            19 => self.lease(),
            16 => self.send_in(topic, half, size, Some(0)),
            17 | 18 if !with_id.is_empty() => {
                let origin = with_id[random.below(with_id.len() as u64) as usize];
                self.send_in(topic, half, size, Some(origin))
            }
            7 => self.send(topic, Visibility::Due(Timestamp::from_ms(self.now + random.below(20))), size),
            8 | 9 if !open.is_empty() => self.end(open[random.below(open.len() as u64) as usize], outcome),
            10 if !decided.is_empty() => {
                self.end(decided[random.below(decided.len() as u64) as usize], outcome)
            }
            11 if !open.is_empty() => {
                let origin = open[random.below(open.len() as u64) as usize];
                self.park(origin)
            }
            20 | 21 if !open.is_empty() => self.asked(open[random.below(open.len() as u64) as usize]),
            22 if !open.is_empty() => self.resume(open[random.below(open.len() as u64) as usize]),
            23 => self.set_policy([None, Some(3), Some(7)][random.below(3) as usize]),
            12 => self.tick(),
            13 => self.checkpoint(),
            14 => {
                self.prepare()?;
                self.keep_once().map(|_| ())
            }
            _ => self.sync(),
        }
    }

    /// The script: starts, random steps, an orderly stop and a second start in the middle.
    pub fn script(&mut self, seed: u64, steps: u64) -> Result<(), StorageError> {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        self.start()?;
        for topic in TOPICS {
            self.put_topic(topic)?;
            self.sync()?;
        }
        for _ in 0..steps {
            self.step(&mut random)?;
        }
        self.close()?;
        self.start()?;
        for _ in 0..steps {
            self.step(&mut random)?;
        }
        Ok(())
    }
}
