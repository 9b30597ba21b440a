//! Any bytes as a history file: a footer is read or refused, pages are read or refused, and rows come back as written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mezzo_storage::format::history_file::{
    HISTORY_FOOTER_BYTES, HISTORY_PAGE_BYTES, HistoryFooter, encode_history,
};
use mezzo_storage::format::history_row::{HISTORY_ROW_BYTES, HistoryRow};

/// Every row of a whole file, or nothing where a page is damaged.
fn rows(footer: &HistoryFooter, file: &[u8]) -> Option<Vec<HistoryRow>> {
    let mut found = Vec::new();
    for page in 0..footer.row_pages() {
        let bytes = file.get(page as usize * HISTORY_PAGE_BYTES..)?.first_chunk()?;
        found.extend(footer.rows_of(page, bytes).ok()?);
    }
    for page in 0..footer.index_pages() {
        let at = (footer.row_pages() + page) as usize * HISTORY_PAGE_BYTES;
        footer.index_of(page, file.get(at..)?.first_chunk()?).ok()?;
    }
    Some(found)
}

fuzz_target!(|data: &[u8]| {
    let footer_at = data.len().saturating_sub(HISTORY_FOOTER_BYTES);
    if let Ok(footer) = HistoryFooter::parse(&data[footer_at..]) {
        // a footer may announce more than there is
        if footer.file_bytes() <= data.len() as u64 {
            let _ = rows(&footer, data);
        }
    }
    let mut given: Vec<_> =
        data.chunks_exact(HISTORY_ROW_BYTES).filter_map(|row| HistoryRow::decode(row).ok()).collect();
    given.sort_by_key(|row| row.origin);
    given.dedup_by_key(|row| row.origin);
    if given.is_empty() {
        return;
    }
    let (file, footer) = encode_history(7, &mut given);
    assert_eq!(footer.file_bytes(), file.len() as u64);
    assert_eq!(HistoryFooter::parse(&file[file.len() - HISTORY_FOOTER_BYTES..]), Ok(footer));
    assert_eq!(rows(&footer, &file), Some(given));
});
