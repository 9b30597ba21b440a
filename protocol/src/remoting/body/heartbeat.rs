//! HEART_BEAT (34): a client says which groups it has and what they are subscribed to.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{lenient, relaxed_json};
use crate::error::DecodeError;

macro_rules! wire_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// Names on the wire, at the index of their number on the wire.
            const VARIANTS: &'static [(&'static str, Self)] = &[$(($text, Self::$variant),)*];

            /// The name on the wire.
            #[must_use]
            pub const fn wire_name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                lenient::choice(deserializer, Self::VARIANTS)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.wire_name())
            }
        }
    };
}

wire_enum! {
    /// How a consumer gets its messages. Unknown ones count as push.
    ConsumeType {
        /// It pulls when it likes.
        Pull = "CONSUME_ACTIVELY",
        /// Its library pulls all the time.
        #[default]
        Push = "CONSUME_PASSIVELY",
        /// It pops.
        Pop = "CONSUME_POP",
    }
}

wire_enum! {
    /// Who of a group gets a message. Unknown ones count as clustering.
    MessageModel {
        /// Every member.
        Broadcasting = "BROADCASTING",
        /// One member.
        #[default]
        Clustering = "CLUSTERING",
    }
}

wire_enum! {
    /// Where a group starts that never committed an offset. Unknown ones count as the end.
    ConsumeFrom {
        /// At the end of each queue.
        #[default]
        LastOffset = "CONSUME_FROM_LAST_OFFSET",
        /// Legacy.
        LastOffsetAndMinWhenBootFirst = "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST",
        /// Legacy.
        MinOffset = "CONSUME_FROM_MIN_OFFSET",
        /// Legacy.
        MaxOffset = "CONSUME_FROM_MAX_OFFSET",
        /// At the start of each queue.
        FirstOffset = "CONSUME_FROM_FIRST_OFFSET",
        /// At a point in time.
        Timestamp = "CONSUME_FROM_TIMESTAMP",
    }
}

/// What a client has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeartbeatData {
    /// The client.
    #[serde(rename = "clientID", default, deserialize_with = "lenient::or_default")]
    pub client_id: String,
    /// Its producer groups.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub producer_data_set: Vec<ProducerData>,
    /// Its consumer groups.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub consumer_data_set: Vec<ConsumerData>,
    /// A hash over the rest, of RocketMQ 5 clients that leave out what the broker knows; 0 means none.
    #[serde(default, deserialize_with = "lenient::number")]
    pub heartbeat_fingerprint: i64,
    /// Whether subscriptions were left out because the broker knows them.
    #[serde(default, alias = "isWithoutSub", deserialize_with = "lenient::or_default")]
    pub without_sub: bool,
}

/// A producer group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProducerData {
    /// Its name.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub group_name: String,
}

/// A consumer group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerData {
    /// Its name.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub group_name: String,
    /// How it gets its messages.
    #[serde(default)]
    pub consume_type: ConsumeType,
    /// Who of the group gets a message.
    #[serde(default)]
    pub message_model: MessageModel,
    /// Where it starts.
    #[serde(default)]
    pub consume_from_where: ConsumeFrom,
    /// What it is subscribed to.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub subscription_data_set: Vec<SubscriptionData>,
    /// Legacy: it belongs to a unit.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub unit_mode: bool,
}

/// A subscription to one topic.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionData {
    /// Legacy: filter by a class.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub class_filter_mode: bool,
    /// The topic.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub topic: String,
    /// The filter expression: what counts.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub sub_string: String,
    /// The tags in it, as the client understood it.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub tags_set: Vec<String>,
    /// Their hashes, as the client computed them.
    #[serde(default, deserialize_with = "lenient::numbers")]
    pub code_set: Vec<i64>,
    /// When it was made, ms; newer ones win.
    #[serde(default, deserialize_with = "lenient::number")]
    pub sub_version: i64,
    /// `TAG` or `SQL92`; empty means `TAG`.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub expression_type: String,
}

