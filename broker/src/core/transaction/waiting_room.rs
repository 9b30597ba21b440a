//! Transactions that are due and cannot be asked about yet, in due order per producer group. The room is bounded, and
//! nobody who could be asked is kept out by those who cannot: where it is full, the newest entry of a group without
//! members makes way, and where all have members, the newest of the group with the most entries. So a group whose
//! producers are slow to answer, or never do, cannot fill the room against the others. Whoever leaves the room unasked
//! comes back when the log says that it is due again; an entry that does not come back was decided meanwhile, and is
//! forgotten.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use mezzo_protocol::{
    check_policy::CheckPolicy,
    ids::{GroupName, PhysicalOffset},
    time::Timestamp,
};

/// A transaction that waits to be asked about.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    /// Whose members are asked.
    pub(crate) group: GroupName,
    /// Lower was due earlier.
    pub(crate) order: u64,
    /// Asks that have counted so far.
    pub(crate) asks: u32,
    /// IN_DOUBT: asked once, counted never.
    pub(crate) doubtful: bool,
    /// It was asked before and that ask is still without answer.
    pub(crate) asked: bool,
    /// How it is asked about.
    pub(crate) policy: CheckPolicy,
    /// It is forgotten at this time: it would have been due again before, were it still undecided.
    pub(crate) until: Timestamp,
}

/// What waits.
#[derive(Debug, Default)]
pub(crate) struct WaitingRoom {
    capacity: usize,
    entries: HashMap<PhysicalOffset, Waiting>,
    /// What waits, per group, in due order.
    queues: HashMap<GroupName, BTreeMap<u64, PhysicalOffset>>,
    /// How many of each group wait.
    sizes: BTreeSet<(usize, GroupName)>,
    /// Head of each queue whose group may have a member with room.
    heads: BTreeSet<(u64, GroupName)>,
    /// Entries of groups that nobody speaks for.
    memberless: BTreeSet<(u64, PhysicalOffset)>,
    expiries: BTreeSet<(Timestamp, PhysicalOffset)>,
}

impl WaitingRoom {
    /// An empty room for `capacity` entries.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, ..Self::default() }
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many wait, by each of the orders they are kept in.
    #[cfg(test)]
    pub(crate) fn checked_len(&self) -> usize {
        assert_eq!(self.entries.len(), self.queues.values().map(BTreeMap::len).sum::<usize>());
        assert_eq!(self.entries.len(), self.expiries.len());
        assert_eq!(self.entries.len(), self.sizes.iter().map(|(size, _)| size).sum::<usize>());
        self.entries.len()
    }

    /// The entry of a transaction.
    pub(crate) fn get(&self, origin: PhysicalOffset) -> Option<&Waiting> {
        self.entries.get(&origin)
    }

    /// Lets a transaction in, at the place its order says. One that waits already keeps its place. False if the room is
    /// full and nobody makes way: the group has no members, or no other group has clearly more entries.
    pub(crate) fn enter(&mut self, origin: PhysicalOffset, entry: Waiting, has_members: bool) -> bool {
        if let Some(known) = self.entries.get_mut(&origin) {
            self.expiries.remove(&(known.until, origin));
            known.until = known.until.max(entry.until);
            self.expiries.insert((known.until, origin));
            return true;
        }
        if self.entries.len() >= self.capacity {
            let newest = if has_members { self.makes_way_for(&entry.group) } else { None };
            let Some(newest) = newest else { return false };
            self.leave(newest);
        }
        let (group, order) = (entry.group.clone(), entry.order);
        let queue = self.queues.entry(group.clone()).or_default();
        if let Some((&head, _)) = queue.first_key_value() {
            self.heads.remove(&(head, group.clone()));
        }
        queue.insert(order, origin);
        let size = queue.len();
        self.sizes.remove(&(size - 1, group.clone()));
        self.sizes.insert((size, group.clone()));
        if !has_members {
            self.memberless.insert((order, origin));
        }
        self.expiries.insert((entry.until, origin));
        self.entries.insert(origin, entry);
        self.unblock(&group);
        true
    }

