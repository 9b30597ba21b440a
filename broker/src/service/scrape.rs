//! Reads every number of the broker at one moment, for whoever watches it. May block: it walks over the open
//! transactions and asks the disk how much room it has.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use mezzo_storage::{Census, Counts, SYNC_BUCKETS_US, Standing};

use super::Services;
use crate::metrics::{Exposition, catalogue as names};

/// Producer groups that are told by name; all others are told together.
const GROUPS_TOLD_MAX: usize = 50;
/// The name that the others are told under; no group can be called so.
const OTHER_GROUPS: &str = "(others)";
/// A walk over the open transactions is used again for this long, however often somebody asks.
const CENSUS_KEPT_MIN: Duration = Duration::from_secs(1);
/// And for this many times the time it took: no more than a twentieth of one core goes into them.
const CENSUS_KEPT_TIMES: u32 = 20;

/// Sources of a decision as label values, in the order of [`mezzo_storage::source_index`].
const SOURCES: [&str; mezzo_storage::SOURCES] = ["producer", "check_back", "operator", "policy", "fenced"];

/// A census and until when it is good enough.
struct Taken {
    census: Census,
    until: Instant,
}

/// Reads the numbers. One for all who ask.
#[derive(Default)]
pub(crate) struct Scraper {
    /// Held while one is taken: who asks meanwhile waits and gets the same.
    census: Mutex<Option<Taken>>,
}

impl Scraper {
    /// Every metric of the catalogue, as it stands now.
    pub(crate) fn scrape(&self, services: &Services) -> Exposition {
        let mut told = Exposition::default();
        told.gauges(&names::INFO, [(env!("CARGO_PKG_VERSION"), 1.0)]);
        let standing = services.store.standing();
        messages(&mut told, services, &standing.counts);
        decisions(&mut told, &standing.counts);
        self.open(&mut told, services, &standing);
        check_backs(&mut told, services);
        log(&mut told, services);
        retention(&mut told, services);
        damage(&mut told, services);
        connections(&mut told, services);
        told.gauge(&names::TOPICS, float(services.store.topic_count()));
        told.gauge(&names::GROUPS, float(services.store.group_count()));
        told
    }

    fn open(&self, told: &mut Exposition, services: &Services, standing: &Standing) {
        told.gauge(&names::TX_OPEN, float(standing.open));
        told.gauge(&names::TX_IN_DOUBT, float(standing.in_doubt));
        told.gauge(&names::OPEN_MESSAGES, float(standing.open_messages));
        told.gauge(&names::OPEN_MESSAGES_MAX, float(services.config.limits.open_messages));
        let mut kept = self.census.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = Instant::now();
        let stale = kept.as_ref().is_none_or(|taken| taken.until <= begun);
        if stale {
            let census = services.store.census(services.now(), GROUPS_TOLD_MAX);
            let good_for = CENSUS_KEPT_MIN.max(begun.elapsed() * CENSUS_KEPT_TIMES);
            *kept = Some(Taken { census, until: begun + good_for });
        }
        let Some(Taken { census, .. }) = &*kept else { return };
        let groups = || {
            let named = census.groups.iter().map(|(name, counted)| (name.as_str(), *counted));
            named.chain((census.others.open > 0).then_some((OTHER_GROUPS, census.others)))
        };
        told.gauges(&names::TX_OPEN_OF_GROUP, groups().map(|(name, of)| (name, float(of.open))));
        told.gauges(&names::TX_IN_DOUBT_OF_GROUP, groups().map(|(name, of)| (name, float(of.in_doubt))));
        told.gauge(&names::TX_OLDEST, seconds(census.oldest_ms.unwrap_or(0)));
    }
}

fn messages(told: &mut Exposition, services: &Services, counts: &Counts) {
    let kinds = [("plain", counts.plain), ("half", counts.half), ("delayed", counts.delayed)];
    told.counters(&names::MESSAGES_IN, kinds.map(|(kind, stored)| (kind, stored.messages)));
    told.counters(&names::MESSAGE_BYTES_IN, kinds.map(|(kind, stored)| (kind, stored.bytes)));
    let metrics = &services.metrics;
    let refused = counts.refused;
    let reasons = [
        ("no_room", refused.no_room),
        ("max_bytes", refused.at_max_bytes),
        ("open_messages", refused.open_messages),
        ("open_bytes", refused.open_bytes),
    ];
    told.counters(&names::MESSAGES_REFUSED, reasons);
    told.counter(&names::MESSAGES_OUT, metrics.over_lanes(|lane| &lane.messages_out));
    told.counter(&names::MESSAGE_BYTES_OUT, metrics.over_lanes(|lane| &lane.message_bytes_out));
    told.counter(&names::NETWORK_IN, metrics.over_lanes(|lane| &lane.bytes_read));
    told.counter(&names::NETWORK_OUT, metrics.over_lanes(|lane| &lane.bytes_written));
    told.counter(&names::DEDUP_HITS, metrics.sends_deduplicated.value());
    let window_ms = services.store.first_sends().effective_window_ms(services.now());
    told.gauge(&names::DEDUP_WINDOW, seconds(window_ms.unwrap_or(0)));
}

