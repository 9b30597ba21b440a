//! Half messages of a transaction of many. They come one after another, and each may come again, also after others or
//! after the decision: what a producer did not hear of, it sends again. So every message says its place, and only the
//! next one in order is written.

use mezzo_protocol::ids::PhysicalOffset;

use super::{Bounds, Sink, push};
use crate::batch::MessageToAppend;
use crate::format::record::{MessagePrefix, RECORD_HEADER_BYTES};
use crate::half::{HalfFacts, OneOfMany};
use crate::results::{OperationResult, Refusal};
use crate::state::ledger::{Facts, Ledger};

impl Ledger {
    /// A half message with an id opens its transaction, joins it, or repeats what it did.
    pub(super) fn prepare_one_of_many(
        &mut self,
        message: &MessageToAppend,
        half: &HalfFacts,
        one: &OneOfMany,
        payload: &[u8],
        bounds: Bounds,
        sink: &mut Sink<'_>,
    ) -> OperationResult {
        let symbol = self.open.groups().find(&half.group);
        let open = symbol.and_then(|symbol| self.many.find(symbol, &one.id));
        let Some(origin) = open else {
            if let Some((origin, outcome)) = self.many.decided_lately(&half.group, &one.id) {
                let origin = PhysicalOffset(origin);
                return OperationResult::Refused(Refusal::Decided { origin, outcome });
            }
            if one.sequence > 0 {
                return OperationResult::Refused(Refusal::NotOpen);
            }
            return self.open_many(message, half, payload, bounds, sink);
        };
        let Some(many) = self.many.get(origin) else {
            return OperationResult::Refused(Refusal::NotOpen);
        };
        let origin_offset = PhysicalOffset(origin);
        if let Some((fingerprint, position)) = many.message(one.sequence) {
            if fingerprint != one.fingerprint {
                return OperationResult::Refused(Refusal::SequenceReused);
            }
            let position = PhysicalOffset(position.unwrap_or(origin));
            return OperationResult::Prepared { origin: origin_offset, position };
        }
        let expected = many.count();
        if one.sequence > expected {
            return OperationResult::Refused(Refusal::OutOfSequence { expected });
        }
        let prefix = MessagePrefix::Prepared { joins: Some(origin), delay_ms: message.delay_ms() };
        let size = RECORD_HEADER_BYTES + payload.len() + size_of::<u64>();
        if !many.has_room(size as u64, bounds.transaction_messages, bounds.transaction_bytes) {
            return OperationResult::Refused(Refusal::TransactionFull);
        }
        if let Some(refusal) = self.too_many_open(bounds) {
            return OperationResult::Refused(refusal);
        }
        // only now is it known which transaction the record has to name
        sink.scratch.clear();
        prefix.encode(sink.scratch);
        sink.scratch.extend_from_slice(message.bytes_of(payload));
        let at = sink.push_scratch(prefix.kind(), prefix.flags());
        let facts = Facts { queue: &message.queue, tag_hash: message.tag_hash };
        self.joined(at, facts, origin, one.fingerprint, message.delay_ms());
        OperationResult::Prepared { origin: origin_offset, position: PhysicalOffset(at.position) }
    }

    fn open_many(
        &mut self,
        message: &MessageToAppend,
        half: &HalfFacts,
        payload: &[u8],
        bounds: Bounds,
        sink: &mut Sink<'_>,
    ) -> OperationResult {
        if let Some(refusal) = self.too_many_open(bounds) {
            return OperationResult::Refused(refusal);
        }
        let at = push(sink.writer, &message.head, payload);
        let facts = Facts { queue: &message.queue, tag_hash: message.tag_hash };
        self.prepared(at, facts, half, message.delay_ms());
        let origin = PhysicalOffset(at.position);
        OperationResult::Prepared { origin, position: origin }
    }
}
