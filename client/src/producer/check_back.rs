//! Answering the broker's questions about half messages.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mezzo_protocol::ids::GroupName;
use mezzo_protocol::message::properties;
use mezzo_protocol::time::Timestamp;
use tokio::sync::{Semaphore, mpsc};
use tracing::Instrument;

use super::end_transaction::{EndAnswer, EndFields, answer_check};
use super::outcome::{LocalError, LocalOutcome};
use super::transaction::Inner;
use crate::client::{CheckBackRequest, Client};
use crate::core::open_transactions::{Decision, Knowledge};
use crate::message::{FENCE_PROPERTY, ReceivedMessage};
use crate::net::Deadline;

/// Says how a local transaction ended, by looking where the application recorded it. Asked when the broker has no
/// decision: the producer died, the answer got lost, or the outcome was unknown. The question can come to any process of
/// the group, any number of times, and long after the fact.
///
/// Answer [`LocalOutcome::Rollback`] only if the local transaction can **no longer** commit: "I find nothing" is not
/// enough while it may still be running somewhere else. This client itself answers "unknown", without asking, about
/// transactions that are running in this process. An error, a panic, or a handler that takes too long counts as
/// [`LocalOutcome::Unknown`].
///
/// Implemented by async closures too:
///
/// ```no_run
/// # async fn paid(_order: &str) -> Result<bool, std::io::Error> { Ok(true) }
/// # async fn example(client: mezzo_client::Client) -> Result<(), mezzo_client::Error> {
/// use mezzo_client::{LocalOutcome, ReceivedMessage};
///
/// let producer = client
///     .transaction_producer("payments")
///     .check_back(|half: ReceivedMessage| async move {
///         let order = half.property("order").unwrap_or_default();
///         Ok(if paid(order).await? { LocalOutcome::Commit } else { LocalOutcome::Unknown })
///     })
///     .start()
///     .await?;
/// # Ok(())
/// # }
/// ```
pub trait CheckBack: Send + Sync + 'static {
    /// How the local transaction of this half message ended.
    fn check(&self, half: ReceivedMessage) -> impl Future<Output = Result<LocalOutcome, LocalError>> + Send;
}

impl<F, Fut> CheckBack for F
where
    F: Fn(ReceivedMessage) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<LocalOutcome, LocalError>> + Send,
{
    fn check(&self, half: ReceivedMessage) -> impl Future<Output = Result<LocalOutcome, LocalError>> + Send {
        self(half)
    }
}

pub(crate) type Checking = Pin<Box<dyn Future<Output = Result<LocalOutcome, LocalError>> + Send>>;

/// A handler whose type is forgotten, so that producers need not be generic. Check-backs are rare: the box is cheap.
pub(super) type Handler = Arc<dyn Fn(ReceivedMessage) -> Checking + Send + Sync>;

/// Forgets the type of a handler.
pub(super) fn erase(handler: impl CheckBack) -> Handler {
    let handler = Arc::new(handler);
    Arc::new(move |half| {
        let handler = Arc::clone(&handler);
        Box::pin(async move { handler.check(half).await })
    })
}

/// As a database answers: about a half of this group, at this time.
pub(crate) type FenceHandler = Arc<dyn Fn(GroupName, ReceivedMessage, Timestamp) -> Checking + Send + Sync>;

/// Asks `fence` about halves that are fenced in a database, and `other` about all others.
pub(super) fn fenced(
    fence: FenceHandler,
    other: Option<Handler>,
    client: Client,
    group: GroupName,
) -> Handler {
    Arc::new(move |half| {
        if half.property(FENCE_PROPERTY).is_some() {
            return fence(group.clone(), half, client.shared().now());
        }
        match &other {
            Some(handler) => handler(half),
            None => Box::pin(async {
                tracing::error!(
                    "asked about a transaction without a database; the producer has no handler for it"
                );
                Ok(LocalOutcome::Unknown)
            }),
        }
    })
}

/// Answers check-backs until the producer leaves its group. What is known here is answered at once: it does not wait
/// behind handlers that take their time.
pub(super) async fn run(
    inner: Arc<Inner>,
    handler: Handler,
    mut questions: mpsc::Receiver<CheckBackRequest>,
) {
    let (unknown, waiting) = mpsc::channel(inner.config.check_backs_waiting_max.max(1));
    tokio::spawn(answer_all(Arc::clone(&inner), Arc::clone(&handler), waiting));
    let (known, told) = mpsc::channel(inner.config.check_backs_waiting_max.max(1));
    tokio::spawn(answer_all(Arc::clone(&inner), handler, told));
    while let Some(question) = questions.recv().await {
        let is_known = !matches!(inner.open().knowledge(&question.unique_key), Knowledge::Nothing);
        let queue = if is_known { &known } else { &unknown };
        if let Err(error) = queue.try_send(question) {
            tracing::warn!(%error, "too many check-backs wait; dropped one, and the broker will ask again");
        }
    }
}

