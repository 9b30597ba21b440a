//! When an open transaction is asked about, and when asking ends: the broker's policy, that of a producer group, and
//! what a message wishes for.

use mezzo_protocol::check_policy::Exhausted;
use mezzo_storage::{CheckPolicy, DueCheck, ParkReason};

use super::model::{Model, same};
use super::steps::Name;

/// The grain of check-back times.
pub const TICK_MS: u64 = 32;
/// What the store adds before the first ask.
const FIRST_ASK_SLACK_MS: u64 = 500;
/// Longest pause between two asks that back-off leads to.
const PAUSE_MAX_MS: u64 = 3_600_000;

/// The broker's.
pub const POLICY: CheckPolicy = CheckPolicy {
    timeout_ms: 1_000,
    interval_ms: 2_000,
    backoff_percent: 0,
    check_max: 3,
    max_age_ms: 40_000,
    exhausted: Exhausted::Park,
};

/// Those that producer groups have for some time.
pub const GROUP_POLICIES: [CheckPolicy; 2] = [
    CheckPolicy {
        timeout_ms: 3_000,
        interval_ms: 1_500,
        backoff_percent: 150,
        check_max: 5,
        max_age_ms: 20_000,
        exhausted: Exhausted::RollBack,
    },
    CheckPolicy { check_max: 9, max_age_ms: 90_000, ..POLICY },
];

/// What a message wishes for, as it says it.
type Wish = (&'static str, fn(CheckPolicy) -> CheckPolicy);

/// With what each changes in the policy that holds otherwise.
pub const WISHES: [Wish; 2] = [
    ("attempts=2,then=rollback", |policy| CheckPolicy {
        check_max: 2,
        exhausted: Exhausted::RollBack,
        ..policy
    }),
    ("first=2s,interval=3s,backoff=200", |policy| CheckPolicy {
        timeout_ms: 2_000,
        interval_ms: 3_000,
        backoff_percent: 200,
        ..policy
    }),
];

/// The pause after so many asks.
fn pause_ms(policy: &CheckPolicy, asks: u32) -> u64 {
    if policy.backoff_percent == 0 {
        return policy.interval_ms << asks.saturating_sub(5).min(4);
    }
    let longest = PAUSE_MAX_MS.min(policy.max_age_ms).max(policy.interval_ms);
    let longer = |pause: u64, _| pause * u64::from(policy.backoff_percent) / 100;
    (1..asks.min(30)).fold(policy.interval_ms, longer).min(longest)
}

impl Model {
    /// What holds for a transaction at this moment.
    pub fn policy_of(&self, name: Name) -> CheckPolicy {
        let own = self.policies.get(&name.group()).map(|which| GROUP_POLICIES[usize::from(*which)]);
        let policy = own.unwrap_or(POLICY);
        name.wish().map_or(policy, |wish| WISHES[wish].1(policy))
    }

    /// After a start, each is asked about when it would have been.
    pub fn arm_all(&mut self) {
        let mut armed = std::mem::take(&mut self.armed);
        armed.clear();
        for (origin, open) in self.open.iter().filter(|(_, open)| !open.in_doubt) {
            let policy = self.policy_of(open.name);
            let wait = match open.asks {
                0 => policy.timeout_ms + FIRST_ASK_SLACK_MS,
                asks => pause_ms(&policy, asks),
            };
            armed.insert(*origin, open.touched_ms + wait);
        }
        self.armed = armed;
        for open in self.open.values_mut() {
            open.been_due = false;
        }
    }

    pub fn arm_first_ask(&mut self, origin: u64, name: Name, now: u64) {
        self.armed.insert(origin, now + self.policy_of(name).timeout_ms + FIRST_ASK_SLACK_MS);
    }

    /// Somebody schedules the next ask.
    pub fn reschedule(&mut self, origin: u64, at_ms: u64) {
        if self.open.contains_key(&origin) {
            self.armed.insert(origin, at_ms);
        }
    }

    /// The store says that these are due, at most `max`: none too early, none left out, each once, and those that were
    /// asked often enough are to be parked.
    pub fn due_checks(&mut self, found: &[DueCheck], max: usize, now: u64) -> Result<(), String> {
        let mut order = Vec::new();
        for check in found {
            let (origin, exhausted) = (&check.transaction.origin.0, &check.exhausted);
            let deadline =
                self.armed.remove(origin).ok_or_else(|| format!("{origin} is not to be asked about"))?;
            let name = self.open.get(origin).ok_or_else(|| format!("{origin} is not open"))?.name;
            let policy = self.policy_of(name);
            let Some(open) = self.open.get_mut(origin) else { continue };
            if deadline > now {
                return Err(format!("{origin} is due at {deadline}, it is {now}"));
            }
            order.push((deadline, *origin));
            let old = now - open.prepared_ms >= policy.max_age_ms && (open.asks > 0 || open.been_due);
            let want = match open.asks >= policy.check_max {
                true => Some(ParkReason::CheckMax),
                false => old.then_some(ParkReason::MaxAge),
            };
            open.been_due = true;
            same(&format!("the policy of {origin}"), &check.policy, &policy)?;
            same(&format!("whether {origin} is to be parked"), exhausted, &want)?;
        }
        if !order.is_sorted() {
            return Err(format!("due in the wrong order: {order:?}"));
        }
        if found.len() < max {
            let from = self.last_check_tick + 1;
            let missed = self.armed.iter().find(|(_, at)| at.div_ceil(TICK_MS).max(from) <= now / TICK_MS);
            if let Some((origin, at)) = missed {
                return Err(format!("{origin} was due at {at}, and it is {now}"));
            }
        }
        self.last_check_tick = now / TICK_MS;
        Ok(())
    }
}
