//! What open transactions of many messages have beyond their rows. The section begins with the names of `names.rs`.
//!
//! ```text
//! per transaction: origin u64, id string, bytes u64, first message length u32, first body crc u32,
//!                  count u32 of the messages that joined, in the order of their prepares, 52 bytes each:
//!   position u64, location u64, delay_ms u64, size u32, tag hash i32, queue u32, message length u32, body crc u32,
//!   flags u8 (1 delayed), reserved 3 bytes
//! ```

use mezzo_protocol::ids::TransactionId;

use super::names::{Names, Numbering};
use super::{format_error, invalid};
use crate::error::StorageError;
use crate::format::cursor::{Cursor, put_count, put_string};
use crate::half::Fingerprint;
use crate::state::ledger::Ledger;
use crate::state::transactions::{ManyMessages, Member};

const DELAYED: u8 = 1;
const MEMBER_BYTES: usize = 52;

fn put_fingerprint(out: &mut Vec<u8>, fingerprint: Fingerprint) {
    out.extend_from_slice(&fingerprint.message_bytes.to_le_bytes());
    out.extend_from_slice(&fingerprint.body_crc.to_le_bytes());
}

pub(super) fn encode(ledger: &Ledger, out: &mut Vec<u8>) {
    let mut numbering = Numbering::default();
    let mut rows = Vec::with_capacity(ledger.many.further() * MEMBER_BYTES);
    for (origin, many) in ledger.many.iter() {
        rows.extend_from_slice(&origin.to_le_bytes());
        put_string(&mut rows, &many.id);
        rows.extend_from_slice(&many.bytes.to_le_bytes());
        put_fingerprint(&mut rows, many.first);
        put_count(&mut rows, many.further.len());
        for member in &many.further {
            for word in [member.position, member.location, member.delay_ms.unwrap_or(0)] {
                rows.extend_from_slice(&word.to_le_bytes());
            }
            rows.extend_from_slice(&member.size.to_le_bytes());
            rows.extend_from_slice(&member.tag_hash.to_le_bytes());
            rows.extend_from_slice(&numbering.queue(member.queue).to_le_bytes());
            put_fingerprint(&mut rows, member.fingerprint);
            rows.extend_from_slice(&[if member.delay_ms.is_some() { DELAYED } else { 0 }, 0, 0, 0]);
        }
    }
    if rows.is_empty() {
        return;
    }
    numbering.encode(ledger, out);
    out.extend_from_slice(&rows);
}

/// The rows of the transactions must be there already.
pub(super) fn restore(ledger: &mut Ledger, bytes: &[u8]) -> Result<(), StorageError> {
    if bytes.is_empty() {
        return Ok(());
    }
    let bad = format_error("messages of transactions");
    let mut cursor = Cursor::new("messages of transactions", bytes);
    let names = Names::decode(ledger, &mut cursor)?;
    while !cursor.is_empty() {
        let origin = cursor.u64().map_err(&bad)?;
        let id = cursor.string("transaction id").map_err(&bad)?;
        let id = TransactionId::new(id).map_err(|e| invalid("messages of transactions", e))?;
        let bytes = cursor.u64().map_err(&bad)?;
        let first = fingerprint(&mut cursor)?;
        let count = cursor.u32().map_err(&bad)? as usize;
        let mut further = Vec::with_capacity(cursor.capacity_for(count, MEMBER_BYTES));
        for _ in 0..count {
            let member = member(&mut cursor, &names)?;
            ledger.segments.opened(member.location, member.size);
            further.push(member);
        }
        let row = ledger.open.get(origin);
        let group = row
            .map(|row| row.group)
            .ok_or_else(|| invalid("messages of transactions", format!("no open transaction at {origin}")))?;
        ledger.many.insert(origin, ManyMessages { id, group, first, bytes, further });
    }
    Ok(())
}

fn fingerprint(cursor: &mut Cursor<'_>) -> Result<Fingerprint, StorageError> {
    let bad = format_error("messages of transactions");
    Ok(Fingerprint { message_bytes: cursor.u32().map_err(&bad)?, body_crc: cursor.u32().map_err(&bad)? })
}

fn member(cursor: &mut Cursor<'_>, names: &Names) -> Result<Member, StorageError> {
    let bad = format_error("messages of transactions");
    let mut word = || cursor.u64().map_err(&bad);
    let (position, location, delay_ms) = (word()?, word()?, word()?);
    let size = cursor.u32().map_err(&bad)?;
    let tag_hash = cursor.i32().map_err(&bad)?;
    let queue = names.queue(cursor.u32().map_err(&bad)?)?;
    let fingerprint = fingerprint(cursor)?;
    let flags = cursor.u8().map_err(&bad)?;
    cursor.take(3).map_err(&bad)?;
    queue.open_added();
    let delay_ms = (flags & DELAYED != 0).then_some(delay_ms);
    Ok(Member { position, location, size, queue: queue.symbol(), tag_hash, delay_ms, fingerprint })
}
