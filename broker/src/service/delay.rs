//! Delayed messages become visible: when the earliest is due, one tick record says so for all that are.

use std::sync::Arc;

use mezzo_protocol::time::Timestamp;
use mezzo_storage::{Batch, Operation, OperationResult, Refusal, StorageError};

use super::{Services, alarm::Alarm, append::AppendError, seldom::Seldom, stop::Stop};

/// Wakes the driver of delayed messages.
#[derive(Debug, Default)]
pub(crate) struct DelayedDelivery {
    alarm: Alarm,
}

impl DelayedDelivery {
    /// A message due at `due` is being appended. Those that a commit makes due need no word: the driver looks often
    /// enough for the shortest delay level.
    pub(crate) fn expect(&self, due: Timestamp) {
        self.alarm.set(due);
    }
}

/// Appends a tick whenever something is due, until the stop signal.
pub(crate) async fn drive(services: Arc<Services>, mut stop: Stop) {
    let mut batch = Batch::default();
    let unable = Seldom::new();
    loop {
        let next = match tick(&services, &mut batch).await {
            Ok(()) => services.store.next_due_at(),
            Err(TickError::Append(
                AppendError::Fenced(_) | AppendError::Refused(StorageError::Fenced { .. }),
            )) => return,
            // tried again after a nap: what is due stays due
            Err(error) => {
                if let Some(kept_back) = unable.may_say() {
                    tracing::warn!(%error, kept_back, "delayed messages wait: the tick could not be appended");
                }
                None
            }
        };
        tokio::select! {
            biased;
            () = stop.stopped() => return,
            () = services.delay.alarm.wait(&*services.clock, next) => {}
        }
    }
}

/// Why messages that are due are not visible yet.
#[derive(Debug, thiserror::Error)]
enum TickError {
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The store has no room even for ticks, and took nothing.
    #[error(transparent)]
    Refused(Refusal),
}

/// Makes everything visible that is due now. One tick covers a bounded number of messages, so that its frame and the
/// time under the append lock stay bounded; it goes on until nothing is due.
///
/// # Errors
/// The tick was refused or never became durable.
async fn tick(services: &Services, batch: &mut Batch) -> Result<(), TickError> {
    loop {
        let now = services.now();
        if services.store.next_due_at().is_none_or(|due| due > now) {
            return Ok(());
        }
        batch.clear();
        batch.push(Operation::Tick(now));
        services.appender.append(now, batch).await?;
        if let Some(OperationResult::Refused(refusal)) = batch.results().first() {
            // still due: another try at once would be refused, too
            return Err(TickError::Refused(*refusal));
        }
    }
}
