//! Golden bytes for all four host combinations, round trips, and any bytes.

use std::net::SocketAddr;

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::error::{DecodeError, EncodeError};
use crate::ids::{PhysicalOffset, QueueId, QueueOffset};
use crate::limits::{BODY_BYTES_MAX, GROUP_TOPIC_BYTES_MAX, PROPERTIES_BYTES_MAX, RECORD_BYTES_MAX};
use crate::message::properties;
use crate::message::sys_flag::{SysFlag, TransactionBits};
use crate::time::Timestamp;

const BORN_V4: &str = "10.1.2.3:5000";
const BORN_V6: &str = "[2001:db8::7]:5000";
const STORE_V4: &str = "127.0.0.1:10911";
const STORE_V6: &str = "[fe80::1]:10911";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn parts<'a>(born_host: &str, store_host_v6: bool) -> MessageParts<'a> {
    MessageParts {
        topic: "orders",
        queue_id: QueueId(3),
        flag: 9,
        // The writer must not believe the host bits of the sender.
        sys_flag: SysFlag::TRANSACTION_PREPARED
            .with(SysFlag::COMPRESSED)
            .with(SysFlag::BORNHOST_V6)
            .with(SysFlag::STOREHOST_V6),
        born_timestamp: Timestamp::from_ms(0x0102_0304_0506),
        born_host: address(born_host),
        store_host_v6,
        reconsume_times: 2,
        body: b"hello",
        properties: b"TAGS\x01a\x02",
    }
}

fn delivery(store_host: &str) -> Delivery {
    Delivery {
        queue_offset: QueueOffset(0x11),
        physical_offset: PhysicalOffset(0x22_3344),
        store_timestamp: Timestamp::from_ms(0x0A0B_0C0D_0E0F),
        store_host: address(store_host),
        prepared_transaction_offset: PhysicalOffset(0x55),
        transaction: TransactionBits::Commit,
    }
}

/// The parts of a golden message that differ between the combinations, as hex.
struct Golden {
    total: &'static str,
    stored_flag: &'static str,
    delivered_flag: &'static str,
    born_host: &'static str,
    store_host: &'static str,
}

const GOLDEN_V4_V4: Golden = Golden {
    total: "0000006d",
    stored_flag: "00000005",
    delivered_flag: "00000009",
    born_host: "0a010203 00001388",
    store_host: "7f000001 00002a9f",
};
const GOLDEN_V6_V4: Golden = Golden {
    total: "00000079",
    stored_flag: "00000015",
    delivered_flag: "00000019",
    born_host: "20010db8000000000000000000000007 00001388",
    store_host: "7f000001 00002a9f",
};
const GOLDEN_V4_V6: Golden = Golden {
    total: "00000079",
    stored_flag: "00000025",
    delivered_flag: "00000029",
    born_host: "0a010203 00001388",
    store_host: "fe800000000000000000000000000001 00002a9f",
};
const GOLDEN_V6_V6: Golden = Golden {
    total: "00000085",
    stored_flag: "00000035",
    delivered_flag: "00000039",
    born_host: "20010db8000000000000000000000007 00001388",
    store_host: "fe800000000000000000000000000001 00002a9f",
};

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

impl Golden {
    fn stored(&self) -> Vec<u8> {
        let zero_host = "0".repeat(self.store_host.len() - 1); // one blank less
        self.bytes(self.stored_flag, ["0000000000000000"; 4], &zero_host)
    }

    fn delivered(&self) -> Vec<u8> {
        let fields = ["0000000000000011", "0000000000223344", "00000a0b0c0d0e0f", "0000000000000055"];
        self.bytes(self.delivered_flag, fields, self.store_host)
    }

    fn bytes(&self, flag: &str, fields: [&str; 4], store_host: &str) -> Vec<u8> {
        let Self { total, born_host, .. } = self;
        let [queue_offset, physical_offset, store_time, prepared_offset] = fields;
        let (magic, crc, queue, app_flag) = ("daa320a7", "3610a686", "00000003", "00000009");
        let (born_time, reconsume) = ("0000010203040506", "00000002");
        let (body, topic, properties) = ("00000005 68656c6c6f", "06 6f7264657273", "0007 54414753016102");
        from_hex(&format!(
            "{total}{magic}{crc}{queue}{app_flag}{queue_offset}{physical_offset}{flag}{born_time}{born_host}\
             {store_time}{store_host}{reconsume}{prepared_offset}{body}{topic}{properties}"
        ))
    }
}

