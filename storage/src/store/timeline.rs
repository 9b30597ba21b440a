//! What happened to one transaction, read back from the log: each record about it names the one before, so the newest
//! leads to all others. Nothing is kept in memory for it but one position per open transaction.
//!
//! What has no record is not in it: asks that did not count, and asks about an IN_DOUBT transaction when a producer of its
//! group connects. A record for each would let clients that come and go fill the disk.

use std::net::SocketAddr;

use mezzo_protocol::ids::{PhysicalOffset, QueueOffset};
use mezzo_protocol::time::Timestamp;

use super::Store;
use crate::error::StorageError;
use crate::format::history_row::HistoryRow;
use crate::format::record::{
    AskAnswer, Asks, Decision as DecisionRecord, MessagePayload, MessagePrefix, Outcome, ParkReason, Parked,
    RecordKind, Resumed, Source,
};

/// Most events of a timeline besides the prepare: the newest ones.
pub const TIMELINE_EVENTS_MAX: usize = 256;

/// What happened to a transaction, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    /// The events, at most [`TIMELINE_EVENTS_MAX`] and the prepare.
    pub events: Vec<Event>,
    /// There were older ones, which the log no longer holds, or which are too many.
    pub older_missing: bool,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Leader time of its record; for an ask, of the ask itself.
    pub at: Timestamp,
    /// What it was.
    pub what: Happened,
}

/// What can happen to a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// Its (first) message was stored, invisible.
    Prepared,
    /// Its producer group was asked about it, and the ask counted.
    Asked {
        /// The number of this ask.
        asks: u32,
        /// Who was asked, if known.
        peer: Option<SocketAddr>,
        /// What came of it.
        answer: AskAnswer,
    },
    /// It became IN_DOUBT.
    Parked {
        /// Why.
        reason: ParkReason,
        /// Asks counted until then.
        asks: u32,
    },
    /// It became PREPARED again.
    Resumed {
        /// Who wanted it so, if known.
        by: Option<SocketAddr>,
    },
    /// It ended.
    Decided {
        /// How.
        outcome: Outcome,
        /// On whose word.
        source: Source,
        /// The address that decided, if the log still tells.
        decider: Option<SocketAddr>,
        /// Why, if that was said and the log still tells.
        reason: Option<String>,
        /// How many messages were decided.
        count: u16,
        /// Where the first of them became visible; `None` after a rollback, or when a delay was to run first.
        queue_offset: Option<QueueOffset>,
    },
}

/// Where a walk stands: the events so far, newest first, and where the next older one is.
struct Walk {
    events: Vec<Event>,
    /// 0: the prepare is next.
    next: u64,
    /// The log does not hold what is next.
    gone: bool,
}

impl Store {
    /// What happened to the transaction that was prepared at `origin`, a raw number from the network; `None` if nobody
    /// remembers it. Reads the disk; call it where that may block.
    ///
    /// # Errors
    /// When the history of decisions, or the log where it holds an event, cannot be read.
    pub fn timeline(&self, origin: PhysicalOffset) -> Result<Option<Timeline>, StorageError> {
        let open = {
            let appender = self.appender();
            appender.ledger.open.get(origin.0).map(|row| (row.last_event, row.prepared_at_ms))
        };
        let mut walk = match open {
            Some((next, _)) => Walk { events: Vec::new(), next, gone: false },
            None => match self.history.find(origin.0)? {
                Some(row) => self.decided(&row)?,
                None => return Ok(None),
            },
        };
        while walk.next != 0 && !walk.gone && walk.events.len() < TIMELINE_EVENTS_MAX {
            match self.step(origin.0, &mut walk) {
                Err(StorageError::Gone { .. }) => walk.gone = true,
                stepped => stepped?,
            }
        }
        let mut whole = walk.next == 0 && !walk.gone && walk.events.len() <= TIMELINE_EVENTS_MAX;
        walk.events.truncate(TIMELINE_EVENTS_MAX);
        let prepared_at = open.map(|(_, at)| at).or_else(|| self.prepared_at(origin.0));
        match prepared_at {
            Some(at) => walk.events.push(Event { at: Timestamp::from_ms(at), what: Happened::Prepared }),
            None => whole = false,
        }
        walk.events.reverse();
        Ok(Some(Timeline { events: walk.events, older_missing: !whole }))
    }

    /// The decision: from its record while the log holds it, else as far as the history remembers.
    fn decided(&self, row: &HistoryRow) -> Result<Walk, StorageError> {
        let mut walk = Walk { events: Vec::new(), next: 0, gone: false };
        let (mut decider, mut reason) = (None, None);
        match self.log.record(row.decision_position) {
            // what led to it stands before it, and so is gone, too
            Err(StorageError::Gone { .. }) => walk.gone = true,
            Err(e) => return Err(e),
            Ok(record) => {
                let bad = |source| StorageError::Format { position: row.decision_position, source };
                let decision = DecisionRecord::decode(record.flags, &record.payload).map_err(bad)?;
                decider = decision.decider;
                reason = decision.reason.map(str::to_owned);
                walk.next = decision.previous_event;
            }
        }
        let what = Happened::Decided {
            outcome: row.outcome,
            source: row.source,
            decider,
            reason,
            count: row.count,
            queue_offset: row.first_queue_offset.map(QueueOffset),
        };
        walk.events.push(Event { at: Timestamp::from_ms(row.decided_at_ms), what });
        Ok(walk)
    }

    /// Reads the record at `walk.next`.
    fn step(&self, origin: u64, walk: &mut Walk) -> Result<(), StorageError> {
        let position = walk.next;
        let record = self.log.record(position)?;
        let time_ms = self.log.frame_time_at(position)?;
        let bad = |source| StorageError::Format { position, source };
        let not_an_event = || StorageError::NotARecord { position };
        let at = Timestamp::from_ms(time_ms);
        let previous = match record.kind {
            RecordKind::Asks => {
                let asks = Asks::decode(record.flags, &record.payload).map_err(bad)?;
                let mut rows = asks.rows.iter().rev().filter(|row| row.origin == origin).peekable();
                let previous = rows.peek().map(|row| row.previous_event);
                walk.events.extend(rows.map(|row| Event {
                    at: Timestamp::from_ms(time_ms.saturating_sub(u64::from(row.waited_ms))),
                    what: Happened::Asked { asks: row.asks, peer: row.peer, answer: row.answer },
                }));
                previous.ok_or_else(not_an_event)?
            }
            RecordKind::Parked => {
                let parked = Parked::decode(record.flags, &record.payload).map_err(bad)?;
                let what = Happened::Parked { reason: parked.reason, asks: parked.asks };
                walk.events.push(Event { at, what });
                parked.previous_event
            }
            RecordKind::Resumed => {
                let resumed = Resumed::decode(record.flags, &record.payload).map_err(bad)?;
                walk.events.push(Event { at, what: Happened::Resumed { by: resumed.by } });
                resumed.previous_event
            }
            _ => return Err(not_an_event()),
        };
        // older is nearer to the log's first byte, so the walk ends
        if previous >= position {
            return Err(not_an_event());
        }
        walk.next = previous;
        Ok(())
    }

    /// When the message at `origin` was prepared, in leader time, if the log still holds it.
    fn prepared_at(&self, origin: u64) -> Option<u64> {
        let record = self.log.record(origin).ok()?;
        let payload = MessagePayload::decode(record.kind, record.flags, &record.payload).ok()?;
        let MessagePrefix::Prepared { .. } = payload.prefix else { return None };
        self.log.frame_time_at(origin).ok()
    }
}
