//! The reply to GET_BROKER_CLUSTER_INFO (106): all brokers by cluster.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::route::{BrokerData, KeyStyle, push_broker};
use super::{lenient, relaxed_json};
use crate::error::DecodeError;
use crate::remoting::json_text::push_json_string;

/// Brokers and clusters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterInfo {
    /// Brokers by name.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub broker_addr_table: BTreeMap<String, BrokerData>,
    /// Names of brokers by cluster.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub cluster_addr_table: BTreeMap<String, Vec<String>>,
}

impl ClusterInfo {
    /// Reads the body, in either style.
    ///
    /// # Errors
    /// If it is above its bound or not JSON.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        relaxed_json::parse("cluster info", body)
    }

    /// The body. Apache's is always [`KeyStyle::Unquoted`].
    #[must_use]
    pub fn encode(&self, keys: KeyStyle) -> Vec<u8> {
        let mut out = String::from("{\"brokerAddrTable\":{");
        for (index, (name, broker)) in self.broker_addr_table.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            push_json_string(&mut out, name);
            out.push(':');
            push_broker(&mut out, broker, keys);
        }
        out.push_str("},\"clusterAddrTable\":{");
        for (index, (cluster, names)) in self.cluster_addr_table.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            push_json_string(&mut out, cluster);
            out.push_str(":[");
            for (index, name) in names.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                push_json_string(&mut out, name);
            }
            out.push(']');
        }
        out.push_str("}}");
        out.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_styles_are_written_and_read() {
        let broker = BrokerData {
            cluster: "c".to_owned(),
            broker_name: "b".to_owned(),
            broker_addrs: BTreeMap::from([(0, "127.0.0.1:10911".to_owned())]),
            ..Default::default()
        };
        let info = ClusterInfo {
            broker_addr_table: BTreeMap::from([("b".to_owned(), broker)]),
            cluster_addr_table: BTreeMap::from([("c".to_owned(), vec!["b".to_owned()])]),
        };
        let unquoted = info.encode(KeyStyle::Unquoted);
        assert_eq!(
            String::from_utf8(unquoted.clone()).unwrap(),
            concat!(
                r#"{"brokerAddrTable":{"b":{"brokerAddrs":{0:"127.0.0.1:10911"},"brokerName":"b","cluster":"c","#,
                r#""enableActingMaster":false}},"clusterAddrTable":{"c":["b"]}}"#
            )
        );
        for body in [unquoted, info.encode(KeyStyle::Standard)] {
            assert_eq!(ClusterInfo::decode(&body).unwrap(), info);
        }
    }
}
