//! What a foreign pull consumer sees of a queue.

use std::net::SocketAddr;

use mezzo_protocol::message::record::{MessageView, decode_delivered};
use mezzo_protocol::remoting::RemotingCommand;

use crate::producer::{HEART_BEAT, SUCCESS};
use crate::wire::{Fields, Wire};

/// PULL_MESSAGE.
pub const PULL_MESSAGE: i32 = 11;
/// The answer when nothing is there (and the pull was not to wait).
pub const PULL_NOT_FOUND: i32 = 19;
/// The answer when the offset asked for is not one to read from.
pub const PULL_OFFSET_MOVED: i32 = 21;
/// The answer when there is no such topic.
pub const TOPIC_NOT_EXIST: i32 = 17;
/// `sysFlag`: the subscription is in this request.
const WITH_SUBSCRIPTION: &str = "4";

/// A delivered message, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// Its queue.
    pub queue: u32,
    /// Its place in the queue.
    pub queue_offset: u64,
    /// Its place in the log.
    pub physical_offset: u64,
    /// Where its half message stood; 0 for plain messages.
    pub prepared_offset: u64,
    /// System flags.
    pub sys_flag: i32,
    /// How often it was given back.
    pub reconsume_times: i32,
    /// When it became visible, milliseconds since 1970.
    pub store_ms: u64,
    /// The client's unique key.
    pub key: Option<String>,
    /// The body.
    pub body: Vec<u8>,
    /// All properties.
    pub properties: Vec<(String, String)>,
}

impl Message {
    fn of(view: &MessageView<'_>) -> Self {
        view.verify_body_crc().expect("a delivered body matches its checksum");
        let properties = std::str::from_utf8(view.properties()).expect("properties are text");
        let pairs = properties.split('\u{2}').filter_map(|pair| pair.split_once('\u{1}'));
        let properties: Vec<(String, String)> =
            pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Self {
            topic: view.topic().to_owned(),
            queue: view.queue_id().0,
            queue_offset: view.queue_offset().0,
            physical_offset: view.physical_offset().0,
            prepared_offset: view.prepared_transaction_offset().0,
            sys_flag: view.sys_flag().0,
            reconsume_times: view.reconsume_times(),
            store_ms: view.store_timestamp().as_ms(),
            key: properties.iter().find(|(key, _)| key == "UNIQ_KEY").map(|(_, value)| value.clone()),
            body: view.body().to_vec(),
            properties,
        }
    }

    /// The value of a property.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("this test's bodies are text")
    }
}

/// The messages in a pull's answer, a check-back or a view by id.
pub fn messages(body: &[u8]) -> Vec<Message> {
    decode_delivered(body)
        .map(|view| Message::of(&view.expect("the broker delivers whole messages")))
        .collect()
}

/// One consumer on one connection. It joins no group and commits nothing; it only looks.
#[derive(Debug)]
pub struct Consumer {
    /// The connection, for tests that say something unusual.
    pub wire: Wire,
    /// The group it names.
    pub group: String,
}

impl Consumer {
    /// Connects.
    pub fn connect(broker: SocketAddr, group: &str) -> Self {
        Self { wire: Wire::connect(broker), group: group.to_owned() }
    }

    /// Joins the group by a heartbeat, subscribed to all of these topics.
    pub fn join(&mut self, topics: &[&str]) {
        let subscriptions: Vec<String> =
            topics.iter().map(|topic| format!(r#"{{"topic":"{topic}","subString":"*"}}"#)).collect();
        let body = format!(
            r#"{{"clientID":"{0}@test","producerDataSet":[],"consumerDataSet":[{{"groupName":"{0}",
            "consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING",
            "consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","subscriptionDataSet":[{1}]}}]}}"#,
            self.group,
            subscriptions.join(",")
        );
        let reply = self.wire.call(HEART_BEAT, &[], body.as_bytes());
        assert_eq!(reply.code, SUCCESS, "a heartbeat is accepted: {:?}", reply.remark);
    }

    /// One pull that does not wait, as the broker answered it.
    pub fn pull(&mut self, topic: &str, queue: u32, from: u64, expression: &str) -> RemotingCommand {
        let request = self.pull_request(topic, queue, from, expression, WITH_SUBSCRIPTION, "0");
        self.wire.send(&request);
        self.wire.answer(request.opaque)
    }

    /// A pull that is not sent yet, with `sysFlag` and the longest time to be held in milliseconds.
    pub fn pull_request(
        &mut self,
        topic: &str,
        queue: u32,
        from: u64,
        expression: &str,
        sys_flag: &str,
        hold_ms: &str,
    ) -> RemotingCommand {
        let group = self.group.clone();
        let fields: Fields<'_> = &[
            ("consumerGroup", &group),
            ("topic", topic),
            ("queueId", &queue.to_string()),
            ("queueOffset", &from.to_string()),
            ("maxMsgNums", "32"),
            ("sysFlag", sys_flag),
            ("commitOffset", "0"),
            ("suspendTimeoutMillis", hold_ms),
            ("subscription", expression),
            ("subVersion", "1"),
            ("expressionType", "TAG"),
        ];
        self.wire.request(PULL_MESSAGE, fields, b"")
    }

    /// Everything that stands in a queue now, from `from` on.
    pub fn drain(&mut self, topic: &str, queue: u32, from: u64) -> Vec<Message> {
        let mut found = Vec::new();
        let mut next = from;
        loop {
            let reply = self.pull(topic, queue, next, "*");
            if reply.code != SUCCESS {
                assert_eq!(reply.code, PULL_NOT_FOUND, "a pull at the end finds nothing: {:?}", reply.remark);
                return found;
            }
            found.extend(messages(&reply.body));
            let after: u64 = reply
                .ext_value("nextBeginOffset")
                .expect("a pull says where to go on")
                .parse()
                .expect("a number");
            assert!(after > next, "a pull that found messages moves on");
            next = after;
        }
    }

    /// Everything that stands in a queue from `from` on, nothing if its topic was never made.
    pub fn drain_if_there(&mut self, topic: &str, queue: u32, from: u64) -> Vec<Message> {
        if self.pull(topic, queue, 0, "*").code == TOPIC_NOT_EXIST {
            Vec::new()
        } else {
            self.drain(topic, queue, from)
        }
    }

    /// Everything in the queues `0..queues` of a topic.
    pub fn drain_all(&mut self, topic: &str, queues: u32) -> Vec<Message> {
        (0..queues).flat_map(|queue| self.drain(topic, queue, 0)).collect()
    }

    /// The same, nothing if the topic was never made.
    pub fn drain_all_if_there(&mut self, topic: &str, queues: u32) -> Vec<Message> {
        (0..queues).flat_map(|queue| self.drain_if_there(topic, queue, 0)).collect()
    }
}