    /// Who leaves the full room so that one more of `group`, which has members, can enter.
    fn makes_way_for(&self, group: &GroupName) -> Option<PhysicalOffset> {
        if let Some(&(_, newest)) = self.memberless.last() {
            return Some(newest);
        }
        let (most, largest) = self.sizes.last()?;
        let own = self.queues.get(group).map_or(0, BTreeMap::len);
        // with one more here and one less there it must not be the other way round
        if *most <= own + 1 {
            return None;
        }
        self.queues.get(largest)?.last_key_value().map(|(_, newest)| *newest)
    }

    /// Takes a transaction out.
    pub(crate) fn leave(&mut self, origin: PhysicalOffset) -> Option<Waiting> {
        let entry = self.entries.remove(&origin)?;
        self.memberless.remove(&(entry.order, origin));
        self.expiries.remove(&(entry.until, origin));
        let Some(queue) = self.queues.get_mut(&entry.group) else { return Some(entry) };
        self.sizes.remove(&(queue.len(), entry.group.clone()));
        queue.remove(&entry.order);
        if !queue.is_empty() {
            self.sizes.insert((queue.len(), entry.group.clone()));
        }
        let was_head = self.heads.remove(&(entry.order, entry.group.clone()));
        match queue.first_key_value() {
            None => {
                self.queues.remove(&entry.group);
            }
            Some((&head, _)) if was_head => {
                self.heads.insert((head, entry.group.clone()));
            }
            Some(_) => {}
        }
        Some(entry)
    }

    /// The group whose head was due first, among those that are not blocked.
    pub(crate) fn first_group(&self) -> Option<&GroupName> {
        self.heads.first().map(|(_, group)| group)
    }

    /// The group's head.
    pub(crate) fn head(&self, group: &GroupName) -> Option<PhysicalOffset> {
        self.queues.get(group)?.first_key_value().map(|(_, origin)| *origin)
    }

    /// Nobody of the group can be asked now.
    pub(crate) fn block(&mut self, group: &GroupName) {
        if let Some((&head, _)) = self.queues.get(group).and_then(BTreeMap::first_key_value) {
            self.heads.remove(&(head, group.clone()));
        }
    }

    /// Somebody of the group may be asked again.
    pub(crate) fn unblock(&mut self, group: &GroupName) {
        if let Some((&head, _)) = self.queues.get(group).and_then(BTreeMap::first_key_value) {
            self.heads.insert((head, group.clone()));
        }
    }

    /// Every group with something waiting may be tried again.
    pub(crate) fn unblock_all(&mut self) {
        for (group, queue) in &self.queues {
            if let Some((&head, _)) = queue.first_key_value() {
                self.heads.insert((head, group.clone()));
            }
        }
    }

    /// The group has its first member, or has lost its last one.
    pub(crate) fn set_members(&mut self, group: &GroupName, has_members: bool) {
        for (&order, &origin) in self.queues.get(group).into_iter().flatten() {
            if has_members {
                self.memberless.remove(&(order, origin));
            } else {
                self.memberless.insert((order, origin));
            }
        }
    }

