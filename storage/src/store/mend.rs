//! Making damaged pages of consume queues anew while the broker runs. They are derived: the log is folded again from the
//! base on, beside everything else, and what it says of the offsets of a damaged page is written where the page stood.
//! Until then reads of that page are refused as busy, and all others are served.
//!
//! A page may begin with entries whose records retention has deleted. Nothing is left to be read of them; they are put
//! back as entries of position 0, which is deleted as well, and go when the page's front goes.

use std::collections::{BTreeMap, BTreeSet};

use mezzo_protocol::ids::{QueueId, TopicName};
use mezzo_protocol::time::Timestamp;

use super::fold::Fold;
use super::{Store, lock};
use crate::error::StorageError;
use crate::format::queue_entry::QueueEntry;
use crate::state::publish::{Publication, Publisher};
use crate::state::queues::{PAGES_PER_FILE, PageId, PageRef};

/// Bytes of the log that one step folds, about.
const STEP_BYTES: u64 = 4 << 20;
/// Pause before the same is tried again, in milliseconds of leader time.
const RETRY_MS: u64 = 60_000;

/// How far it has come.
#[derive(Debug, Default)]
pub(super) enum Mending {
    /// Nothing to do, as far as is known.
    #[default]
    Idle,
    /// The log is being folded.
    Folds(Box<Work>),
    /// Not before this leader time again: for nothing if it failed, for these pages, which were made anew just now, if
    /// not. A disk that returns something else than it was given is not to be written to all the time.
    Rests { until: Timestamp, mended: Option<BTreeSet<PageId>> },
}

/// What a step has done.
enum Step {
    Begun(Box<Work>),
    /// Some of the log; there is more.
    Folded,
    /// These were made anew.
    Mended(BTreeSet<PageId>),
    /// No page is damaged, or the fold has to be begun once more.
    Nothing,
}

#[derive(Debug)]
pub(super) struct Work {
    fold: Fold,
    wanted: Wanted,
    /// Everything that stands in full pages was published below.
    until: u64,
}

/// Pages to be made anew, and what was found of them.
#[derive(Debug, Default)]
struct Wanted(BTreeMap<TopicName, BTreeMap<QueueId, Vec<WantedPage>>>);

#[derive(Debug)]
struct WantedPage {
    seed: u32,
    page: PageRef,
    /// Offset and entry, ascending.
    found: Vec<(u64, QueueEntry)>,
}

impl Wanted {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn numbers(&self) -> BTreeSet<PageId> {
        self.0.values().flat_map(BTreeMap::values).flatten().map(|wanted| wanted.page.page).collect()
    }
}

impl Publisher for Wanted {
    fn publish(&mut self, _position: u64, publication: Publication) {
        match publication {
            Publication::Entry { queue, offset, entry } => {
                let pages = self.0.get_mut(queue.topic()).and_then(|queues| queues.get_mut(&queue.id()));
                let Some(pages) = pages else { return };
                let behind = pages.partition_point(|wanted| wanted.page.end() <= offset);
                if let Some(wanted) = pages.get_mut(behind).filter(|wanted| wanted.page.first <= offset) {
                    wanted.found.push((offset, entry));
                }
            }
            // what follows is of another topic of the same name
            Publication::TopicDeleted(topic) => {
                let pages = self.0.get_mut(topic.name()).into_iter().flat_map(BTreeMap::values_mut);
                pages.flatten().for_each(|wanted| wanted.found.clear());
            }
            _ => {}
        }
    }
}

impl WantedPage {
    /// All of its entries; `None` if the log does not have them.
    fn entries(&self, first_position: u64) -> Option<Vec<QueueEntry>> {
        let missing = usize::from(self.page.count).checked_sub(self.found.len())?;
        let expected = self.page.first + missing as u64..;
        let in_order = self.found.iter().zip(expected).all(|((offset, _), expected)| *offset == expected);
        if !in_order || (missing > 0 && first_position == 0) {
            return None;
        }
        let visible_at_ms = self.page.visible_at_ms;
        let gone = QueueEntry { position: 0, size: 0, tag_hash: 0, visible_at_ms };
        let found = self.found.iter().map(|(_, entry)| *entry);
        Some(std::iter::repeat_n(gone, missing).chain(found).collect())
    }
}

