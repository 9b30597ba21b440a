//! Transactions of many messages: the messages behind the first, which the table knows no more of than of any other
//! half message, and the ids that clients gave. A transaction without an id takes no room here.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use mezzo_protocol::ids::{GroupName, TransactionId};

use super::decided_ids::DecidedIds;
use super::groups::GroupSymbol;
use crate::format::history_row::{HistoryRow, group_hash, key_hash};
use crate::format::record::Outcome;
use crate::half::Fingerprint;

/// A message that joined a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// Where it was prepared.
    pub(crate) position: u64,
    /// Where its bytes are now.
    pub(crate) location: u64,
    pub(crate) size: u32,
    /// Index into the ledger's queue list.
    pub(crate) queue: u32,
    pub(crate) tag_hash: i32,
    /// Visible this long after the commit.
    pub(crate) delay_ms: Option<u64>,
    pub(crate) fingerprint: Fingerprint,
}

/// What an open transaction with an id has beyond its row.
#[derive(Debug, Clone)]
pub(crate) struct ManyMessages {
    pub(crate) id: TransactionId,
    pub(crate) group: GroupSymbol,
    /// Of the message that opened it.
    pub(crate) first: Fingerprint,
    /// Records of all of its messages.
    pub(crate) bytes: u64,
    /// In the order of their prepares.
    pub(crate) further: Vec<Member>,
}

impl ManyMessages {
    /// How many messages it has.
    pub(crate) fn count(&self) -> u16 {
        u16::try_from(self.further.len() + 1).unwrap_or(u16::MAX)
    }

    /// Whether another message of `size` bytes has room in it, where so many messages of so many bytes have.
    pub(crate) fn has_room(&self, size: u64, messages_max: u16, bytes_max: u64) -> bool {
        self.count() < messages_max && self.bytes.saturating_add(size) <= bytes_max
    }

    /// The message with this number: its fingerprint, and its position unless it is the first.
    pub(crate) fn message(&self, sequence: u16) -> Option<(Fingerprint, Option<u64>)> {
        match usize::from(sequence).checked_sub(1) {
            None => Some((self.first, None)),
            Some(index) => self.further.get(index).map(|m| (m.fingerprint, Some(m.position))),
        }
    }
}

/// All open transactions with an id, and the newest decided ones.
#[derive(Debug, Default)]
pub(crate) struct ManyTable {
    by_origin: HashMap<u64, ManyMessages, RandomState>,
    by_id: HashMap<(GroupSymbol, TransactionId), u64, RandomState>,
    /// Joined messages of all of them.
    further: usize,
    decided: DecidedIds,
}

impl ManyTable {
    /// Joined messages that are open, of all transactions.
    pub(crate) fn further(&self) -> usize {
        self.further
    }

    pub(crate) fn insert(&mut self, origin: u64, many: ManyMessages) {
        self.further += many.further.len();
        self.by_id.insert((many.group, many.id.clone()), origin);
        self.by_origin.insert(origin, many);
    }

    pub(crate) fn get(&self, origin: u64) -> Option<&ManyMessages> {
        if self.by_origin.is_empty() { None } else { self.by_origin.get(&origin) }
    }

    /// The open transaction of this id.
    pub(crate) fn find(&self, group: GroupSymbol, id: &TransactionId) -> Option<u64> {
        self.by_id.get(&(group, id.clone())).copied()
    }

    /// Adds a message; false when the transaction is not open, or has no id.
    pub(crate) fn join(&mut self, origin: u64, member: Member) -> bool {
        let Some(many) = self.by_origin.get_mut(&origin) else { return false };
        many.bytes += u64::from(member.size);
        many.further.push(member);
        self.further += 1;
        true
    }

    /// The joined message whose bytes are at `location`.
    pub(crate) fn member_at(&mut self, origin: u64, location: u64) -> Option<&mut Member> {
        self.by_origin.get_mut(&origin)?.further.iter_mut().find(|m| m.location == location)
    }

    /// Takes out a transaction that is decided.
    pub(crate) fn remove(&mut self, origin: u64) -> Option<ManyMessages> {
        if self.by_origin.is_empty() {
            return None;
        }
        let many = self.by_origin.remove(&origin)?;
        self.further -= many.further.len();
        self.by_id.remove(&(many.group, many.id.clone()));
        Some(many)
    }

    /// All of them, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &ManyMessages)> {
        let mut all: Vec<_> = self.by_origin.iter().map(|(origin, many)| (*origin, many)).collect();
        all.sort_unstable_by_key(|(origin, _)| *origin);
        all.into_iter()
    }

    /// Remembers a decision by the transaction's id.
    pub(crate) fn decided(&mut self, row: HistoryRow) {
        self.decided.add(row);
    }

    /// The decision about the transaction of this id, if it is among the newest.
    pub(crate) fn find_decided(&self, group: &GroupName, id: &TransactionId) -> Option<&HistoryRow> {
        self.decided.whole((group_hash(group), key_hash(id)))
    }

    /// Origin and outcome of the transaction of this id, if it was decided lately: further back than
    /// [`ManyTable::find_decided`] goes.
    pub(crate) fn decided_lately(&self, group: &GroupName, id: &TransactionId) -> Option<(u64, Outcome)> {
        self.decided.find((group_hash(group), key_hash(id)))
    }

    #[cfg(test)]
    pub(crate) fn decided_as(&self, group_hash: u32, key_hash: u64) -> Option<(u64, Outcome)> {
        self.decided.find((group_hash, key_hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn many(id: &str) -> ManyMessages {
        ManyMessages {
            id: TransactionId::new(id).unwrap(),
            group: 7,
            first: Fingerprint::default(),
            bytes: 0,
            further: Vec::new(),
        }
    }

    fn member(position: u64) -> Member {
        Member {
            position,
            location: position,
            size: 10,
            queue: 0,
            tag_hash: 0,
            delay_ms: None,
            fingerprint: Fingerprint { message_bytes: 1, body_crc: 2 },
        }
    }

    #[test]
    fn a_transaction_is_found_by_its_id_until_it_is_taken_out() {
        let mut table = ManyTable::default();
        table.insert(5, many("a"));
        assert!(table.join(5, member(6)) && table.join(5, member(7)));
        assert!(!table.join(4, member(8)));
        let id = TransactionId::new("a").unwrap();
        assert_eq!((table.find(7, &id), table.find(8, &id)), (Some(5), None));
        assert_eq!((table.further(), table.get(5).unwrap().count()), (2, 3));
        assert_eq!(table.get(5).unwrap().message(2).unwrap().1, Some(7));
        assert_eq!(table.get(5).unwrap().message(3), None);
        assert_eq!(table.remove(5).unwrap().further.len(), 2);
        assert_eq!((table.find(7, &id), table.further()), (None, 0));
    }

    #[test]
    fn a_transaction_is_full_at_either_bound() {
        let mut full = many("a");
        assert!(full.has_room(64, 5, 64) && !full.has_room(65, 5, 64) && !full.has_room(u64::MAX, 5, 64));
        full.further = (1..4).map(member).collect();
        assert!(full.has_room(0, 5, 64) && !full.has_room(0, 4, 64));
    }
}
