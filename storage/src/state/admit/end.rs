//! END: the one place where a transaction is decided.

use mezzo_protocol::ids::{GroupName, PhysicalOffset, TransactionId};
use mezzo_protocol::limits::TRANSACTION_OFFSETS_MAX;

use super::leases::moved;
use super::{Admission, Sink};
use crate::end::{EndTarget, EndTransaction, OffsetMove};
use crate::format::history_row::{HistoryRow, group_hash, key_hash};
use crate::format::record::{
    Decision as DecisionRecord, ORIGIN_IS_HERE, OffsetEntry, Offsets, Outcome, RecordKind, Source,
};
use crate::results::{Decision, LeftDoubt, OperationResult, Refusal};
use crate::state::ledger::{At, Ledger};
use crate::state::publish::{Publication, Publisher};
use crate::state::transactions::history::decision_of;
use crate::state::transactions::{OpenOfKey, OpenRow};

/// Bytes of one moved offset in the record beyond the topic's name.
const OFFSET_ENTRY_BYTES: usize = 14;

/// What END means.
enum Target {
    /// What was prepared here.
    Origin(u64),
    /// The only open one with this unique key; a decided one may have had it, too.
    OpenByKey(u64),
    /// Decided lately.
    Decided(HistoryRow),
    /// More than one.
    Ambiguous,
    /// Nothing open; the history may know.
    NotOpen,
}

impl Ledger {
    /// `unheard_of`: the history was asked and does not know a transaction of this id, or no other than the open one.
    pub(super) fn end(
        &mut self,
        end: &EndTransaction,
        unheard_of: bool,
        sink: &mut Sink<'_>,
        publisher: &mut dyn Publisher,
    ) -> Admission {
        if end.offsets.as_ref().is_some_and(|offsets| offsets.entries.len() > TRANSACTION_OFFSETS_MAX) {
            return Admission::Result(OperationResult::Refused(Refusal::TooManyOffsets));
        }
        let origin = match self.target(&end.target) {
            Target::Origin(origin) => origin,
            // decided meanwhile, if its origin was known already
            Target::OpenByKey(origin) if !unheard_of => return Admission::AskHistory { open: Some(origin) },
            Target::OpenByKey(origin) => origin,
            Target::Decided(row) => return Admission::Result(repeated(&row, end)),
            Target::Ambiguous => return Admission::Result(OperationResult::Refused(Refusal::Ambiguous)),
            Target::NotOpen => {
                return match &end.target {
                    EndTarget::Id { group, id } if unheard_of && end.count == Some(0) => {
                        let decision = self.end_empty(group, id, end, sink, publisher);
                        Admission::Result(OperationResult::Decided(decision))
                    }
                    _ => Admission::AskHistory { open: None },
                };
            }
        };
        let Some(row) = self.open.get(origin) else {
            return match self.history.as_ref().and_then(|h| h.find_recent(origin)) {
                Some(row) => Admission::Result(repeated(&row, end)),
                None => Admission::AskHistory { open: None },
            };
        };
        if let Some(refusal) = self.refusal_of(row, end) {
            return Admission::Result(OperationResult::Refused(refusal));
        }
        let (outcome, source) = self.verdict(end);
        let mut record = record_of(end, (outcome, source));
        (record.origin, record.count) = (origin, self.messages_of(origin));
        record.previous_event = row.last_event;
        let at = write(&record, sink);
        if row.in_doubt
            && let Some(group) = self.open.groups().name(row.group)
        {
            let left = LeftDoubt {
                origin: PhysicalOffset(origin),
                group: group.clone(),
                age_ms: at.time_ms.saturating_sub(row.prepared_at_ms),
                outcome,
                source,
            };
            publisher.publish(at.position, Publication::LeftDoubt(left));
        }
        let decision = self.decide(at, origin, outcome, source, publisher);
        self.move_with(at, outcome, end, publisher);
        Admission::Result(match decision {
            Some(decision) => OperationResult::Decided(decision),
            None => OperationResult::Refused(Refusal::Unknown),
        })
    }

    /// Decides a transaction that moves offsets and has no messages.
    fn end_empty(
        &mut self,
        group: &GroupName,
        id: &TransactionId,
        end: &EndTransaction,
        sink: &mut Sink<'_>,
        publisher: &mut dyn Publisher,
    ) -> Decision {
        let (outcome, source) = self.verdict(end);
        let mut record = record_of(end, (outcome, source));
        record.named = Some((group, id));
        let at = write(&record, sink);
        let decision = self.decide_empty(at, group, id, outcome, source);
        self.move_with(at, outcome, end, publisher);
        decision
    }

    /// What becomes of it: a commit whose offsets another client has the right to by now is rolled back.
    fn verdict(&self, end: &EndTransaction) -> (Outcome, Source) {
        let fenced = end.outcome == Outcome::Committed
            && end.offsets.as_ref().is_some_and(|offsets| !self.may_move(offsets));
        if fenced { (Outcome::RolledBack, Source::Fenced) } else { (end.outcome, end.source) }
    }

