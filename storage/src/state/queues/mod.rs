//! Consume queues: per queue an ordered list of 24-byte entries that point into the log. Full pages of 170 entries go
//! to shared page files (`pages.rs`), because 50,000 queues must not be 50,000 files; the unfinished last page of each
//! queue stays in memory (`queue_log.rs`); `page_check.rs` looks whether pages hold. Everything here is derived from the log.

mod page_check;
mod pages;
mod queue_log;

pub(crate) use page_check::{OwnedPage, check_pages};
pub use pages::{ENTRIES_PER_PAGE, PageStore};
pub(crate) use pages::{PAGE_BYTES, PAGES_PER_FILE, PageId};
pub(crate) use queue_log::PageRef;
pub use queue_log::{EntriesRead, QueueLog};
