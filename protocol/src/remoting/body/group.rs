//! UPDATE_AND_CREATE_SUBSCRIPTIONGROUP (200): how a consumer group is to be treated.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{lenient, relaxed_json};
use crate::error::DecodeError;

/// The settings of a consumer group; what is left out has RocketMQ's default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupConfig {
    /// The group.
    pub group_name: String,
    /// Whether it may consume.
    pub consume_enable: bool,
    /// Legacy.
    pub consume_from_min_enable: bool,
    /// Whether it may consume as broadcast.
    pub consume_broadcast_enable: bool,
    /// Whether it consumes in order; RocketMQ 5 clients ask for it.
    pub consume_message_orderly: bool,
    /// Queues of its retry topic.
    pub retry_queue_nums: i32,
    /// Attempts after which a message goes to the dead-letter topic.
    pub retry_max_times: i32,
    /// When to try again (RocketMQ 5); kept as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_retry_policy: Option<serde_json::Value>,
    /// The broker it reads from.
    pub broker_id: i64,
    /// The broker it reads from when it is slow.
    pub which_broker_when_consume_slowly: i64,
    /// Whether its members hear of changes among them.
    pub notify_consumer_ids_changed_enable: bool,
    /// Flags of RocketMQ's units.
    pub group_sys_flag: i32,
    /// After how many minutes a push consumer gives a message back.
    pub consume_timeout_minute: i32,
    /// Further attributes.
    #[serde(deserialize_with = "lenient::or_default")]
    pub attributes: BTreeMap<String, String>,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            group_name: String::new(),
            consume_enable: true,
            consume_from_min_enable: true,
            consume_broadcast_enable: true,
            consume_message_orderly: false,
            retry_queue_nums: 1,
            retry_max_times: 16,
            group_retry_policy: None,
            broker_id: 0,
            which_broker_when_consume_slowly: 1,
            notify_consumer_ids_changed_enable: true,
            group_sys_flag: 0,
            consume_timeout_minute: 15,
            attributes: BTreeMap::new(),
        }
    }
}

impl GroupConfig {
    /// Reads the body.
    ///
    /// # Errors
    /// If it is above its bound or not JSON, or names no group.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let config: Self = relaxed_json::parse("group settings", body)?;
        if config.group_name.is_empty() {
            return Err(DecodeError::MissingField("groupName"));
        }
        Ok(config)
    }

    /// The body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        relaxed_json::write(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_rocketmqs_default() {
        let config =
            GroupConfig::decode(br#"{"groupName":"g","retryMaxTimes":3,"somethingNew":[1]}"#).unwrap();
        let expected = GroupConfig { group_name: "g".to_owned(), retry_max_times: 3, ..Default::default() };
        assert_eq!(config, expected);
        assert_eq!(GroupConfig::decode(&config.encode()).unwrap(), config);
        assert!(GroupConfig::decode(b"{}").is_err());
    }
}
