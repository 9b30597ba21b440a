//! What happens to files: bytes change, files end early or vanish. With checksums put right where asked, so that what
//! lies behind them is reached.

use std::path::{Path, PathBuf};

use mezzo_storage::file_system::{FileSystem, OpenMode, SimulatedDisk};
use mezzo_storage::format::frame::{FRAME_HEADER_BYTES, Frame, announced_length};
use mezzo_storage::format::record::{LogSeed, RecordHead, RecordHeader};
use mezzo_storage::format::state_file::{SectionKind, StateFile, StateFileBuilder};

use super::{NONCE, options};

const FOLDERS: [&str; 5] = ["log", "base", "checkpoint", "queues", "history"];

/// Does one thing that `input` says. Returns whether there was anything left to say.
pub fn damage(disk: &SimulatedDisk, input: &mut &[u8]) -> bool {
    let Some(([what, folder, file, a, b, c, value, len], rest)) = input.split_first_chunk::<8>() else {
        return false;
    };
    *input = rest;
    let folder = FOLDERS[usize::from(*folder) % FOLDERS.len()];
    let Some(path) = pick(disk, folder, usize::from(*file)) else { return true };
    let Some(mut bytes) = read(disk, &path) else { return true };
    let at = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
    match what % 5 {
        0 => fill(&mut bytes, at, *value, usize::from(*len)),
        1 => bytes.truncate(at % (bytes.len() + 1)),
        2 => {
            // it is there: it was listed
            let _ = disk.remove(&path);
            return true;
        }
        3 if folder == "log" => frame_with_other_payload(&path, &mut bytes, at, *value, *len),
        3 | 4 if folder == "base" || folder == "checkpoint" => {
            bytes = sections_with_other_bytes(&bytes, at, *value, *len).unwrap_or(bytes);
        }
        _ => fill(&mut bytes, at & !511, 0, 512),
    }
    write(disk, &path, &bytes);
    true
}

fn pick(disk: &SimulatedDisk, folder: &str, number: usize) -> Option<PathBuf> {
    let dir = Path::new("/data").join(folder);
    let mut names = disk.list(&dir).unwrap_or_default();
    names.sort();
    let name = names.get(number % names.len().max(1))?;
    Some(dir.join(name))
}

fn read(disk: &SimulatedDisk, path: &Path) -> Option<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read).ok()?;
    let mut bytes = vec![0; usize::try_from(file.len().ok()?).ok()?];
    file.read_exact_at(&mut bytes, 0).ok()?;
    Some(bytes)
}

fn write(disk: &SimulatedDisk, path: &Path, bytes: &[u8]) {
    let file = disk.open(path, OpenMode::Create).expect("an endless disk");
    file.write_all_at(bytes, 0).expect("an endless disk");
    file.sync_all().expect("a sound disk");
}

fn fill(bytes: &mut [u8], at: usize, value: u8, len: usize) {
    let at = at % bytes.len().max(1);
    bytes.iter_mut().skip(at).take(len.max(1)).for_each(|byte| *byte = value);
}

/// Changes the payload of one record of a segment and puts the checksums of its frame right.
fn frame_with_other_payload(path: &Path, bytes: &mut [u8], at: usize, value: u8, len: u8) {
    let seed = LogSeed::from_nonce(&NONCE);
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Ok(first) = name.parse::<u64>() else { return };
    let mut frames = Vec::new();
    let mut place = 0;
    while let Some(length) = bytes.get(place..).and_then(|b| announced_length(b, options().frame_bytes_max)) {
        let position = first + place as u64;
        if bytes.get(place..place + length).is_none_or(|frame| Frame::parse(seed, position, frame).is_err()) {
            break;
        }
        frames.push((place, length));
        place += length;
    }
    let Some((place, length)) = frames.get(at % frames.len().max(1)).copied() else { return };
    let position = first + place as u64;
    let old = bytes[place..place + length].to_vec();
    let Ok(frame) = Frame::parse(seed, position, &old) else { return };
    let count = frame.records().count();
    let (mut records, mut crcs) = (Vec::new(), Vec::new());
    for (number, record) in frame.records().enumerate() {
        let mut payload = record.payload.to_vec();
        if number == at / 7 % count.max(1) {
            fill(&mut payload, at / 49, value, usize::from(len % 9));
        }
        let head = RecordHead::new(seed, record.kind, record.flags, &[&payload]);
        let header = RecordHeader {
            length: u32::try_from(payload.len()).expect("as it was"),
            kind: record.kind.as_u8(),
            version: head.version,
            flags: head.flags,
            crc: head.crc,
        };
        records.extend_from_slice(&header.to_bytes());
        records.extend_from_slice(&payload);
        crcs.extend_from_slice(&head.crc.to_le_bytes());
    }
    let header = frame.header.to_bytes(seed, position, &crcs);
    bytes[place..place + FRAME_HEADER_BYTES].copy_from_slice(&header);
    bytes[place + FRAME_HEADER_BYTES..place + length].copy_from_slice(&records);
}

/// Changes one section of a state file and puts its checksum right.
fn sections_with_other_bytes(bytes: &[u8], at: usize, value: u8, len: u8) -> Option<Vec<u8>> {
    let file = StateFile::parse(bytes).ok()?;
    let kinds: Vec<_> = (0..64).filter_map(|number| SectionKind::from_u32(number).ok()).collect();
    let chosen = *kinds.get(at % kinds.len())?;
    let mut builder = StateFileBuilder::new(file.header);
    for kind in kinds {
        let mut section = file.section(kind).to_vec();
        if kind == chosen {
            fill(&mut section, at / 16, value, usize::from(len % 9));
            if len > 250 {
                section.truncate(at / 16 % (section.len() + 1));
            }
        }
        builder.section(kind, |out| out.extend_from_slice(&section));
    }
    Some(builder.finish())
}
