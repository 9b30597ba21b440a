//! Who has open transactions: a walk over the table, some rows at a time, for those who watch the broker.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use mezzo_protocol::ids::GroupName;
use mezzo_protocol::time::Timestamp;

use super::Store;

/// Rows looked at under one hold of the append lock, so that a census keeps no sender waiting for long.
const ROWS_PER_LOOK: usize = 4_096;
/// Producer groups that are counted by themselves; transactions of further ones are counted together.
const GROUPS_COUNTED_MAX: usize = 10_000;

/// Open transactions of one producer group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenOfGroup {
    /// PREPARED or IN_DOUBT.
    pub open: u64,
    /// Those of them that are IN_DOUBT.
    pub in_doubt: u64,
}

impl OpenOfGroup {
    fn add(&mut self, other: Self) {
        self.open += other.open;
        self.in_doubt += other.in_doubt;
    }
}

/// The open transactions by producer group. What is prepared or decided during the walk may be missed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// The groups with the most IN_DOUBT ones, then with the most open ones, first.
    pub groups: Vec<(GroupName, OpenOfGroup)>,
    /// All groups that are not among them.
    pub others: OpenOfGroup,
    /// Age of the oldest one in milliseconds.
    pub oldest_ms: Option<u64>,
}

impl Store {
    /// Counts the open transactions; at most `groups_max` groups by name. Looks at each of them: milliseconds per
    /// hundred thousand.
    #[must_use]
    pub fn census(&self, now: Timestamp, groups_max: usize) -> Census {
        let mut groups: HashMap<GroupName, OpenOfGroup> = HashMap::new();
        let mut census = Census::default();
        let mut of_look: HashMap<u32, OpenOfGroup, RandomState> = HashMap::default();
        let mut slot = 0;
        loop {
            let mut appender = self.appender();
            let now_ms = appender.leader_time(now).as_ms();
            let table = &appender.ledger.open;
            let Some(rows) = table.rows_from(slot, ROWS_PER_LOOK) else { break };
            for row in rows {
                let one = OpenOfGroup { open: 1, in_doubt: u64::from(row.in_doubt) };
                of_look.entry(row.group).or_default().add(one);
                census.oldest_ms = census.oldest_ms.max(Some(now_ms.saturating_sub(row.prepared_at_ms)));
            }
            // a number may mean another group at the next look
            for (symbol, counted) in of_look.drain() {
                let Some(name) = table.groups().name(symbol) else { continue };
                if let Some(known) = groups.get_mut(name.as_str()) {
                    known.add(counted);
                } else if groups.len() < GROUPS_COUNTED_MAX {
                    groups.insert(name.clone(), counted);
                } else {
                    census.others.add(counted);
                }
            }
            slot += ROWS_PER_LOOK;
        }
        census.groups = groups.into_iter().collect();
        census.groups.sort_unstable_by(|(a, of_a), (b, of_b)| {
            (of_b.in_doubt, of_b.open).cmp(&(of_a.in_doubt, of_a.open)).then_with(|| a.cmp(b))
        });
        for (_, counted) in census.groups.drain(groups_max.min(census.groups.len())..) {
            census.others.add(counted);
        }
        census
    }
}
