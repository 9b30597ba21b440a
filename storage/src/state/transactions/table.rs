//! The table of open half messages: one row each, found by origin, ordered in time by the wheel.

use std::collections::{BTreeSet, HashMap};

use foldhash::fast::RandomState;
use mezzo_protocol::check_policy::CheckWish;
use mezzo_protocol::ids::{GroupName, PhysicalOffset};
use mezzo_protocol::time::Timestamp;

use super::by_key::{ByKey, OpenOfKey, RowKey};
use super::groups::{GroupSymbol, GroupSymbols};
use super::policies::{Policies, WishNumber};
use super::wheel::{Links, NONE, Wheel};
use crate::format::record::ParkReason;
use crate::options::CheckPolicy;

/// An END that a producer sends just within its timeout is on its way when the timeout ends; asking then would only
/// cross it. So the first ask comes this much later.
const FIRST_ASK_SLACK_MS: u64 = 500;

/// State of a transaction that is not decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenState {
    /// Asked about until it is decided or parked.
    Prepared,
    /// Parked: asked no more on a timer, accepts END like a prepared one.
    InDoubt,
}

/// What is kept of an open half message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenRow {
    pub(crate) origin: u64,
    /// Where its bytes are now; moved by `carried` records only.
    pub(crate) location: u64,
    pub(crate) size: u32,
    /// Index into the ledger's queue list.
    pub(crate) queue: u32,
    pub(crate) group: GroupSymbol,
    pub(crate) tag_hash: i32,
    pub(crate) key_hash: u64,
    pub(crate) prepared_at_ms: u64,
    /// Last time it was asked, in leader time; the prepare before that.
    pub(crate) touched_at_ms: u64,
    /// Position of the newest record about it (asks, parked, resumed); 0 while there is none.
    pub(crate) last_event: u64,
    /// Asks counted.
    pub(crate) asks: u32,
    /// Zero when the message asks for no immunity time of its own.
    pub(crate) immunity_ms: u32,
    /// Which parts of a check-back policy it brings along; set when it is inserted.
    pub(crate) wish: WishNumber,
    pub(crate) in_doubt: bool,
    /// Visible this long after the commit, if it is a delayed one.
    pub(crate) delayed: bool,
    /// It was handed out to be asked about since it was prepared, resumed or read from the disk.
    pub(crate) been_due: bool,
}

#[derive(Debug)]
struct Slot {
    row: OpenRow,
    next: u32,
    previous: u32,
    slot: u32,
    deadline_ms: u64,
}

/// The rows, so that the wheel can reach its links.
#[derive(Debug, Default)]
struct Rows(Vec<Option<Slot>>);

impl Links for Rows {
    fn links(&self, row: u32) -> (u32, u32, u32) {
        match self.0.get(row as usize) {
            Some(Some(s)) => (s.next, s.previous, s.slot),
            _ => (NONE, NONE, NONE),
        }
    }

    fn set_links(&mut self, row: u32, next: u32, previous: u32, slot: u32) {
        if let Some(Some(s)) = self.0.get_mut(row as usize) {
            (s.next, s.previous, s.slot) = (next, previous, slot);
        }
    }

    fn deadline_ms(&self, row: u32) -> u64 {
        match self.0.get(row as usize) {
            Some(Some(s)) => s.deadline_ms,
            _ => 0,
        }
    }
}

impl Rows {
    /// What an open row's producer calls it.
    fn key(&self, row: u32) -> RowKey {
        match self.0.get(row as usize) {
            Some(Some(s)) => (s.row.group, s.row.key_hash),
            _ => (GroupSymbol::MAX, 0),
        }
    }
}

/// A transaction as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenTransaction {
    /// Its identity.
    pub origin: PhysicalOffset,
    /// PREPARED or IN_DOUBT.
    pub state: OpenState,
    /// Who may decide it.
    pub producer_group: GroupName,
    /// Leader time of the prepare.
    pub prepared_at: Timestamp,
    /// Asks counted so far.
    pub asks: u32,
}

/// A transaction whose time to be asked has come. It is out of the wheel until it is rescheduled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueCheck {
    /// The transaction.
    pub transaction: OpenTransaction,
    /// Its policy is exhausted: park it, or roll it back, instead of asking.
    pub exhausted: Option<ParkReason>,
    /// The policy that holds for it.
    pub policy: CheckPolicy,
}

