//! Which connections speak for which producer group, and what each of them has been asked and not answered. A group's
//! members take turns; one that has too many open asks, or does not read what it is sent, is passed over.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
};

use mezzo_protocol::ids::{GroupName, PhysicalOffset};

/// One producer connection.
#[derive(Debug, Default)]
struct Member {
    groups: Vec<GroupName>,
    unanswered: BTreeSet<PhysicalOffset>,
    /// Something was heard from it after everything up to this number had been written to it.
    heard: u64,
    /// It did not take the last ask; it gets none until [`Members::forgive`].
    congested: bool,
}

#[derive(Debug)]
struct Group<C> {
    connections: Vec<C>,
    /// Whose turn it is.
    next: usize,
}

/// All producer connections, by name and by group.
#[derive(Debug)]
pub(crate) struct Members<C> {
    unanswered_max: usize,
    members: BTreeMap<C, Member>,
    groups: HashMap<GroupName, Group<C>>,
}

impl<C: Copy + Ord + Hash> Members<C> {
    /// Nobody yet; a connection gets at most `unanswered_max` asks that it has not answered.
    pub(crate) fn new(unanswered_max: usize) -> Self {
        Self { unanswered_max, members: BTreeMap::new(), groups: HashMap::new() }
    }

    /// `connection` speaks for `group` from now on. False if it did already.
    pub(crate) fn join(&mut self, group: &GroupName, connection: C) -> bool {
        let member = self.members.entry(connection).or_default();
        if member.groups.contains(group) {
            return false;
        }
        member.groups.push(group.clone());
        let entry =
            self.groups.entry(group.clone()).or_insert_with(|| Group { connections: Vec::new(), next: 0 });
        entry.connections.push(connection);
        true
    }

    /// `connection` speaks for `group` no longer. What it was asked stays open.
    pub(crate) fn leave(&mut self, group: &GroupName, connection: C) {
        if let Some(member) = self.members.get_mut(&connection) {
            member.groups.retain(|other| other != group);
        }
        self.drop_from_group(group, connection);
    }

    /// `connection` is gone. Gives back its groups, and what it was asked and did not answer, oldest transaction first.
    pub(crate) fn close(&mut self, connection: C) -> (Vec<GroupName>, BTreeSet<PhysicalOffset>) {
        let member = self.members.remove(&connection).unwrap_or_default();
        for group in &member.groups {
            self.drop_from_group(group, connection);
        }
        (member.groups, member.unanswered)
    }

    /// Whether anybody speaks for `group`.
    pub(crate) fn has_any(&self, group: &GroupName) -> bool {
        self.groups.contains_key(group)
    }

    fn drop_from_group(&mut self, group: &GroupName, connection: C) {
        if let Some(entry) = self.groups.get_mut(group) {
            entry.connections.retain(|&other| other != connection);
            if entry.connections.is_empty() {
                self.groups.remove(group);
            }
        }
    }

    /// The member of `group` whose turn it is and that can be asked.
    pub(crate) fn take_turn(&mut self, group: &GroupName) -> Option<C> {
        let entry = self.groups.get_mut(group)?;
        let count = entry.connections.len();
        for step in 0..count {
            let index = (entry.next + step) % count;
            let connection = *entry.connections.get(index)?;
            let member = self.members.get(&connection)?;
            if !member.congested && member.unanswered.len() < self.unanswered_max {
                entry.next = index + 1;
                return Some(connection);
            }
        }
        None
    }

    /// `connection` is being asked about `origin`.
    pub(crate) fn ask(&mut self, connection: C, origin: PhysicalOffset) {
        if let Some(member) = self.members.get_mut(&connection) {
            member.unanswered.insert(origin);
        }
    }

    /// The ask about `origin` is no longer open at `connection`. Gives the groups that may have room again because of
    /// that.
    pub(crate) fn settle(&mut self, connection: C, origin: PhysicalOffset) -> &[GroupName] {
        let Some(member) = self.members.get_mut(&connection) else { return &[] };
        if member.unanswered.remove(&origin) { &member.groups } else { &[] }
    }

    /// Something was heard from `connection` after everything up to `mark` had been written to it.
    pub(crate) fn heard(&mut self, connection: C, mark: u64) {
        if let Some(member) = self.members.get_mut(&connection) {
            member.heard = member.heard.max(mark);
        }
    }

    /// The greatest number that [`Self::heard`] was told of `connection`.
    pub(crate) fn heard_from(&self, connection: C) -> u64 {
        self.members.get(&connection).map_or(0, |member| member.heard)
    }

    /// `connection` did not take an ask.
    pub(crate) fn congest(&mut self, connection: C) {
        if let Some(member) = self.members.get_mut(&connection) {
            member.congested = true;
        }
    }

    /// Every connection may be tried again.
    pub(crate) fn forgive(&mut self) {
        for member in self.members.values_mut() {
            member.congested = false;
        }
    }

    /// Every connection with open asks, in order.
    pub(crate) fn asked(&self) -> impl Iterator<Item = C> {
        self.members
            .iter()
            .filter(|(_, member)| !member.unanswered.is_empty())
            .map(|(connection, _)| *connection)
    }

    /// Open asks of all connections.
    #[cfg(test)]
    pub(crate) fn unanswered(&self) -> usize {
        self.members.values().map(|member| member.unanswered.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str) -> GroupName {
        GroupName::new(name).unwrap()
    }

    #[test]
    fn members_take_turns_and_full_or_congested_ones_are_passed_over() {
        let (g, mut members) = (group("g"), Members::new(1));
        assert_eq!(members.take_turn(&g), None);
        assert!(members.join(&g, 1_u64) && members.join(&g, 2) && members.join(&g, 3));
        assert!(!members.join(&g, 2));
        assert_eq!([members.take_turn(&g), members.take_turn(&g)], [Some(1), Some(2)]);
        members.ask(3, PhysicalOffset(7));
        members.congest(1);
        assert_eq!([members.take_turn(&g), members.take_turn(&g)], [Some(2), Some(2)]);
        members.ask(2, PhysicalOffset(8));
        assert_eq!(members.take_turn(&g), None);
        assert_eq!(members.settle(3, PhysicalOffset(7)), std::slice::from_ref(&g));
        assert!(members.settle(3, PhysicalOffset(7)).is_empty());
        members.forgive();
        assert_eq!(members.take_turn(&g), Some(3));
        assert_eq!(members.take_turn(&g), Some(1));
    }

    #[test]
    fn closing_gives_back_open_asks_and_leaves_every_group() {
        let (a, b, mut members) = (group("a"), group("b"), Members::new(8));
        members.join(&a, 1_u64);
        members.join(&b, 1);
        members.join(&b, 2);
        members.ask(1, PhysicalOffset(20));
        members.ask(1, PhysicalOffset(10));
        assert_eq!(
            members.close(1).1.into_iter().collect::<Vec<_>>(),
            [PhysicalOffset(10), PhysicalOffset(20)]
        );
        assert_eq!(members.take_turn(&a), None);
        assert_eq!(members.take_turn(&b), Some(2));
        assert_eq!(members.members.keys().copied().collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn leaving_one_group_keeps_the_other() {
        let (a, b, mut members) = (group("a"), group("b"), Members::new(8));
        members.join(&a, 1_u64);
        members.join(&b, 1);
        members.leave(&a, 1);
        assert_eq!((members.take_turn(&a), members.take_turn(&b)), (None, Some(1)));
        assert!(members.join(&a, 1));
    }
}
