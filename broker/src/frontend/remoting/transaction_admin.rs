//! What operators ask about transactions: Mezzo's requests 7,700,001 to 7,700,006, and RESUME_CHECK_HALF_MESSAGE (323) as
//! Apache's administration sends it. All are answered after the turn: they read the disk or wait for it.
//!
//! | what happened | code | ext |
//! |---|---|---|
//! | listed, shown, resumed; policy told or set | 0 | |
//! | decided now, or so before | 0 | `mezzoResult` = `DECIDED` or `ALREADY` |
//! | decided otherwise before | 604 ILLEGAL_OPERATION | `mezzoResult` = `CONFLICT`; the body says what stands |
//! | still PREPARED, and not forced | 604 ILLEGAL_OPERATION | `mezzoResult` = `STILL_PREPARED` |
//! | resumed, but decided before | 604 ILLEGAL_OPERATION | |
//! | nobody knows the transaction | 22 QUERY_NOT_FOUND | |

use std::{borrow::Cow, net::SocketAddr, sync::Arc};

use mezzo_protocol::{
    check_policy::CheckWish,
    error::DecodeError,
    ids::{GroupName, OffsetMessageId, PhysicalOffset, TopicName},
    limits::{REASON_BYTES_MAX, TRANSACTIONS_PER_PAGE_MAX},
    message::{properties, record::MessageView},
    remoting::{
        body::transaction::{
            CheckPolicyInfo, DecideResult, DecisionInfo, DecisionSource, TransactionEvent,
            TransactionEventKind, TransactionInfo, TransactionOutcome, TransactionPage, TransactionState,
        },
        command::RemotingCommand,
        header::transaction_admin::{
            DecideTransactionHeader, GetCheckPolicyHeader, ListTransactionsHeader,
            ResumeCheckHalfMessageHeader, ResumeTransactionHeader, SetCheckPolicyHeader,
            ShowTransactionHeader,
        },
        response_code::ResponseCode,
    },
    time::Timestamp,
};
use mezzo_storage::{
    AskAnswer, Decision, Event, Happened, OpenDetails, OpenFilter, OpenState, Outcome, ParkReason, Source,
    TransactionRecord, key_hash,
};

use super::{
    response,
    turn::{Handled, Request, Step, Turn},
};
use crate::service::{
    Services,
    client_channel::ClientChannel as _,
    transaction_admin::{self, AdminError, Judged, Verdict},
};

/// Says in the answer to a decision what became of it.
const RESULT: &str = "mezzoResult";
/// Transactions in one answer when the request names no number.
const PAGE_DEFAULT: usize = 100;

/// MEZZO_LIST_TRANSACTIONS.
pub(crate) fn list(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let header = ListTransactionsHeader::decode(&request.header.ext)?;
    let limit = header.limit.map_or(Ok(PAGE_DEFAULT), |limit| {
        let limit = usize::try_from(limit).ok().filter(|limit| *limit > 0);
        limit.ok_or_else(|| {
            DecodeError::bad_value("limit", header.limit.unwrap_or(0).to_string(), "1 or more")
        })
    })?;
    let limit = limit.min(TRANSACTIONS_PER_PAGE_MAX);
    let after = header.after.map(|after| origin("after", after)).transpose()?;
    let filter = filter(&header)?;
    later(turn, request, move |services| async move {
        let found = transaction_admin::list(&services, filter, after, limit).await?;
        // a full page may be the last one; then the next is empty
        let next = found.last().filter(|_| found.len() == limit).map(|last| last.transaction.origin.0);
        let page = TransactionPage { transactions: found.iter().map(open_info).collect(), next };
        Ok(response::ok().with_body(page.encode()))
    })
}

/// MEZZO_SHOW_TRANSACTION.
pub(crate) fn show(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let header = ShowTransactionHeader::decode(&request.header.ext)?;
    let origin = origin("origin", header.origin)?;
    later(turn, request, move |services| async move {
        let (record, timeline) = transaction_admin::show(&services, origin).await?;
        let mut info = info(origin, &record);
        info.events = timeline.events.iter().map(event).collect();
        info.older_events_missing = timeline.older_missing;
        Ok(response::ok().with_body(info.encode()))
    })
}

