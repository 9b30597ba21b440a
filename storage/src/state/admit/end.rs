//! END: the one place where a transaction is decided.

use super::{Admission, Sink};
use crate::end::{EndTarget, EndTransaction};
use crate::format::history_row::{HistoryRow, group_hash};
use crate::format::record::{Decision as DecisionRecord, Outcome, RecordKind, Source};
use crate::results::{OperationResult, Refusal};
use crate::state::ledger::Ledger;
use crate::state::publish::Publisher;
use crate::state::transactions::OpenRow;
use crate::state::transactions::history::decision_of;

impl Ledger {
    pub(super) fn end(
        &mut self,
        end: &EndTransaction,
        sink: &mut Sink<'_>,
        publisher: &mut dyn Publisher,
    ) -> Admission {
        let origin = match self.target(&end.target) {
            Ok(origin) => origin,
            Err(decided) => {
                return decided.map_or(Admission::AskHistory, |row| Admission::Result(repeated(&row, end)));
            }
        };
        let Some(row) = self.open.get(origin) else {
            return match self.history.as_ref().and_then(|h| h.find_recent(origin)) {
                Some(row) => Admission::Result(repeated(&row, end)),
                None => Admission::AskHistory,
            };
        };
        if let Some(refusal) = self.refusal_of(row, end) {
            return Admission::Result(OperationResult::Refused(refusal));
        }
        let record = DecisionRecord {
            origin,
            outcome: end.outcome,
            source: end.source,
            count: self.messages_of(origin),
            decider: end.decider,
            previous_event: row.last_event,
            reason: end.reason.as_deref(),
            offsets: None,
        };
        record.encode(sink.scratch);
        let at = sink.push_scratch(RecordKind::Decision, record.flags());
        Admission::Result(match self.decide(at, origin, end.outcome, end.source, publisher) {
            Some(decision) => OperationResult::Decided(decision),
            None => OperationResult::Refused(Refusal::Unknown),
        })
    }

    /// The origin that END names; if no transaction of its id is open, what was decided about the last one, as far as
    /// memory knows.
    fn target(&self, target: &EndTarget) -> Result<u64, Option<HistoryRow>> {
        let (group, id) = match target {
            EndTarget::Origin(origin) => return Ok(origin.0),
            EndTarget::Id { group, id } => (group, id),
        };
        let symbol = self.open.groups().find(group);
        let open = symbol.and_then(|symbol| self.many.find(symbol, id));
        open.ok_or_else(|| self.many.find_decided(group, id).copied())
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
        // only its producer knows how many there should be; and what is rolled back may lack some
        let counts = end.outcome == Outcome::Committed
            && (end.count.is_some()
                || (end.source == Source::Producer && self.many.get(row.origin).is_some()));
        let expected = self.messages_of(row.origin);
        (counts && end.count != Some(expected)).then_some(Refusal::Incomplete { expected, got: end.count })
    }
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