/// Answers as many `questions` at a time as the settings allow.
async fn answer_all(inner: Arc<Inner>, handler: Handler, mut questions: mpsc::Receiver<CheckBackRequest>) {
    let places = Arc::new(Semaphore::new(inner.config.check_back_concurrency.max(1)));
    while let Some(question) = questions.recv().await {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (inner, handler) = (Arc::clone(&inner), Arc::clone(&handler));
        let span = tracing::info_span!("check_back", key = %question.unique_key);
        tokio::spawn(
            async move {
                answer(&inner, &handler, question).await;
                drop(place);
            }
            .instrument(span),
        );
    }
}

async fn answer(inner: &Inner, handler: &Handler, question: CheckBackRequest) {
    let known = inner.open().knowledge(&question.unique_key);
    let outcome = match known {
        Knowledge::Running => {
            tracing::debug!("the transaction is still running here");
            LocalOutcome::Unknown
        }
        // Said twice, a broker that does not record decisions once would deliver twice. If the first saying gets lost,
        // the next question is answered.
        Knowledge::Deciding(_) if !inner.repeatable_ends.holds(question.connection.address()) => {
            tracing::debug!("the decision is on its way");
            LocalOutcome::Unknown
        }
        Knowledge::Deciding(decision) | Knowledge::Unconfirmed(decision) => {
            tracing::debug!(?decision, "the transaction was decided here");
            decision.local_outcome()
        }
        Knowledge::Nothing => match question.message() {
            // Its process would have the leases, and does not run here: nobody can commit it any more with its offsets.
            Ok(half) if half.property(properties::MEZZO_TRANSACTION_CONSUMER).is_some() => {
                tracing::info!("a transaction with acknowledged batches was left behind: rolled back");
                LocalOutcome::Rollback
            }
            Ok(half) => ask(inner, handler, half).await,
            Err(error) => {
                tracing::warn!(%error, "the half message of a check-back cannot be read; answering unknown");
                LocalOutcome::Unknown
            }
        },
    };
    let fields = EndFields {
        topic: Some(question.topic.to_string()),
        group: inner.sender.group.to_string(),
        tran_state_table_offset: question.tran_state_table_offset,
        commit_log_offset: question.commit_log_offset,
        unique_key: question.unique_key.as_str().into(),
        transaction_id: question.transaction_id.clone(),
        from_check: true,
    };
    match outcome.decision() {
        Some(decision) => say(inner, &question, &fields, decision).await,
        None => say_unknown(inner, &question, &fields).await,
    }
}

/// Asks the application; whatever goes wrong there means "unknown".
async fn ask(inner: &Inner, handler: &Handler, half: ReceivedMessage) -> LocalOutcome {
    let limit_ms = inner.config.check_back_timeout_ms;
    // A task of its own, so that a panic in the handler ends here.
    let mut asking = tokio::spawn(handler(half).in_current_span());
    match tokio::time::timeout(Duration::from_millis(limit_ms), &mut asking).await {
        Ok(Ok(Ok(outcome))) => outcome,
        Ok(Ok(Err(error))) => {
            tracing::warn!(%error, "the check-back handler failed; answering unknown");
            LocalOutcome::Unknown
        }
        Ok(Err(panic)) => {
            tracing::error!(%panic, "the check-back handler panicked; answering unknown");
            LocalOutcome::Unknown
        }
        Err(_) => {
            asking.abort();
            tracing::warn!(limit_ms, "the check-back handler took too long; answering unknown");
            LocalOutcome::Unknown
        }
    }
}

async fn say(inner: &Inner, question: &CheckBackRequest, fields: &EndFields, decision: Decision) {
    let deadline = Deadline::after_ms(inner.config.end_timeout_ms);
    match answer_check(&question.connection, fields, decision, deadline).await {
        EndAnswer::Confirmed => {
            tracing::info!(?decision, "check-back answered");
            inner.open().forget(&question.unique_key);
        }
        EndAnswer::Conflict(recorded) => {
            inner.open().forget(&question.unique_key);
            tracing::error!(?decision, recorded, "the broker had recorded the opposite decision");
        }
        EndAnswer::Refused(error) => tracing::warn!(?decision, %error, "the broker refused the answer"),
        EndAnswer::NotConfirmed(error) => {
            tracing::warn!(?decision, %error, "the answer was not confirmed; the broker will ask again");
        }
    }
}

async fn say_unknown(inner: &Inner, question: &CheckBackRequest, fields: &EndFields) {
    let command =
        fields.command(mezzo_protocol::remoting::header::end_transaction::Resolution::Unknown).oneway();
    let deadline = Deadline::after_ms(inner.config.end_timeout_ms);
    if let Err(error) = question.connection.send(&command, deadline).await {
        tracing::debug!(%error, "the answer \"unknown\" was not sent; the broker will ask again");
    }
}