/// MEZZO_DECIDE_TRANSACTION.
pub(crate) fn decide(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let header = DecideTransactionHeader::decode(&request.header.ext)?;
    let origin = origin("origin", header.origin)?;
    if let Some(reason) = header.reason.as_ref().filter(|reason| reason.len() > REASON_BYTES_MAX) {
        return Err(DecodeError::TooLong { what: "reason", got: reason.len(), max: REASON_BYTES_MAX });
    }
    let verdict = Verdict {
        origin,
        outcome: match header.outcome {
            TransactionOutcome::Committed => Outcome::Committed,
            TransactionOutcome::RolledBack => Outcome::RolledBack,
        },
        reason: header.reason.map(Cow::into_owned),
        force: header.force,
        decider: turn.channel.remote(),
    };
    later(turn, request, move |services| async move {
        let judged = transaction_admin::decide(&services, verdict).await?;
        let stands = info(origin, &transaction_admin::show(&services, origin).await?.0);
        Ok(verdict_reply(judged, &stands))
    })
}

/// MEZZO_RESUME_TRANSACTION.
pub(crate) fn resume(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let header = ResumeTransactionHeader::decode(&request.header.ext)?;
    resume_origin(turn, request, origin("origin", header.origin)?)
}

/// RESUME_CHECK_HALF_MESSAGE (323): the offset message id of a half message, as the answer to its send gave it, holds
/// its origin.
pub(crate) fn resume_check(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let header = ResumeCheckHalfMessageHeader::decode(&request.header.ext)?;
    let id = OffsetMessageId::decode(&header.msg_id)?;
    resume_origin(turn, request, id.physical_offset)
}

/// MEZZO_GET_CHECK_POLICY.
pub(crate) fn policy(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let header = GetCheckPolicyHeader::decode(&request.header.ext)?;
    let group = GroupName::new(&header.group)?;
    later(turn, request, move |services| async move { policy_reply(&services, &group).await })
}

/// MEZZO_SET_CHECK_POLICY.
pub(crate) fn set_policy(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let header = SetCheckPolicyHeader::decode(&request.header.ext)?;
    let group = GroupName::new(&header.group)?;
    let wish = match header.policy.as_deref().map(CheckWish::parse).transpose() {
        Ok(wish) => wish,
        Err(error) => {
            turn.refuse(request, ResponseCode::INVALID_PARAMETER, error.to_string());
            return Ok(Step::Done);
        }
    };
    later(turn, request, move |services| async move {
        transaction_admin::set_policy(&services, group.clone(), wish).await?;
        policy_reply(&services, &group).await
    })
}

async fn policy_reply(services: &Arc<Services>, group: &GroupName) -> Result<RemotingCommand, AdminError> {
    let own = transaction_admin::policy(services, group).await?;
    let policy = own.unwrap_or(services.store.options().check);
    let info = CheckPolicyInfo {
        group: group.to_string(),
        own: own.is_some(),
        policy: CheckWish::from(&policy).to_string(),
    };
    Ok(response::ok().with_body(info.encode()))
}

fn resume_origin(turn: &mut Turn<'_>, request: &Request<'_>, origin: PhysicalOffset) -> Handled {
    let by = turn.channel.remote();
    later(turn, request, move |services| async move {
        if transaction_admin::resume(&services, origin, by).await? {
            return Ok(response::ok());
        }
        // not parked: being asked about is what was wanted
        match transaction_admin::show(&services, origin).await?.0.decision {
            None => Ok(response::ok()),
            Some(decision) => {
                let remark = format!("nothing to resume: {}", stands(&decision_info(&decision)));
                Ok(response::refusal(ResponseCode::ILLEGAL_OPERATION, remark))
            }
        }
    })
}

