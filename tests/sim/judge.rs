//! What must hold at every moment, held against what clients are told as they are told it.

use std::collections::BTreeMap;

use mezzo_protocol::remoting::RemotingCommand;
use mezzo_tests::consumer::Message;

use crate::history::{History, Place, SentBack, Told, TransactionId};
use crate::nemesis::AFTER_FULL;
use crate::plan::OFFSETS_LOST_MS_MAX;
use crate::trace::note;
use crate::world::World;

/// A report may be under way for so long, and overtake or be overtaken by another connection's.
const UNDER_WAY_MS_MAX: u64 = 10_000;

/// What groups reported, by group and queue.
#[derive(Debug, Default)]
pub struct Offsets {
    reports: BTreeMap<(String, Place), Reports>,
}

#[derive(Debug, Default)]
struct Reports {
    /// When, and which offset.
    asked: Vec<(u64, u64)>,
    /// Those that the broker has acknowledged: when they were sent, when the answer came, and which offset.
    acknowledged: Vec<(u64, u64, u64)>,
}

impl World {
    /// A report is about to be sent; when.
    pub fn reporting(&self, group: &str, place: &Place, offset: u64) -> u64 {
        let now_ms = self.now_ms();
        let mut offsets = self.offsets();
        let reports = offsets.reports.entry((group.to_owned(), place.clone())).or_default();
        reports.asked.push((now_ms, offset));
        now_ms
    }

    /// A report of `asked_ms` was acknowledged.
    pub fn reported(&self, group: &str, place: &Place, offset: u64, asked_ms: u64) {
        let now_ms = self.now_ms();
        let mut offsets = self.offsets();
        let reports = offsets.reports.entry((group.to_owned(), place.clone())).or_default();
        reports.acknowledged.push((asked_ms, now_ms, offset));
    }

    /// Where a group is told to stand: not before what no crash can take back, not beyond what was ever reported.
    pub fn judge_offset(&self, group: &str, place: &Place, told: Option<u64>, asked_ms: u64) {
        let offsets = self.offsets();
        let Some(reports) = offsets.reports.get(&(group.to_owned(), place.clone())) else {
            if told.is_some_and(|offset| offset > 0) {
                self.history().violation(format!("{group} never reported of {place:?} and is at {told:?}"));
            }
            return;
        };
        let most = reports.asked.iter().map(|(_, offset)| *offset).max();
        let mut history = self.history();
        let after_full_ms = AFTER_FULL.as_millis() as u64;
        let is_safe = |sent_ms: u64, at_ms: u64| {
            let crashed = history.crashes.iter().map(|crash| crash.ended_ms).any(|crash| {
                sent_ms <= crash && crash < at_ms + OFFSETS_LOST_MS_MAX && crash <= self.now_ms()
            });
            // on a full disk offsets wait in memory, too
            let full = history
                .full
                .iter()
                .any(|(from, to)| at_ms + OFFSETS_LOST_MS_MAX >= *from && at_ms <= *to + after_full_ms);
            let crashed_ever_since = history.crashes.iter().any(|crash| crash.ended_ms >= sent_ms);
            !(crashed || full && crashed_ever_since)
        };
        let safe =
            reports.acknowledged.iter().rev().find(|(sent, at, _)| *at < asked_ms && is_safe(*sent, *at));
        let least = safe.and_then(|(sent, ..)| {
            let since = sent.saturating_sub(UNDER_WAY_MS_MAX);
            reports.asked.iter().filter(|(asked, _)| *asked >= since).map(|(_, offset)| *offset).min()
        });
        let got = told.unwrap_or(0);
        note!(self.trace, "{group} is told {told:?} of {place:?}, from {least:?} to {most:?}");
        if least.is_some_and(|least| got < least) {
            history.violation(format!("{group} went back to {told:?} in {place:?}, it was at {safe:?}"));
        }
        if most.is_none_or(|most| got > most) && got > 0 {
            history.violation(format!("{group} is at {got} in {place:?}, where it never was: {most:?}"));
        }
    }

