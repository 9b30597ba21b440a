//! The oracle of the crash tests: what a producer was told, transaction by transaction, and what must follow from it.
//! It is kept outside the broker's machine, so to say: a crash of the broker does not touch it.
//!
//! ```text
//!   Sent ──answer──> Prepared ──END sent──> Ending(v) ──answer──> Decided(v)
//!     │                  │                      │                     └ final: delivered exactly once, or never
//!     │                  │                      └ either undecided or v, never the other
//!     │                  └ never delivered, and still to be decided
//!     └ never delivered: nobody ended it
//! ```

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::consumer::Message;
use crate::producer::{Half, Verdict};

/// What is known of one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The half message is on its way; no answer came.
    Sent,
    /// The broker has accepted the half message.
    Prepared(Half),
    /// An END is on its way; no answer came.
    Ending(Half, Verdict),
    /// The broker has answered the END.
    Decided(Half, Verdict),
}

/// Everything that one topic's producers were told, by unique key.
#[derive(Debug, Default)]
pub struct Oracle {
    fates: HashMap<String, Fate>,
    history: String,
    /// What was delivered so far by queue, in order, with queue offsets: a later look must see the same.
    seen: HashMap<u32, Vec<(u64, String)>>,
}

impl Oracle {
    /// Notes what happened to the transaction `key`.
    pub fn note(&mut self, key: &str, fate: Fate) {
        // writing into a String cannot fail
        let _ = writeln!(self.history, "{key} {fate:?}");
        self.fates.insert(key.to_owned(), fate);
    }

    /// Notes something about the run itself, for whoever reads the history.
    pub fn remark(&mut self, text: &str) {
        let _ = writeln!(self.history, "# {text}");
    }

    /// Writes down everything that was noted, in order.
    pub fn write_history(&self, to: &Path) {
        fs::write(to, &self.history).unwrap_or_else(|error| eprintln!("the history is lost: {error}"));
    }

    /// All transactions whose fate is `wanted`, ordered by key.
    pub fn with(&self, wanted: impl Fn(&Fate) -> bool) -> Vec<(String, Fate)> {
        let mut found: Vec<(String, Fate)> = self
            .fates
            .iter()
            .filter(|(_, fate)| wanted(fate))
            .map(|(key, fate)| (key.clone(), fate.clone()))
            .collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }

    /// How many transactions are known to be committed, rolled back, and neither.
    pub fn counts(&self) -> (usize, usize, usize) {
        let committed = self.with(|fate| matches!(fate, Fate::Decided(_, Verdict::Commit))).len();
        let rolled_back = self.with(|fate| matches!(fate, Fate::Decided(_, Verdict::RollBack))).len();
        (committed, rolled_back, self.fates.len() - committed - rolled_back)
    }

    /// Where to begin reading `queue` so that the last `overlap` messages that were seen are seen again.
    pub fn resume_at(&self, queue: u32, overlap: usize) -> u64 {
        let seen = self.seen.get(&queue).map_or(&[][..], Vec::as_slice);
        seen.len().checked_sub(overlap).and_then(|at| seen.get(at)).map_or(0, |(offset, _)| *offset)
    }

    /// Holds what `queue` delivers now, from offset `from` on, against what it delivered before.
    /// Returns what is wrong, in words; nothing when all is well.
    pub fn judge(&mut self, queue: u32, from: u64, delivered: &[Message]) -> Vec<String> {
        let mut wrong = Vec::new();
        let now: Vec<(u64, String)> = delivered
            .iter()
            .map(|message| (message.queue_offset, message.key.clone().unwrap_or_default()))
            .collect();
        // not always by one: at ack `memory` offsets jump after a crash, so that none is given twice
        for pair in now.windows(2).filter(|pair| pair[0].0 >= pair[1].0) {
            wrong.push(format!("queue {queue} has offset {} behind {}", pair[1].0, pair[0].0));
        }
        let seen = self.seen.entry(queue).or_default();
        let kept = seen.partition_point(|(offset, _)| *offset < from);
        let before = &seen[kept..];
        if !now.starts_with(before) {
            let at = now.iter().zip(before).take_while(|(now, then)| now == then).count();
            wrong.push(format!(
                "queue {queue} changed: {} messages were seen from offset {from} on, now there are {} and the first {at} agree",
                before.len(),
                now.len()
            ));
        }
        seen.truncate(kept);
        seen.extend(now);
        wrong
    }

