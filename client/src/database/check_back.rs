//! The check-back handler that a database gives by itself: it writes before it answers, so its answer is final.

use std::sync::Arc;
use std::time::Duration;

use mezzo_protocol::ids::GroupName;
use mezzo_protocol::time::Timestamp;

use super::barrier::{Key, Reason};
use super::dialect::Dialect;
use super::handle::{Database, PURGE_AGE_MIN};
use crate::message::{FENCE_PROPERTY, ReceivedMessage};
use crate::producer::{LocalError, LocalOutcome};

/// From this age of a half on a missing row proves nothing, because it may have been purged: a day less than the youngest
/// age at which rows are, for what the clocks of producer and database differ.
const MISSING_ROW_PROVES_NOTHING: Duration = PURGE_AGE_MIN.saturating_sub(Duration::from_secs(24 * 3600));

/// Answers the questions about halves that were fenced with one database.
#[derive(Debug)]
pub(super) struct Fence<DB: Dialect> {
    db: Database<DB>,
}

impl<DB: Dialect> Fence<DB> {
    pub(super) fn new(db: &Database<DB>) -> Arc<Self> {
        Arc::new(Self { db: db.clone() })
    }

    /// What became of the local transaction behind `half` of `group`, for good; unknown while it may still run.
    pub(super) async fn check(
        &self,
        group: &GroupName,
        half: &ReceivedMessage,
        now: Timestamp,
    ) -> Result<LocalOutcome, LocalError> {
        let identity = self.db.identity().await?;
        if half.property(FENCE_PROPERTY) != Some(identity) {
            tracing::error!(
                fenced_with = half.property(FENCE_PROPERTY),
                identity,
                "asked about a transaction of another database; all members of a producer group must use the same one"
            );
            return Ok(LocalOutcome::Unknown);
        }
        let key = Key::of_sending(group, half.unique_key().unwrap_or_default())?;
        let age_ms = now.as_ms().saturating_sub(half.born_timestamp().as_ms());
        let standing = if Duration::from_millis(age_ms) >= MISSING_ROW_PROVES_NOTHING {
            self.db.look(&key).await?
        } else {
            Some(self.db.settle(&key).await?)
        };
        Ok(match standing {
            Some(Reason::Commit) => LocalOutcome::Commit,
            Some(Reason::Rollback) => LocalOutcome::Rollback,
            None => {
                tracing::warn!(age_ms, "too old to take a missing row for a rollback; a person must decide");
                LocalOutcome::Unknown
            }
        })
    }
}
