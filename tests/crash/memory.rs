//! What `store.ack = memory` is worth when its disk fails it: a power cut takes the last interval and nothing else, and
//! of each queue a tail and nothing in between; a failed sync ends the process, and takes no more than that.
//!
//! What has to be kept is told without a clock: a sync that began behind an answer and has ended covers it, and the
//! broker counts its syncs. That it syncs as often as the setting says is a second assertion, with room.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mezzo_tests::binary::Binary;
use mezzo_tests::chance::Chance;
use mezzo_tests::consumer::Consumer;
use mezzo_tests::producer::{Producer, SUCCESS};
use mezzo_tests::scrape;
use mezzo_tests::shim::Shim;
use mezzo_tests::wait::PATIENCE;
use tempfile::TempDir;

use super::disk_fails::built;
use super::{power_cut, rounds};

const TOPIC: &str = "memory";
const GROUP: &str = "PG_memory";
const INTERVAL: Duration = Duration::from_millis(200);
const SETTINGS: [&str; 6] = [
    "limits.message_size=128KiB",
    "store.segment_size=1MiB",
    "store.checkpoint_size=2MiB",
    "store.ack=memory",
    "store.flush_interval=200ms",
    "metrics.listen=127.0.0.1:0",
];
/// Messages between two looks at the broker's count of syncs.
const LOOK_EVERY: u64 = 20;
/// A round goes on until this many syncs have covered something, and until a moment that is drawn.
const SYNCS_MIN: usize = 3;
const LOAD_MS_MAX: u64 = 1_500;
/// A starved machine wakes the syncer later than the setting says: so many times the interval are let pass.
const LATE: u32 = 4;
/// What a connection waits for an answer.
const ANSWER: Duration = Duration::from_secs(10);

/// What the producer was told.
#[derive(Default)]
struct Told {
    next: u64,
    /// Bodies that have to be there: those of earlier rounds that were found, then those of this round.
    kept: Vec<u64>,
    /// Of this round, in order, with the moment of their answer.
    answered: Vec<(u64, Instant)>,
    /// What each queue offset was given to, ever.
    offsets: BTreeMap<u64, u64>,
    /// The count of syncs, and how many of this round's messages had been answered before it was asked for.
    looks: Vec<(usize, u64)>,
    syncs: u64,
    sync_time: Duration,
    running: Duration,
}

impl Told {
    /// Sends one after another until `is_over`, or until nobody answers any more.
    fn load(&mut self, binary: &Binary, is_over: impl Fn(&Self, Duration) -> bool) {
        let began = Instant::now();
        (self.answered, self.looks) = (Vec::new(), Vec::new());
        let mut producer = Producer::connect(binary.broker, GROUP);
        while !is_over(self, began.elapsed()) {
            let number = self.next;
            self.next += 1;
            let (request, _) = producer.message_request(TOPIC, 0, number.to_string().as_bytes());
            let sent = producer.wire.try_send_all(std::iter::once(&request));
            let Some(answer) = sent.and_then(|()| producer.wire.try_answer(request.opaque, ANSWER)) else {
                return;
            };
            if answer.code != SUCCESS {
                // the disk has failed; whether this one was stored is not known
                return;
            }
            let offset: u64 = answer.ext_value("queueOffset").and_then(|text| text.parse().ok()).unwrap();
            let before = self.offsets.insert(offset, number);
            assert_eq!(before, None, "offset {offset} is given twice");
            self.answered.push((number, Instant::now()));
            if number.is_multiple_of(LOOK_EVERY) {
                self.look(binary);
            }
        }
        self.look(binary);
        self.running += began.elapsed();
        let [sum, count] = sync_figures(binary);
        self.syncs += count as u64;
        self.sync_time += Duration::from_secs_f64(sum);
    }

    fn look(&mut self, binary: &Binary) {
        let answered = self.answered.len();
        self.looks.push((answered, sync_figures(binary)[1] as u64));
    }

    /// How many of this round's messages a whole sync has covered: when two more are counted than at a look, the second
    /// of them began behind it.
    fn covered(&self) -> usize {
        let last = self.looks.last().map_or(0, |(_, syncs)| *syncs);
        let covered = self.looks.iter().filter(|(_, syncs)| syncs + 2 <= last);
        covered.map(|(answered, _)| *answered).max().unwrap_or(0)
    }

    /// Holds what is there after the crash at `crashed_at` against what was told; how many are lost, and the age of the
    /// oldest of them.
    fn judge(&mut self, binary: &Binary, crashed_at: Instant) -> (usize, Duration) {
        let covered = self.covered();
        let delivered = Consumer::connect(binary.broker, "CG_memory").drain(TOPIC, 0, 0);
        let mut there = Vec::new();
        for message in &delivered {
            let number: u64 = message.text().parse().expect("a number");
            assert_eq!(
                self.offsets.entry(message.queue_offset).or_insert(number),
                &number,
                "another message"
            );
            there.push(number);
        }
        let old = self.kept.len();
        assert_eq!(there.get(..old), Some(&self.kept[..]), "what was found once has to stay");
        let new = &there[old..];
        let answered: Vec<u64> = self.answered.iter().map(|(number, _)| *number).collect();
        // one that was not answered may stand behind them
        let shared = new.iter().zip(&answered).take_while(|(there, told)| there == told).count();
        assert!(
            new.len() <= shared + 1,
            "no prefix: {shared} of {}, then {:?}",
            answered.len(),
            &new[shared..]
        );
        assert!(
            shared >= covered,
            "{covered} were answered before a sync that has ended, {shared} are there"
        );
        self.kept = there;
        let lost = &self.answered[shared..];
        (lost.len(), lost.first().map_or(Duration::ZERO, |(_, at)| crashed_at.duration_since(*at)))
    }

