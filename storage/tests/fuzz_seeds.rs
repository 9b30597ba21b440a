//! What fuzzing of log records begins with: of every kind of record there is a payload that is read, or a short run would
//! see little of it.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use mezzo_storage::format::record::{
    Asks, Carried, Decision, Group, Jump, LayoutRecord, Lease, MessagePayload, Offsets, Parked, Policy,
    RecordKind, Resumed, Start, Tick, Topic,
};

fn is_read(kind: RecordKind, flags: u16, payload: &[u8]) -> bool {
    match kind {
        RecordKind::Message | RecordKind::Prepared | RecordKind::Due => {
            MessagePayload::decode(kind, flags, payload).is_ok()
        }
        RecordKind::Decision => Decision::decode(flags, payload).is_ok(),
        RecordKind::Tick => Tick::decode(flags, payload).is_ok(),
        RecordKind::Asks => Asks::decode(flags, payload).is_ok(),
        RecordKind::Parked => Parked::decode(flags, payload).is_ok(),
        RecordKind::Carried => Carried::decode(flags, payload).is_ok(),
        RecordKind::Offsets => Offsets::decode(flags, payload).is_ok(),
        RecordKind::Topic => Topic::decode(flags, payload).is_ok(),
        RecordKind::Group => Group::decode(flags, payload).is_ok(),
        RecordKind::Lease => Lease::decode(flags, payload).is_ok(),
        RecordKind::Start => Start::decode(flags, payload).is_ok(),
        RecordKind::Layout => LayoutRecord::decode(flags, payload).is_ok(),
        RecordKind::Jump => Jump::decode(flags, payload).is_ok(),
        RecordKind::Resumed => Resumed::decode(flags, payload).is_ok(),
        RecordKind::Policy => Policy::decode(flags, payload).is_ok(),
    }
}

#[test]
fn every_kind_of_record_stands_among_the_seeds() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/seeds/log_records");
    let mut missing: BTreeSet<_> = RecordKind::ALL.map(RecordKind::as_u8).into();
    for seed in fs::read_dir(dir).unwrap() {
        let path = seed.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let Some(([number, low, high], payload)) = bytes.split_first_chunk::<3>() else { continue };
        let Ok(kind) = RecordKind::from_u8(*number) else { continue };
        if is_read(kind, u16::from_le_bytes([*low, *high]), payload) {
            missing.remove(number);
        }
    }
    assert!(missing.is_empty(), "no seed of kind {missing:?}");
}
