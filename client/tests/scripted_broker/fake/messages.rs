//! Stored messages as a broker delivers them.

use mezzo_protocol::ids::{PhysicalOffset, QueueId, QueueOffset};
use mezzo_protocol::message::properties;
use mezzo_protocol::message::record::{self, Delivery, MessageParts};
use mezzo_protocol::message::sys_flag::{SysFlag, TransactionBits};
use mezzo_protocol::remoting::header::check_transaction_state::CheckTransactionStateHeader;
use mezzo_protocol::remoting::{RemotingCommand, RequestCode};
use mezzo_protocol::time::Timestamp;

fn delivered(
    topic: &str,
    queue: u32,
    offset: u64,
    properties: &str,
    (sys_flag, body): (SysFlag, &[u8]),
) -> Vec<u8> {
    let parts = MessageParts {
        topic,
        queue_id: QueueId(queue),
        flag: 0,
        sys_flag,
        born_timestamp: Timestamp::from_ms(1),
        born_host: "127.0.0.1:1".parse().unwrap(),
        store_host_v6: false,
        reconsume_times: 0,
        body,
        properties: properties.as_bytes(),
    };
    let mut bytes = Vec::new();
    record::encode(&parts, &mut bytes).unwrap();
    let delivery = Delivery {
        queue_offset: QueueOffset(offset),
        physical_offset: PhysicalOffset(offset * 100),
        store_timestamp: Timestamp::from_ms(2),
        store_host: "127.0.0.1:2".parse().unwrap(),
        prepared_transaction_offset: PhysicalOffset(0),
        transaction: TransactionBits::Not,
    };
    record::patch(&mut bytes, &delivery).unwrap();
    bytes
}

/// A plain message.
pub(crate) fn record(topic: &str, queue: u32, offset: u64, tag: &str, body: &str) -> Vec<u8> {
    let key = format!("{topic}-{queue}-{offset}");
    let properties = properties::encode([(properties::TAGS, tag), (properties::UNIQUE_KEY, &key)]).unwrap();
    delivered(topic, queue, offset, &properties, (SysFlag::NONE, body.as_bytes()))
}

/// A message whose body is zlib data.
pub(crate) fn compressed_record(topic: &str, queue: u32, offset: u64, zlib: &[u8]) -> Vec<u8> {
    delivered(topic, queue, offset, "", (SysFlag::COMPRESSED, zlib))
}

/// A half message of `group`.
fn half_record(group: &str, unique_key: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let usual = [
        (properties::TRANSACTION_PREPARED, "true"),
        (properties::PRODUCER_GROUP, group),
        (properties::UNIQUE_KEY, unique_key),
        (properties::REAL_TOPIC, "orders"),
    ];
    let properties = properties::encode(usual.into_iter().chain(more.iter().copied()));
    delivered("RMQ_SYS_TRANS_HALF_TOPIC", 0, 7, &properties.unwrap(), (SysFlag::NONE, b"half"))
}

/// The broker's question about a half message.
pub(crate) fn check_back(group: &str, unique_key: &str) -> RemotingCommand {
    check_back_with(group, unique_key, &[])
}

/// The same about one with further properties.
pub(crate) fn check_back_with(group: &str, unique_key: &str, more: &[(&str, &str)]) -> RemotingCommand {
    let header = CheckTransactionStateHeader {
        topic: None,
        tran_state_table_offset: 7,
        commit_log_offset: 700,
        msg_id: Some(unique_key.into()),
        transaction_id: Some("tx-id".into()),
        offset_msg_id: None,
    };
    let body = half_record(group, unique_key, more);
    RemotingCommand::request(RequestCode::CHECK_TRANSACTION_STATE, header.encode(), body).oneway()
}
