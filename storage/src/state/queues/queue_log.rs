//! The published entries of one queue: references to full pages, and the last, unfinished page in memory.
//!
//! Offsets may have gaps (after an unclean stop at acknowledgement `memory`), so each page carries its first offset.

use std::collections::VecDeque;

use mezzo_protocol::ids::{QueueId, TopicName};

use super::page_check::OwnedPage;
use super::pages::{ENTRIES_PER_PAGE, PageId, PageStore};
use crate::error::StorageError;
use crate::format::queue_entry::QueueEntry;

/// A full page of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageRef {
    pub(crate) first: u64,
    pub(crate) count: u16,
    pub(crate) page: PageId,
    /// visible_at of its first entry, so that a search by time reads one page.
    pub(crate) visible_at_ms: u64,
}

impl PageRef {
    pub(crate) fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }
}

/// What a read of entries brings.
#[derive(Debug, Default)]
pub struct EntriesRead {
    /// Offset and entry, ascending.
    pub entries: Vec<(u64, QueueEntry)>,
    /// Where the next read goes on: everything before was returned or passed over.
    pub next_offset: u64,
}

/// One queue's published entries.
#[derive(Debug)]
pub struct QueueLog {
    seed: u32,
    pages: VecDeque<PageRef>,
    tail_first: u64,
    tail: Vec<QueueEntry>,
    min: u64,
}

