//! The last frame of the log, cut at each of its bytes, for each kind of record: it is there whole or not at all. Also when
//! sectors in its middle are lost and valid frames stand behind it, and when the start that finds it is stopped, too.

use std::path::PathBuf;

use mezzo_storage::file_system::{CrashMode, FileSystem, OpenMode, SimulatedDisk};
use mezzo_storage::{AckLevel, Outcome, Visibility};

use super::actions::{Done, grow_old, settled_and_opened, small};
use super::run::Run;
use super::sweep::modes;
use super::verify::{compare, verify};

/// What appends a frame, or comes before it.
type Step = fn(&mut Run) -> Done;

const HALF: Visibility = Visibility::Prepared { delay_ms: None };
const SECTOR: u64 = 512;
/// A store goes on working behind one cut in so many; behind the others it is only compared.
const GOES_ON_AT: u64 = 61;

/// A record, or several that make one frame: its name, and what appends it.
const KINDS: [(&str, Step); 18] = [
    ("a plain message", |run| run.send("t", Visibility::Now, 60)),
    ("a half", |run| run.send("u", HALF, 60)),
    ("a delayed half", |run| run.send("u", Visibility::Prepared { delay_ms: Some(90_000_000) }, 20)),
    ("a delayed message", |run| {
        let at = mezzo_protocol::time::Timestamp::from_ms(run.now + 70_000_000);
        run.send("t", Visibility::Due(at), 20)
    }),
    ("a commit", |run| run.end(*run.state.open.keys().next().unwrap(), Outcome::Committed)),
    ("a rollback", |run| run.end(*run.state.open.keys().next().unwrap(), Outcome::RolledBack)),
    ("a commit of many", |run| run.end(run.newest_with_id(), Outcome::Committed)),
    ("a tick", |run| run.tick_at(run.state.due.keys().next().unwrap().0 + 1)),
    ("an ask", |run| run.asked(run.newest_open())),
    ("a parking", |run| run.park(run.newest_open())),
    ("a resumption", |run| {
        let in_doubt = run.state.open.iter().find(|(_, open)| open.in_doubt).unwrap().0;
        run.resume(*in_doubt)
    }),
    ("an offset commit", |run| run.report(4)),
    ("a lease", Run::lease),
    ("a policy", |run| run.set_policy(Some(9))),
    ("a topic", |run| run.put_topic("late")),
    ("a group", |run| run.put_group("late")),
    ("a batch of one wire request", |run| run.wire_batch("t", 5)),
    ("a transaction of many messages", |run| run.many_at_once(5)),
];

impl Run {
    fn newest_with_id(&self) -> u64 {
        *self.state.open.iter().rfind(|(_, open)| open.with_id).unwrap().0
    }
}

/// A store whose last frames are not synced: the one that is looked at, and, perhaps, two whole ones behind it.
struct Tail {
    name: String,
    run: Run,
    start: u64,
    end: u64,
}

impl Tail {
    fn new(name: &str, before: Step, append: Step, behind: bool) -> Self {
        let mut run = Run::new(SimulatedDisk::new(), small(AckLevel::Durable));
        before(&mut run).unwrap();
        // of what the model knows only the last ends matter
        let start = run.store().end().0;
        let synced = run.synced;
        append(&mut run).unwrap_or_else(|e| panic!("{name}: {e}"));
        let end = run.store().end().0;
        assert!(end > start + 40, "{name}: no frame");
        assert_eq!((start, run.synced), (synced, synced), "{name}: it is synced already");
        let segment_bytes = run.options.segment_bytes;
        assert_eq!(start / segment_bytes, (end - 1) / segment_bytes, "{name}: not in one segment");
        if behind {
            for _ in 0..2 {
                run.send("u", Visibility::Now, 10).unwrap();
            }
            assert_eq!(run.synced, synced);
        }
        run.store = None;
        let name = if behind { format!("{name} with frames behind it") } else { name.to_owned() };
        Self { name, run, start, end }
    }

    fn path(&self) -> PathBuf {
        let base = self.start - self.start % self.run.options.segment_bytes;
        PathBuf::from(format!("/data/log/{base:020}"))
    }