impl HeartbeatData {
    /// Reads the body of a heartbeat.
    ///
    /// # Errors
    /// If the body is above its bound or not JSON, or the client has no id.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let data: Self = relaxed_json::parse("heartbeat", body)?;
        if data.client_id.is_empty() {
            return Err(DecodeError::MissingField("clientID"));
        }
        Ok(data)
    }

    /// The body of a heartbeat.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        relaxed_json::write(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enums_come_as_names_or_as_numbers() {
        // The first consumer as C++ writes it, the second as Java does.
        let body = br#"{"clientID":"c@1","consumerDataSet":[
            {"consumeFromWhere":4,"consumeType":1,"groupName":"a","messageModel":0,"subscriptionDataSet":[
                {"codeSet":[2598919],"subString":"TagA","subVersion":"1700000000000","tagsSet":["TagA"],"topic":"t"}]},
            {"consumeFromWhere":"CONSUME_FROM_TIMESTAMP","consumeType":"CONSUME_ACTIVELY","groupName":"b",
             "messageModel":"CLUSTERING","subscriptionDataSet":null,"unitMode":false}
          ],"producerDataSet":[{"groupName":"p"}]}
        "#;
        let data = HeartbeatData::decode(body).unwrap();
        assert_eq!(data.client_id, "c@1");
        assert_eq!(data.producer_data_set[0].group_name, "p");
        let [first, second] = &data.consumer_data_set[..] else { panic!("two consumers") };
        assert_eq!(
            (first.consume_type, first.message_model, first.consume_from_where),
            (ConsumeType::Push, MessageModel::Broadcasting, ConsumeFrom::FirstOffset)
        );
        assert_eq!(first.subscription_data_set[0].sub_version, 1_700_000_000_000);
        assert_eq!(
            (second.consume_type, second.message_model, second.consume_from_where),
            (ConsumeType::Pull, MessageModel::Clustering, ConsumeFrom::Timestamp)
        );
        assert!(second.subscription_data_set.is_empty());
    }

    #[test]
    fn hashes_of_tags_come_as_numbers_or_as_text() {
        // As Java and as Go write them, and what neither does.
        for (written, read) in
            [("[2598919]", vec![2_598_919]), (r#"["2598919"]"#, vec![2_598_919]), ("null", vec![])]
        {
            let body = format!(
                r#"{{"clientID":"c","consumerDataSet":[{{"groupName":"g","subscriptionDataSet":[
                    {{"topic":"t","subString":"TagA","codeSet":{written}}}]}}]}}"#
            );
            let data = HeartbeatData::decode(body.as_bytes()).unwrap();
            assert_eq!(data.consumer_data_set[0].subscription_data_set[0].code_set, read, "{written}");
        }
    }

    #[test]
    fn names_without_quotes_and_strange_values_are_tolerated() {
        let data = HeartbeatData::decode(
            br#"{clientID:"c",consumerDataSet:[{groupName:'g',consumeType:"?",messageModel:"Clustering"}],producerDataSet:[],}"#,
        )
        .unwrap();
        assert_eq!(data.consumer_data_set[0].consume_type, ConsumeType::Push);
        assert_eq!(data.consumer_data_set[0].message_model, MessageModel::Clustering);
    }

    #[test]
    fn what_is_written_is_read() {
        let data = HeartbeatData {
            client_id: "c".to_owned(),
            producer_data_set: vec![ProducerData { group_name: "p".to_owned() }],
            consumer_data_set: vec![ConsumerData {
                group_name: "g".to_owned(),
                consume_from_where: ConsumeFrom::FirstOffset,
                subscription_data_set: vec![SubscriptionData { topic: "t".to_owned(), ..Default::default() }],
                ..Default::default()
            }],
            ..Default::default()
        };
        assert_eq!(HeartbeatData::decode(&data.encode()).unwrap(), data);
    }

    #[test]
    fn a_client_without_an_id_is_refused() {
        assert_eq!(HeartbeatData::decode(b"{}"), Err(DecodeError::MissingField("clientID")));
        assert!(HeartbeatData::decode(b"").is_err());
    }
}
