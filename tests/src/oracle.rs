//! The oracle of the crash tests: what a producer was told, transaction by transaction, and what must follow from it.
//! It is kept outside the broker's machine, so to say: a crash of the broker does not touch it.
//!
//! ```text
//!   Sent ──answer──> Prepared ──END sent──> Ending(v) ──answer──> Decided(v)
//!     │                  │                      │                     └ final: delivered exactly once, or never
//!     │                  │                      └ either undecided or v, never the other
//!     │                  └ never delivered, and still to be decided
//!     └ never delivered: nobody ended it
//!
//!   Plain ──answer──> Stored     an ordinary message
//!     │                  └ delivered exactly once
//!     └ delivered once or never
//! ```

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::chance::Chance;
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
    /// An ordinary message is on its way; no answer came.
    Plain,
    /// The broker has accepted an ordinary message.
    Stored,
}

/// Everything that one topic's producers were told, by unique key.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Transactions that may still change.
    open: BTreeMap<String, Fate>,
    /// Transactions that may not, in the order in which they were decided, and where to find each.
    decided: Vec<(Half, Verdict)>,
    places: HashMap<String, usize>,
    /// What was delivered so far by queue, in order, with queue offsets: a later look must see the same.
    seen: HashMap<u32, Vec<(u64, String)>>,
    /// How often each message was delivered, over all queues.
    deliveries: HashMap<String, u32>,
    /// What has changed since it was judged last.
    unjudged: Vec<String>,
    history: Option<BufWriter<File>>,
}

impl Oracle {
    /// Writes everything that is noted to a file, too: for whoever has to find out what went wrong.
    pub fn with_history(path: &Path) -> Self {
        let file = File::create(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { history: Some(BufWriter::new(file)), ..Self::default() }
    }

    /// Notes what happened to the transaction `key`.
    pub fn note(&mut self, key: &str, fate: Fate) {
        self.remark(&format!("{key} {}", fate.short()));
        self.unjudged.push(key.to_owned());
        match fate {
            Fate::Decided(half, verdict) => {
                self.open.remove(key);
                self.places.insert(key.to_owned(), self.decided.len());
                self.decided.push((half, verdict));
            }
            open => {
                self.open.insert(key.to_owned(), open);
            }
        }
    }

    /// Writes a line into the history.
    pub fn remark(&mut self, text: &str) {
        if let Some(history) = &mut self.history {
            writeln!(history, "{text}").expect("the history can be written");
        }
    }

    /// Puts the history on its file.
    pub fn flush_history(&mut self) {
        if let Some(history) = &mut self.history {
            history.flush().expect("the history can be written");
        }
    }

    /// All transactions that have been ended without an answer.
    pub fn ending(&self) -> Vec<(Half, Verdict)> {
        let ending = self.open.values().filter_map(|fate| match fate {
            Fate::Ending(half, verdict) => Some((half.clone(), *verdict)),
            _ => None,
        });
        ending.collect()
    }

    /// Some of the transactions that were prepared and not ended.
    pub fn some_prepared(&self, chance: &mut Chance, max: usize) -> Vec<Half> {
        let mut prepared: Vec<&Half> = self.open.values().filter_map(Fate::prepared).collect();
        let count = max.min(prepared.len());
        let draw = |_| {
            let index = chance.below(prepared.len() as u64) as usize;
            prepared.swap_remove(index).clone()
        };
        (0..count).map(draw).collect()
    }

    /// Some of the decided transactions; one may be among them twice.
    pub fn some_decided(&self, chance: &mut Chance, max: usize) -> Vec<(Half, Verdict)> {
        let draws = if self.decided.is_empty() { 0 } else { max };
        (0..draws).map(|_| self.decided[chance.below(self.decided.len() as u64) as usize].clone()).collect()
    }

    /// How many ordinary messages were accepted.
    pub fn stored(&self) -> usize {
        self.open.values().filter(|fate| **fate == Fate::Stored).count()
    }

    /// How many transactions are known to be committed, rolled back, and neither.
    pub fn counts(&self) -> (usize, usize, usize) {
        let committed = self.decided.iter().filter(|(_, verdict)| *verdict == Verdict::Commit).count();
        let open = self.open.values().filter(|fate| !matches!(fate, Fate::Plain | Fate::Stored)).count();
        (committed, self.decided.len() - committed, open)
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
        for (_, key) in seen.drain(kept..) {
            self.deliveries.entry(key).and_modify(|count| *count -= 1);
        }
        for (_, key) in &now {
            *self.deliveries.entry(key.clone()).or_default() += 1;
            self.unjudged.push(key.clone());
        }
        seen.extend(now);
        wrong
    }

    /// Holds what all queues together delivered against what producers were told: of every transaction, or of those
    /// of which anything has changed since the last time.
    pub fn judge_all(&mut self, whole: bool) -> Vec<String> {
        let mut keys = std::mem::take(&mut self.unjudged);
        if whole {
            keys.extend(self.open.keys().chain(self.places.keys()).chain(self.deliveries.keys()).cloned());
        }
        keys.sort_unstable();
        keys.dedup();
        keys.iter().filter_map(|key| self.judge_one(key)).collect()
    }

    fn judge_one(&self, key: &str) -> Option<String> {
        let count = self.deliveries.get(key).copied().unwrap_or(0);
        let decided = self.places.get(key).map(|place| &self.decided[*place]);
        let (right, known) = match (self.open.get(key), decided) {
            (None, None) => return (count > 0).then(|| format!("{key} was never sent")),
            (Some(fate @ (Fate::Ending(_, Verdict::Commit) | Fate::Plain)), _) => (count <= 1, fate.short()),
            (Some(fate @ Fate::Stored), _) => (count == 1, fate.short()),
            (Some(fate), _) => (count == 0, fate.short()),
            (None, Some((_, verdict))) => {
                (count == u32::from(*verdict == Verdict::Commit), format!("D {verdict:?}"))
            }
        };
        (!right).then(|| format!("{key} was delivered {count} times, and its producer knows: {known}"))
    }

    /// True when `key` has been seen delivered.
    pub fn is_delivered(&self, key: &str) -> bool {
        self.deliveries.get(key).is_some_and(|count| *count > 0)
    }
}

impl Fate {
    /// One word of the history: S sent, P prepared, E ending, D decided; M an ordinary message sent, A accepted.
    fn short(&self) -> String {
        match self {
            Self::Sent => "S".to_owned(),
            Self::Prepared(half) => format!("P at {}", half.log_offset),
            Self::Ending(_, verdict) => format!("E {verdict:?}"),
            Self::Decided(_, verdict) => format!("D {verdict:?}"),
            Self::Plain => "M".to_owned(),
            Self::Stored => "A".to_owned(),
        }
    }

    fn prepared(&self) -> Option<&Half> {
        if let Self::Prepared(half) = self { Some(half) } else { None }
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
        oracle.judge(0, 0, &delivered).len() + oracle.judge_all(true).len()
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
            (Fate::Plain, [true, true, false]),
            (Fate::Stored, [false, true, false]),
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
        assert!(oracle.judge_all(true).is_empty());
        assert_eq!(oracle.judge(0, 1, &[message("c", 1)]).len(), 1);
    }

    #[test]
    fn a_message_that_nobody_sent_is_noticed() {
        let mut oracle = Oracle::default();
        assert!(oracle.judge(0, 0, &[message("ghost", 0)]).is_empty());
        assert_eq!(oracle.judge_all(true).len(), 1);
    }
}