impl QueueLog {
    pub(crate) fn new(topic: &TopicName, id: QueueId) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(topic.as_str().as_bytes());
        hasher.update(&id.0.to_le_bytes());
        Self { seed: hasher.finalize(), pages: VecDeque::new(), tail_first: 0, tail: Vec::new(), min: 0 }
    }

    /// Puts back what a checkpoint recorded.
    pub(crate) fn restore(&mut self, min: u64, pages: Vec<PageRef>, tail_first: u64, tail: Vec<QueueEntry>) {
        self.min = min;
        self.pages = pages.into();
        self.tail_first = tail_first;
        self.tail = tail;
    }

    /// What a checkpoint records: first readable offset, full pages, the unfinished page.
    pub(crate) fn parts(&self) -> (u64, &VecDeque<PageRef>, u64, &[QueueEntry]) {
        (self.min, &self.pages, self.tail_first, &self.tail)
    }

    /// Where its full pages stand, and what they must be.
    pub(crate) fn owned_pages(&self) -> impl Iterator<Item = OwnedPage> + '_ {
        self.pages.iter().map(|page| OwnedPage { page: page.page, seed: self.seed, first: page.first })
    }

    /// Full pages whose number is wanted, by rising offset, each with the seed of its checksum.
    pub(crate) fn refs_where(&self, wanted: impl Fn(PageId) -> bool) -> Vec<(u32, PageRef)> {
        let hit = self.pages.iter().filter(|page| wanted(page.page));
        hit.map(|page| (self.seed, *page)).collect()
    }

    /// Whether this is still one of its pages.
    pub(crate) fn owns(&self, page: &PageRef) -> bool {
        let place = self.pages.partition_point(|own| own.first < page.first);
        self.pages.get(place) == Some(page)
    }

    pub(crate) fn min_offset(&self) -> u64 {
        self.min
    }

    pub(crate) fn max_offset(&self) -> u64 {
        self.tail_first + self.tail.len() as u64
    }

    /// Adds an entry. `offset` is at least [`QueueLog::max_offset`]; a higher one leaves a gap.
    pub(crate) fn put(
        &mut self,
        store: &PageStore,
        offset: u64,
        entry: QueueEntry,
    ) -> Result<(), StorageError> {
        if self.tail.is_empty() {
            self.move_start(offset);
        } else if self.tail.len() == ENTRIES_PER_PAGE || offset != self.max_offset() {
            self.finish_page(store)?;
            self.move_start(offset);
        }
        self.tail.push(entry);
        Ok(())
    }

    /// The next entry will not have a lower offset than this.
    pub(crate) fn skip_to(&mut self, store: &PageStore, offset: u64) -> Result<(), StorageError> {
        if offset > self.max_offset() {
            self.finish_page(store)?;
            self.move_start(offset);
        }
        Ok(())
    }

    fn move_start(&mut self, offset: u64) {
        if self.pages.is_empty() && self.tail.is_empty() {
            self.min = offset;
        }
        self.tail_first = offset;
    }

    fn finish_page(&mut self, store: &PageStore) -> Result<(), StorageError> {
        let Some(first_entry) = self.tail.first() else { return Ok(()) };
        let page = store.write(self.seed, self.tail_first, &self.tail)?;
        self.pages.push_back(PageRef {
            first: self.tail_first,
            count: u16::try_from(self.tail.len()).unwrap_or(0),
            page,
            visible_at_ms: first_entry.visible_at_ms,
        });
        self.tail_first = self.max_offset();
        self.tail.clear();
        Ok(())
    }

    /// What a read from `from` on needs, so that it can go on without the queue's lock; passes over at most
    /// `scan_max` entries.
    pub(crate) fn plan(&self, from: u64, scan_max: usize) -> ReadPlan {
        let from = from.max(self.min);
        let index = self.pages.partition_point(|p| p.end() <= from);
        let most = scan_max / ENTRIES_PER_PAGE + 2;
        let pages: Vec<PageRef> = self.pages.iter().skip(index).take(most).copied().collect();
        let skip = usize::try_from(from.saturating_sub(self.tail_first)).unwrap_or(usize::MAX);
        let reaches_tail = index + pages.len() == self.pages.len();
        let tail = reaches_tail.then(|| {
            let first = self.tail_first + skip.min(self.tail.len()) as u64;
            (first, self.tail.iter().skip(skip).copied().collect())
        });
        ReadPlan { seed: self.seed, from, pages, tail }
    }

    /// Whether this page is still its own: one that was dropped may hold something else by now.
    fn has(&self, page: &PageRef) -> bool {
        let at = self.pages.partition_point(|own| own.first < page.first);
        self.pages.get(at) == Some(page)
    }

    /// Whether all pages of a plan are still its own. If not, what reading them has brought counts for nothing.
    pub(crate) fn still_holds(&self, plan: &ReadPlan) -> bool {
        plan.pages.iter().all(|page| self.has(page))
    }

    /// As [`QueueLog::still_holds`].
    pub(crate) fn still_holds_search(&self, plan: &SearchPlan) -> bool {
        match plan {
            SearchPlan::Known(_) => true,
            SearchPlan::InPage { page, .. } => self.has(page),
        }
    }

    /// What a search for the first entry that became visible at or after `at_ms` needs, so that it can go on without
    /// the queue's lock.
    pub(crate) fn plan_search(&self, at_ms: u64) -> SearchPlan {
        let tail_has_it = self.tail.first().is_some_and(|e| e.visible_at_ms < at_ms) || self.pages.is_empty();
        if tail_has_it {
            let within = self.tail.partition_point(|e| e.visible_at_ms < at_ms);
            return SearchPlan::Known((self.tail_first + within as u64).max(self.min));
        }
        // the page before the first one that starts at or after the time may hold it
        let after = self.pages.partition_point(|p| p.visible_at_ms < at_ms);
        let Some(page) = after.checked_sub(1).and_then(|i| self.pages.get(i)) else {
            return SearchPlan::Known(self.min);
        };
        let behind = self.pages.get(after).map_or(self.tail_first, |p| p.first);
        SearchPlan::InPage { seed: self.seed, page: *page, at_ms, behind, min: self.min }
    }

    /// The page that is dropped first, to be read without the queue's lock.
    pub(crate) fn oldest_page(&self) -> Option<OldestPage> {
        self.pages.front().map(|page| OldestPage { seed: self.seed, page: *page })
    }

    /// The first `dead` entries of what was the oldest page are gone. False when the page, or a part of it, stays.
    pub(crate) fn drop_of_page(&mut self, store: &PageStore, oldest: &OldestPage, dead: usize) -> bool {
        let page = oldest.page;
        if self.pages.front() != Some(&page) {
            // the topic was deleted meanwhile
            return false;
        }
        if dead < usize::from(page.count) {
            self.min = self.min.max(page.first + dead as u64);
            return false;
        }
        self.min = page.end();
        self.pages.pop_front();
        store.free([page.page]);
        true
    }

    /// The log now begins at `first_position`: what is dropped of the unfinished page. False when there are full pages
    /// before it.
    pub(crate) fn drop_of_tail(&mut self, first_position: u64) -> bool {
        if self.pages.is_empty() {
            let dead = self.tail.iter().take_while(|e| e.position < first_position).count();
            self.min = self.min.max(self.tail_first + dead as u64);
        }
        self.pages.is_empty()
    }

    /// Gives every page back; the topic was deleted.
    pub(crate) fn clear(&mut self, store: &PageStore) {
        store.free(self.pages.drain(..).map(|p| p.page));
        self.tail_first = self.max_offset();
        self.tail.clear();
        self.min = self.tail_first;
    }
}

/// A queue's oldest page.
#[derive(Debug)]
pub(crate) struct OldestPage {
    seed: u32,
    page: PageRef,
}