/// All open half messages.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Rows,
    free: Vec<u32>,
    by_origin: HashMap<u64, u32, RandomState>,
    by_key: ByKey,
    groups: GroupSymbols,
    /// Parked rows by group, so that a producer that appears can be asked about its own.
    in_doubt: BTreeSet<(GroupSymbol, u64)>,
    wheel: Wheel,
    policies: Policies,
    /// Recovery and base folding keep rows without arming them.
    armed: bool,
}

impl Table {
    pub(crate) fn new(policy: CheckPolicy) -> Self {
        Self {
            rows: Rows::default(),
            free: Vec::new(),
            by_origin: HashMap::default(),
            by_key: ByKey::default(),
            groups: GroupSymbols::default(),
            in_doubt: BTreeSet::new(),
            wheel: Wheel::default(),
            policies: Policies::new(policy),
            armed: false,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_origin.len()
    }

    pub(crate) fn groups(&self) -> &GroupSymbols {
        &self.groups
    }

    /// Starts asking: every prepared row gets its deadline.
    pub(crate) fn start(&mut self, now_ms: u64) {
        self.wheel = Wheel::starting_at(now_ms);
        self.armed = true;
        for id in 0..self.rows.0.len() {
            let id = u32::try_from(id).unwrap_or(NONE);
            self.rows.set_links(id, NONE, NONE, NONE);
            self.arm_by_policy(id);
        }
    }

    pub(crate) fn policies(&self) -> &Policies {
        &self.policies
    }

    /// To change policies of groups: each holds from a transaction's next deadline on.
    pub(crate) fn policies_mut(&mut self) -> &mut Policies {
        &mut self.policies
    }

    /// How many transactions are IN_DOUBT.
    pub(crate) fn in_doubt_len(&self) -> usize {
        self.in_doubt.len()
    }

    /// Adds a row. `group` is counted for it, and its number returned; so are its own parts of a policy.
    pub(crate) fn insert(
        &mut self,
        mut row: OpenRow,
        group: &GroupName,
        wish: Option<&CheckWish>,
    ) -> GroupSymbol {
        row.group = self.groups.acquire(group);
        row.wish = self.policies.acquire(wish);
        let symbol = row.group;
        let origin = row.origin;
        if row.in_doubt {
            self.in_doubt.insert((row.group, origin));
        }
        let slot = Some(Slot { row, next: NONE, previous: NONE, slot: NONE, deadline_ms: 0 });
        let id = match self.free.pop() {
            Some(id) => {
                if let Some(place) = self.rows.0.get_mut(id as usize) {
                    *place = slot;
                }
                id
            }
            None => {
                self.rows.0.push(slot);
                u32::try_from(self.rows.0.len() - 1).unwrap_or(NONE)
            }
        };
        self.by_origin.insert(origin, id);
        self.by_key.insert(id, self.rows.key(id), |id| self.rows.key(id));
        if self.armed {
            self.arm_by_policy(id);
        }
        symbol
    }

    pub(crate) fn get(&self, origin: u64) -> Option<&OpenRow> {
        let id = *self.by_origin.get(&origin)?;
        self.rows.0.get(id as usize)?.as_ref().map(|s| &s.row)
    }

    /// The origin of what is open under a key: the hash of a unique key, or of the id of a transaction of many.
    pub(crate) fn of_key(&self, group: GroupSymbol, key_hash: u64) -> OpenOfKey<u64> {
        match self.by_key.find((group, key_hash), |id| self.rows.key(id)) {
            OpenOfKey::One(id) => OpenOfKey::One(self.origin_of(id)),
            OpenOfKey::None => OpenOfKey::None,
            OpenOfKey::Several => OpenOfKey::Several,
        }
    }

    pub(crate) fn remove(&mut self, origin: u64) -> Option<OpenRow> {
        let id = self.by_origin.remove(&origin)?;
        self.wheel.disarm(&mut self.rows, id);
        self.by_key.remove(id, self.rows.key(id), |id| self.rows.key(id));
        let slot = self.rows.0.get_mut(id as usize)?.take()?;
        self.free.push(id);
        self.in_doubt.remove(&(slot.row.group, origin));
        self.groups.release(slot.row.group);
        self.policies.release(slot.row.wish);
        Some(slot.row)
    }

    /// Changes a row in place.
    pub(crate) fn update(&mut self, origin: u64, change: impl FnOnce(&mut OpenRow)) -> bool {
        let Some(id) = self.by_origin.get(&origin).copied() else { return false };
        let Some(Some(slot)) = self.rows.0.get_mut(id as usize) else { return false };
        change(&mut slot.row);
        let key = (slot.row.group, origin);
        if slot.row.in_doubt {
            self.in_doubt.insert(key)
        } else {
            self.in_doubt.remove(&key)
        };
        true
    }

    /// Where the bytes of a transaction's first message are, and how many.
    pub(crate) fn place_mut(&mut self, origin: u64) -> Option<(&mut u64, &mut u32)> {
        let id = *self.by_origin.get(&origin)?;
        let row = &mut self.rows.0.get_mut(id as usize)?.as_mut()?.row;
        Some((&mut row.location, &mut row.size))
    }

    /// Arms a transaction for a time, instead of any earlier arming.
    pub(crate) fn reschedule(&mut self, origin: u64, at_ms: u64) {
        let Some(id) = self.by_origin.get(&origin).copied() else { return };
        self.arm_at(id, at_ms);
    }

    /// Takes a transaction off the timer.
    pub(crate) fn disarm(&mut self, origin: u64) {
        if let Some(id) = self.by_origin.get(&origin).copied() {
            self.wheel.disarm(&mut self.rows, id);
        }
    }

    /// Arms a prepared row by its policy: first deadline, or one interval after the last ask.
    fn arm_by_policy(&mut self, id: u32) {
        let Some(Some(slot)) = self.rows.0.get(id as usize) else { return };
        let row = &slot.row;
        if row.in_doubt {
            return;
        }
        let policy = self.policies.of(self.groups.name(row.group), row.wish);
        let first = if row.immunity_ms > 0 { u64::from(row.immunity_ms) } else { policy.timeout_ms };
        let wait = match row.asks {
            0 => first.saturating_add(FIRST_ASK_SLACK_MS),
            asks => policy.next_ask_after_ms(asks),
        };
        let at = row.touched_at_ms.saturating_add(wait);
        self.arm_at(id, at);
    }

    fn arm_at(&mut self, id: u32, at_ms: u64) {
        self.wheel.disarm(&mut self.rows, id);
        if let Some(Some(slot)) = self.rows.0.get_mut(id as usize) {
            slot.deadline_ms = at_ms;
            self.wheel.arm(&mut self.rows, id);
        }
    }

    pub(crate) fn next_check_ms(&self) -> Option<u64> {
        self.wheel.next_due_ms()
    }

    /// Takes out of the wheel what is due, at most `max`.
    pub(crate) fn due(&mut self, now_ms: u64, max: usize) -> Vec<DueCheck> {
        let mut ids = self.wheel.due(&mut self.rows, now_ms, max);
        // within one tick: by deadline, then by age
        ids.sort_by_key(|id| (self.rows.deadline_ms(*id), self.origin_of(*id)));
        ids.into_iter()
            .filter_map(|id| {
                let row = &mut self.rows.0.get_mut(id as usize)?.as_mut()?.row;
                // age alone parks nothing: after a long stop, or when the clock has leapt, nobody was asked yet
                let had_its_chance = row.asks > 0 || row.been_due;
                row.been_due = true;
                let policy = self.policies.of(self.groups.name(row.group), row.wish);
                let old = now_ms.saturating_sub(row.prepared_at_ms) >= policy.max_age_ms;
                let exhausted = if row.asks >= policy.check_max {
                    Some(ParkReason::CheckMax)
                } else {
                    (old && had_its_chance).then_some(ParkReason::MaxAge)
                };
                let row = &self.rows.0.get(id as usize)?.as_ref()?.row;
                let transaction = self.describe(row)?;
                Some(DueCheck { transaction, exhausted, policy })
            })
            .collect()
    }

    fn origin_of(&self, id: u32) -> u64 {
        match self.rows.0.get(id as usize) {
            Some(Some(s)) => s.row.origin,
            _ => 0,
        }
    }

    pub(crate) fn describe(&self, row: &OpenRow) -> Option<OpenTransaction> {
        Some(OpenTransaction {
            origin: PhysicalOffset(row.origin),
            state: if row.in_doubt { OpenState::InDoubt } else { OpenState::Prepared },
            producer_group: self.groups.name(row.group)?.clone(),
            prepared_at: Timestamp::from_ms(row.prepared_at_ms),
            asks: row.asks,
        })
    }

    /// Origins of a group's parked transactions.
    pub(crate) fn in_doubt_of(&self, group: &str) -> impl Iterator<Item = u64> + '_ {
        let symbol = self.groups.find(group);
        symbol
            .into_iter()
            .flat_map(|s| self.in_doubt.range((s, 0)..=(s, u64::MAX)).map(|(_, origin)| *origin))
    }