impl Store {
    /// One step of making damaged pages anew; true if there is more to do at once. `now` is leader time.
    pub(super) fn mend(&self, now: Timestamp) -> Result<bool, StorageError> {
        let mut mending = lock(&self.mending);
        let step = match &mut *mending {
            Mending::Folds(work) => self.mend_step(work),
            Mending::Rests { until, mended } if now < *until && self.is_hopeless(mended.as_ref()) => {
                return Ok(false);
            }
            _ if !self.view.pages.has_damaged() => return Ok(false),
            _ => self.begin_mending(),
        };
        let until = now.saturating_add_ms(RETRY_MS);
        *mending = match step {
            Ok(Step::Folded) => return Ok(true),
            Ok(Step::Begun(work)) => Mending::Folds(work),
            Ok(Step::Mended(mended)) => Mending::Rests { until, mended: Some(mended) },
            Ok(Step::Nothing) => Mending::Idle,
            Err(error) => {
                tracing::error!(
                    %error,
                    "damaged consume queue pages cannot be made anew from the log; it is tried again in a minute"
                );
                *mending = Mending::Rests { until, mended: None };
                return Err(error);
            }
        };
        // others may have been met meanwhile
        Ok(self.view.pages.has_damaged())
    }

    /// Whether what did not hold is what could not be made anew.
    fn is_hopeless(&self, mended: Option<&BTreeSet<PageId>>) -> bool {
        mended.is_none_or(|mended| !self.view.pages.damaged().is_disjoint(mended))
    }

    /// Looks at the pages that did not hold for a reader, and at all others of the same files: whose they are, and
    /// whether they are damaged indeed.
    fn begin_mending(&self) -> Result<Step, StorageError> {
        let damaged = self.view.pages.damaged();
        let files: BTreeSet<u32> = damaged.iter().map(|page| page / PAGES_PER_FILE).collect();
        let mut wanted = Wanted::default();
        for queue in self.topics().iter().flat_map(|topic| topic.queues()) {
            let hit = queue.log().refs_where(|page| files.contains(&(page / PAGES_PER_FILE)));
            for (seed, page) in hit {
                match self.view.pages.read(seed, page.page, page.first) {
                    // it was read while it changed hands
                    Ok(_) => {}
                    Err(error @ StorageError::PageDamaged { .. }) => {
                        self.damage.note_page(&error);
                        let queues = wanted.0.entry(queue.topic().clone()).or_default();
                        queues.entry(queue.id()).or_default().push(WantedPage {
                            seed,
                            page,
                            found: Vec::new(),
                        });
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        // nobody's any more, or whole
        self.view.pages.forget_damaged(damaged.difference(&wanted.numbers()));
        if wanted.is_empty() {
            return Ok(Step::Nothing);
        }
        let until = self.limit().0;
        // no newer base is written, and the one before not removed, meanwhile
        let state = lock(&self.checkpointing);
        let fold = Fold::from_base(self, &state.base)?;
        Ok(Step::Begun(Box::new(Work { fold, wanted, until })))
    }

    /// Folds some more of the log, or writes the pages at its end.
    fn mend_step(&self, work: &mut Work) -> Result<Step, StorageError> {
        let Work { fold, wanted, until } = work;
        let from = fold.end();
        if from >= *until {
            self.write_mended(wanted)?;
            return Ok(Step::Mended(wanted.numbers()));
        }
        match self.log.scan(from, (*until).min(from + STEP_BYTES), &mut |frame| fold.take(frame, wanted)) {
            Ok(_) => Ok(Step::Folded),
            // retention was faster: once more, from the base of now
            Err(_) if from < self.log.first_position() => Ok(Step::Nothing),
            Err(error) => Err(error),
        }
    }

    fn write_mended(&self, wanted: &Wanted) -> Result<(), StorageError> {
        let first_position = self.log.first_position();
        let mut unfound = None;
        for (topic, queues) in &wanted.0 {
            for (id, pages) in queues {
                let Some(queue) = self.topic(topic).and_then(|topic| topic.queue(*id)) else { continue };
                for wanted in pages {
                    let Some(entries) = wanted.entries(first_position) else {
                        unfound = Some((topic, id));
                        continue;
                    };
                    // while nobody can give the page away
                    let log = queue.log();
                    if log.owns(&wanted.page) {
                        self.view.pages.write_again(wanted.seed, &wanted.page, &entries)?;
                        self.damage.note_mended();
                    }
                    drop(log);
                    self.view.pages.forget_damaged([&wanted.page.page]);
                }
            }
        }
        match unfound {
            None => Ok(()),
            Some((topic, id)) => Err(StorageError::corrupt(
                &self.options.dir.join("log"),
                0,
                format!("it does not say what stood in queue {} of topic {topic}", id.0),
            )),
        }
    }
}
