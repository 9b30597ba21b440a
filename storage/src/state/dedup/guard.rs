//! Sends that are appended only if no equal one came first. Whoever sends has looked before, but without the append
//! lock; between that look and the lock an equal send may have come by another connection. Here is the look that counts.

use std::sync::Arc;

use mezzo_protocol::ids::PhysicalOffset;

use super::first_sends::{FirstSends, Part, SenderId};
use super::key::SendKey;
use crate::batch::{Batch, MessageToAppend, Operation};
use crate::results::OperationResult;
use crate::state::admit::{Bounds, Sink};
use crate::state::ledger::Ledger;
use crate::state::publish::Publisher;

/// What keeps a message from being stored twice.
#[derive(Debug, Clone, Copy)]
pub struct SendGuard {
    /// What it is known by.
    pub key: SendKey,
    /// The producer named the message itself: an equal one is its repeat whoever sent it.
    pub explicit: bool,
    /// The connection that it came by. What one connection sends twice without waiting is no retry.
    pub sender: SenderId,
    /// Its place in its batch.
    pub part: Part,
    /// End of the log before the table was asked: a send that stands behind it has not been looked at.
    pub looked_to: PhysicalOffset,
}

#[derive(Debug, Clone)]
pub(crate) struct Guarded {
    sends: Arc<FirstSends>,
    guard: SendGuard,
}

impl Batch {
    /// Guards the send at `index`: it ends as [`OperationResult::Repeats`] if an equal one was appended since
    /// `guard.looked_to`, else it is remembered in `sends`, which must be the store's.
    pub fn guard(&mut self, index: usize, sends: &Arc<FirstSends>, guard: SendGuard) {
        if let Some(Operation::Send(send)) = self.operations.get_mut(index) {
            send.0.guarded = Some(Box::new(Guarded { sends: Arc::clone(sends), guard }));
        }
    }
}

impl Ledger {
    /// Appends a guarded message, or says which message it repeats.
    pub(crate) fn send_once(
        &mut self,
        message: &MessageToAppend,
        guarded: &Guarded,
        arena: &[u8],
        bounds: Bounds,
        sink: &mut Sink<'_>,
        publisher: &mut dyn Publisher,
    ) -> OperationResult {
        let Guarded { sends, guard } = guarded;
        let now = sink.writer.frame_time();
        let since = sends.find(guard.key, now).filter(|first| {
            first.position >= guard.looked_to
                && first.part.may_be(guard.part)
                && (guard.explicit || first.sender != Some(guard.sender))
        });
        if let Some(first) = since {
            return OperationResult::Repeats { position: first.position };
        }
        let result = self.send(message, arena, bounds, sink, publisher);
        if let OperationResult::Stored { position, .. }
        | OperationResult::Prepared { position, .. }
        | OperationResult::Scheduled { position } = result
        {
            sends.remember(guard.key, position, now.as_ms(), guard.sender, guard.part);
        }
        result
    }
}