fn decisions(told: &mut Exposition, counts: &Counts) {
    told.counter(&names::TX_PREPARED, counts.prepared);
    // a fenced one is never a commit
    let committed = SOURCES.into_iter().zip(counts.committed).filter(|(source, _)| *source != "fenced");
    told.counters(&names::TX_COMMITTED, committed);
    told.counters(&names::TX_ROLLED_BACK, SOURCES.into_iter().zip(counts.rolled_back));
    told.counter(&names::TX_REPEATED, counts.repeated);
    told.counter(&names::TX_CONFLICTS, counts.conflicts);
    told.counter(&names::TX_PARKED, counts.parked);
    told.counter(&names::TX_RESUMED, counts.resumed);
}

fn check_backs(told: &mut Exposition, services: &Services) {
    let metrics = &services.metrics;
    told.counter(&names::ASKS, metrics.asks_sent.value());
    let answers = [("decided", &metrics.asks_decided), ("unknown", &metrics.asks_unknown)];
    told.counters(&names::ANSWERS, answers.map(|(answer, counter)| (answer, counter.value())));
    told.counter(&names::SILENCES, metrics.asks_unanswered.value());
    let (waiting, asked) = services.transactions.pending();
    told.gauges(&names::ASKS_PENDING, [("waiting", float(waiting)), ("asked", float(asked))]);
}

fn log(told: &mut Exposition, services: &Services) {
    let syncs = services.store.sync_times();
    let bounds = SYNC_BUCKETS_US.iter().map(|us| us_as_seconds(*us)).chain([f64::INFINITY]);
    let sum = us_as_seconds(syncs.sum_us);
    told.histogram(&names::SYNC, bounds.zip(syncs.buckets).collect(), sum);
    told.gauge(&names::LOG_BYTES, float(services.store.log_bytes()));
    told.counter(&names::LOG_APPENDED, services.store.appended_bytes());
    // where the system does not say, the metric is left out: 0 would be an alarm
    if let Some(free) = services.store.disk_free_bytes() {
        told.gauge(&names::DISK_FREE, float(free));
    }
}

fn retention(told: &mut Exposition, services: &Services) {
    let figures = services.store.retention_figures();
    let early = figures.segments_before_their_time;
    let segments = [("age", figures.segments.saturating_sub(early)), ("max_bytes", early)];
    told.counters(&names::RETENTION_SEGMENTS, segments);
    told.counter(&names::RETENTION_FREED, figures.bytes_freed);
    told.counter(&names::RETENTION_CARRIED, figures.bytes_carried);
    let named = figures.unread_deleted.iter().map(|(group, messages)| (group.as_str(), *messages));
    let others = (OTHER_GROUPS, figures.unread_deleted_of_others);
    told.counters(&names::RETENTION_UNREAD, named.chain([others]));
}

fn damage(told: &mut Exposition, services: &Services) {
    let counts = services.store.damage_counts();
    told.counter(&names::SCRUB_ROUNDS, counts.scrub_rounds);
    told.counter(&names::SCRUB_BYTES, counts.scrubbed_bytes);
    told.counter(&names::PAGES_DAMAGED, counts.damaged_pages);
    told.counter(&names::PAGES_MENDED, counts.mended_pages);
    told.counters(&names::DAMAGES, [("scrub", counts.scrub_damages), ("read", counts.damaged_reads)]);
}

fn connections(told: &mut Exposition, services: &Services) {
    let metrics = &services.metrics;
    // ended first: one that ends in between is counted as open, not as less than none
    let ended = metrics.connections_ended.value();
    let accepted = metrics.connections_accepted.value();
    told.gauge(&names::CONNECTIONS, float(accepted.saturating_sub(ended)));
    told.counter(&names::CONNECTIONS_ACCEPTED, accepted);
    told.counter(&names::CONNECTIONS_REFUSED, metrics.connections_refused.value());
    let closed = [
        ("slow", &metrics.slow_clients_closed),
        ("slow_request", &metrics.slow_frames_closed),
        ("malformed", &metrics.malformed_frames),
    ];
    told.counters(&names::CONNECTIONS_CLOSED, closed.map(|(reason, counter)| (reason, counter.value())));
    told.gauge(&names::IN_FLIGHT, float(services.in_flight.used()));
    told.counter(&names::SHED, metrics.requests_shed.value());
    told.counter(&names::PUSHES_DROPPED, metrics.pushes_dropped.value());
    told.gauge(&names::HELD_PULLS, float(services.long_polls.held()));
    let not_held = [("connection", &metrics.held_by_connection), ("broker", &metrics.held_by_broker)];
    told.counters(&names::NOT_HELD, not_held.map(|(bound, counter)| (bound, counter.value())));
    told.counters(&names::REFUSED, metrics.refusals.counts());
}

/// A gauge is a float to Prometheus; whole numbers are exact up to 2^53.
#[expect(
    clippy::cast_precision_loss,
    reason = "beyond 2^53 a gauge is read for its size, not for its last digit"
)]
fn float(count: impl TryInto<u64>) -> f64 {
    count.try_into().unwrap_or(u64::MAX) as f64
}

fn seconds(ms: u64) -> f64 {
    Duration::from_millis(ms).as_secs_f64()
}

fn us_as_seconds(us: u64) -> f64 {
    Duration::from_micros(us).as_secs_f64()
}
