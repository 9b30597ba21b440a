//! Any bytes as a base or checkpoint: refused, or read whole. Sections with their checksums right come back as written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mezzo_storage::format::state_file::{SectionKind, StateFile, StateFileBuilder, StateHeader};

fuzz_target!(|data: &[u8]| {
    if let Ok(file) = StateFile::parse(data) {
        let _ = file.section(SectionKind::from_u32(1).expect("the first kind"));
    }
    let Ok((header, _)) = StateHeader::parse(data) else { return };
    let mut builder = StateFileBuilder::new(header);
    let mut sections = Vec::new();
    for (number, part) in data.chunks(97).enumerate() {
        let Ok(kind) = SectionKind::from_u32(u32::try_from(number).unwrap_or(u32::MAX)) else { continue };
        builder.section(kind, |out| out.extend_from_slice(part));
        sections.push((kind, part));
    }
    let written = builder.finish();
    let file = StateFile::parse(&written).expect("a file that was written is read");
    for (kind, part) in sections {
        assert_eq!(file.section(kind), part);
    }
});