    /// Holds what all queues together delivered against what producers were told.
    pub fn judge_all(&self) -> Vec<String> {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for (_, key) in self.seen.values().flatten() {
            *counts.entry(key).or_default() += 1;
        }
        let mut wrong: Vec<String> = counts
            .keys()
            .filter(|key| !self.fates.contains_key(**key))
            .map(|key| format!("{key} was never sent"))
            .collect();
        for (key, fate) in &self.fates {
            let count = counts.get(key.as_str()).copied().unwrap_or(0);
            let right = match fate {
                Fate::Sent | Fate::Prepared(_) => count == 0,
                Fate::Ending(_, Verdict::Commit) => count <= 1,
                Fate::Ending(..) => count == 0,
                Fate::Decided(_, Verdict::Commit) => count == 1,
                Fate::Decided(..) => count == 0,
            };
            if !right {
                wrong.push(format!("{key} was delivered {count} times, and its producer knows {fate:?}"));
            }
        }
        wrong.sort();
        wrong
    }

    /// True when `key` has been seen delivered.
    pub fn is_delivered(&self, key: &str) -> bool {
        self.seen.values().flatten().any(|(_, seen)| seen == key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half(key: &str) -> Half {
        Half { group: "g".into(), topic: "t".into(), key: key.into(), log_offset: 1, table_offset: 1 }
    }

    fn message(key: &str, queue_offset: u64) -> Message {
        Message {
            topic: "t".into(),
            queue: 0,
            queue_offset,
            physical_offset: 0,
            prepared_offset: 0,
            sys_flag: 8,
            reconsume_times: 0,
            store_ms: 1,
            key: Some(key.into()),
            body: Vec::new(),
            properties: Vec::new(),
        }
    }

    /// What the oracle says when one transaction of fate `fate` was delivered `times` times.
    fn verdict(fate: Fate, times: u64) -> usize {
        let mut oracle = Oracle::default();
        oracle.note("k", fate);
        let delivered: Vec<Message> = (0..times).map(|offset| message("k", offset)).collect();
        oracle.judge(0, 0, &delivered).len() + oracle.judge_all().len()
    }

    #[test]
    fn each_fate_allows_what_a_producer_may_believe() {
        let (commit, roll_back) = (Verdict::Commit, Verdict::RollBack);
        for (fate, allowed) in [
            (Fate::Sent, [true, false, false]),
            (Fate::Prepared(half("k")), [true, false, false]),
            (Fate::Ending(half("k"), commit), [true, true, false]),
            (Fate::Ending(half("k"), roll_back), [true, false, false]),
            (Fate::Decided(half("k"), commit), [false, true, false]),
            (Fate::Decided(half("k"), roll_back), [true, false, false]),
        ] {
            for (times, allowed) in (0..).zip(allowed) {
                assert_eq!(verdict(fate.clone(), times) == 0, allowed, "{fate:?} delivered {times} times");
            }
        }
    }

    #[test]
    fn a_queue_that_forgets_or_reorders_is_noticed() {
        let mut oracle = Oracle::default();
        for key in ["a", "b"] {
            oracle.note(key, Fate::Decided(half(key), Verdict::Commit));
        }
        assert!(oracle.judge(0, 0, &[message("a", 0), message("b", 1)]).is_empty());
        assert_eq!(oracle.judge(0, 0, &[message("b", 0), message("a", 1)]).len(), 1);
        assert_eq!(oracle.judge(0, 0, &[]).len(), 1);
    }

    #[test]
    fn a_look_at_the_end_of_a_queue_adds_to_what_was_seen() {
        let mut oracle = Oracle::default();
        for key in ["a", "b", "c"] {
            oracle.note(key, Fate::Decided(half(key), Verdict::Commit));
        }
        assert!(oracle.judge(0, 0, &[message("a", 0), message("b", 1)]).is_empty());
        assert_eq!((oracle.resume_at(0, 1), oracle.resume_at(0, 9)), (1, 0));
        assert!(oracle.judge(0, 1, &[message("b", 1), message("c", 2)]).is_empty());
        assert!(oracle.judge_all().is_empty());
        assert_eq!(oracle.judge(0, 1, &[message("c", 1)]).len(), 1);
    }

    #[test]
    fn a_message_that_nobody_sent_is_noticed() {
        let mut oracle = Oracle::default();
        assert!(oracle.judge(0, 0, &[message("ghost", 0)]).is_empty());
        assert_eq!(oracle.judge_all().len(), 1);
    }
}
