//! Which pages the consume queues own, and their unfinished last pages.
//!
//! ```text
//! per queue that ever had an entry: topic string, queue u32, first readable offset u64, first offset of the
//!     unfinished page u64, page count u32, per page: first offset u64, entries u16, page u32, visible_at_ms u64;
//!     entry count u16, per entry: 24 bytes
//! ```

use mezzo_protocol::ids::QueueId;

use super::{format_error, invalid};
use crate::error::StorageError;
use crate::format::cursor::{Cursor, put_string};
use crate::format::queue_entry::{QUEUE_ENTRY_BYTES, QueueEntry};
use crate::state::ledger::Ledger;
use crate::state::queues::{ENTRIES_PER_PAGE, PageId, PageRef};

const PAGE_REF_BYTES: usize = 22;

pub(super) fn encode(ledger: &Ledger, out: &mut Vec<u8>) {
    for queue in ledger.topics.values().flat_map(|t| t.queues()) {
        let log = queue.log();
        let (min, pages, tail_first, tail) = log.parts();
        if tail_first == 0 && pages.is_empty() && tail.is_empty() {
            continue;
        }
        put_string(out, queue.topic().as_str());
        out.extend_from_slice(&queue.id().0.to_le_bytes());
        out.extend_from_slice(&min.to_le_bytes());
        out.extend_from_slice(&tail_first.to_le_bytes());
        out.extend_from_slice(&(pages.len() as u32).to_le_bytes());
        for page in pages {
            out.extend_from_slice(&page.first.to_le_bytes());
            out.extend_from_slice(&page.count.to_le_bytes());
            out.extend_from_slice(&page.page.to_le_bytes());
            out.extend_from_slice(&page.visible_at_ms.to_le_bytes());
        }
        out.extend_from_slice(&(tail.len() as u16).to_le_bytes());
        for entry in tail {
            out.extend_from_slice(&entry.to_bytes());
        }
    }
}

pub(super) fn restore(ledger: &mut Ledger, bytes: &[u8]) -> Result<Vec<PageId>, StorageError> {
    let bad = format_error("queue pages");
    let mut used = Vec::new();
    let mut cursor = Cursor::new("queue pages", bytes);
    while !cursor.is_empty() {
        let topic = cursor.string("topic").map_err(&bad)?;
        let id = QueueId(cursor.u32().map_err(&bad)?);
        let queue = ledger.topics.get(topic).and_then(|t| t.queue(id));
        let queue = queue.ok_or_else(|| invalid("queue pages", format!("unknown queue {topic}/{}", id.0)))?;
        let min = cursor.u64().map_err(&bad)?;
        let tail_first = cursor.u64().map_err(&bad)?;
        let count = cursor.u32().map_err(&bad)? as usize;
        let mut pages = Vec::with_capacity(cursor.capacity_for(count, PAGE_REF_BYTES));
        for _ in 0..count {
            let page = PageRef {
                first: cursor.u64().map_err(&bad)?,
                count: cursor.u16().map_err(&bad)?,
                page: cursor.u32().map_err(&bad)?,
                visible_at_ms: cursor.u64().map_err(&bad)?,
            };
            used.push(page.page);
            pages.push(page);
        }
        let count = cursor.u16().map_err(&bad)? as usize;
        if count > ENTRIES_PER_PAGE {
            return Err(invalid("queue pages", format!("{count} entries in an unfinished page")));
        }
        let mut tail = Vec::with_capacity(count);
        for _ in 0..count {
            tail.push(QueueEntry::decode(cursor.take(QUEUE_ENTRY_BYTES).map_err(&bad)?).map_err(&bad)?);
        }
        let mut log = queue.log();
        log.restore(min, pages, tail_first, tail);
        queue.publish_ends(&log);
    }
    Ok(used)
}
