//! Reads messages of one queue for a consumer. What a consumer gets are patched copies of the stored bytes: queue
//! offset, position, visible time, the broker's address, a region, and for a committed half message its origin.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use mezzo_protocol::{
    error::DecodeError,
    ids::{PhysicalOffset, QueueOffset},
    message::{properties, record, sys_flag::TransactionBits, tag::TagFilter},
    time::Timestamp,
};
use mezzo_storage::{Queue, QueueEntry, StorageError, Store, StoredMessage};

/// The region that every delivered message names, as RocketMQ's broker does unless told otherwise: Java's consumers of
/// RocketMQ 5 trace no message without one.
const REGION: &str = "DefaultRegion";

/// What a consumer asks of one queue.
#[derive(Debug, Clone)]
pub(crate) struct Pull {
    /// The queue.
    pub(crate) queue: Arc<Queue>,
    /// The first offset it wants.
    pub(crate) from: QueueOffset,
    /// Messages at most; at least 1.
    pub(crate) messages_max: usize,
    /// Bytes at most, except that a first message is given whatever its size.
    pub(crate) bytes_max: usize,
    /// The tags it wants.
    pub(crate) filter: TagFilter,
    /// The group whose heartbeats say what it wants; `None` for a pull that says so itself.
    pub(crate) group: Option<Box<str>>,
}

/// How a pull went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PullStatus {
    /// There are messages.
    Found,
    /// There were messages, but none that the filter lets through or that still exist: go on at `next`.
    NoMatch,
    /// The queue ends here: wait.
    Empty,
    /// The queue does not reach this offset, or no longer begins before it: go on at `next`.
    OffsetMoved,
}

/// What a pull brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pulled {
    /// How it went.
    pub(crate) status: PullStatus,
    /// Delivered messages, one behind the other.
    pub(crate) body: Bytes,
    /// How many.
    pub(crate) messages: u64,
    /// Where to go on.
    pub(crate) next: QueueOffset,
    /// First offset that can be read.
    pub(crate) min: QueueOffset,
    /// One past the last.
    pub(crate) max: QueueOffset,
}

/// Whether a read may wait for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Only what is in memory: for threads that must not wait.
    Hot,
    /// Everything.
    Disk,
}

/// What came of an attempt.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// The answer.
    Done(Pulled),
    /// It needs the disk: try again with [`Reach::Disk`] on a thread that may wait.
    Cold,
}

/// Why a pull cannot be answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PullError {
    /// The store cannot read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A stored message is not what it should be.
    #[error("message at offset {offset}: {source}")]
    Message {
        /// Its place in the queue.
        offset: u64,
        /// What is wrong with it.
        source: DecodeError,
    },
}

/// Reads for a consumer; `host` is the address under which clients know this broker.
///
/// # Errors
/// [`PullError`]. A message whose bytes are gone meanwhile is no error: it is passed over.
pub(crate) fn pull(store: &Store, host: SocketAddr, pull: &Pull, reach: Reach) -> Result<Attempt, PullError> {
    let queue = &pull.queue;
    // the minimum first: it may grow while we look, and an offset below it is told to move
    let (min, max) = (queue.min_offset(), queue.max_offset());
    let nothing =
        |status, next| Ok(Attempt::Done(Pulled { status, body: Bytes::new(), messages: 0, next, min, max }));
    if pull.from < min {
        return nothing(PullStatus::OffsetMoved, min);
    }
    if pull.from > max {
        return nothing(PullStatus::OffsetMoved, max);
    }
    if pull.from == max {
        return nothing(PullStatus::Empty, max);
    }
    let mut keep = |entry: &QueueEntry| pull.filter.matches_hash(entry.tag_hash);
    let read = store.read_entries(queue, pull.from, pull.messages_max.max(1), &mut keep)?;
    if reach == Reach::Hot && read.entries.iter().any(|(_, entry)| !store.is_hot(entry)) {
        return Ok(Attempt::Cold);
    }
    let mut next = QueueOffset(read.next_offset);
    let mut body = BytesMut::new();
    let mut messages = 0;
    for (offset, entry) in &read.entries {
        let full = body.len().saturating_add(entry.size as usize) > pull.bytes_max;
        if full && !body.is_empty() {
            next = QueueOffset(*offset);
            break;
        }
        let stored = match store.read_message(entry) {
            Ok(stored) => stored,
            Err(StorageError::Gone { .. }) => continue,
            // what comes before damage is delivered; who asks for the damaged message itself is told
            Err(StorageError::Corrupt { .. }) if !body.is_empty() => {
                next = QueueOffset(*offset);
                break;
            }
            Err(error) => return Err(error.into()),
        };
        let visible_at = Timestamp::from_ms(entry.visible_at_ms);
        deliver(&stored, QueueOffset(*offset), visible_at, host, &mut body)
            .map_err(|source| PullError::Message { offset: *offset, source })?;
        messages += 1;
    }
    let status = if body.is_empty() { PullStatus::NoMatch } else { PullStatus::Found };
    Ok(Attempt::Done(Pulled { status, body: body.freeze(), messages, next, min, max }))
}

/// Appends the delivered form of a visible message to `out`; on an error `out` is as before.
///
/// # Errors
/// The stored bytes are no message.
pub(crate) fn deliver(
    stored: &StoredMessage,
    queue_offset: QueueOffset,
    visible_at: Timestamp,
    host: SocketAddr,
    out: &mut BytesMut,
) -> Result<(), DecodeError> {
    let start = out.len();
    out.extend_from_slice(&stored.bytes);
    let (prepared_transaction_offset, transaction) = match stored.origin {
        Some(origin) => (origin, TransactionBits::Commit),
        None => (PhysicalOffset(0), TransactionBits::Not),
    };
    let delivery = record::Delivery {
        queue_offset,
        physical_offset: stored.position,
        store_timestamp: visible_at,
        store_host: host,
        prepared_transaction_offset,
        transaction,
    };
    let patched = match record::patch(out.get_mut(start..).unwrap_or_default(), &delivery) {
        // stored while the broker had an IPv4 address: no room for the one it has now
        Err(_) if host.is_ipv6() => {
            let nowhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), host.port());
            let delivery = record::Delivery { store_host: nowhere, ..delivery };
            record::patch(out.get_mut(start..).unwrap_or_default(), &delivery)
        }
        patched => patched,
    };
    patched
        .and_then(|()| record::add_property(out, start, properties::MSG_REGION, REGION))
        .inspect_err(|_| out.truncate(start))
}
