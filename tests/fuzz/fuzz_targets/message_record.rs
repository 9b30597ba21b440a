//! Any bytes as the body of a pull: messages lie within them, and a stored message takes a delivery or refuses it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mezzo_protocol::ids::{PhysicalOffset, QueueOffset};
use mezzo_protocol::message::record::{Delivery, MessageView, decode_delivered, patch};
use mezzo_protocol::message::sys_flag::TransactionBits;
use mezzo_protocol::time::Timestamp;

fuzz_target!(|data: &[u8]| {
    let mut walked = 0;
    for message in decode_delivered(data).flatten() {
        walked += message.total_len();
        let _ = (message.verify_body_crc(), message.unique_key(), message.tags(), message.keys().count());
    }
    assert!(walked <= data.len());

    let mut bytes = data.to_vec();
    let delivery = Delivery {
        queue_offset: QueueOffset(1),
        physical_offset: PhysicalOffset(2),
        store_timestamp: Timestamp::from_ms(3),
        store_host: ([127, 0, 0, 1], 10911).into(),
        prepared_transaction_offset: PhysicalOffset(4),
        transaction: TransactionBits::Commit,
    };
    let before =
        MessageView::parse(data).map(|view| (view.topic(), view.body(), view.properties(), view.born_host()));
    match (before, patch(&mut bytes, &delivery)) {
        (Ok(before), Ok(())) => {
            let Ok(view) = MessageView::parse(&bytes) else { panic!("a delivered message is a message") };
            assert_eq!((view.topic(), view.body(), view.properties(), view.born_host()), before);
            assert_eq!((view.queue_offset(), view.physical_offset()), (QueueOffset(1), PhysicalOffset(2)));
        }
        (_, Err(_)) => assert_eq!(bytes, data, "a refused delivery changes nothing"),
        (Err(_), Ok(())) => {}
    }
});