fn check_golden(golden: &Golden, born_host: &str, store_host: &str) {
    let parts = parts(born_host, address(store_host).is_ipv6());
    let mut bytes = b"before".to_vec();
    encode(&parts, &mut bytes).unwrap();
    let mut bytes = bytes.split_off(6);
    assert_eq!(bytes, golden.stored());
    assert_eq!(bytes.len(), encoded_len(&parts));

    let stored = MessageView::parse(&bytes).unwrap();
    assert_eq!(stored.queue_offset(), QueueOffset(0));
    assert_eq!(stored.physical_offset(), PhysicalOffset(0));
    assert_eq!(stored.store_timestamp(), Timestamp::ZERO);
    assert!(stored.store_host().ip().is_unspecified());
    assert_eq!(stored.store_host().port(), 0);
    assert_eq!(stored.prepared_transaction_offset(), PhysicalOffset(0));
    assert_eq!(stored.sys_flag().transaction(), TransactionBits::Prepared);

    let delivery = delivery(store_host);
    patch(&mut bytes, &delivery).unwrap();
    assert_eq!(bytes, golden.delivered());
    let view = MessageView::parse(&bytes).unwrap();
    assert_eq!(view.queue_offset(), delivery.queue_offset);
    assert_eq!(view.physical_offset(), delivery.physical_offset);
    assert_eq!(view.store_timestamp(), delivery.store_timestamp);
    assert_eq!(view.store_host(), delivery.store_host);
    assert_eq!(view.prepared_transaction_offset(), delivery.prepared_transaction_offset);
    assert_eq!(view.sys_flag().transaction(), TransactionBits::Commit);
    assert!(view.sys_flag().has(SysFlag::COMPRESSED));
    assert_eq!(view.born_host(), parts.born_host);
    assert_eq!(view.born_timestamp(), parts.born_timestamp);
    assert_eq!((view.queue_id(), view.flag(), view.reconsume_times()), (QueueId(3), 9, 2));
    assert_eq!((view.topic(), view.body(), view.tags()), ("orders", &b"hello"[..], Some("a")));
    view.verify_body_crc().unwrap();
}

#[test]
fn both_hosts_ipv4() {
    check_golden(&GOLDEN_V4_V4, BORN_V4, STORE_V4);
}

#[test]
fn producer_ipv6_broker_ipv4() {
    check_golden(&GOLDEN_V6_V4, BORN_V6, STORE_V4);
}

#[test]
fn producer_ipv4_broker_ipv6() {
    check_golden(&GOLDEN_V4_V6, BORN_V4, STORE_V6);
}

#[test]
fn both_hosts_ipv6() {
    check_golden(&GOLDEN_V6_V6, BORN_V6, STORE_V6);
}

#[test]
fn patching_twice_leaves_the_second_delivery() {
    let mut bytes = GOLDEN_V6_V6.stored();
    let again = Delivery { transaction: TransactionBits::Prepared, ..delivery("[::9]:1") };
    patch(&mut bytes, &again).unwrap();
    patch(&mut bytes, &delivery(STORE_V6)).unwrap();
    assert_eq!(bytes, GOLDEN_V6_V6.delivered());
}

#[test]
fn an_ipv4_broker_fits_room_for_ipv6_but_not_the_other_way_round() {
    let mut bytes = GOLDEN_V4_V6.stored();
    patch(&mut bytes, &delivery(STORE_V4)).unwrap();
    assert_eq!(MessageView::parse(&bytes).unwrap().store_host(), address("[::ffff:127.0.0.1]:10911"));
    let mut bytes = GOLDEN_V4_V4.stored();
    assert!(patch(&mut bytes, &delivery(STORE_V6)).is_err());
    assert_eq!(bytes, GOLDEN_V4_V4.stored(), "a refused delivery changes nothing");
    patch(&mut bytes, &delivery("[::ffff:127.0.0.1]:10911")).unwrap();
    assert_eq!(bytes, GOLDEN_V4_V4.delivered());
}

#[test]
fn an_ipv4_producer_in_ipv6_clothing_is_stored_as_ipv4() {
    let mut bytes = Vec::new();
    encode(&parts("[::ffff:10.1.2.3]:5000", false), &mut bytes).unwrap();
    assert_eq!(bytes, GOLDEN_V4_V4.stored());
}

#[test]
fn long_topics_use_the_second_magic() {
    for (length, magic) in [(127, MAGIC_V1), (128, MAGIC_V2), (GROUP_TOPIC_BYTES_MAX, MAGIC_V2)] {
        let topic = "t".repeat(length);
        let parts = MessageParts { topic: &topic, ..parts(BORN_V4, false) };
        let mut bytes = Vec::new();
        encode(&parts, &mut bytes).unwrap();
        assert_eq!(bytes.len(), encoded_len(&parts));
        assert_eq!(bytes[4..8], magic.to_be_bytes());
        patch(&mut bytes, &delivery(STORE_V4)).unwrap();
        assert_eq!(MessageView::parse(&bytes).unwrap().topic(), topic);
    }
}

