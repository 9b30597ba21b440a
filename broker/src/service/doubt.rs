//! What the log says of transactions that are IN_DOUBT: that one is, with what a person needs to decide it; that it is asked
//! about once more; and how it ended. A group that dies with thousands of open transactions must not fill the disk with
//! lines: a burst of each kind is said, the rest is counted.

use mezzo_protocol::ids::PhysicalOffset;
use mezzo_storage::{LeftDoubt, OpenTransaction, Outcome, ParkReason};

use super::{Services, client_channel::ClientChannel, seldom::Seldom};

/// Lines of one kind that are said close to each other.
const BURST: u32 = 10;

/// One limiter for each kind of line.
#[derive(Debug)]
pub(crate) struct DoubtLines {
    parked: Seldom,
    asked: Seldom,
    ended: Seldom,
}

impl Default for DoubtLines {
    fn default() -> Self {
        let burst = || Seldom::with_burst(BURST);
        Self { parked: burst(), asked: burst(), ended: burst() }
    }
}

impl DoubtLines {
    /// A transaction has become IN_DOUBT.
    pub(crate) fn parked(&self, services: &Services, origin: PhysicalOffset, reason: ParkReason) {
        let Some(kept_back) = self.parked.may_say() else { return };
        // decided meanwhile: then that is what is said
        let Some(open) = services.store.transaction(origin) else { return };
        let why = match reason {
            ParkReason::CheckMax => "asked as often as its policy allows",
            ParkReason::MaxAge => "older than its policy allows",
        };
        tracing::warn!(
            origin = origin.0,
            group = open.producer_group.as_str(),
            age_s = age_s(services, &open),
            asks = open.asks,
            why,
            in_doubt = services.store.in_doubt(),
            kept_back,
            "a transaction is IN_DOUBT: its producers did not decide it. It waits for them or for a person: `mezzo tx show \
             {origin}`, then `mezzo tx commit {origin}` or `mezzo tx rollback {origin}`; all of them: `mezzo tx list --state \
             in-doubt`",
            origin = origin.0,
        );
    }

    /// An ask about an IN_DOUBT transaction was handed to a producer that has connected.
    pub(crate) fn asked(&self, services: &Services, open: &OpenTransaction, producer: &dyn ClientChannel) {
        let Some(kept_back) = self.asked.may_say() else { return };
        tracing::info!(
            origin = open.origin.0,
            group = open.producer_group.as_str(),
            age_s = age_s(services, open),
            producer = %producer.remote(),
            kept_back,
            "an IN_DOUBT transaction is asked about once more, because a producer of its group has connected; if it does not \
             answer, the next one is asked"
        );
    }

    /// A transaction that was IN_DOUBT is decided.
    pub(crate) fn ended(&self, left: &LeftDoubt) {
        let Some(kept_back) = self.ended.may_say() else { return };
        let outcome = match left.outcome {
            Outcome::Committed => "COMMITTED",
            Outcome::RolledBack => "ROLLED_BACK",
        };
        tracing::info!(
            origin = left.origin.0,
            group = left.group.as_str(),
            age_s = left.age_ms / 1000,
            outcome,
            by = ?left.source,
            kept_back,
            "a transaction that was IN_DOUBT is decided; `mezzo tx show {}` says by whom",
            left.origin.0,
        );
    }
}

fn age_s(services: &Services, open: &OpenTransaction) -> u64 {
    services.now().saturating_since_ms(open.prepared_at) / 1000
}