    /// Forgets entries whose time is up.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        while let Some(&(until, origin)) = self.expiries.first() {
            if until > now {
                return;
            }
            self.leave(origin);
        }
    }

    /// Whether some group may be asked.
    pub(crate) fn is_ready(&self) -> bool {
        !self.heads.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(group: &str, order: u64, until_ms: u64) -> Waiting {
        Waiting {
            group: GroupName::new(group).unwrap(),
            order,
            asks: 0,
            doubtful: false,
            asked: false,
            policy: CheckPolicy::default(),
            until: Timestamp::from_ms(until_ms),
        }
    }

    fn enter(room: &mut WaitingRoom, origin: u64, group: &str, order: u64, has_members: bool) -> bool {
        room.enter(PhysicalOffset(origin), entry(group, order, 100), has_members)
    }

    fn group(name: &str) -> GroupName {
        GroupName::new(name).unwrap()
    }

    #[test]
    fn a_full_room_lets_in_who_can_be_asked_at_the_cost_of_the_newest_who_cannot() {
        let mut room = WaitingRoom::new(3);
        assert!(enter(&mut room, 1, "dead", 1, false));
        assert!(enter(&mut room, 2, "dead", 2, false));
        assert!(enter(&mut room, 3, "alive", 3, true));
        assert!(!enter(&mut room, 4, "dead", 4, false));
        assert!(enter(&mut room, 5, "alive", 5, true));
        assert!(room.get(PhysicalOffset(2)).is_none());
        // now somebody speaks for them: they stay
        room.set_members(&group("dead"), true);
        assert!(!enter(&mut room, 6, "alive", 6, true));
        room.set_members(&group("dead"), false);
        assert!(enter(&mut room, 6, "alive", 6, true));
        assert!(!enter(&mut room, 7, "alive", 7, true));
        assert_eq!(room.checked_len(), 3);
    }

    #[test]
    fn a_group_that_fills_the_room_makes_way_for_others_until_all_have_the_same() {
        let mut room = WaitingRoom::new(4);
        for origin in 1..=4 {
            assert!(enter(&mut room, origin, "slow", origin, true));
        }
        assert!(!enter(&mut room, 5, "slow", 5, true));
        assert!(enter(&mut room, 6, "other", 6, true));
        assert!(enter(&mut room, 7, "other", 7, true));
        assert!(!enter(&mut room, 8, "other", 8, true));
        assert!(!enter(&mut room, 9, "nobody", 9, false));
        assert!(room.get(PhysicalOffset(3)).is_none() && room.get(PhysicalOffset(4)).is_none());
        assert_eq!(room.head(&group("slow")), Some(PhysicalOffset(1)), "its oldest stay");
        assert_eq!(room.checked_len(), 4);
        room.leave(PhysicalOffset(6));
        room.leave(PhysicalOffset(7));
        assert!(enter(&mut room, 10, "third", 10, true));
        assert_eq!(room.checked_len(), 3);
    }

    #[test]
    fn heads_come_in_due_order_and_blocked_groups_are_passed_over() {
        let mut room = WaitingRoom::new(9);
        enter(&mut room, 10, "a", 2, true);
        enter(&mut room, 11, "b", 1, true);
        enter(&mut room, 12, "b", 3, true);
        assert_eq!(room.first_group(), Some(&group("b")));
        room.block(&group("b"));
        assert_eq!(room.first_group(), Some(&group("a")));
        room.block(&group("a"));
        assert!(!room.is_ready());
        room.unblock_all();
        assert_eq!(room.head(&group("b")), Some(PhysicalOffset(11)));
        room.leave(PhysicalOffset(11));
        assert_eq!(room.first_group(), Some(&group("a")));
        assert_eq!(room.head(&group("b")), Some(PhysicalOffset(12)));
    }

    #[test]
    fn an_entry_is_forgotten_unless_it_is_due_again_in_time() {
        let mut room = WaitingRoom::new(9);
        enter(&mut room, 1, "g", 1, false);
        enter(&mut room, 2, "g", 2, false);
        room.enter(PhysicalOffset(1), entry("g", 3, 200), false);
        room.expire(Timestamp::from_ms(100));
        assert_eq!((room.checked_len(), room.head(&group("g"))), (1, Some(PhysicalOffset(1))));
        assert_eq!(room.get(PhysicalOffset(1)).map(|entry| entry.order), Some(1), "it kept its place");
        room.expire(Timestamp::from_ms(200));
        assert_eq!(room.checked_len(), 0);
    }
}
