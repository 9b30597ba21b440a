//! What a foreign producer says, field by field: sends, half messages, ends, answers to check-backs.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mezzo_protocol::remoting::RemotingCommand;

use crate::wait;
use crate::wire::{Fields, Wire};

/// Request codes that this module speaks.
pub const SEND_MESSAGE_V2: i32 = 310;
/// END_TRANSACTION.
pub const END_TRANSACTION: i32 = 37;
/// CHECK_TRANSACTION_STATE, from the broker.
pub const CHECK_TRANSACTION_STATE: i32 = 39;
/// HEART_BEAT.
pub const HEART_BEAT: i32 = 34;
/// The answer's code when all is well.
pub const SUCCESS: i32 = 0;
/// The answer's code when there is no room just now.
pub const SYSTEM_BUSY: i32 = 2;

static KEYS: AtomicU64 = AtomicU64::new(1);

/// What a producer says about its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It happened.
    Commit,
    /// It did not.
    RollBack,
    /// Ask me later.
    Unknown,
}

impl Verdict {
    /// `commitOrRollback` as it stands on the wire.
    pub fn flag(self) -> &'static str {
        match self {
            Self::Commit => "8",
            Self::RollBack => "12",
            Self::Unknown => "0",
        }
    }
}

/// A half message as its producer knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Half {
    /// The producer group.
    pub group: String,
    /// The topic it is for.
    pub topic: String,
    /// The client's unique key.
    pub key: String,
    /// `commitLogOffset`: the end of the offset message id.
    pub log_offset: u64,
    /// `tranStateTableOffset`: the `queueOffset` of the answer.
    pub table_offset: u64,
}

/// Where a message went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The offset message id.
    pub id: String,
    /// The queue.
    pub queue: u32,
    /// The place in the queue; for a half message what END needs.
    pub queue_offset: u64,
}

impl Sent {
    fn of(reply: &RemotingCommand) -> Self {
        assert_eq!(reply.code, SUCCESS, "a send is accepted; the broker said {:?}", reply.remark);
        let field =
            |name: &str| reply.ext_value(name).unwrap_or_else(|| panic!("the answer to a send has {name}"));
        Self {
            id: field("msgId").to_owned(),
            queue: field("queueId").parse().expect("queueId is a number"),
            queue_offset: field("queueOffset").parse().expect("queueOffset is a number"),
        }
    }

    /// The physical offset that the id names.
    pub fn physical_offset(&self) -> u64 {
        u64::from_str_radix(&self.id[self.id.len() - 16..], 16)
            .expect("an offset id ends in 16 hexadecimal digits")
    }
}

/// One producer on one connection.
#[derive(Debug)]
pub struct Producer {
    /// The connection, for tests that say something unusual.
    pub wire: Wire,
    /// Its producer group.
    pub group: String,
}

impl Producer {
    /// Connects and sends a heartbeat, as every client does before it sends.
    pub fn connect(broker: SocketAddr, group: &str) -> Self {
        let mut producer = Self { wire: Wire::connect(broker), group: group.to_owned() };
        producer.heartbeat();
        producer
    }

    /// Connects without a heartbeat: its first send makes it known. `None` when nobody is there.
    pub fn try_connect(broker: SocketAddr, group: &str) -> Option<Self> {
        Some(Self { wire: Wire::try_connect(broker).ok()?, group: group.to_owned() })
    }

    /// Says that it lives.
    pub fn heartbeat(&mut self) {
        let body = format!(
            r#"{{"clientID":"{0}@test","producerDataSet":[{{"groupName":"{0}"}}],"consumerDataSet":[]}}"#,
            self.group
        );
        assert_eq!(self.wire.call(HEART_BEAT, &[], body.as_bytes()).code, SUCCESS, "a heartbeat is accepted");
    }

    /// Sends a message to a queue, with properties beyond the unique key as `(key, value)`.
    pub fn send(&mut self, topic: &str, queue: u32, body: &[u8], properties: &[(&str, &str)]) -> Sent {
        let key = unique_key();
        let request = self.send_request(topic, queue, 0, &key, body, properties);
        self.wire.send(&request);
        Sent::of(&self.wire.answer(request.opaque))
    }

    /// Sends a half message.
    pub fn half(&mut self, topic: &str, body: &[u8]) -> Half {
        self.half_with(topic, 0, body, &[])
    }

    /// Sends a half message to a queue, with further properties.
    pub fn half_with(&mut self, topic: &str, queue: u32, body: &[u8], properties: &[(&str, &str)]) -> Half {
        let (request, key) = self.half_request(topic, queue, body, properties);
        self.wire.send(&request);
        let reply = self.wire.answer(request.opaque);
        self.prepared(topic, key, &reply)
    }

