//! What carrying costs: over any sweep fewer bytes are carried than freed, whatever is open and how large it is.

use mezzo_protocol::ids::PhysicalOffset;
use mezzo_protocol::time::Timestamp;
use mezzo_storage::{AtMaxBytes, OperationResult, Outcome, StoreOptions, Visibility};
use proptest::prelude::*;

use crate::budget::{SMALL_BUDGET, budget_options};
use crate::fixture::{Fixture, RETENTION_MS, T0, options};

/// What is sent, as (kind, size class, is it decided later).
type Sent = (u8, u8, bool);

fn scripts(most: usize) -> impl Strategy<Value = Vec<Sent>> {
    proptest::collection::vec((0u8..4, 0u8..4, any::<bool>()), 1..most)
}

/// Sends the script's messages, decides some, and says which bodies stay open.
fn play(s: &mut Fixture, script: &[Sent], sizes: [usize; 4], round: usize) -> Vec<(String, PhysicalOffset)> {
    let mut open = Vec::new();
    for (n, (kind, size, decided)) in script.iter().enumerate() {
        s.prepare();
        let body = format!("r{round}n{n}-{}", "z".repeat(sizes[usize::from(*size)]));
        let due = Visibility::Due(Timestamp::from_ms(T0 + 1000 * RETENTION_MS));
        match kind {
            0 | 1 => {
                s.send(&body, Visibility::Now);
            }
            2 => {
                if let OperationResult::Prepared { origin, .. } =
                    s.send(&body, Visibility::Prepared { delay_ms: None })
                {
                    if *decided {
                        s.end(origin, &body, Outcome::Committed);
                    } else {
                        open.push((body, origin));
                    }
                }
            }
            _ => {
                s.send(&body, due);
            }
        }
    }
    s.store.sync().unwrap();
    open
}

fn sweep(options: &StoreOptions, scripts: &[Vec<Sent>], sizes: [usize; 4]) -> Result<(), TestCaseError> {
    let mut s = Fixture::new(options.clone());
    let mut open = Vec::new();
    for (round, script) in scripts.iter().enumerate() {
        open.extend(play(&mut s, script, sizes, round));
        s.now += RETENTION_MS / 2;
        let before = s.store.retention_figures();
        let opened = s.store.open_messages();
        s.keep();
        let after = s.store.retention_figures();
        let carried = after.bytes_carried - before.bytes_carried;
        let freed = after.bytes_freed - before.bytes_freed;
        prop_assert!(carried <= freed, "{carried} bytes carried, {freed} freed");
        prop_assert_eq!(s.store.open_messages(), opened);
    }
    let s = s.crash(mezzo_storage::file_system::CrashMode::LoseUnsynced);
    for (body, origin) in open {
        let half = s.store.half_message(origin).unwrap();
        prop_assert_eq!(half.map(|half| crate::fixture::body_of(&half.bytes)), Some(body));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn by_age(scripts in proptest::collection::vec(scripts(120), 1..5)) {
        sweep(&options(), &scripts, [1, 100, 1000, 4000])?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn by_size(scripts in proptest::collection::vec(scripts(250), 2..6), oldest in any::<bool>()) {
        let at_max_bytes = if oldest { AtMaxBytes::DeleteOldest } else { AtMaxBytes::Reject };
        let options = StoreOptions { at_max_bytes, ..budget_options(SMALL_BUDGET) };
        sweep(&options, &scripts, [100, 10_000, 60_000, 120_000])?;
    }
}
