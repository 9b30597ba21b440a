//! The table as everyone shares it. Its lock is the last in the order of locks, and held for one look.

use std::sync::PoisonError;

use mezzo_protocol::ids::PhysicalOffset;
use mezzo_protocol::time::Timestamp;

use super::key::{KeySecret, SendFacts, SendKey};
use super::table::{Row, Table};
use crate::concurrency::{Mutex, MutexGuard};

/// Names the connection that a send came by, as long as the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SenderId(u32);

impl SenderId {
    /// Of the connection with this number. Numbers that are four billion connections apart get the same name, which is
    /// far longer than any window.
    #[must_use]
    pub fn of(connection: u64) -> Self {
        let number = connection % u64::from(u32::MAX);
        Self(u32::try_from(number).unwrap_or(0) + 1)
    }

    pub(super) fn from_number(number: u32) -> Option<Self> {
        (number > 0).then_some(Self(number))
    }

    pub(super) const fn number(self) -> u32 {
        self.0
    }
}

/// The place of a message in the batch that it was sent in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// From 0.
    pub index: u16,
    /// How many; 0 if that is not known any more, because the broker was started since.
    pub count: u16,
}

impl Part {
    /// A message sent alone.
    pub const ALONE: Self = Self { index: 0, count: 1 };
    const FORGOTTEN: Self = Self { index: 0, count: 0 };

    /// Whether a message in the place `other` can be the one in this place, sent again with its batch.
    #[must_use]
    pub fn may_be(self, other: Self) -> bool {
        self.count == 0 || self == other
    }
}

/// An earlier send of the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstSend {
    /// Where its record stands.
    pub position: PhysicalOffset,
    /// The connection that it came by and that may have got its answer; `None` when that one cannot have it: it ended
    /// first, it was answered too late, or the broker was started since.
    pub sender: Option<SenderId>,
    /// Its place in its batch.
    pub part: Part,
}

/// Sends that were not repeats, the newest of them. A fixed amount of memory, taken with the first send.
#[derive(Debug)]
pub struct FirstSends {
    secret: KeySecret,
    table_bytes: usize,
    window_ms: u64,
    table: Mutex<Option<Table>>,
}

impl FirstSends {
    pub(crate) fn new(table_bytes: usize, window_ms: u64) -> Self {
        Self { secret: KeySecret::default(), table_bytes, window_ms, table: Mutex::new(None) }
    }

    fn table(&self) -> MutexGuard<'_, Option<Table>> {
        // whole after each step
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key of these facts, in this process.
    #[must_use]
    pub fn key(&self, facts: &SendFacts<'_>) -> SendKey {
        self.secret.key(facts)
    }

    /// The newest send of `key` that is not older than the window.
    #[must_use]
    pub fn find(&self, key: SendKey, now: Timestamp) -> Option<FirstSend> {
        let row = self.table().as_ref()?.find(key)?;
        let fresh = row.at_ms.saturating_add(self.window_ms) >= now.as_ms();
        fresh.then_some(FirstSend {
            position: PhysicalOffset(row.position),
            sender: row.sender,
            part: row.part,
        })
    }

    /// Remembers the send whose record stands at `position`.
    pub(super) fn remember(
        &self,
        key: SendKey,
        position: PhysicalOffset,
        at_ms: u64,
        sender: SenderId,
        part: Part,
    ) {
        self.put(Row { key, position: position.0, at_ms, sender: Some(sender), part });
    }

    /// Remembers a send of before this start, whose sender is gone.
    pub(crate) fn restore(&self, key: SendKey, position: u64, at_ms: u64) {
        self.put(Row { key, position, at_ms, sender: None, part: Part::FORGOTTEN });
    }

    fn put(&self, row: Row) {
        let mut table = self.table();
        let gone = table.get_or_insert_with(|| Table::new(self.table_bytes)).put(row);
        drop(table);
        // seldom: each time hundreds of thousands of sends have come since the last time
        if let Some(age_ms) = gone.map(|oldest| row.at_ms.saturating_sub(oldest))
            && age_ms < self.window_ms
        {
            tracing::warn!(
                effective_window_ms = age_ms,
                "sends are forgotten before dedup.window is over: raise dedup.table_bytes to keep more of them"
            );
        }
    }

    /// The message of a send has been carried to another place.
    pub(crate) fn moved(&self, key: SendKey, from: u64, to: u64) {
        if let Some(table) = self.table().as_mut()
            && let Some(row) = table.find(key).filter(|row| row.position == from)
        {
            table.put(Row { position: to, ..row });
        }
    }

    /// The answers of these sends have reached nobody: whoever repeats them now has not had an answer.
    pub fn lose(&self, sends: impl IntoIterator<Item = (SendKey, PhysicalOffset)>) {
        if let Some(table) = self.table().as_mut() {
            for (key, position) in sends {
                table.set_sender(key, position.0, None);
            }
        }
    }

    /// The send is answered once more, to a connection that repeated it.
    pub fn answered_by(&self, key: SendKey, position: PhysicalOffset, sender: SenderId) {
        if let Some(table) = self.table().as_mut() {
            table.set_sender(key, position.0, Some(sender));
        }
    }

    /// Milliseconds that a repeat may come after the oldest send that is still known, at most the window; `None` while
    /// no send is known.
    #[must_use]
    pub fn effective_window_ms(&self, now: Timestamp) -> Option<u64> {
        let oldest_ms = self.table().as_ref()?.oldest_ms()?;
        Some(now.as_ms().saturating_sub(oldest_ms).min(self.window_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_send_is_known_for_the_window_and_no_longer() {
        let sends = FirstSends::new(1 << 12, 1_000);
        let key = sends.key(&SendFacts::Explicit { topic: "t", id: "1" });
        assert_eq!(sends.effective_window_ms(Timestamp::from_ms(10_000)), None);
        sends.remember(key, PhysicalOffset(7), 10_000, SenderId::of(0), Part::ALONE);
        let found = sends.find(key, Timestamp::from_ms(11_000)).unwrap();
        assert_eq!((found.position, found.sender), (PhysicalOffset(7), Some(SenderId::of(0))));
        assert_eq!(sends.find(key, Timestamp::from_ms(11_001)), None);
        assert!(sends.find(key, Timestamp::from_ms(9_000)).is_some(), "a clock that was set back");
        assert_eq!(sends.effective_window_ms(Timestamp::from_ms(10_400)), Some(400));
        assert_eq!(sends.effective_window_ms(Timestamp::from_ms(99_000)), Some(1_000));
    }

    #[test]
    fn connections_have_names_of_their_own() {
        let names: Vec<_> = [0, 1, 2, u64::from(u32::MAX) - 1].map(SenderId::of).to_vec();
        assert!(names.iter().all(|name| name.number() > 0));
        assert_eq!(SenderId::of(u64::from(u32::MAX)), SenderId::of(0));
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
