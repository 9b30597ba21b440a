//! Any bytes as the body of a batch: what is read can be written and gives the same bytes but for what nobody reads.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mezzo_protocol::message::batch::{decode, encode};
use mezzo_protocol::message::properties;

fuzz_target!(|data: &[u8]| {
    let Ok(messages) = decode(data).collect::<Result<Vec<_>, _>>() else { return };
    let mut written = Vec::new();
    for message in &messages {
        let _ = properties::iter(message.properties).count();
        assert_eq!(encode(message, &mut written), Ok(()));
    }
    assert_eq!(written.len(), data.len());
    let Ok(again) = decode(&written).collect::<Result<Vec<_>, _>>() else {
        panic!("what is written is read")
    };
    assert_eq!(again, messages);
});