impl OldestPage {
    /// How many of its first entries lie before `first_position`.
    pub(crate) fn dead_before(&self, store: &PageStore, first_position: u64) -> Result<usize, StorageError> {
        let entries = store.read(self.seed, self.page.page, self.page.first)?;
        Ok(entries.iter().take_while(|e| e.position < first_position).count())
    }
}

/// Where a search by time has come to without reading.
#[derive(Debug)]
pub(crate) enum SearchPlan {
    /// The offset that was looked for.
    Known(u64),
    /// It is in this page; if not, it is `behind` it.
    InPage { seed: u32, page: PageRef, at_ms: u64, behind: u64, min: u64 },
}

impl SearchPlan {
    /// First offset whose entry became visible at or after the time; the end when none did.
    pub(crate) fn run(&self, store: &PageStore) -> Result<u64, StorageError> {
        match *self {
            Self::Known(offset) => Ok(offset),
            Self::InPage { seed, page, at_ms, behind, min } => {
                let entries = store.read(seed, page.page, page.first)?;
                let within = entries.partition_point(|e| e.visible_at_ms < at_ms);
                let found = if within < entries.len() { page.first + within as u64 } else { behind };
                Ok(found.max(min))
            }
        }
    }
}

/// Pages and tail that one read goes through.
#[derive(Debug)]
pub(crate) struct ReadPlan {
    seed: u32,
    from: u64,
    pages: Vec<PageRef>,
    tail: Option<(u64, Vec<QueueEntry>)>,
}

impl ReadPlan {
    /// Up to `count` entries that `keep` wants.
    pub(crate) fn run(
        &self,
        store: &PageStore,
        count: usize,
        scan_max: usize,
        keep: &mut dyn FnMut(&QueueEntry) -> bool,
    ) -> Result<EntriesRead, StorageError> {
        let mut read = EntriesRead { entries: Vec::new(), next_offset: self.from };
        let mut scanned = 0;
        for page in &self.pages {
            let entries = store.read(self.seed, page.page, page.first)?;
            if !take(&mut read, page.first, &entries, count, scan_max, &mut scanned, keep) {
                return Ok(read);
            }
        }
        if let Some((first, tail)) = &self.tail {
            take(&mut read, *first, tail, count, scan_max, &mut scanned, keep);
        }
        Ok(read)
    }
}

/// Appends what is wanted of one page; false when the read is complete.
fn take(
    read: &mut EntriesRead,
    first: u64,
    entries: &[QueueEntry],
    count: usize,
    scan_max: usize,
    scanned: &mut usize,
    keep: &mut dyn FnMut(&QueueEntry) -> bool,
) -> bool {
    // a gap before this page holds nothing
    read.next_offset = read.next_offset.max(first);
    let skip = usize::try_from(read.next_offset - first).unwrap_or(usize::MAX);
    for entry in entries.iter().skip(skip) {
        if read.entries.len() >= count || *scanned >= scan_max {
            return false;
        }
        *scanned += 1;
        if keep(entry) {
            read.entries.push((read.next_offset, *entry));
        }
        read.next_offset += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::file_system::SimulatedDisk;

    /// A queue with an entry every ten milliseconds.
    fn filled(entries: u64) -> (PageStore, Mutex<QueueLog>) {
        let pages = PageStore::open(Arc::new(SimulatedDisk::new()), PathBuf::from("/q"), &[]).unwrap();
        let mut log = QueueLog::new(&TopicName::new("t").unwrap(), QueueId(0));
        for offset in 0..entries {
            let entry = QueueEntry { position: offset, size: 1, tag_hash: 0, visible_at_ms: 10 * offset };
            log.put(&pages, offset, entry).unwrap();
        }
        (pages, Mutex::new(log))
    }

    #[test]
    fn a_search_by_time_reads_while_others_hold_the_queue() {
        let (pages, log) = filled(1000);
        for at_ms in [0, 1, 5, 10, 1_699, 1_700, 5_000, 8_455, 9_990, 9_991] {
            let plan = log.lock().unwrap().plan_search(at_ms);
            let _publishing = log.lock().unwrap();
            assert_eq!(plan.run(&pages).unwrap(), at_ms.div_ceil(10), "at {at_ms}");
        }
    }

    #[test]
    fn a_search_that_was_planned_before_a_page_was_dropped_finds_what_it_would_have_found() {
        let (pages, log) = filled(1000);
        let plan = log.lock().unwrap().plan_search(100);
        let oldest = log.lock().unwrap().oldest_page().unwrap();
        assert!(log.lock().unwrap().drop_of_page(&pages, &oldest, ENTRIES_PER_PAGE));
        assert_eq!(plan.run(&pages).unwrap(), 10);
    }
}
