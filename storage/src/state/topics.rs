//! Topics and their queues. A [`Topic`] is shared by everyone who looks it up; its configuration changes in place. A
//! [`Queue`] has two ends that move at different times: `next` counts what is appended and belongs to the append lock,
//! the consume queue behind it holds what is published.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use mezzo_protocol::ids::{QueueId, QueueOffset, TopicName};

use super::corrupt_log;
use super::queues::{PageStore, QueueLog};
use crate::concurrency::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::concurrency::{Mutex, MutexGuard, RwLock};
use crate::error::StorageError;
pub use crate::format::record::MessageType;
use crate::format::record::Topic as TopicRecord;

/// Read permission bit of RocketMQ's topic permission.
pub const PERM_READ: u32 = 4;
/// Write permission bit.
pub const PERM_WRITE: u32 = 2;
/// Bit of topics others are created from (TBW102).
pub const PERM_INHERIT: u32 = 1;

/// What an administrator can set of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfig {
    /// Its name.
    pub name: TopicName,
    /// Queues consumers are told of.
    pub read_queues: u32,
    /// Queues producers are told of.
    pub write_queues: u32,
    /// Bits [`PERM_READ`], [`PERM_WRITE`], [`PERM_INHERIT`].
    pub permission: u32,
    /// RocketMQ's `topicSysFlag`.
    pub system_flag: u32,
    /// RocketMQ's `order`.
    pub ordered: bool,
    /// Declared message type.
    pub message_type: MessageType,
    /// Further attributes, as the administrator wrote them.
    pub attributes: BTreeMap<String, String>,
}

impl TopicConfig {
    /// A readable and writable topic with the same number of read and write queues.
    #[must_use]
    pub fn new(name: TopicName, queues: u32) -> Self {
        Self {
            name,
            read_queues: queues,
            write_queues: queues,
            permission: PERM_READ | PERM_WRITE,
            system_flag: 0,
            ordered: false,
            message_type: MessageType::Unspecified,
            attributes: BTreeMap::new(),
        }
    }

    pub(crate) fn to_record(&self) -> TopicRecord<'_> {
        TopicRecord {
            deleted: false,
            name: self.name.as_str(),
            read_queues: self.read_queues,
            write_queues: self.write_queues,
            permission: self.permission,
            system_flag: self.system_flag,
            ordered: self.ordered,
            message_type: self.message_type,
            attributes: self.attributes.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect(),
        }
    }

    pub(crate) fn from_record(record: &TopicRecord<'_>, position: u64) -> Result<Self, StorageError> {
        let config = Self {
            name: TopicName::new(record.name).map_err(|e| corrupt_log(position, e))?,
            read_queues: record.read_queues,
            write_queues: record.write_queues,
            permission: record.permission,
            system_flag: record.system_flag,
            ordered: record.ordered,
            message_type: record.message_type,
            attributes: record.attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        };
        if config.queue_count() > Self::QUEUES_MAX {
            return Err(corrupt_log(position, "a topic with too many queues"));
        }
        Ok(config)
    }

    /// Most queues of one topic.
    pub const QUEUES_MAX: u32 = 65_536;

    /// Queues that exist behind it.
    #[must_use]
    pub fn queue_count(&self) -> u32 {
        self.read_queues.max(self.write_queues)
    }
}

/// A topic as everyone shares it.
#[derive(Debug)]
pub struct Topic {
    name: TopicName,
    config: RwLock<Arc<TopicConfig>>,
    queues: RwLock<Vec<Arc<Queue>>>,
    deleted: AtomicBool,
    /// Open half and delayed messages; moved under the append lock.
    open_messages: Arc<AtomicU64>,
}