    /// What a pull found.
    pub fn judge_pull(&self, group: &str, place: &Place, from: u64, next: u64, found: &[Message]) {
        let now_ms = self.now_ms();
        let offsets: Vec<u64> = found.iter().map(|message| message.queue_offset).collect();
        note!(self.trace, "{group} pulls {place:?} from {from} to {next}: {offsets:?}");
        let mut history = self.history();
        let mut expected = from;
        for message in found {
            if message.queue_offset < expected {
                history.violation(format!("{place:?} from {from} gives {offsets:?}"));
            }
            // without losses there are no gaps but those that retention makes
            if message.queue_offset > expected
                && !self.plan.memory
                && !self.watched().are_gone(place, expected..message.queue_offset)
            {
                history.violation(format!("{place:?} from {from} leaves out {expected}: {offsets:?}"));
            }
            expected = message.queue_offset + 1;
            if (message.topic.as_str(), message.queue) != (place.0.as_str(), place.1) {
                history.violation(format!("{place:?} gives a message of {}", message.topic));
            }
            history.give(group, message, now_ms);
        }
        // after a loss offsets jump, past what anybody may have seen
        let passed_over =
            next > expected && (self.plan.memory || self.watched().are_gone(place, expected..next));
        if next != expected && !passed_over {
            history.violation(format!("{place:?} from {from} gives {offsets:?} and goes on at {next}"));
        }
    }

    /// A pull that found nothing goes on elsewhere.
    pub fn judge_moved(&self, group: &str, place: &Place, from: u64, to: u64) {
        if from == to {
            return;
        }
        note!(self.trace, "{group} is moved in {place:?} from {from} to {to}");
        let deleted = from < to && self.watched().are_gone(place, from..to);
        self.history().stats.saw("group moved past what was deleted", u64::from(deleted));
        if !self.plan.memory && !deleted {
            self.history().violation(format!("{group} is moved from {from} to {to} in {place:?}"));
        }
    }

    /// A message is about to be sent back.
    pub fn sending_back(&self, group: &str, message: &Message) {
        let mut history = self.history();
        history.stats.sent_back += 1;
        if let Some(entry) = sent_back(&mut history, group, message) {
            entry.asked += 1;
        }
    }

    /// The broker has taken a message back.
    pub fn sent_back(&self, group: &str, message: &Message) {
        let now_ms = self.now_ms();
        let mut history = self.history();
        if let Some(entry) = sent_back(&mut history, group, message) {
            entry.safe.push(now_ms);
        }
    }

    /// The broker says to an END that was sent at `asked_ms` that it has not decided the transaction.
    pub fn judge_undecided(
        &self,
        history: &mut History,
        id: TransactionId,
        asked_ms: u64,
        outcome: &str,
        answer: &RemotingCommand,
    ) {
        const BUSY: i32 = 2;
        const NOT_AVAILABLE: i32 = 14;
        // the disk failed under the decision: whether it stands is known after the restart
        let disk_failed = answer.remark.as_ref().is_some_and(|remark| remark.contains("(simulated)"));
        if matches!(answer.code, BUSY | NOT_AVAILABLE) || outcome == "RETRY" || disk_failed {
            return;
        }
        let Some(transaction) = history.transactions.get(&id) else { return };
        let messages = || transaction.messages.iter().filter_map(|message| history.messages.get(message));
        let whole =
            messages().all(|sent| matches!(sent.told, Told::Stored { at_ms, .. } if at_ms <= asked_ms));
        // of many, one that may or may not have been stored by then makes any count wrong
        let may_be_incomplete = transaction.many && !whole;
        let may_be_lost = messages().any(|sent| history.message_may_be_lost(sent));
        let text = format!(
            "transaction {id}, whose messages are all stored, was answered {} {outcome} {:?}",
            answer.code, answer.remark
        );
        if !may_be_incomplete && !may_be_lost {
            history.violation(text);
        }
    }

    /// At acknowledgement `memory`: how old an answer may be and still be taken back by a power cut.
    pub fn lost_ms_max(&self) -> u64 {
        const SLACK_MS: u64 = 100;
        self.plan.config.store.flush_interval.as_millis() as u64 + SLACK_MS
    }
}

fn sent_back<'h>(history: &'h mut History, group: &str, message: &Message) -> Option<&'h mut SentBack> {
    let text = std::str::from_utf8(&message.body[..message.body.iter().position(|byte| *byte == b'|')?]);
    let id = text.ok()?.parse().ok()?;
    Some(history.sent_back.entry((group.to_owned(), id)).or_default())
}
