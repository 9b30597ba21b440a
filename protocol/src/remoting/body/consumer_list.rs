//! The reply to GET_CONSUMER_LIST_BY_GROUP (38): the clients of a consumer group.

use serde::{Deserialize, Serialize};

use super::{lenient, relaxed_json};
use crate::error::DecodeError;

/// The clients of a group. All of its members must see the same list, so the order is the broker's to fix.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConsumerList {
    /// Ids of the clients.
    #[serde(rename = "consumerIdList", default, deserialize_with = "lenient::or_default")]
    pub client_ids: Vec<String>,
}

impl ConsumerList {
    /// Reads the body.
    ///
    /// # Errors
    /// If it is above its bound or not JSON.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        relaxed_json::parse("consumer list", body)
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
    fn the_body_has_the_name_that_clients_look_for() {
        let list = ConsumerList { client_ids: vec!["a@1".to_owned(), "b@2".to_owned()] };
        assert_eq!(list.encode(), br#"{"consumerIdList":["a@1","b@2"]}"#);
        assert_eq!(ConsumerList::decode(&list.encode()).unwrap(), list);
        assert_eq!(ConsumerList::decode(br#"{"consumerIdList":null}"#).unwrap(), ConsumerList::default());
    }
}
