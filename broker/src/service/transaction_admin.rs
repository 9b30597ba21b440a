//! What a person does about transactions: looks at them, decides those that nobody answers for, has parked ones asked
//! about again. Nothing is told that a crash could take back: every answer waits until what it was read from is durable.

use std::{net::SocketAddr, sync::Arc};

use mezzo_protocol::{
    check_policy::{CheckPolicy, CheckWish},
    ids::{GroupName, PhysicalOffset},
};
use mezzo_storage::{
    Batch, EndTarget, EndTransaction, OpenDetails, OpenFilter, Operation, OperationResult, Outcome, Refusal,
    Source, StorageError, Timeline, TransactionRecord,
};

use super::{Services, append::AppendError};

/// Why nothing could be said or done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminError {
    /// The log did not take it, or stopped before it was durable.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The history of decisions cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The broker is being stopped.
    #[error("the broker stops")]
    Stopping,
    /// The store refused for another reason than that the transaction is not there.
    #[error(transparent)]
    Refused(Refusal),
    /// Nothing was prepared at this position, or nobody remembers it.
    #[error("no transaction {} is known here: it was never prepared, or is older than the history of decisions", .0.0)]
    NotFound(PhysicalOffset),
}

/// What is to be decided, by whom and why.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// The transaction.
    pub(crate) origin: PhysicalOffset,
    /// How it is to end.
    pub(crate) outcome: Outcome,
    /// Why; stands in the log.
    pub(crate) reason: Option<String>,
    /// Also while it is still PREPARED.
    pub(crate) force: bool,
    /// Who asks, for the record.
    pub(crate) decider: SocketAddr,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judged {
    /// Decided now.
    Decided,
    /// Decided so before.
    Already,
    /// Decided otherwise before; that stands.
    Conflict,
    /// Still PREPARED, and not forced: nothing was decided.
    StillPrepared,
}

/// Open transactions behind `after` that `filter` wants, in order of origin, at most `max`.
///
/// # Errors
/// [`AdminError`].
pub(crate) async fn list(
    services: &Arc<Services>,
    filter: OpenFilter,
    after: Option<PhysicalOffset>,
    max: usize,
) -> Result<Vec<OpenDetails>, AdminError> {
    let (reading, now) = (Arc::clone(services), services.now());
    // there may be millions of them to look at
    let found =
        services.on_disk_thread(move || reading.store.open_transactions_page(&filter, now, after, max));
    let found = found.await.map_err(|_| AdminError::Stopping)?;
    durable(services).await?;
    Ok(found)
}

/// Everything that is known about a transaction.
///
/// # Errors
/// [`AdminError::NotFound`], or the disk refuses.
pub(crate) async fn show(
    services: &Arc<Services>,
    origin: PhysicalOffset,
) -> Result<(TransactionRecord, Timeline), AdminError> {
    let reading = Arc::clone(services);
    let found = services.on_disk_thread(move || {
        let record = reading.store.transaction_record(origin)?;
        // decided in between: the timeline says more than the record, never less
        Ok::<_, StorageError>(record.zip(reading.store.timeline(origin)?))
    });
    let found = found.await.map_err(|_| AdminError::Stopping)??;
    durable(services).await?;
    found.ok_or(AdminError::NotFound(origin))
}

/// Decides a transaction on a person's word. The first decision stands, whoever took it.
///
/// # Errors
/// [`AdminError`]; nothing was decided then, unless the log stopped before the decision was durable.
pub(crate) async fn decide(services: &Arc<Services>, verdict: Verdict) -> Result<Judged, AdminError> {
    let Verdict { origin, outcome, reason, force, decider } = verdict;
    tracing::info!(origin = origin.0, ?outcome, ?reason, by = %decider, "an operator decides a transaction");
    let mut end = EndTransaction::new(EndTarget::Origin(origin), outcome, Source::Operator);
    // looked at where it is decided: it may be resumed, or decided, while this is on its way
    end.only_in_doubt = !force;
    (end.decider, end.reason) = (Some(decider), reason);
    match append(services, Operation::End(end)).await? {
        Some(OperationResult::Decided(_)) => Ok(Judged::Decided),
        Some(OperationResult::AlreadyDecided(_)) => Ok(Judged::Already),
        Some(OperationResult::Conflict(_)) => Ok(Judged::Conflict),
        Some(OperationResult::Refused(Refusal::StillPrepared)) => Ok(Judged::StillPrepared),
        Some(OperationResult::Refused(refusal)) if !is_unknown(refusal) => Err(AdminError::Refused(refusal)),
        _ => Err(AdminError::NotFound(origin)),
    }
}

/// The check-back policy that a producer group has of its own; `None`: the broker's holds.
///
/// # Errors
/// [`AdminError`].
pub(crate) async fn policy(
    services: &Arc<Services>,
    group: &GroupName,
) -> Result<Option<CheckPolicy>, AdminError> {
    let policy = services.store.check_policy(group);
    durable(services).await?;
    Ok(policy)
}

/// Gives a producer group the broker's policy with these parts changed, or takes its own away.
///
/// # Errors
/// [`AdminError`].
pub(crate) async fn set_policy(
    services: &Arc<Services>,
    group: GroupName,
    wish: Option<CheckWish>,
) -> Result<(), AdminError> {
    tracing::info!(group = group.as_str(), policy = wish.map(|w| w.to_string()), "check-back policy changed");
    let operation = match wish {
        Some(wish) => Operation::PutPolicy { group, policy: wish.over(&services.store.options().check) },
        None => Operation::DeletePolicy(group),
    };
    match append(services, operation).await? {
        Some(OperationResult::Refused(refusal)) => Err(AdminError::Refused(refusal)),
        _ => Ok(()),
    }
}

/// Has a parked transaction asked about again, from zero and at once. False if it is not parked: it is asked about, or
/// decided.
///
/// # Errors
/// [`AdminError`].
pub(crate) async fn resume(
    services: &Arc<Services>,
    origin: PhysicalOffset,
    by: SocketAddr,
) -> Result<bool, AdminError> {
    match append(services, Operation::Resume { origin, by: Some(by) }).await? {
        Some(OperationResult::Refused(refusal)) if is_unknown(refusal) => Ok(false),
        Some(OperationResult::Refused(refusal)) => Err(AdminError::Refused(refusal)),
        _ => {
            tracing::info!(origin = origin.0, %by, "an operator has a parked transaction asked about again");
            services.transactions.expect(services.now(), Some(0));
            Ok(true)
        }
    }
}

const fn is_unknown(refusal: Refusal) -> bool {
    matches!(refusal, Refusal::Unknown | Refusal::Expired)
}

/// Appends one operation and waits until it is durable.
async fn append(services: &Services, operation: Operation) -> Result<Option<OperationResult>, AdminError> {
    let mut batch = Batch::default();
    batch.push(operation);
    services.appender.append(services.now(), &mut batch).await?;
    Ok(batch.results().first().cloned())
}

/// Returns when everything that could be read until now is durable.
async fn durable(services: &Services) -> Result<(), AdminError> {
    Ok(services.appender.waiter().wait_for(services.store.appended()).await?)
}
