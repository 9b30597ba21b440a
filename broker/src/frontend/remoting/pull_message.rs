//! PULL_MESSAGE (11): messages of one queue, at once or, if the client allows it, when there are some. LITE_PULL_MESSAGE
//! (361) is the same under the number that RocketMQ 5's polling consumer uses, so that a broker can limit it by itself.

use mezzo_protocol::{
    error::DecodeError,
    ids::{GroupName, QueueOffset},
    message::tag::{EXPRESSION_TYPE_TAG, TagFilter},
    remoting::{
        command::RemotingCommand,
        header::pull_message::{PullMessageHeader, PullMessageReply, PullSysFlag},
        response_code::ResponseCode,
    },
};
use mezzo_storage::{StorageError, state::topics::PERM_READ};

use super::{
    outbound::{Held, RemotingChannel},
    response,
    turn::{Handled, ReplyTo, Request, Step, Turn},
};
use crate::{
    core::consumer_group::ConsumptionModel,
    service::{
        client_channel::ClientChannel as _,
        long_poll::PullWaiter,
        offset,
        pull::{self, Attempt, Pull, PullError, PullStatus, Pulled, Reach},
    },
};

/// Longest time that a pull is held, in milliseconds, whatever the client allows. Clients wait 15 to 20 s.
const SUSPEND_MAX_MS: u64 = 60_000;

/// Why a pull is not tried.
struct Refused {
    code: ResponseCode,
    remark: String,
}

impl Refused {
    fn new(code: ResponseCode, remark: impl Into<String>) -> Self {
        Self { code, remark: remark.into() }
    }
}

/// Answers at once where it can; otherwise the pull is held, or read on a thread that may wait for the disk, and its
/// answer goes through the connection's outbound queue.
pub(crate) fn handle(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let header = PullMessageHeader::decode(&request.header.ext)?;
    let services = turn.services;
    if services.store.group(&header.consumer_group).is_none() && services.store.topic(&header.topic).is_some()
    {
        return Ok(Step::CreateGroup(GroupName::new(&header.consumer_group)?));
    }
    let pull = match checked(turn, &header) {
        Ok(pull) => pull,
        Err(Refused { code, remark }) => {
            turn.refuse(request, code, remark);
            return Ok(Step::Done);
        }
    };
    if header.sys_flag.has(PullSysFlag::COMMIT_OFFSET)
        && let Some(offset) = QueueOffset::from_wire(header.commit_offset)
    {
        // a report on the way; whether it was taken is not this request's answer
        let _ = offset::report(turn.services, &header.consumer_group, &header.topic, header.queue_id, offset);
    }
    match pull::pull(&turn.services.store, turn.services.advertised, &pull, Reach::Hot) {
        Ok(Attempt::Done(pulled)) if pulled.status == PullStatus::Empty => {
            wait(turn, request, &header, pull, pulled)
        }
        Ok(Attempt::Done(pulled)) => turn.reply(request, reply(Ok(pulled), turn.channel)),
        Ok(Attempt::Cold) => match turn.channel.hold() {
            Some(held) => {
                let waiter = Box::new(Waiter { held, to: request.reply_to() });
                turn.services.long_polls.read_from_disk(pull, turn.channel.id(), waiter);
            }
            None => turn.refuse_held(request),
        },
        Err(error) => turn.reply(request, reply(Err(error), turn.channel)),
    }
    Ok(Step::Done)
}

/// Holds a pull that found its queue at the end, if the client allows it and a place is free.
fn wait(
    turn: &mut Turn<'_>,
    request: &Request<'_>,
    header: &PullMessageHeader<'_>,
    pull: Pull,
    pulled: Pulled,
) {
    let suspend_ms = u64::try_from(header.suspend_timeout_ms).unwrap_or(0).min(SUSPEND_MAX_MS);
    let to = request.reply_to();
    if header.sys_flag.has(PullSysFlag::SUSPEND) && suspend_ms > 0 && to.wanted {
        let metrics = &turn.services.metrics;
        if let Some(held) = turn.channel.hold() {
            let deadline = turn.now.saturating_add_ms(suspend_ms);
            let waiter = Box::new(Waiter { held, to });
            if turn.services.long_polls.hold(pull, turn.channel.id(), deadline, waiter).is_ok() {
                return;
            }
            metrics.held_by_broker.add(1);
        } else {
            metrics.held_by_connection.add(1);
        }
    }
    turn.reply(request, reply(Ok(pulled), turn.channel));
}