    /// It has synced as often as the setting says, with room for a machine that is busy with other things.
    fn synced_often_enough(&self) {
        let idle = self.running.saturating_sub(self.sync_time).saturating_sub(Duration::from_secs(1));
        let wanted = idle.as_millis() / (INTERVAL * LATE).as_millis();
        assert!(u128::from(self.syncs) >= wanted, "{} syncs in {:?}", self.syncs, self.running);
    }
}

/// Seconds spent in syncs of the log, and their number.
fn sync_figures(binary: &Binary) -> [f64; 2] {
    let samples = scrape::metrics(binary.metrics.expect("metrics are served"));
    ["sum", "count"].map(|figure| samples[&format!("mezzo_log_sync_seconds_{figure}")])
}

#[test]
fn at_ack_memory_a_power_cut_takes_the_last_interval_and_no_more() {
    let cuts = rounds::rounds("MEZZO_POWER_CUTS", 2).div_ceil(2);
    let scratch = TempDir::new().expect("a temporary folder can be made");
    let Some(mut disk) = power_cut::disk(cuts, &scratch) else { return };
    let mut chance = Chance::for_test("power cut at ack memory");
    let (data, log) = (disk.path().join("data"), scratch.path().join("log"));
    let mut told = Told::default();
    for cut in 0..cuts {
        let binary = Binary::serve(&data, &log, &SETTINGS);
        let at_least = Duration::from_millis(chance.below(LOAD_MS_MAX));
        told.load(&binary, |told, elapsed| {
            assert!(elapsed < PATIENCE, "it does not sync");
            let covering = told.looks.windows(2).filter(|pair| pair[0].1 < pair[1].1).count();
            elapsed >= at_least && covering > SYNCS_MIN && told.covered() > 0
        });
        binary.freeze();
        let frozen_at = Instant::now();
        disk.copy_as_after_a_power_cut();
        binary.kill();
        disk.turn_on_the_copy();
        let binary = Binary::serve(&data, &log, &SETTINGS);
        let (lost, oldest) = told.judge(&binary, frozen_at);
        println!(
            "cut {cut}: of {} answered {} were covered by a sync and {lost} are lost, the oldest {oldest:?} old",
            told.answered.len(),
            told.covered()
        );
        assert_eq!(binary.terminate().code(), Some(0));
    }
    println!("{} syncs in {:?}, {:?} of it in syncs", told.syncs, told.running, told.sync_time);
    told.synced_often_enough();
}

#[test]
fn at_ack_memory_a_failed_sync_ends_the_process_and_takes_no_more_than_the_last_interval() {
    let scratch = TempDir::new().expect("a temporary folder can be made");
    let Some(shim) = built(&scratch) else { return };
    let (data, log) = (scratch.path().join("data"), scratch.path().join("log"));
    let mut told = Told::default();
    for round in 0..rounds::rounds("MEZZO_DISK_FAILURES", 3) {
        let binary = Binary::serve_with(&data, &log, &SETTINGS, &shim.environment());
        told.load(&binary, |told, elapsed| {
            assert!(elapsed < PATIENCE, "it does not sync");
            told.covered() > 0
        });
        let before = told.answered.len();
        shim.fail("sync EIO");
        fail_under_load(&mut told, &binary, &shim);
        let (status, logged) = binary.ends_by_itself();
        assert_eq!(status.code(), Some(74), "{logged}");
        let binary = Binary::serve(&data, &log, &SETTINGS);
        let (lost, _) = told.judge(&binary, Instant::now());
        println!("failure {round}: {before} and {} answered, {lost} lost", told.answered.len() - before);
        assert_eq!(binary.terminate().code(), Some(0));
    }
}

/// Goes on sending to a broker whose next sync fails; nothing may be acknowledged once it has said so.
fn fail_under_load(told: &mut Told, binary: &Binary, shim: &Shim) {
    let Some(mut producer) = Producer::try_connect(binary.broker, GROUP) else { return };
    let mut fenced = false;
    let end = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < end, "the sync does not fail");
        let number = told.next;
        told.next += 1;
        let (request, _) = producer.message_request(TOPIC, 0, number.to_string().as_bytes());
        let sent = producer.wire.try_send_all(std::iter::once(&request));
        let Some(answer) = sent.and_then(|()| producer.wire.try_answer(request.opaque, ANSWER)) else {
            break;
        };
        if answer.code != SUCCESS {
            fenced = true;
            continue;
        }
        assert!(!fenced, "{number} is acknowledged behind a failure");
        let offset: u64 = answer.ext_value("queueOffset").and_then(|text| text.parse().ok()).unwrap();
        assert_eq!(told.offsets.insert(offset, number), None, "offset {offset} is given twice");
        told.answered.push((number, Instant::now()));
    }
    shim.wait_until_struck();
}
