//! Delayed messages become visible: when the earliest is due, one tick record says so for all that are.

use std::sync::Arc;

use mezzo_protocol::time::Timestamp;
use mezzo_storage::{Batch, Operation, StorageError};

use super::{Services, alarm::Alarm, append::AppendError, stop::Stop};

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
    loop {
        let next = match tick(&services, &mut batch).await {
            Ok(()) => services.store.next_due_at(),
            Err(AppendError::Fenced(_) | AppendError::Refused(StorageError::Fenced { .. })) => return,
            Err(error) => {
                tracing::warn!(%error, "delayed messages wait: the tick could not be appended");
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

/// Makes everything visible that is due now. One tick covers a bounded number of messages, so that its frame and the
/// time under the append lock stay bounded; it goes on until nothing is due.
///
/// # Errors
/// The tick was refused or never became durable.
async fn tick(services: &Services, batch: &mut Batch) -> Result<(), AppendError> {
    loop {
        let now = services.now();
        if services.store.next_due_at().is_none_or(|due| due > now) {
            return Ok(());
        }
        batch.clear();
        batch.push(Operation::Tick(now));
        services.appender.append(now, batch).await?;
    }
}