impl Topic {
    pub(crate) fn new(config: TopicConfig, registry: &mut QueueRegistry) -> Self {
        let topic = Self {
            name: config.name.clone(),
            config: RwLock::new(Arc::new(config.clone())),
            queues: RwLock::default(),
            deleted: AtomicBool::new(false),
            open_messages: Arc::default(),
        };
        topic.set_config(config, registry);
        topic
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &TopicName {
        &self.name
    }

    /// Its configuration now.
    #[must_use]
    pub fn config(&self) -> Arc<TopicConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// One of its queues.
    #[must_use]
    pub fn queue(&self, id: QueueId) -> Option<Arc<Queue>> {
        self.queues.read().unwrap_or_else(PoisonError::into_inner).get(id.0 as usize).cloned()
    }

    /// All of its queues, by id.
    #[must_use]
    pub fn queues(&self) -> Vec<Arc<Queue>> {
        self.queues.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many queues exist (never falls: a queue that is no longer announced keeps its messages).
    #[must_use]
    pub fn queue_count(&self) -> u32 {
        u32::try_from(self.queues.read().unwrap_or_else(PoisonError::into_inner).len()).unwrap_or(u32::MAX)
    }

    /// Half and delayed messages that are not visible yet.
    #[must_use]
    pub fn open_messages(&self) -> u64 {
        self.open_messages.load(Ordering::Relaxed)
    }

    pub(crate) fn set_config(&self, config: TopicConfig, registry: &mut QueueRegistry) {
        self.grow_to(config.queue_count(), registry);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    /// Makes sure that at least `count` queues exist.
    pub(crate) fn grow_to(&self, count: u32, registry: &mut QueueRegistry) {
        let mut queues = self.queues.write().unwrap_or_else(PoisonError::into_inner);
        while queues.len() < count as usize {
            let id = QueueId(u32::try_from(queues.len()).unwrap_or(u32::MAX));
            let open_messages = Arc::clone(&self.open_messages);
            queues.push(registry.add(|symbol| Queue::new(self.name.clone(), id, symbol, open_messages)));
        }
    }

    /// No open message may point at its queues any more: their numbers are given to others.
    pub(crate) fn mark_deleted(&self, registry: &mut QueueRegistry) {
        self.deleted.store(true, Ordering::Release);
        for queue in self.queues() {
            queue.deleted.store(true, Ordering::Release);
            registry.release(queue.symbol);
        }
    }
}

/// Every queue by a number, so that a row needs four bytes for its queue.
#[derive(Debug, Default)]
pub(crate) struct QueueRegistry {
    queues: Vec<Option<Arc<Queue>>>,
    free: Vec<u32>,
}

impl QueueRegistry {
    fn add(&mut self, make: impl FnOnce(u32) -> Queue) -> Arc<Queue> {
        let symbol = self.free.pop().unwrap_or_else(|| {
            self.queues.push(None);
            u32::try_from(self.queues.len() - 1).unwrap_or(u32::MAX)
        });
        let queue = Arc::new(make(symbol));
        if let Some(place) = self.queues.get_mut(symbol as usize) {
            *place = Some(Arc::clone(&queue));
        }
        queue
    }

    fn release(&mut self, symbol: u32) {
        if self.queues.get_mut(symbol as usize).and_then(Option::take).is_some() {
            self.free.push(symbol);
        }
    }

    pub(crate) fn get(&self, symbol: u32) -> Option<&Arc<Queue>> {
        self.queues.get(symbol as usize)?.as_ref()
    }
}

/// One consume queue of a topic.
#[derive(Debug)]
pub struct Queue {
    topic: TopicName,
    id: QueueId,
    symbol: u32,
    /// Offset of the next message admitted; written under the append lock only.
    next: AtomicU64,
    /// Published entries.
    log: Mutex<QueueLog>,
    /// Mirrors of the published log's ends, read without the lock.
    min: AtomicU64,
    max: AtomicU64,
    watchers: AtomicU32,
    deleted: AtomicBool,
    open_messages: Arc<AtomicU64>,
}

impl Queue {
    fn new(topic: TopicName, id: QueueId, symbol: u32, open_messages: Arc<AtomicU64>) -> Self {
        let log = QueueLog::new(&topic, id);
        Self {
            topic,
            id,
            symbol,
            next: AtomicU64::new(0),
            log: Mutex::new(log),
            min: AtomicU64::new(0),
            max: AtomicU64::new(0),
            watchers: AtomicU32::new(0),
            deleted: AtomicBool::new(false),
            open_messages,
        }
    }

    /// The topic it belongs to.
    #[must_use]
    pub fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// Its number within the topic.
    #[must_use]
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// First offset whose message can still be read; equals [`Queue::max_offset`] when none can.
    #[must_use]
    pub fn min_offset(&self) -> QueueOffset {
        QueueOffset(self.min.load(Ordering::Acquire))
    }

    /// One past the last published offset.
    #[must_use]
    pub fn max_offset(&self) -> QueueOffset {
        QueueOffset(self.max.load(Ordering::Acquire))
    }

    /// From now on [`crate::StoreObserver::queue_grew`] is called when this queue grows. Counted. What was published
    /// before is seen by whoever reads [`Queue::max_offset`] after this call, so nothing falls between the two.
    pub fn watch(&self) {
        self.watchers.fetch_add(1, Ordering::AcqRel);
        // a publisher looks for watchers under this lock: either it sees this one, or its entry is visible from here on
        drop(self.log());
    }

    /// Ends one [`Queue::watch`].
    pub fn unwatch(&self) {
        let _ = self.watchers.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1));
    }

    pub(crate) fn symbol(&self) -> u32 {
        self.symbol
    }

    pub(crate) fn is_watched(&self) -> bool {
        self.watchers.load(Ordering::Acquire) > 0
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// Hands out the next offset. Only under the append lock.
    pub(crate) fn take_next(&self) -> u64 {
        let next = self.next.load(Ordering::Relaxed);
        self.next.store(next + 1, Ordering::Relaxed);
        next
    }

    pub(crate) fn next(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    pub(crate) fn set_next(&self, next: u64) {
        self.next.store(next, Ordering::Relaxed);
    }

    pub(crate) fn open_added(&self) {
        self.open_messages.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn open_removed(&self) {
        let _ = self.open_messages.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    }

    pub(crate) fn log(&self) -> MutexGuard<'_, QueueLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log now begins at `first_position`: entries before the first live one are dropped. Pages are read without
    /// the queue's lock, so that publishing does not wait for the disk.
    pub(crate) fn drop_before(&self, store: &PageStore, first_position: u64) -> Result<(), StorageError> {
        loop {
            let oldest = self.log().oldest_page();
            let dead = match &oldest {
                Some(page) => page.dead_before(store, first_position)?,
                None => 0,
            };
            let mut log = self.log();
            let done = match &oldest {
                Some(page) => !log.drop_of_page(store, page, dead),
                None => log.drop_of_tail(first_position),
            };
            self.publish_ends(&log);
            if done {
                return Ok(());
            }
        }
    }

    /// Copies the published log's ends to where readers see them.
    pub(crate) fn publish_ends(&self, log: &QueueLog) {
        self.min.store(log.min_offset(), Ordering::Release);
        self.max.store(log.max_offset(), Ordering::Release);
    }
}
