//! The reply to GET_ROUTEINFO_BY_TOPIC (105): which brokers have a topic, and how many queues each.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Deserialize;

use super::{lenient, relaxed_json};
use crate::error::DecodeError;
use crate::remoting::json_text::push_json_string;

/// How number keys are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyStyle {
    /// `{"0":"host:port"}`: JSON.
    Standard,
    /// `{0:"host:port"}`: what fastjson writes and old clients need.
    Unquoted,
}

/// Who may do what with a topic: bit 2 read, bit 1 write, bit 0 inherit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Permission(pub i32);

impl Permission {
    /// Consumers may read.
    pub const READ: Self = Self(0x1 << 2);
    /// Producers may write.
    pub const WRITE: Self = Self(0x1 << 1);
    /// Topics that a send creates may take the settings of this one.
    pub const INHERIT: Self = Self(0x1);
    /// Read and write: an ordinary topic.
    pub const READ_WRITE: Self = Self(Self::READ.0 | Self::WRITE.0);

    /// Whether all bits of `permission` are set.
    #[must_use]
    pub const fn has(self, permission: Self) -> bool {
        self.0 & permission.0 == permission.0
    }
}

/// Where a topic is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicRouteData {
    /// Queues in a global order, `broker:count;…`.
    #[serde(default)]
    pub order_topic_conf: Option<String>,
    /// Queues by broker.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub queue_datas: Vec<QueueData>,
    /// The brokers.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub broker_datas: Vec<BrokerData>,
}

/// How many queues of a topic a broker has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueData {
    /// The broker.
    #[serde(default)]
    pub broker_name: String,
    /// Queues that consumers see.
    #[serde(default)]
    pub read_queue_nums: i32,
    /// Queues that producers see.
    #[serde(default)]
    pub write_queue_nums: i32,
    /// Who may do what, see [`Permission`].
    #[serde(default)]
    pub perm: i32,
    /// Flags of RocketMQ's units.
    #[serde(default, alias = "topicSynFlag")]
    pub topic_sys_flag: i32,
}

/// One broker: a master and its slaves under one name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokerData {
    /// Its cluster.
    #[serde(default)]
    pub cluster: String,
    /// Its name.
    #[serde(default)]
    pub broker_name: String,
    /// Addresses by number: 0 is the master.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub broker_addrs: BTreeMap<i64, String>,
    /// Its zone.
    #[serde(default)]
    pub zone_name: Option<String>,
    /// Whether a slave takes over reads; RocketMQ 5 clients look for it.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub enable_acting_master: bool,
}

/// The number of a master among [`BrokerData::broker_addrs`].
pub const MASTER_ID: i64 = 0;

impl TopicRouteData {
    /// Reads the body, in either style.
    ///
    /// # Errors
    /// If it is above its bound or not JSON.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        relaxed_json::parse("route", body)
    }

    /// The body.
    #[must_use]
    pub fn encode(&self, keys: KeyStyle) -> Vec<u8> {
        let mut out = String::from("{\"brokerDatas\":[");
        for (index, broker) in self.broker_datas.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            push_broker(&mut out, broker, keys);
        }
        out.push_str("],\"filterServerTable\":{}");
        if let Some(order) = &self.order_topic_conf {
            out.push_str(",\"orderTopicConf\":");
            push_json_string(&mut out, order);
        }
        out.push_str(",\"queueDatas\":[");
        for (index, queues) in self.queue_datas.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            push_queues(&mut out, queues);
        }
        out.push_str("]}");
        out.into_bytes()
    }
}

/// Appends one broker. Writing to a `String` cannot fail, here and below.
pub(super) fn push_broker(out: &mut String, broker: &BrokerData, keys: KeyStyle) {
    out.push_str("{\"brokerAddrs\":{");
    for (index, (number, address)) in broker.broker_addrs.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        let _ = match keys {
            KeyStyle::Standard => write!(out, "\"{number}\":"),
            KeyStyle::Unquoted => write!(out, "{number}:"),
        };
        push_json_string(out, address);
    }
    out.push_str("},\"brokerName\":");
    push_json_string(out, &broker.broker_name);
    out.push_str(",\"cluster\":");
    push_json_string(out, &broker.cluster);
    let _ = write!(out, ",\"enableActingMaster\":{}", broker.enable_acting_master);
    if let Some(zone) = &broker.zone_name {
        out.push_str(",\"zoneName\":");
        push_json_string(out, zone);
    }
    out.push('}');
}

fn push_queues(out: &mut String, queues: &QueueData) {
    out.push_str("{\"brokerName\":");
    push_json_string(out, &queues.broker_name);
    let QueueData { read_queue_nums, write_queue_nums, perm, topic_sys_flag, .. } = queues;
    let _ = write!(
        out,
        ",\"perm\":{perm},\"readQueueNums\":{read_queue_nums},\"topicSysFlag\":{topic_sys_flag},\
         \"writeQueueNums\":{write_queue_nums}}}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> TopicRouteData {
        TopicRouteData {
            order_topic_conf: None,
            queue_datas: vec![QueueData {
                broker_name: "mezzo".to_owned(),
                read_queue_nums: 4,
                write_queue_nums: 4,
                perm: Permission::READ_WRITE.0,
                topic_sys_flag: 0,
            }],
            broker_datas: vec![BrokerData {
                cluster: "DefaultCluster".to_owned(),
                broker_name: "mezzo".to_owned(),
                broker_addrs: BTreeMap::from([
                    (0, "127.0.0.1:10911".to_owned()),
                    (1, "127.0.0.1:10912".to_owned()),
                ]),
                zone_name: None,
                enable_acting_master: false,
            }],
        }
    }

    #[test]
    fn old_clients_get_number_keys_without_quotes() {
        assert_eq!(
            String::from_utf8(example().encode(KeyStyle::Unquoted)).unwrap(),
            concat!(
                r#"{"brokerDatas":[{"brokerAddrs":{0:"127.0.0.1:10911",1:"127.0.0.1:10912"},"brokerName":"mezzo","#,
                r#""cluster":"DefaultCluster","enableActingMaster":false}],"filterServerTable":{},"queueDatas":["#,
                r#"{"brokerName":"mezzo","perm":6,"readQueueNums":4,"topicSysFlag":0,"writeQueueNums":4}]}"#
            )
        );
    }

    #[test]
    fn the_standard_style_is_json() {
        let body = example().encode(KeyStyle::Standard);
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value["brokerDatas"][0]["brokerAddrs"]["0"], "127.0.0.1:10911");
    }

    #[test]
    fn both_styles_are_read() {
        for style in [KeyStyle::Standard, KeyStyle::Unquoted] {
            assert_eq!(TopicRouteData::decode(&example().encode(style)).unwrap(), example());
        }
        let ordered = TopicRouteData { order_topic_conf: Some("mezzo:4".to_owned()), ..example() };
        assert_eq!(TopicRouteData::decode(&ordered.encode(KeyStyle::Standard)).unwrap(), ordered);
        assert!(TopicRouteData::decode(b"not json").is_err());
    }
}
