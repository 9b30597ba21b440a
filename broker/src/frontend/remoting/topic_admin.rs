//! Topic administration: UPDATE_AND_CREATE_TOPIC (17) and DELETE_TOPIC_IN_BROKER (215).

use std::collections::BTreeMap;

use mezzo_protocol::{
    error::DecodeError,
    ids::TopicName,
    remoting::header::topic::{CreateTopicHeader, DeleteTopicHeader},
};
use mezzo_storage::{
    DedupRule, MessageType, Operation, OperationResult, PERM_READ, PERM_WRITE, Refusal, TopicConfig,
};

use super::{
    response,
    turn::{Handled, Request, Step, Turn},
};
use crate::service::{send::takes_repeats, topic::TopicToCreate};

/// RocketMQ's attribute that declares what kind of messages a topic takes.
const MESSAGE_TYPE: &str = "message.type";
/// Attributes that one topic may have.
const ATTRIBUTES_MAX: usize = 32;
/// Bytes of one attribute's name, and of its value.
const ATTRIBUTE_BYTES_MAX: usize = 256;

/// UPDATE_AND_CREATE_TOPIC (17). A topic that does not exist is created first, by the one path that creates topics, so
/// that a send which creates the same topic at the same moment cannot undo what is asked for here.
pub(crate) fn update(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let header = CreateTopicHeader::decode(&request.header.ext)?;
    let name = TopicName::new(&header.topic)?;
    let existing = turn.services.store.topic(&name);
    let before = existing
        .as_ref()
        .map_or_else(|| TopicConfig::new(name.clone(), 1), |topic| (*topic.config()).clone());
    let config = changed(before, &header)?;
    let to_create =
        TopicToCreate { name: name.clone(), queues: config.queue_count(), permission: config.permission };
    match turn.services.topics.change(config) {
        Err(error) => {
            turn.reply(request, response::topic_refusal(&name, &error));
            Ok(Step::Done)
        }
        Ok(_) if existing.is_none() => Ok(Step::CreateTopic(to_create)),
        Ok(operation) => Ok(append(turn, request, operation)),
    }
}

/// DELETE_TOPIC_IN_BROKER (215). Deleting a topic that does not exist is a success: the client wants it gone.
pub(crate) fn delete(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let header = DeleteTopicHeader::decode(&request.header.ext)?;
    let name = TopicName::new(&header.topic)?;
    if turn.services.store.topic(&name).is_none() {
        turn.reply(request, response::ok());
        return Ok(Step::Done);
    }
    match turn.services.topics.delete(&name) {
        Ok(operation) => {
            tracing::info!(topic = name.as_str(), by = %turn.channel.remote_address(), "topic is being deleted");
            Ok(append(turn, request, operation))
        }
        Err(error) => {
            turn.reply(request, response::topic_refusal(&name, &error));
            Ok(Step::Done)
        }
    }
}

/// Logs a change and answers when it is durable. Deleting what is not there is success, as with Apache: the caller has
/// what it wanted.
pub(super) fn append(turn: &mut Turn<'_>, request: &Request<'_>, operation: Operation) -> Step {
    let at = turn.operation(operation);
    turn.reply_after_append(request, at..at + 1, |results| match results.first() {
        None | Some(OperationResult::Refused(Refusal::NotFound)) => response::ok(),
        Some(OperationResult::Refused(refused)) => response::operation_refusal(*refused),
        Some(_) => response::ok(),
    });
    Step::Done
}

/// The topic's configuration after the change.
fn changed(mut config: TopicConfig, header: &CreateTopicHeader<'_>) -> Result<TopicConfig, DecodeError> {
    config.read_queues = count("readQueueNums", header.read_queues)?;
    config.write_queues = count("writeQueueNums", header.write_queues)?;
    config.permission = count("perm", header.perm)? & (PERM_READ | PERM_WRITE);
    config.system_flag = count("topicSysFlag", header.topic_sys_flag.unwrap_or(0))?;
    config.ordered = header.order;
    if let Some(changes) = &header.attributes {
        change_attributes(&mut config.attributes, &mut config.message_type, changes)?;
    }
    if config.dedup() != DedupRule::Off && takes_repeats(&config.name) {
        return Err(DecodeError::bad_value(
            DedupRule::ATTRIBUTE,
            config.name.as_str(),
            "a topic of your own: those of retries, dead letters and the system take repeats",
        ));
    }
    Ok(config)
}

