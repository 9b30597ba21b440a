//! Whose check-back policy holds for a transaction: the broker's, its producer group's, or in parts its own. Policies of
//! groups are few and known by name; a message's own parts are kept once however many messages ask for the same.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;
use mezzo_protocol::check_policy::{CheckPolicy, CheckWish};
use mezzo_protocol::ids::GroupName;

/// Number of a message's own parts; 0: it has none.
pub(crate) type WishNumber = u32;

/// All policies.
#[derive(Debug)]
pub(crate) struct Policies {
    default: CheckPolicy,
    by_group: BTreeMap<GroupName, CheckPolicy>,
    /// Parts that open transactions ask for, and how many do; the number is the index and 1.
    wishes: Vec<Option<(CheckWish, u32)>>,
    by_wish: HashMap<CheckWish, WishNumber, RandomState>,
    free: Vec<WishNumber>,
}

impl Policies {
    pub(crate) fn new(default: CheckPolicy) -> Self {
        Self {
            default,
            by_group: BTreeMap::new(),
            wishes: Vec::new(),
            by_wish: HashMap::default(),
            free: Vec::new(),
        }
    }

    /// The policy of a transaction of this group with these parts of its own.
    pub(crate) fn of(&self, group: Option<&GroupName>, wish: WishNumber) -> CheckPolicy {
        // without policies of groups no look-up is made
        let own = if self.by_group.is_empty() { None } else { group.and_then(|g| self.by_group.get(g)) };
        let policy = own.unwrap_or(&self.default);
        self.wish(wish).map_or(*policy, |wish| wish.over(policy))
    }

    /// A group's own policy.
    pub(crate) fn of_group(&self, group: &GroupName) -> Option<CheckPolicy> {
        self.by_group.get(group).copied()
    }

    pub(crate) fn put(&mut self, group: GroupName, policy: CheckPolicy) {
        self.by_group.insert(group, policy);
    }

    pub(crate) fn delete(&mut self, group: &GroupName) {
        self.by_group.remove(group);
    }

    /// Groups with a policy of their own, in order of name.
    pub(crate) fn groups(&self) -> &BTreeMap<GroupName, CheckPolicy> {
        &self.by_group
    }

    /// The parts with this number.
    pub(crate) fn wish(&self, number: WishNumber) -> Option<CheckWish> {
        let index = (number as usize).checked_sub(1)?;
        self.wishes.get(index).and_then(Option::as_ref).map(|(wish, _)| *wish)
    }

    /// The number of these parts, with one more transaction counted.
    pub(super) fn acquire(&mut self, wish: Option<&CheckWish>) -> WishNumber {
        let Some(wish) = wish else { return 0 };
        if let Some(number) = self.by_wish.get(wish).copied() {
            if let Some(Some((_, count))) = self.slot(number) {
                *count += 1;
            }
            return number;
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.wishes.push(None);
            u32::try_from(self.wishes.len()).unwrap_or(u32::MAX)
        });
        if let Some(slot) = self.slot(number) {
            *slot = Some((*wish, 1));
        }
        self.by_wish.insert(*wish, number);
        number
    }

    /// One transaction fewer.
    pub(super) fn release(&mut self, number: WishNumber) {
        let Some(slot) = self.slot(number) else { return };
        let Some((wish, count)) = slot else { return };
        *count -= 1;
        if *count == 0 {
            let wish = *wish;
            *slot = None;
            self.by_wish.remove(&wish);
            self.free.push(number);
        }
    }

    fn slot(&mut self, number: WishNumber) -> Option<&mut Option<(CheckWish, u32)>> {
        self.wishes.get_mut((number as usize).checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_messages_parts_go_over_its_groups_policy_and_that_over_the_default() {
        let mut policies = Policies::new(CheckPolicy::default());
        let group = GroupName::new("g").unwrap();
        assert_eq!(policies.of(Some(&group), 0), CheckPolicy::default());
        policies.put(group.clone(), CheckPolicy { check_max: 3, interval_ms: 7, ..CheckPolicy::default() });
        let number = policies.acquire(Some(&CheckWish::parse("attempts=5").unwrap()));
        let policy = policies.of(Some(&group), number);
        assert_eq!((policy.check_max, policy.interval_ms, policy.timeout_ms), (5, 7, 6_000));
        policies.delete(&group);
        assert_eq!(policies.of(Some(&group), number).interval_ms, 30_000);
    }

    #[test]
    fn parts_are_kept_once_and_forgotten_with_the_last_transaction_that_asks_for_them() {
        let mut policies = Policies::new(CheckPolicy::default());
        let (one, two) = (CheckWish::parse("attempts=5").unwrap(), CheckWish::parse("attempts=6").unwrap());
        assert_eq!(policies.acquire(None), 0);
        assert_eq!([&one, &one, &two].map(|wish| policies.acquire(Some(wish))), [1, 1, 2]);
        policies.release(1);
        assert_eq!(policies.wish(1), Some(one));
        policies.release(1);
        policies.release(0);
        assert_eq!((policies.wish(1), policies.by_wish.len()), (None, 1));
        assert_eq!(policies.acquire(Some(&one)), 1);
    }
}