#[test]
fn the_largest_message_is_within_the_bound_and_nothing_larger_is_written() {
    let (topic, body, properties) =
        ("t".repeat(GROUP_TOPIC_BYTES_MAX), vec![b'b'; BODY_BYTES_MAX], vec![b'p'; PROPERTIES_BYTES_MAX]);
    let largest =
        MessageParts { topic: &topic, body: &body, properties: &properties, ..parts(BORN_V6, true) };
    assert_eq!(encoded_len(&largest), RECORD_BYTES_MAX);

    let (longer_topic, longer_body, longer_properties) =
        (format!("{topic}t"), vec![0; BODY_BYTES_MAX + 1], vec![0; PROPERTIES_BYTES_MAX + 1]);
    for too_large in [
        MessageParts { topic: &longer_topic, ..largest },
        MessageParts { body: &longer_body, ..largest },
        MessageParts { properties: &longer_properties, ..largest },
    ] {
        let mut out = Vec::new();
        assert!(matches!(encode(&too_large, &mut out), Err(EncodeError::TooLong { .. })));
        assert!(out.is_empty());
    }
}

#[test]
fn a_changed_body_is_found_by_its_checksum() {
    let mut bytes = GOLDEN_V4_V4.stored();
    let body_at = bytes.windows(5).position(|window| window == b"hello").unwrap();
    bytes[body_at] ^= 1;
    let view = MessageView::parse(&bytes).unwrap();
    assert!(matches!(view.verify_body_crc(), Err(DecodeError::BadChecksum { .. })));
}

#[test]
fn checksums_have_no_sign_bit() {
    // CRC-32 of "a" is E8B7BE43; Java's field keeps 31 bits.
    assert_eq!(body_crc(b"a"), 0x68B7_BE43);
    assert_eq!(body_crc(b""), 0);
}

#[test]
fn wrong_lengths_and_magics_are_refused() {
    let good = GOLDEN_V4_V4.stored();
    for length in 0..good.len() {
        assert!(MessageView::parse(&good[..length]).is_err(), "cut at {length}");
        assert!(patch(&mut good[..length].to_vec(), &delivery(STORE_V4)).is_err(), "cut at {length}");
    }
    let mut wrong_magic = good.clone();
    wrong_magic[7] = 0xA8;
    assert!(matches!(MessageView::parse(&wrong_magic), Err(DecodeError::BadMagic { .. })));
    assert!(matches!(patch(&mut wrong_magic, &delivery(STORE_V4)), Err(DecodeError::BadMagic { .. })));
    let mut longer = good;
    longer[3] += 1;
    longer.push(0);
    assert!(matches!(MessageView::parse(&longer), Err(DecodeError::LengthMismatch { .. })));
}

#[test]
fn the_messages_of_a_pull_are_read_one_after_the_other() {
    let mut body = GOLDEN_V4_V4.delivered();
    body.extend(GOLDEN_V6_V6.delivered());
    let messages: Vec<_> = decode_delivered(&body).map(Result::unwrap).collect();
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[1].born_host(), address(BORN_V6));
    assert_eq!(messages[0].offset_message_id().encode(), "7F00000100002A9F0000000000223344");

    body.push(0);
    let last = decode_delivered(&body).last().unwrap();
    assert!(last.is_err());
    assert_eq!(decode_delivered(&body).count(), 3, "the walk ends behind an error");
}

fn any_host() -> impl Strategy<Value = SocketAddr> {
    (any::<std::net::IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port))
}