    /// The rows in `count` places from `first` on, for those who look at all in several steps; `None` behind the last.
    pub(crate) fn rows_from(&self, first: usize, count: usize) -> Option<impl Iterator<Item = &OpenRow>> {
        let places = self.rows.0.get(first..).filter(|places| !places.is_empty())?;
        Some(places.iter().take(count).flatten().map(|s| &s.row))
    }

    /// All rows, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &OpenRow> {
        self.rows.0.iter().flatten().map(|s| &s.row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(origin: u64, at_ms: u64) -> OpenRow {
        OpenRow {
            origin,
            location: origin,
            size: 1,
            queue: 0,
            group: 0,
            tag_hash: 0,
            key_hash: 0,
            prepared_at_ms: at_ms,
            touched_at_ms: at_ms,
            last_event: 0,
            asks: 0,
            immunity_ms: 0,
            wish: 0,
            in_doubt: false,
            delayed: false,
            been_due: false,
        }
    }

    fn group() -> GroupName {
        GroupName::new("g").unwrap()
    }

    #[test]
    fn ten_million_rows_fit_in_about_a_gibibyte() {
        // a row, and an entry of the map by origin at its usual load
        assert!(size_of::<Option<Slot>>() <= 104, "{}", size_of::<Option<Slot>>());
    }

    #[test]
    fn a_row_is_due_after_its_timeout_and_not_before() {
        let mut table = Table::new(CheckPolicy::default());
        table.start(1_000_000);
        table.insert(row(5, 1_000_000), &group(), None);
        assert!(table.due(1_006_499, 10).is_empty());
        let due = table.due(1_006_564, 10);
        assert_eq!(due.len(), 1);
        assert_eq!(due[0].transaction.origin, PhysicalOffset(5));
        assert_eq!(due[0].exhausted, None);
        assert!(table.due(9_000_000, 10).is_empty(), "out of the wheel until rescheduled");
    }

    #[test]
    fn rows_known_before_the_start_are_armed_by_it() {
        let mut table = Table::new(CheckPolicy::default());
        table.insert(row(5, 1_000_000), &group(), None);
        table.update(5, |r| r.asks = 15);
        table.start(90_000_000);
        let due = table.due(90_000_100, 10);
        assert_eq!(due[0].exhausted, Some(ParkReason::CheckMax));
    }

    #[test]
    fn age_parks_nothing_that_was_never_due_before() {
        let mut table = Table::new(CheckPolicy::default());
        table.start(1_000_000);
        table.insert(row(5, 1_000_000), &group(), None);
        // the clock leaps ten years ahead
        let later = 1_000_000 + 10 * 365 * 24 * 3_600_000;
        assert_eq!(table.due(later, 10)[0].exhausted, None);
        table.reschedule(5, later + 30_000);
        assert_eq!(table.due(later + 30_100, 10)[0].exhausted, Some(ParkReason::MaxAge));
    }

    #[test]
    fn groups_without_transactions_are_forgotten() {
        let mut table = Table::new(CheckPolicy::default());
        table.insert(row(5, 0), &group(), None);
        assert!(table.groups().find("g").is_some());
        table.remove(5);
        assert!(table.groups().find("g").is_none());
        assert_eq!(table.len(), 0);
    }
}