/// Answers when `work` is done, unless the connection has too many requests open.
fn later<W, F>(turn: &mut Turn<'_>, request: &Request<'_>, work: W) -> Handled
where
    W: FnOnce(Arc<Services>) -> F,
    F: Future<Output = Result<RemotingCommand, AdminError>> + Send + 'static,
{
    let Some(held) = turn.channel.hold_for_work() else {
        turn.refuse_held(request);
        return Ok(Step::Done);
    };
    let to = request.reply_to();
    let work = work(Arc::clone(turn.services));
    tokio::spawn(async move {
        let reply = work.await.unwrap_or_else(|error| response::admin_refusal(&error));
        // a connection that closed meanwhile wants no answer
        let _ = held.channel().push_reply(to, reply);
    });
    Ok(Step::Done)
}

fn origin(field: &'static str, number: i64) -> Result<PhysicalOffset, DecodeError> {
    PhysicalOffset::from_wire(number)
        .ok_or_else(|| DecodeError::bad_value(field, number.to_string(), "a log position of 0 or more"))
}

fn filter(header: &ListTransactionsHeader<'_>) -> Result<OpenFilter, DecodeError> {
    let state = match header.state {
        None => None,
        Some(TransactionState::Prepared) => Some(OpenState::Prepared),
        Some(TransactionState::InDoubt) => Some(OpenState::InDoubt),
        Some(decided) => {
            let expected =
                "PREPARED or IN_DOUBT: only open transactions are listed, decided ones are shown one by one";
            return Err(DecodeError::bad_value("state", decided.name(), expected));
        }
    };
    let older_than_ms = header.older_than_ms.map(|ms| {
        u64::try_from(ms)
            .map_err(|_| DecodeError::bad_value("olderThanMs", ms.to_string(), "0 or more milliseconds"))
    });
    Ok(OpenFilter {
        state,
        group: header.group.as_deref().map(GroupName::new).transpose()?,
        topic: header.topic.as_deref().map(TopicName::new).transpose()?,
        key_hash: header.unique_key.as_deref().map(key_hash),
        older_than_ms: older_than_ms.transpose()?,
    })
}

fn open_info(open: &OpenDetails) -> TransactionInfo {
    let transaction = &open.transaction;
    TransactionInfo {
        origin: transaction.origin.0,
        state: match transaction.state {
            OpenState::Prepared => TransactionState::Prepared,
            OpenState::InDoubt => TransactionState::InDoubt,
        },
        group: Some(transaction.producer_group.to_string()),
        topic: open.queue.as_ref().map(|(topic, _)| topic.to_string()),
        queue: open.queue.as_ref().map(|(_, queue)| queue.0),
        unique_key: None,
        keys: None,
        tag: None,
        body_bytes: None,
        prepared_at_ms: Some(transaction.prepared_at.as_ms()),
        asks: Some(transaction.asks),
        asked_at_ms: open.asked_at.map(Timestamp::as_ms),
        decision: None,
        events: Vec::new(),
        older_events_missing: false,
    }
}

fn info(origin: PhysicalOffset, record: &TransactionRecord) -> TransactionInfo {
    let decision = record.decision.as_ref().map(decision_info);
    let mut info = record.open.as_ref().map_or_else(
        || TransactionInfo {
            origin: origin.0,
            state: match decision.as_ref().map(|decision| decision.outcome) {
                Some(TransactionOutcome::Committed) => TransactionState::Committed,
                Some(TransactionOutcome::RolledBack) => TransactionState::RolledBack,
                None => TransactionState::Prepared,
            },
            group: None,
            topic: None,
            queue: None,
            unique_key: None,
            keys: None,
            tag: None,
            body_bytes: None,
            prepared_at_ms: record.prepared_at.map(Timestamp::as_ms),
            asks: None,
            asked_at_ms: None,
            decision: None,
            events: Vec::new(),
            older_events_missing: false,
        },
        open_info,
    );
    info.decision = decision;
    if let Some(view) = record.half.as_ref().and_then(|half| MessageView::parse(&half.bytes).ok()) {
        let property = |name| view.property(name).map(str::to_owned);
        info.group = info.group.or_else(|| property(properties::PRODUCER_GROUP));
        info.topic = Some(view.topic().to_owned());
        info.queue = Some(view.queue_id().0);
        info.unique_key = view.unique_key().map(str::to_owned);
        info.keys = property(properties::KEYS);
        info.tag = property(properties::TAGS);
        info.body_bytes = Some(view.body().len() as u64);
    }
    info
}