proptest! {
    #[test]
    fn what_is_stored_and_delivered_is_read(
        (topic, body, props) in ("[a-zA-Z0-9_%-]{1,255}", proptest::collection::vec(any::<u8>(), 0..300),
            proptest::collection::vec(any::<u8>(), 0..300)),
        (queue, flag, raw_sys_flag, reconsume_times) in (0..=i32::MAX as u32, any::<i32>(), any::<i32>(), any::<i32>()),
        (born, times) in (any_host(), proptest::array::uniform2(0..=i64::MAX as u64)),
        (store_host, positions) in (any_host(), proptest::array::uniform3(0..=i64::MAX as u64)),
    ) {
        let parts = MessageParts {
            topic: &topic, queue_id: QueueId(queue), flag, sys_flag: SysFlag(raw_sys_flag),
            born_timestamp: Timestamp::from_ms(times[0]), born_host: born, store_host_v6: store_host.is_ipv6(),
            reconsume_times, body: &body, properties: &props,
        };
        let mut bytes = Vec::new();
        encode(&parts, &mut bytes).unwrap();
        prop_assert_eq!(bytes.len(), encoded_len(&parts));
        let delivery = Delivery {
            queue_offset: QueueOffset(positions[0]), physical_offset: PhysicalOffset(positions[1]),
            store_timestamp: Timestamp::from_ms(times[1]), store_host,
            prepared_transaction_offset: PhysicalOffset(positions[2]), transaction: TransactionBits::Commit,
        };
        patch(&mut bytes, &delivery).unwrap();
        let view = MessageView::parse(&bytes).unwrap();
        view.verify_body_crc().unwrap();
        prop_assert_eq!((view.topic(), view.body(), view.properties()), (&*topic, &*body, &*props));
        prop_assert_eq!((view.queue_id(), view.flag(), view.reconsume_times()), (QueueId(queue), flag, reconsume_times));
        prop_assert_eq!((view.born_host(), view.store_host()), (born, store_host));
        prop_assert_eq!((view.born_timestamp(), view.store_timestamp()), (parts.born_timestamp, delivery.store_timestamp));
        prop_assert_eq!((view.queue_offset().0, view.physical_offset().0), (positions[0], positions[1]));
        let hosts = SysFlag::BORNHOST_V6.with(SysFlag::STOREHOST_V6);
        let expected = SysFlag(raw_sys_flag).with_transaction(TransactionBits::Commit).without(hosts);
        prop_assert_eq!(view.sys_flag().without(hosts), expected);
    }

    #[test]
    fn any_bytes_are_read_without_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), valid_start in any::<bool>()) {
        if valid_start {
            let golden = GOLDEN_V6_V4.stored();
            let kept = bytes.len().min(16);
            bytes.splice(..kept, golden.into_iter().take(kept));
            if let Some(length) = bytes.get_mut(..4) {
                length.copy_from_slice(&[0, 0, 0, 120]);
            }
        }
        for message in decode_delivered(&bytes).flatten() {
            prop_assert!(message.total_len() <= bytes.len());
            let _ = (message.verify_body_crc(), message.unique_key(), message.keys().count());
            prop_assert!(properties::iter(message.properties()).count() <= bytes.len());
        }
        let _ = patch(&mut bytes, &delivery(STORE_V4));
    }

    #[test]
    fn a_damaged_message_is_refused_or_still_within_its_bytes(at in 0_usize..121, value in any::<u8>()) {
        let mut bytes = GOLDEN_V6_V4.delivered();
        bytes[at] = value;
        if let Ok(view) = MessageView::parse(&bytes) {
            prop_assert_eq!(view.total_len(), bytes.len());
        }
        let _ = patch(&mut bytes, &delivery(STORE_V4));
    }
}

#[test]
fn a_delivered_message_gets_one_more_property_and_nothing_else_of_it_changes() {
    for (properties, after) in [
        ("", "R\u{1}here\u{2}"),
        ("TAGS\u{1}a\u{2}", "TAGS\u{1}a\u{2}R\u{1}here\u{2}"),
        ("TAGS\u{1}a", "TAGS\u{1}a\u{2}R\u{1}here\u{2}"),
        ("R\u{1}there\u{2}", "R\u{1}there\u{2}"),
    ] {
        let sent = MessageParts { properties: properties.as_bytes(), ..parts(BORN_V4, false) };
        let wanted = MessageParts { properties: after.as_bytes(), ..sent };
        let (mut before, mut expected) = (b"what is before it".to_vec(), b"what is before it".to_vec());
        let start = before.len();
        encode(&sent, &mut before).unwrap();
        encode(&wanted, &mut expected).unwrap();
        let mut out = BytesMut::from(&before[..]);
        add_property(&mut out, start, "R", "here").unwrap();
        assert_eq!(out, expected, "{properties:?}");
        assert!(add_property(&mut out, start + 1, "S", "here").is_err(), "no message begins there");
        assert_eq!(out, expected);
    }
}

#[test]
fn a_property_without_room_is_left_out() {
    for (used, fits) in [(PROPERTIES_BYTES_MAX - 4, true), (PROPERTIES_BYTES_MAX - 3, false)] {
        let properties = format!("A\u{1}{}\u{2}", "a".repeat(used - 3));
        let sent = MessageParts { properties: properties.as_bytes(), ..parts(BORN_V4, false) };
        let mut stored = Vec::new();
        encode(&sent, &mut stored).unwrap();
        let mut out = BytesMut::from(&stored[..]);
        add_property(&mut out, 0, "R", "r").unwrap();
        let view = MessageView::parse(&out).unwrap();
        assert_eq!(properties::find(view.properties(), "R").is_some(), fits, "{used}");
        assert_eq!(out == stored, !fits);
    }
}
