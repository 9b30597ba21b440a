//! Clients and their groups: HEART_BEAT (34), UNREGISTER_CLIENT (35), GET_CONSUMER_LIST_BY_GROUP (38),
//! CHECK_CLIENT_CONFIG (46).

use std::sync::Arc;

use mezzo_protocol::{
    error::DecodeError,
    ids::{GroupName, TopicName},
    limits::{CLIENT_ID_BYTES_MAX, EXPRESSION_TYPE_BYTES_MAX, SUBSCRIPTION_BYTES_MAX},
    remoting::{
        body::{
            consumer_list::ConsumerList,
            heartbeat::{ConsumeType, ConsumerData, HeartbeatData, MessageModel, SubscriptionData},
            relaxed_json,
        },
        header::client::{
            ConsumerListHeader, HEADER_ENCODINGS_BOTH, HeartbeatReplyHeader, UnregisterClientHeader,
        },
        response_code::ResponseCode,
    },
    system_topic::is_retry,
};
use serde::Deserialize;

use super::{
    outbound::RemotingChannel,
    response,
    turn::{Handled, Request, Step, Turn},
};
use crate::service::{
    client_channel::ClientChannel,
    client_registry::{ConsumerHeartbeat, ConsumptionModel, JoinRefused, Subscription},
};

/// HEART_BEAT (34): the client's groups as of now. A consumer group, and its retry topic if the member needs it, are made
/// to exist before the client is let in, because it subscribes to the topic at once.
pub(crate) fn heartbeat(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let data = HeartbeatData::decode(request.body())?;
    // every group remembers it
    at_most("client id", data.client_id.len(), CLIENT_ID_BYTES_MAX)?;
    let subscriptions_max = turn.services.config.limits.subscriptions_per_group;
    for consumer in &data.consumer_data_set {
        at_most(
            "subscriptions of a group (limits.subscriptions_per_group)",
            consumer.subscription_data_set.len(),
            subscriptions_max,
        )?;
    }
    let groups_max = turn.services.config.limits.groups_per_connection;
    if data.consumer_data_set.len() > groups_max {
        turn.reply(request, response::join_refusal(JoinRefused::TooManyGroups(groups_max)));
        return Ok(Step::Done);
    }
    // all names first: a heartbeat is taken whole or not at all
    let mut groups = Vec::with_capacity(data.consumer_data_set.len());
    for consumer in &data.consumer_data_set {
        groups.push(GroupName::new(&consumer.group_name)?);
    }
    let mut heartbeats = Vec::with_capacity(groups.len());
    let (mut missing_groups, mut missing_topics) = (Vec::new(), Vec::new());
    for (group, consumer) in groups.into_iter().zip(data.consumer_data_set) {
        let Some(config) = turn.services.store.group(&group) else {
            missing_groups.push(group);
            continue;
        };
        if wants_retries(&consumer) {
            missing_topics.extend(turn.services.groups.missing_retry_topic(&config));
        }
        heartbeats.push(consumer_heartbeat(group, consumer, data.without_sub, config.notify_ids_changed)?);
    }
    if !missing_groups.is_empty() || !missing_topics.is_empty() {
        return Ok(Step::CreateAll(missing_groups, missing_topics));
    }
    for producer in &data.producer_data_set {
        turn.producer_seen(&producer.group_name);
    }
    let channel: Arc<dyn ClientChannel> = Arc::<RemotingChannel>::clone(turn.channel);
    for heartbeat in heartbeats {
        if let Err(refused) =
            turn.services.clients.consumer_seen(turn.now, &channel, &data.client_id, heartbeat)
        {
            turn.reply(request, response::join_refusal(refused));
            return Ok(Step::Done);
        }
    }
    // Frames are read by their own mark, so a client may change to the binary form whenever it likes.
    let says = HeartbeatReplyHeader { header_encodings: Some(HEADER_ENCODINGS_BOTH.into()) };
    turn.reply(request, response::ok().with_ext(says.encode()));
    Ok(Step::Done)
}

