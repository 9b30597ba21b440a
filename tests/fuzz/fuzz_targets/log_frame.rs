//! Any bytes as a frame: refused as they are, and with checksums put right read or refused record by record.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mezzo_storage::format::frame::{FRAME_HEADER_BYTES, Frame, FrameHeader, FrameKind, announced_length};
use mezzo_storage::format::record::{LogSeed, RECORD_HEADER_BYTES, RecordHead, RecordHeader, RecordKind};

const POSITION: u64 = 1 << 20;
const FRAME_BYTES_MAX: u32 = 8 << 20;

fuzz_target!(|data: &[u8]| {
    let seed = LogSeed::from_nonce(&[7; 16]);
    if let Some(length) = announced_length(data, FRAME_BYTES_MAX) {
        let _ = data.get(..length).map(|bytes| Frame::parse(seed, POSITION, bytes).is_ok());
    }
    let _ = Frame::parse(seed, POSITION, data);

    // one record per chunk: its kind, its flags, its length, its payload
    let mut rest = data;
    let (mut records, mut crcs, mut made) = (Vec::new(), Vec::new(), 0);
    while let Some(([kind, flags, length], behind)) = rest.split_first_chunk::<3>() {
        let (payload, behind) = behind.split_at(usize::from(*length).min(behind.len()));
        rest = behind;
        let Ok(kind) = RecordKind::from_u8(*kind) else { continue };
        let head = RecordHead::new(seed, kind, u16::from(*flags), &[payload]);
        let header = RecordHeader {
            length: u32::try_from(payload.len()).expect("at most 255"),
            kind: kind.as_u8(),
            version: head.version,
            flags: head.flags,
            crc: head.crc,
        };
        records.extend_from_slice(&header.to_bytes());
        records.extend_from_slice(payload);
        crcs.extend_from_slice(&head.crc.to_le_bytes());
        made += 1;
    }
    let length = u32::try_from(FRAME_HEADER_BYTES + records.len()).expect("a fuzz input is small");
    let header =
        FrameHeader { kind: FrameKind::Records, length, term: 1, index: 2, time_ms: 3, synced_to: POSITION };
    let mut frame = header.to_bytes(seed, POSITION, &crcs).to_vec();
    frame.extend_from_slice(&records);
    let read = Frame::parse(seed, POSITION, &frame).expect("a frame with its checksums right is one");
    assert_eq!(read.records().count(), made);
    assert!(read.records().all(|record| record.payload.len() + RECORD_HEADER_BYTES <= frame.len()));
    // and at another place it is none: a position is part of the checksum
    assert!(Frame::parse(seed, POSITION + 8, &frame).is_err());
});
