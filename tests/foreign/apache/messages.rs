//! Messages as Apache's broker stores and delivers them.

use std::net::SocketAddr;

use mezzo_protocol::ids::{OffsetMessageId, PhysicalOffset, QueueId, QueueOffset};
use mezzo_protocol::message::properties;
use mezzo_protocol::message::record::{Delivery, MessageParts, encode, patch};
use mezzo_protocol::message::sys_flag::{SysFlag, TransactionBits};
use mezzo_protocol::time::{Clock as _, Timestamp};

use super::words::in_java_order;

/// A message before it has a place.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) topic: String,
    pub(super) queue: u32,
    pub(super) flag: i32,
    pub(super) sys_flag: i32,
    pub(super) born_ms: i64,
    pub(super) born_host: SocketAddr,
    pub(super) reconsume_times: i32,
    pub(super) properties: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) prepared_at: u64,
}

/// One that has.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) draft: Draft,
    pub(super) offset: u64,
    pub(super) position: u64,
    pub(super) stored_ms: i64,
    pub(super) bytes: Vec<u8>,
}

impl Draft {
    pub(super) fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn set(&mut self, name: &str, value: impl ToString) {
        self.properties.push((name.to_owned(), value.to_string()));
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.properties.retain(|(known, _)| known != name);
    }

    /// The message at a place of the log.
    pub(super) fn store(self, offset: u64, position: u64, host: SocketAddr, now: Timestamp) -> Stored {
        let bytes = self.bytes(offset, position, host, now);
        Stored { offset, position, stored_ms: now.as_wire_ms(), bytes, draft: self }
    }

    fn bytes(&self, offset: u64, position: u64, host: SocketAddr, now: Timestamp) -> Vec<u8> {
        let properties = written(&self.properties);
        let parts = MessageParts {
            topic: &self.topic,
            queue_id: QueueId(self.queue),
            flag: self.flag,
            sys_flag: SysFlag(self.sys_flag),
            born_timestamp: Timestamp::from_ms(self.born_ms.unsigned_abs()),
            born_host: self.born_host,
            store_host_v6: false,
            reconsume_times: self.reconsume_times,
            body: &self.body,
            properties: properties.as_bytes(),
        };
        let mut bytes = Vec::new();
        encode(&parts, &mut bytes).unwrap();
        let delivery = Delivery {
            queue_offset: QueueOffset(offset),
            physical_offset: PhysicalOffset(position),
            store_timestamp: now,
            store_host: host,
            prepared_transaction_offset: PhysicalOffset(self.prepared_at),
            transaction: SysFlag(self.sys_flag).transaction(),
        };
        patch(&mut bytes, &delivery).unwrap();
        bytes
    }
}

impl Stored {
    /// The broker's id of the message.
    pub(super) fn id(&self, host: SocketAddr) -> String {
        OffsetMessageId::new(host, PhysicalOffset(self.position)).encode()
    }

    /// The question about a half: the message written anew, for the topic that it is meant for.
    pub(super) fn asked(&self, topic: &str, queue: u32, host: SocketAddr) -> Vec<u8> {
        let mut draft = self.draft.clone();
        (draft.topic, draft.queue) = (topic.to_owned(), queue);
        draft.bytes(self.offset, self.position, host, Timestamp::from_ms(self.stored_ms.unsigned_abs()))
    }
}

/// Properties from their wire form.
pub(super) fn read(encoded: &[u8]) -> Vec<(String, String)> {
    properties::iter(encoded).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Their wire form as a table of Java's gives them, with no separator behind the last.
fn written(pairs: &[(String, String)]) -> String {
    let pairs = in_java_order(pairs, 128);
    pairs.iter().map(|(name, value)| format!("{name}\u{1}{value}")).collect::<Vec<_>>().join("\u{2}")
}

/// The system flag of a message that is no longer part of a transaction, or committed.
pub(super) const fn with_transaction(bits: i32, transaction: TransactionBits) -> i32 {
    SysFlag(bits).with_transaction(transaction).bits()
}

/// Now, by the system's clock.
pub(super) fn now() -> Timestamp {
    mezzo_client::SystemClock.now()
}
