//! Any payload of any record kind is read or refused; what is read can be written and means the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mezzo_storage::format::record::{
    Asks, Carried, Decision, Group, Jump, LayoutRecord, Lease, MessagePayload, Offsets, Parked, Policy,
    RecordKind, Resumed, Start, Tick, Topic,
};

/// Reads, writes, reads again.
macro_rules! round {
    ($payload:ty, $flags:expr, $bytes:expr) => {{
        if let Ok(read) = <$payload>::decode($flags, $bytes) {
            let mut written = Vec::new();
            read.encode(&mut written);
            assert_eq!(<$payload>::decode($flags, &written).as_ref(), Ok(&read));
        }
    }};
}

fuzz_target!(|data: &[u8]| {
    let Some(([kind, low, high], payload)) = data.split_first_chunk::<3>() else { return };
    let flags = u16::from_le_bytes([*low, *high]);
    let Ok(kind) = RecordKind::from_u8(*kind) else { return };
    round!(Asks, flags, payload);
    round!(Carried<'_>, flags, payload);
    round!(Group<'_>, flags, payload);
    round!(Jump, flags, payload);
    round!(LayoutRecord, flags, payload);
    round!(Lease<'_>, flags, payload);
    round!(Offsets<'_>, flags, payload);
    round!(Parked, flags, payload);
    round!(Policy<'_>, flags, payload);
    round!(Resumed, flags, payload);
    round!(Start<'_>, flags, payload);
    round!(Tick, flags, payload);
    round!(Topic<'_>, flags, payload);
    if let Ok(decision) = Decision::decode(flags, payload) {
        // which parts there are is said by flags, and it writes those that it knows
        let mut written = Vec::new();
        decision.encode(&mut written);
        assert_eq!(Decision::decode(decision.flags(), &written).as_ref(), Ok(&decision));
    }
    if let Ok(message) = MessagePayload::decode(kind, flags, payload) {
        let mut written = Vec::new();
        message.encode(&mut written);
        assert_eq!(MessagePayload::decode(kind, flags, &written), Ok(message));
    }
});
