//! What the broker has decided, read from the bytes of its log: every transaction that was ever prepared.

use std::collections::BTreeMap;
use std::path::Path;

use mezzo_protocol::message::record::MessageView;
use mezzo_tests::log_reader::{self, DECISION, PREPARED};

use crate::transfer::Transfer;

/// A transaction in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recorded {
    /// Position of its half message.
    pub(crate) origin: u64,
    /// The unique key of its message.
    pub(crate) message_key: String,
    pub(crate) transfer: Transfer,
    /// Its decisions; a right log holds one.
    pub(crate) decisions: Vec<Decided>,
}

/// A decision in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decided {
    pub(crate) is_commit: bool,
    /// By a producer's answer to a check-back, not by its own END.
    pub(crate) by_check_back: bool,
}

/// All transactions in the log of a broker that is idle or has ended.
pub(crate) fn read(data_dir: &Path) -> Vec<Recorded> {
    let frames = log_reader::frames(data_dir);
    let mut found = BTreeMap::new();
    for record in frames.iter().flat_map(|frame| &frame.records) {
        match record.kind {
            PREPARED => {
                let message = MessageView::parse(&record.payload).expect("a half message is a message");
                let body = String::from_utf8_lossy(message.body());
                let recorded = Recorded {
                    origin: record.position,
                    message_key: message.unique_key().expect("the SDK sets it").to_owned(),
                    transfer: Transfer::read(&body).expect("this run's messages are transfers"),
                    decisions: Vec::new(),
                };
                found.insert(record.position, recorded);
            }
            DECISION => {
                let (origin, outcome, source) = decision(&record.payload);
                let recorded: &mut Recorded =
                    found.get_mut(&origin).expect("a half stands before its decision");
                recorded.decisions.push(Decided { is_commit: outcome == 1, by_check_back: source == 2 });
            }
            _ => {}
        }
    }
    found.into_values().collect()
}

/// Origin, outcome and source, as `docs/on-disk-format.md` has them.
fn decision(payload: &[u8]) -> (u64, u8, u8) {
    let origin = u64::from_le_bytes(payload[..8].try_into().expect("eight bytes"));
    (origin, payload[8], payload[9])
}