    /// A half message that is not sent yet, and its unique key.
    pub fn half_request(
        &mut self,
        topic: &str,
        queue: u32,
        body: &[u8],
        more: &[(&str, &str)],
    ) -> (RemotingCommand, String) {
        let key = unique_key();
        let group = self.group.clone();
        let mut properties = vec![("TRAN_MSG", "true"), ("PGROUP", group.as_str())];
        properties.extend_from_slice(more);
        (self.send_request(topic, queue, 4, &key, body, &properties), key)
    }

    /// An ordinary message that is not sent yet, and its unique key.
    pub fn message_request(&mut self, topic: &str, queue: u32, body: &[u8]) -> (RemotingCommand, String) {
        let key = unique_key();
        (self.send_request(topic, queue, 0, &key, body, &[]), key)
    }

    /// What a producer keeps of the answer to a half message.
    pub fn prepared(&self, topic: &str, key: String, reply: &RemotingCommand) -> Half {
        let sent = Sent::of(reply);
        Half {
            group: self.group.clone(),
            topic: topic.to_owned(),
            key,
            log_offset: sent.physical_offset(),
            table_offset: sent.queue_offset,
        }
    }

    /// Sends a message and takes whatever is answered: the answer's code, and why.
    pub fn try_send(&mut self, topic: &str, queue: u32, body: &[u8]) -> (i32, String) {
        let request = self.send_request(topic, queue, 0, &unique_key(), body, &[]);
        self.wire.send(&request);
        let reply = self.wire.answer(request.opaque);
        (reply.code, reply.remark.unwrap_or_default())
    }

    /// Sends a message until it is taken: small segments fill faster than new ones are prepared.
    pub fn send_when_there_is_room(&mut self, topic: &str, queue: u32, body: &[u8]) {
        wait::until("there is room for a message", || {
            let (code, remark) = self.try_send(topic, queue, body);
            assert!(code == SUCCESS || code == SYSTEM_BUSY, "{code}: {remark}");
            (code == SUCCESS).then_some(())
        });
    }

    fn send_request(
        &mut self,
        topic: &str,
        queue: u32,
        sys_flag: u32,
        key: &str,
        body: &[u8],
        properties: &[(&str, &str)],
    ) -> RemotingCommand {
        let mut text = format!("UNIQ_KEY\u{1}{key}\u{2}WAIT\u{1}true\u{2}");
        for (name, value) in properties {
            text.push_str(&format!("{name}\u{1}{value}\u{2}"));
        }
        let group = self.group.clone();
        let fields: Fields<'_> = &[
            ("a", &group),
            ("b", topic),
            ("c", "TBW102"),
            ("d", "4"),
            ("e", &queue.to_string()),
            ("f", &sys_flag.to_string()),
            ("g", "1700000000000"),
            ("h", "0"),
            ("i", &text),
            ("j", "0"),
            ("k", "false"),
            ("m", "false"),
        ];
        self.wire.request(SEND_MESSAGE_V2, fields, body)
    }

    /// Ends a transaction and returns the broker's answer.
    pub fn end(&mut self, half: &Half, verdict: Verdict) -> RemotingCommand {
        let request = self.end_request(half, verdict, false);
        self.wire.send(&request);
        self.wire.answer(request.opaque)
    }

    /// Ends a transaction one-way, as Java does.
    pub fn end_oneway(&mut self, half: &Half, verdict: Verdict, from_check: bool) {
        let request = self.end_request(half, verdict, from_check).oneway();
        self.wire.send(&request);
    }

    /// An END that is not sent yet.
    pub fn end_request(&mut self, half: &Half, verdict: Verdict, from_check: bool) -> RemotingCommand {
        let fields: Fields<'_> = &[
            ("producerGroup", &half.group),
            ("tranStateTableOffset", &half.table_offset.to_string()),
            ("commitLogOffset", &half.log_offset.to_string()),
            ("commitOrRollback", verdict.flag()),
            ("fromTransactionCheck", if from_check { "true" } else { "false" }),
            ("msgId", &half.key),
            ("transactionId", &half.key),
        ];
        self.wire.request(END_TRANSACTION, fields, b"")
    }

    /// Waits for a check-back and returns the transaction it names.
    pub fn asked(&mut self, within: Duration) -> Option<Half> {
        let check = self.wire.asked(CHECK_TRANSACTION_STATE, within)?;
        let field = |name: &str| {
            check.ext_value(name).unwrap_or_else(|| panic!("a check-back has {name}")).to_owned()
        };
        let number = |name: &str| field(name).parse().unwrap_or_else(|_| panic!("{name} is a number"));
        Some(Half {
            group: self.group.clone(),
            topic: crate::consumer::messages(&check.body)[0].topic.clone(),
            key: field("msgId"),
            log_offset: number("commitLogOffset"),
            table_offset: number("tranStateTableOffset"),
        })
    }
}

/// A unique key that no other message of this test program has.
pub fn unique_key() -> String {
    format!("{:016X}{:016X}", std::process::id(), KEYS.fetch_add(1, Ordering::Relaxed))
}
