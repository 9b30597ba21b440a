//! Consumer group administration: UPDATE_AND_CREATE_SUBSCRIPTIONGROUP (200), DELETE_SUBSCRIPTIONGROUP (207).

use mezzo_protocol::{error::DecodeError, ids::GroupName, remoting::body::group::GroupConfig as WireGroup};
use mezzo_storage::{GroupConfig, Operation};

use super::{
    response, topic_admin,
    turn::{Handled, Request, Step, Turn},
};

/// Attributes that one group may have.
const ATTRIBUTES_MAX: usize = 32;

/// UPDATE_AND_CREATE_SUBSCRIPTIONGROUP (200). A group that does not exist is created first, by the one path that creates
/// groups, so that a first heartbeat at the same moment cannot undo what is asked for here.
pub(crate) fn update(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let config = stored(WireGroup::decode(request.body())?)?;
    let name = config.name.clone();
    match turn.services.groups.change(config) {
        Err(error) => {
            turn.reply(request, response::group_refusal(&name, &error));
            Ok(Step::Done)
        }
        Ok(_) if turn.services.store.group(&name).is_none() => Ok(Step::CreateGroup(name)),
        Ok(operation) => Ok(topic_admin::append(turn, request, operation)),
    }
}

/// DELETE_SUBSCRIPTIONGROUP (207): the group's settings and offsets go; its retry topic stays, it may hold messages.
pub(crate) fn delete(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let name = request.header.ext.get("groupName").ok_or(DecodeError::MissingField("groupName"))?;
    let group = GroupName::new(&name)?;
    tracing::info!(group = group.as_str(), by = %turn.channel.remote_address(), "consumer group is being deleted");
    Ok(topic_admin::append(turn, request, Operation::DeleteGroup(group)))
}

/// The group's settings as they are stored.
fn stored(wire: WireGroup) -> Result<GroupConfig, DecodeError> {
    let attributes = wire.attributes.len();
    if attributes > ATTRIBUTES_MAX {
        return Err(DecodeError::TooLong { what: "group attributes", got: attributes, max: ATTRIBUTES_MAX });
    }
    let retry_queues = u32::try_from(wire.retry_queue_nums).map_err(|_| {
        DecodeError::bad_value("retryQueueNums", wire.retry_queue_nums.to_string(), "0 or more")
    })?;
    let mut config = GroupConfig::new(GroupName::new(&wire.group_name)?);
    config.consume_enable = wire.consume_enable;
    config.consume_from_min = wire.consume_from_min_enable;
    config.consume_broadcast = wire.consume_broadcast_enable;
    config.orderly = wire.consume_message_orderly;
    config.notify_ids_changed = wire.notify_consumer_ids_changed_enable;
    config.retry_queues = retry_queues;
    config.retry_max = wire.retry_max_times;
    // broker numbers are not negative; what is, means the master
    config.broker_id = u64::try_from(wire.broker_id).unwrap_or_default();
    config.slow_broker_id = u64::try_from(wire.which_broker_when_consume_slowly).unwrap_or_default();
    config.attributes = wire.attributes;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_keep_their_meaning() {
        let wire = WireGroup {
            group_name: "g".to_owned(),
            consume_enable: false,
            consume_message_orderly: true,
            retry_queue_nums: 3,
            retry_max_times: -1,
            notify_consumer_ids_changed_enable: false,
            ..WireGroup::default()
        };
        let config = stored(wire).unwrap();
        assert!(!config.consume_enable && config.orderly && !config.notify_ids_changed);
        assert_eq!((config.retry_queues, config.retry_max), (3, -1));
        assert!(config.consume_from_min && config.consume_broadcast);
    }

    #[test]
    fn a_group_that_cannot_be_named_or_counted_is_refused() {
        assert!(stored(WireGroup { group_name: "no spaces".to_owned(), ..WireGroup::default() }).is_err());
        let negative = WireGroup { group_name: "g".to_owned(), retry_queue_nums: -1, ..WireGroup::default() };
        assert!(stored(negative).is_err());
    }
}