fn decision_info(decision: &Decision) -> DecisionInfo {
    DecisionInfo {
        outcome: match decision.outcome {
            Outcome::Committed => TransactionOutcome::Committed,
            Outcome::RolledBack => TransactionOutcome::RolledBack,
        },
        source: source(decision.source),
        decided_at_ms: decision.decided_at.as_ms(),
        queue_offset: decision.queue_offset.map(|offset| offset.0),
    }
}

const fn source(source: Source) -> DecisionSource {
    match source {
        Source::Producer => DecisionSource::Producer,
        Source::CheckBack => DecisionSource::CheckBack,
        Source::Operator => DecisionSource::Operator,
        Source::Policy => DecisionSource::Policy,
        Source::Fenced => DecisionSource::Fenced,
    }
}

fn event(event: &Event) -> TransactionEvent {
    let new = |what| TransactionEvent::new(what, event.at.as_ms());
    let peer = |peer: &Option<SocketAddr>| peer.map(|peer| peer.to_string());
    match &event.what {
        Happened::Prepared => new(TransactionEventKind::Prepared),
        Happened::Asked { asks, peer: asked, answer } => TransactionEvent {
            asks: Some(*asks),
            peer: peer(asked),
            answered: Some(*answer == AskAnswer::Unknown),
            ..new(TransactionEventKind::Asked)
        },
        Happened::Parked { reason, asks } => {
            let reason = match reason {
                ParkReason::CheckMax => "CHECK_MAX",
                ParkReason::MaxAge => "MAX_AGE",
            };
            let reason = Some(reason.to_owned());
            TransactionEvent { asks: Some(*asks), reason, ..new(TransactionEventKind::Parked) }
        }
        Happened::Resumed { by } => TransactionEvent { peer: peer(by), ..new(TransactionEventKind::Resumed) },
        Happened::Decided { outcome, source: word, decider, reason, count, queue_offset } => {
            let what = match outcome {
                Outcome::Committed => TransactionEventKind::Committed,
                Outcome::RolledBack => TransactionEventKind::RolledBack,
            };
            TransactionEvent {
                peer: peer(decider),
                reason: reason.clone(),
                source: Some(source(*word)),
                messages: Some(*count),
                queue_offset: queue_offset.map(|offset| offset.0),
                ..new(what)
            }
        }
    }
}

fn stands(decision: &DecisionInfo) -> String {
    let outcome = match decision.outcome {
        TransactionOutcome::Committed => "committed",
        TransactionOutcome::RolledBack => "rolled back",
    };
    format!("the transaction was {outcome} at {} ms; the first decision stands", decision.decided_at_ms)
}

fn verdict_reply(judged: Judged, info: &TransactionInfo) -> RemotingCommand {
    let (result, reply) = match judged {
        Judged::Decided => (DecideResult::Decided, response::ok()),
        Judged::Already => (DecideResult::Already, response::ok()),
        Judged::Conflict => {
            let remark = info.decision.as_ref().map(stands).unwrap_or_default();
            (DecideResult::Conflict, response::refusal(ResponseCode::ILLEGAL_OPERATION, remark))
        }
        Judged::StillPrepared => {
            let remark =
                "still PREPARED: its producer may be about to decide it; nothing was decided without force";
            (DecideResult::StillPrepared, response::refusal(ResponseCode::ILLEGAL_OPERATION, remark))
        }
    };
    reply.with_ext(vec![(Cow::Borrowed(RESULT), result.name().to_owned())]).with_body(info.encode())
}