/// Everything about a pull that can be wrong, in the order in which RocketMQ looks.
fn checked(turn: &Turn<'_>, header: &PullMessageHeader<'_>) -> Result<Pull, Refused> {
    let services = turn.services;
    let group = services.store.group(&header.consumer_group);
    if group.as_ref().is_some_and(|group| !group.consume_enable) {
        let remark = format!("subscription group no permission, {}", header.consumer_group);
        return Err(Refused::new(ResponseCode::NO_PERMISSION, remark));
    }
    let Some(topic) = services.store.topic(&header.topic) else {
        let remark = format!("topic[{}] not exist, apply first please!", header.topic);
        return Err(Refused::new(ResponseCode::TOPIC_NOT_EXIST, remark));
    };
    let config = topic.config();
    if config.permission & PERM_READ == 0 {
        let remark = format!("the topic[{}] pulling message is forbidden", header.topic);
        return Err(Refused::new(ResponseCode::NO_PERMISSION, remark));
    }
    let queue = topic.queue(header.queue_id).filter(|queue| queue.id().0 < config.read_queues);
    let Some(queue) = queue else {
        let remark = format!(
            "queueId[{}] is illegal, topic:[{}] topicConfig.readQueueNums:[{}]",
            header.queue_id, header.topic, config.read_queues
        );
        return Err(Refused::new(ResponseCode::INVALID_PARAMETER, remark));
    };
    let broadcast_allowed = group.is_none_or(|group| group.consume_broadcast);
    let filter = filter(turn, header, broadcast_allowed)?;
    let limits = &services.config.limits;
    let bytes_max = usize::try_from(limits.pull_bytes.as_u64()).unwrap_or(usize::MAX);
    Ok(Pull {
        from: wanted_offset(header.queue_offset),
        queue,
        messages_max: wish(Some(header.max_messages))
            .min(usize::try_from(limits.pull_messages).unwrap_or(usize::MAX)),
        bytes_max: header.max_bytes.map_or(bytes_max, |wanted| wish(Some(wanted)).min(bytes_max)),
        filter,
        group: (!header.sys_flag.has(PullSysFlag::SUBSCRIPTION))
            .then(|| header.consumer_group.as_ref().into()),
    })
}

/// A client's wish for a number of messages or bytes, at least 1.
fn wish(number: Option<i32>) -> usize {
    number.and_then(|number| usize::try_from(number).ok()).unwrap_or(1).max(1)
}

/// An offset below 0 is before the queue's begin: the first position, or told to move to it where that is gone. Never
/// behind the end, which would skip messages.
fn wanted_offset(offset: i64) -> QueueOffset {
    QueueOffset::from_wire(offset).unwrap_or(QueueOffset(0))
}

/// What the group wants of the topic: as this request says, or as its last heartbeat did.
fn filter(
    turn: &Turn<'_>,
    header: &PullMessageHeader<'_>,
    broadcast_allowed: bool,
) -> Result<TagFilter, Refused> {
    let unreadable = |_: DecodeError| {
        Refused::new(ResponseCode::SUBSCRIPTION_PARSE_FAILED, "parse the consumer's subscription failed")
    };
    if header.sys_flag.has(PullSysFlag::SUBSCRIPTION) {
        only_tags(header.expression_type.as_deref().unwrap_or_default())?;
        return TagFilter::parse(header.subscription.as_deref().unwrap_or_default()).map_err(unreadable);
    }
    let clients = &turn.services.clients;
    let Some(model) = clients.consumption_model(&header.consumer_group) else {
        return Err(Refused::new(
            ResponseCode::SUBSCRIPTION_NOT_EXIST,
            "the consumer's group info not exist",
        ));
    };
    if model == ConsumptionModel::Broadcasting && !broadcast_allowed {
        let remark =
            format!("the consumer group[{}] can not consume by broadcast way", header.consumer_group);
        return Err(Refused::new(ResponseCode::NO_PERMISSION, remark));
    }
    let Some(subscription) = clients.subscription(&header.consumer_group, &header.topic) else {
        return Err(Refused::new(
            ResponseCode::SUBSCRIPTION_NOT_EXIST,
            "the consumer's subscription not exist",
        ));
    };
    if subscription.version < header.sub_version {
        return Err(Refused::new(
            ResponseCode::SUBSCRIPTION_NOT_LATEST,
            "the consumer's subscription not latest",
        ));
    }
    only_tags(&subscription.expression_type)?;
    TagFilter::parse(&subscription.expression).map_err(unreadable)
}

fn only_tags(expression_type: &str) -> Result<(), Refused> {
    if expression_type.is_empty() || expression_type == EXPRESSION_TYPE_TAG {
        return Ok(());
    }
    let remark = format!("The broker does not support consumer to filter message by {expression_type}");
    Err(Refused::new(ResponseCode::SYSTEM_ERROR, remark))
}

/// The answer that a pull of `channel` gets; what it carries is counted.
fn reply(pulled: Result<Pulled, PullError>, channel: &RemotingChannel) -> RemotingCommand {
    let pulled = match pulled {
        Ok(pulled) => pulled,
        Err(error) => {
            match &error {
                // the store has said so, once and not with each pull
                PullError::Storage(StorageError::Corrupt { .. } | StorageError::PageDamaged { .. }) => {}
                _ => tracing::error!(%error, "a pull could not be read"),
            }
            return response::pull_refusal(&error);
        }
    };
    channel.delivers(pulled.messages, pulled.body.len());
    let code = match pulled.status {
        PullStatus::Found => ResponseCode::SUCCESS,
        PullStatus::NoMatch => ResponseCode::PULL_RETRY_IMMEDIATELY,
        PullStatus::Empty => ResponseCode::PULL_NOT_FOUND,
        PullStatus::OffsetMoved => ResponseCode::PULL_OFFSET_MOVED,
    };
    let header = PullMessageReply {
        suggest_broker_id: 0,
        next_begin_offset: pulled.next.as_wire(),
        min_offset: pulled.min.as_wire(),
        max_offset: pulled.max.as_wire(),
    };
    RemotingCommand::response(0, code).with_ext(header.encode()).with_body(pulled.body)
}

/// Answers a pull after its turn, through the connection's outbound queue.
struct Waiter {
    held: Held,
    to: ReplyTo,
}

impl PullWaiter for Waiter {
    fn has_room(&self) -> bool {
        self.held.channel().has_room()
    }

    fn answer(self: Box<Self>, pulled: Result<Pulled, PullError>) {
        // a connection that closed meanwhile wants no answer
        let channel = self.held.channel();
        let _ = channel.push_reply(self.to, reply(pulled, channel));
    }
}