fn count(field: &'static str, number: i32) -> Result<u32, DecodeError> {
    u32::try_from(number).map_err(|_| DecodeError::bad_value(field, number.to_string(), "0 or more"))
}

/// Carries out `+name=value` and `-name`, joined by commas.
fn change_attributes(
    attributes: &mut BTreeMap<String, String>,
    message_type: &mut MessageType,
    changes: &str,
) -> Result<(), DecodeError> {
    for change in changes.split(',').map(str::trim).filter(|change| !change.is_empty()) {
        let malformed =
            || DecodeError::bad_value("attributes", change, "+name=value or -name, joined by commas");
        if let Some(name) = change.strip_prefix('-') {
            if name == MESSAGE_TYPE {
                *message_type = MessageType::Unspecified;
            }
            attributes.remove(name);
            continue;
        }
        let (name, value) =
            change.strip_prefix('+').and_then(|set| set.split_once('=')).ok_or_else(malformed)?;
        if name.is_empty() || name.len() > ATTRIBUTE_BYTES_MAX || value.len() > ATTRIBUTE_BYTES_MAX {
            return Err(malformed());
        }
        if name == MESSAGE_TYPE {
            *message_type = message_type_of(value)?;
            continue;
        }
        if name == DedupRule::ATTRIBUTE && DedupRule::named(value).is_none() {
            return Err(DecodeError::bad_value(DedupRule::ATTRIBUTE, value, "off, retries or strict"));
        }
        attributes.insert(name.to_owned(), value.to_owned());
        if attributes.len() > ATTRIBUTES_MAX {
            return Err(DecodeError::TooLong {
                what: "topic attributes",
                got: attributes.len(),
                max: ATTRIBUTES_MAX,
            });
        }
    }
    Ok(())
}

fn message_type_of(name: &str) -> Result<MessageType, DecodeError> {
    match name {
        "UNSPECIFIED" => Ok(MessageType::Unspecified),
        "NORMAL" => Ok(MessageType::Normal),
        "FIFO" => Ok(MessageType::Fifo),
        "DELAY" => Ok(MessageType::Delay),
        "TRANSACTION" => Ok(MessageType::Transaction),
        "MIXED" => Ok(MessageType::Mixed),
        _ => Err(DecodeError::bad_value(
            MESSAGE_TYPE,
            name,
            "UNSPECIFIED, NORMAL, FIFO, DELAY, TRANSACTION or MIXED",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(changes: &str) -> Result<(BTreeMap<String, String>, MessageType), DecodeError> {
        let mut attributes = BTreeMap::from([("old".to_owned(), "1".to_owned())]);
        let mut kind = MessageType::Normal;
        change_attributes(&mut attributes, &mut kind, changes).map(|()| (attributes, kind))
    }

    #[test]
    fn attributes_are_set_and_removed() {
        let (attributes, kind) = change("+message.type=FIFO, +new=2,-old").unwrap();
        assert_eq!(kind, MessageType::Fifo);
        assert_eq!(attributes, BTreeMap::from([("new".to_owned(), "2".to_owned())]));
    }

    #[test]
    fn a_removed_message_type_is_undeclared() {
        assert_eq!(change("-message.type").unwrap().1, MessageType::Unspecified);
    }

    #[test]
    fn nonsense_in_attributes_is_refused() {
        for nonsense in ["message.type=FIFO", "+message.type=SOMETHING", "+=1", "+x", "+dedup=yes"] {
            assert!(change(nonsense).is_err(), "{nonsense}");
        }
        let many: Vec<String> = (0..=ATTRIBUTES_MAX).map(|n| format!("+a{n}=1")).collect();
        assert!(change(&many.join(",")).is_err());
    }
}