    fn move_with(&mut self, at: At, outcome: Outcome, end: &EndTransaction, publisher: &mut dyn Publisher) {
        if let Some(offsets) = end.offsets.as_ref().filter(|_| outcome == Outcome::Committed) {
            self.move_offsets(at, &offsets.group, moved(offsets), publisher);
        }
    }

    /// Which transaction END means. An id is that of a transaction of many messages, or the unique key of a message that
    /// is a transaction by itself; there nothing keeps a client from using a key twice.
    fn target(&self, target: &EndTarget) -> Target {
        let (group, id) = match target {
            EndTarget::Origin(origin) => return Target::Origin(origin.0),
            EndTarget::Id { group, id } => (group, id),
        };
        let symbol = self.open.groups().find(group);
        let open = symbol.map_or(OpenOfKey::None, |symbol| self.open.of_key(symbol, key_hash(id)));
        let decided = self.many.find_decided(group, id);
        match open {
            OpenOfKey::Several => Target::Ambiguous,
            OpenOfKey::One(origin) => match self.many.get(origin) {
                // ids are not used again: see `admit/many.rs`
                Some(many) if many.id == *id => Target::Origin(origin),
                Some(_) => Target::NotOpen,
                None if decided.is_some() => Target::Ambiguous,
                None => Target::OpenByKey(origin),
            },
            OpenOfKey::None => decided.map_or(Target::NotOpen, |row| Target::Decided(*row)),
        }
    }

    fn messages_of(&self, origin: u64) -> u16 {
        self.many.get(origin).map_or(1, |many| many.count())
    }

    /// Why this END may not decide this open transaction.
    fn refusal_of(&self, row: &OpenRow, end: &EndTransaction) -> Option<Refusal> {
        let group = self.open.groups().name(row.group);
        if end.producer_group.as_ref().is_some_and(|g| Some(g) != group) {
            return Some(Refusal::WrongGroup);
        }
        if end.table_offset.is_some_and(|o| o != row.origin) {
            return Some(Refusal::WrongTableOffset);
        }
        if end.keys.is_some_and(|keys| !keys.contains(&row.key_hash)) {
            return Some(Refusal::WrongKey);
        }
        if end.only_in_doubt && !row.in_doubt {
            return Some(Refusal::StillPrepared);
        }
        // only its producer knows how many there should be; and what is rolled back may lack some
        let counts = end.outcome == Outcome::Committed
            && (end.count.is_some()
                || (end.source == Source::Producer && self.many.get(row.origin).is_some()));
        let expected = self.messages_of(row.origin);
        (counts && end.count != Some(expected)).then_some(Refusal::Incomplete { expected, got: end.count })
    }
}

fn write(record: &DecisionRecord<'_>, sink: &mut Sink<'_>) -> At {
    record.encode(sink.scratch);
    sink.push_scratch(RecordKind::Decision, record.flags())
}

/// The record of a decision about a transaction without messages and events; for others its origin, its count and its
/// newest event are to be filled in.
fn record_of(end: &EndTransaction, (outcome, source): (Outcome, Source)) -> DecisionRecord<'_> {
    let offsets = end.offsets.as_ref().filter(|_| outcome == Outcome::Committed);
    let offsets = offsets.map(|offsets| {
        let entries = offsets.entries.iter();
        let entries = entries.map(|e| OffsetEntry { topic: &e.topic, queue: e.queue.0, offset: e.offset.0 });
        Offsets { group: &offsets.group, entries: entries.collect() }
    });
    DecisionRecord {
        origin: ORIGIN_IS_HERE,
        outcome,
        source,
        count: 0,
        decider: end.decider,
        previous_event: 0,
        reason: end.reason.as_deref(),
        offsets,
        named: None,
    }
}

/// Bytes of its record beyond the fixed ones.
pub(super) fn bytes_max(end: &EndTransaction) -> usize {
    let reason = end.reason.as_ref().map_or(0, String::len);
    let named = match &end.target {
        EndTarget::Origin(_) => 0,
        EndTarget::Id { group, id } => group.len() + id.len(),
    };
    let entry = |entry: &OffsetMove| entry.topic.len() + OFFSET_ENTRY_BYTES;
    let offsets = end
        .offsets
        .as_ref()
        .map_or(0, |offsets| offsets.group.len() + offsets.entries.iter().map(entry).sum::<usize>());
    reason + named + offsets
}

/// The answer to an END for a transaction that was decided before.
pub(crate) fn repeated(row: &HistoryRow, end: &EndTransaction) -> OperationResult {
    if end.producer_group.as_ref().is_some_and(|g| group_hash(g) != row.group_hash) {
        return OperationResult::Refused(Refusal::WrongGroup);
    }
    if end.table_offset.is_some_and(|o| o != row.origin) {
        return OperationResult::Refused(Refusal::WrongTableOffset);
    }
    if end.keys.is_some_and(|keys| !keys.contains(&row.key_hash)) {
        return OperationResult::Refused(Refusal::WrongKey);
    }
    let decision = decision_of(row);
    if row.outcome == end.outcome {
        OperationResult::AlreadyDecided(decision)
    } else {
        OperationResult::Conflict(decision)
    }
}