/// Whether the member gives messages back that it could not process. One that pulls when it likes, or that gets
/// everything for itself alone, does not, unless it says otherwise by subscribing to its retry topic: without this each
/// reader in passing left an empty topic behind. A message that is given back all the same makes the topic then.
fn wants_retries(consumer: &ConsumerData) -> bool {
    let for_itself =
        consumer.consume_type == ConsumeType::Pull || consumer.message_model == MessageModel::Broadcasting;
    !for_itself || consumer.subscription_data_set.iter().any(|data| is_retry(&data.topic))
}

fn consumer_heartbeat(
    group: GroupName,
    consumer: ConsumerData,
    without_subscriptions: bool,
    notify: bool,
) -> Result<ConsumerHeartbeat, DecodeError> {
    let model = match consumer.message_model {
        MessageModel::Broadcasting => ConsumptionModel::Broadcasting,
        MessageModel::Clustering => ConsumptionModel::Clustering,
    };
    let subscriptions = if without_subscriptions {
        None
    } else {
        Some(consumer.subscription_data_set.into_iter().map(subscription).collect::<Result<_, _>>()?)
    };
    Ok(ConsumerHeartbeat { group, model, subscriptions, notify })
}

fn subscription(data: SubscriptionData) -> Result<Subscription, DecodeError> {
    at_most("subscription", data.sub_string.len(), SUBSCRIPTION_BYTES_MAX)?;
    at_most("expression type", data.expression_type.len(), EXPRESSION_TYPE_BYTES_MAX)?;
    Ok(Subscription {
        topic: TopicName::new(&data.topic)?,
        expression: data.sub_string,
        expression_type: data.expression_type,
        version: data.sub_version,
    })
}

/// Refuses what is longer, or more, than it may be.
pub(super) fn at_most(what: &'static str, got: usize, max: usize) -> Result<(), DecodeError> {
    if got > max { Err(DecodeError::TooLong { what, got, max }) } else { Ok(()) }
}

/// UNREGISTER_CLIENT (35): the client leaves groups in order, before it closes its connection.
pub(crate) fn unregister(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let header = UnregisterClientHeader::decode(&request.header.ext)?;
    let group =
        |name: &Option<std::borrow::Cow<'_, str>>| name.as_ref().map(|name| GroupName::new(name)).transpose();
    let (producer, consumer) = (group(&header.producer_group)?, group(&header.consumer_group)?);
    if let Some(group) = producer {
        turn.channel.forget_producer_group(&group);
        turn.services.clients.producer_left(&group, turn.channel.id());
    }
    if let Some(group) = consumer {
        turn.services.clients.consumer_left(&group, turn.channel.id());
    }
    turn.reply(request, response::ok());
    Ok(Step::Done)
}

/// GET_CONSUMER_LIST_BY_GROUP (38): the same sorted list for every member, because each computes its own share of the
/// queues from it.
pub(crate) fn consumer_list(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let header = ConsumerListHeader::decode(&request.header.ext)?;
    match turn.services.clients.client_ids(&header.consumer_group) {
        Some(client_ids) => {
            turn.reply(request, response::ok().with_body(ConsumerList { client_ids }.encode()))
        }
        None => {
            let remark = format!("the consumer group {} has no members", header.consumer_group);
            turn.refuse(request, ResponseCode::SYSTEM_ERROR, remark);
        }
    }
    Ok(Step::Done)
}

/// The body of CHECK_CLIENT_CONFIG, as far as it is looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClientConfig {
    subscription_data: Option<SubscriptionData>,
}

/// CHECK_CLIENT_CONFIG (46): may the client filter like this? Clients ask before they subscribe by anything but tags,
/// and do not start if they may not.
pub(crate) fn check_client_config(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let config: ClientConfig = relaxed_json::parse("client configuration", request.body())?;
    let kind = config.subscription_data.map(|data| data.expression_type).unwrap_or_default();
    if kind.is_empty() || kind == "TAG" {
        turn.reply(request, response::ok());
    } else {
        let remark = format!("filtering by {kind} is not supported, only by tags");
        turn.refuse(request, ResponseCode::SYSTEM_ERROR, remark);
    }
    Ok(Step::Done)
}