    /// The disk without the bytes of `[from, to)` in the log.
    fn without(&self, from: u64, to: u64) -> SimulatedDisk {
        let disk = self.run.disk.crash(CrashMode::KeepAll);
        let file = disk.open(&self.path(), OpenMode::ReadWrite).unwrap();
        let offset = from % self.run.options.segment_bytes;
        file.write_all_at(&vec![0; usize::try_from(to - from).unwrap()], offset).unwrap();
        disk
    }

    /// Whether anything is lost by losing those bytes.
    fn are_zero(&self, from: u64, to: u64) -> bool {
        let content = self.run.disk.content(&self.path()).unwrap();
        let at = |position: u64| usize::try_from(position % self.run.options.segment_bytes).unwrap();
        content[at(from)..at(from) + usize::try_from(to - from).unwrap()].iter().all(|byte| *byte == 0)
    }

    /// Loses bytes of the frame and looks at what is left: all in front of the frame and nothing else.
    fn check(&self, from: u64, to: u64, goes_on: bool) {
        let what = format!("{}: bytes {}..{} lost", self.name, from - self.start, to - self.start);
        let disk = self.without(from, to);
        let end = if goes_on {
            verify(&self.run, disk, false, &what)
        } else {
            compare(&self.run, &disk, false, &what).known
        };
        if self.are_zero(from, to) {
            assert_eq!(end, self.run.past.keys().next_back().copied(), "{what}: nothing was lost");
        } else {
            assert_eq!(end, Some(self.start), "{what}: the frame is there in part");
        }
    }

    /// Each byte of the frame is the first that is lost. How many were tried.
    fn cut_everywhere(&self) -> u64 {
        for cut in self.start..=self.end {
            self.check(cut, self.end, (cut - self.start).is_multiple_of(GOES_ON_AT));
        }
        self.end - self.start
    }

    /// Each sector that the frame has a part of is lost, and nothing else.
    fn lose_sectors(&self) {
        let mut from = self.start;
        while from < self.end {
            let to = (from - from % SECTOR + SECTOR).min(self.end);
            self.check(from, to, true);
            from = to;
        }
    }

    /// The start that finds the frame cut in its middle is stopped before each of its operations.
    fn stop_the_start(&mut self) {
        let cut = (self.start + self.end) / 2;
        let left = self.without(cut, self.end);
        for (stop, at) in self.run.starts_on(&left).into_iter().enumerate() {
            let starting = self.run.stopped_start_on(&left, stop);
            for (number, mode) in modes(stop as u64).into_iter().take(3).enumerate() {
                let what = format!("{} cut in its middle; the start stopped {at}, {mode:?}", self.name);
                let left = starting.crash(mode);
                let end = if number == stop % 5 {
                    verify(&self.run, left, false, &what)
                } else {
                    compare(&self.run, &left, false, &what).known
                };
                let started = *self.run.started.last().unwrap();
                assert_eq!(started.0, self.start, "{what}");
                assert!(end.is_some_and(|end| end >= started.0 && end <= started.1), "{what}: {end:?}");
            }
        }
    }
}

fn tails(behind: bool) -> Vec<Tail> {
    let of = |(name, append): &(&str, Step)| Tail::new(name, settled_and_opened, *append, behind);
    let mut tails: Vec<Tail> = KINDS.iter().map(of).collect();
    let old: Step = |run| {
        settled_and_opened(run)?;
        grow_old(run)
    };
    tails.push(Tail::new("a carried message", old, |run| run.keep_once().map(|_| ()), behind));
    tails
}

#[test]
fn the_last_frame_cut_at_any_byte_is_whole_or_absent_whatever_it_holds() {
    let bytes: u64 = tails(false).iter().map(Tail::cut_everywhere).sum();
    assert!(bytes > 3000, "{bytes} bytes");
}

#[test]
fn a_frame_cut_at_any_byte_is_absent_though_valid_frames_stand_behind_it() {
    let bytes: u64 = tails(true).iter().map(Tail::cut_everywhere).sum();
    assert!(bytes > 3000, "{bytes} bytes");
}

#[test]
fn a_frame_that_lost_any_sector_is_absent_whatever_stands_behind_it() {
    for behind in [false, true] {
        tails(behind).iter().for_each(Tail::lose_sectors);
    }
}

#[test]
fn a_start_stopped_at_every_disk_operation_behind_a_torn_frame_comes_to_the_same_log() {
    for behind in [false, true] {
        tails(behind).iter_mut().for_each(Tail::stop_the_start);
    }
}
