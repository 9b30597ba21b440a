//! Rows of open transactions and due messages. Each section begins with the names of `names.rs`.
//!
//! ```text
//! open, 88 bytes: origin u64, location u64, key hash u64, prepared_at_ms u64, touched_at_ms u64, delay_ms u64,
//!                 last event u64, size u32, tag hash i32, asks u32, immunity_ms u32, queue u32, group u32, policy parts u32,
//!                 flags u8 (1 in doubt, 2 delayed), reserved 3 bytes
//! due, 36 bytes:  due_ms u64, position u64, location u64, size u32, tag hash i32, queue u32
//! ```

use super::format_error;
use super::names::{Names, Numbering};
use crate::error::StorageError;
use crate::format::cursor::Cursor;
use crate::state::due::DueRow;
use crate::state::ledger::Ledger;
use crate::state::transactions::OpenRow;

const IN_DOUBT: u8 = 1;
const DELAYED: u8 = 2;

pub(super) fn encode_open(ledger: &Ledger, out: &mut Vec<u8>) {
    let mut numbering = Numbering::default();
    let mut rows = Vec::with_capacity(ledger.open.len() * 88);
    for row in ledger.open.iter() {
        let Some(group) = ledger.open.groups().name(row.group) else { continue };
        let delay_ms = ledger.delays.get(&row.origin).copied().unwrap_or(0);
        for word in [
            row.origin,
            row.location,
            row.key_hash,
            row.prepared_at_ms,
            row.touched_at_ms,
            delay_ms,
            row.last_event,
        ] {
            rows.extend_from_slice(&word.to_le_bytes());
        }
        rows.extend_from_slice(&row.size.to_le_bytes());
        rows.extend_from_slice(&row.tag_hash.to_le_bytes());
        let wish = numbering.wish(ledger.open.policies().wish(row.wish));
        for half in [row.asks, row.immunity_ms, numbering.queue(row.queue), numbering.group(group), wish] {
            rows.extend_from_slice(&half.to_le_bytes());
        }
        let flags = (if row.in_doubt { IN_DOUBT } else { 0 }) | (if row.delayed { DELAYED } else { 0 });
        rows.extend_from_slice(&[flags, 0, 0, 0]);
    }
    numbering.encode(ledger, out);
    out.extend_from_slice(&rows);
}

pub(super) fn restore_open(ledger: &mut Ledger, bytes: &[u8]) -> Result<(), StorageError> {
    if bytes.is_empty() {
        return Ok(());
    }
    let bad = format_error("open transactions");
    let mut cursor = Cursor::new("open transactions", bytes);
    let names = Names::decode(ledger, &mut cursor)?;
    while !cursor.is_empty() {
        let mut word = || cursor.u64().map_err(&bad);
        let (origin, location, key_hash) = (word()?, word()?, word()?);
        let (prepared_at_ms, touched_at_ms, delay_ms, last_event) = (word()?, word()?, word()?, word()?);
        let size = cursor.u32().map_err(&bad)?;
        let tag_hash = cursor.i32().map_err(&bad)?;
        let mut half = || cursor.u32().map_err(&bad);
        let (asks, immunity_ms, queue, group, wish) = (half()?, half()?, half()?, half()?, half()?);
        let flags = cursor.u8().map_err(&bad)?;
        cursor.take(3).map_err(&bad)?;
        let queue = names.queue(queue)?;
        queue.open_added();
        let delayed = flags & DELAYED != 0;
        if delayed {
            ledger.delays.insert(origin, delay_ms);
        }
        let row = OpenRow {
            origin,
            location,
            size,
            queue: queue.symbol(),
            group: 0,
            tag_hash,
            key_hash,
            prepared_at_ms,
            touched_at_ms,
            last_event,
            asks,
            immunity_ms,
            wish: 0,
            in_doubt: flags & IN_DOUBT != 0,
            delayed,
            been_due: false,
        };
        ledger.segments.opened(location, size);
        ledger.open.insert(row, names.group(group)?, names.wish(wish)?);
    }
    Ok(())
}

pub(super) fn encode_due(ledger: &Ledger, out: &mut Vec<u8>) {
    let mut numbering = Numbering::default();
    let mut rows = Vec::with_capacity(ledger.due.len() * 36);
    for (due_ms, position, row) in ledger.due.iter() {
        for word in [due_ms, position, row.location] {
            rows.extend_from_slice(&word.to_le_bytes());
        }
        rows.extend_from_slice(&row.size.to_le_bytes());
        rows.extend_from_slice(&row.tag_hash.to_le_bytes());
        rows.extend_from_slice(&numbering.queue(row.queue).to_le_bytes());
    }
    numbering.encode(ledger, out);
    out.extend_from_slice(&rows);
}

pub(super) fn restore_due(ledger: &mut Ledger, bytes: &[u8]) -> Result<(), StorageError> {
    if bytes.is_empty() {
        return Ok(());
    }
    let bad = format_error("due messages");
    let mut cursor = Cursor::new("due messages", bytes);
    let names = Names::decode(ledger, &mut cursor)?;
    while !cursor.is_empty() {
        let mut word = || cursor.u64().map_err(&bad);
        let (due_ms, position, location) = (word()?, word()?, word()?);
        let size = cursor.u32().map_err(&bad)?;
        let tag_hash = cursor.i32().map_err(&bad)?;
        let queue = names.queue(cursor.u32().map_err(&bad)?)?;
        queue.open_added();
        let row = DueRow { location, size, queue: queue.symbol(), tag_hash };
        ledger.segments.opened(location, size);
        ledger.due.insert(due_ms, position, row);
    }
    Ok(())
}
