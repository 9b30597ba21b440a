//! What a store shows, and whether that is what the model held.

use std::collections::BTreeMap;
use std::sync::Arc;

use mezzo_protocol::ids::{GroupName, PhysicalOffset, QueueId, QueueOffset, TopicName};
use mezzo_protocol::message::record::MessageView;
use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::{CrashMode, SimulatedDisk};
use mezzo_storage::{AckLevel, Happened, OpenFilter, OpenState, Outcome, StorageError, Store, Visibility};

use super::run::{Open, Run, State, TOPICS, Visible, number_of, open};

/// Retention that this exceeds does not run in these tests.
const RETENTION_RUNS_BELOW_MS: u64 = 10_000_000;
/// Bytes of the frame that a segment begins with.
const SEGMENT_HEAD_BYTES: u64 = 92;

impl Run {
    /// What a store shows through every door that the model knows of.
    pub fn shown(&self, store: &Store) -> State {
        let leased = TopicName::new(TOPICS[0]).unwrap();
        let first = store.first_position().0;
        let mut state = State {
            lease: store.lease("cg", &leased, QueueId(0)).map(|lease| lease.epoch),
            moved: store.offset("cg", &leased, QueueId(0)).map(|offset| offset.0),
            reported: store.offset("rg", &leased, QueueId(0)).map(|offset| offset.0),
            policy: store.check_policy(&GroupName::new("pg").unwrap()).map(|policy| policy.check_max),
            ..State::default()
        };
        state.names.0.extend(store.topics().iter().map(|topic| topic.name().as_str().to_owned()));
        state.names.1.extend(store.groups().iter().map(|group| group.name.as_str().to_owned()));
        for name in TOPICS {
            let Some(topic) = store.topic(name) else { continue };
            let queue = topic.queue(QueueId(0)).unwrap();
            let mut visible = Vec::new();
            let read = store.read_entries(&queue, QueueOffset(0), usize::MAX, &mut |_| true).unwrap();
            for (offset, entry) in &read.entries {
                let message = match store.read_message(entry) {
                    Ok(message) => message,
                    // entries stay until those in front of them go
                    Err(StorageError::Gone { .. }) if entry.position < first => continue,
                    Err(other) => panic!("{name}/{offset}: {other}"),
                };
                visible.push((*offset, body_of(&message.bytes)));
            }
            state.visible.insert(name, visible);
        }
        let (all, now) = (OpenFilter::default(), Timestamp::from_ms(self.now + 1000));
        for open in store.open_transactions_page(&all, now, None, usize::MAX) {
            let open = open.transaction;
            let message = store.half_message(open.origin).unwrap().unwrap();
            let view = MessageView::parse(&message.bytes).unwrap();
            let topic = TOPICS.into_iter().find(|t| *t == view.topic()).unwrap();
            let in_doubt = open.state == OpenState::InDoubt;
            let asks = (open.asks, asks_told(store, open.origin));
            let messages = vec![(topic, body_of(&message.bytes))];
            state.open.insert(open.origin.0, Open { messages, in_doubt, asks, ..Open::default() });
        }
        state
    }

    /// Of messages that were visible: those whose bytes a log that begins at `first` still holds.
    fn still_there(&self, visible: &Visible, first: u64) -> Visible {
        let is_there = |body: &str| self.places.get(&number_of(body)).is_none_or(|place| *place >= first);
        let of =
            |queue: &Vec<(u64, String)>| queue.iter().filter(|(_, body)| is_there(body)).cloned().collect();
        visible.iter().map(|(topic, queue)| (*topic, of(queue))).collect()
    }

    /// The model's state at the last end of the log that is known and not above `position`, and where that is.
    fn state_at(&self, position: u64) -> (u64, State) {
        let (at, state) = self.state_since(&self.started, position);
        // the head of a segment, which changes nothing either, was kept and the frame behind it was not
        let is_head = position % self.options.segment_bytes == SEGMENT_HEAD_BYTES;
        (if is_head { position } else { at }, state)
    }

    /// `started`: the starts whose own frames may stand there.
    fn state_since(&self, started: &[(u64, u64)], position: u64) -> (u64, State) {
        if let Some(((found, end), before)) = started.split_last() {
            let (at, state) = self.state_since(before, position.min(*found));
            return if position > *found && position <= *end {
                (if at == *found { position } else { at }, state)
            } else if position <= *found {
                (at, state)
            } else {
                self.state_since(before, position)
            };
        }
        let found = self.past.range(..=position).next_back();
        found.map_or_else(|| (0, State::default()), |(end, state)| (*end, state.clone()))
    }

    fn is_durable(&self) -> bool {
        self.options.ack == AckLevel::Durable
    }

    /// What consumers are shown now is what the model holds.
    fn check_visible(&self, what: &str) {
        let store = self.store();
        let wanted = self.still_there(&self.state.visible, store.first_position().0);
        assert_eq!(self.shown(&store).visible, wanted, "{what}: visible messages");
    }
}

fn body_of(message: &[u8]) -> String {
    String::from_utf8(MessageView::parse(message).unwrap().body().to_vec()).unwrap()
}

/// Asks that its timeline tells; `None` when what told of the first ones has gone with its part of the log.
fn asks_told(store: &Store, origin: PhysicalOffset) -> Option<usize> {
    let timeline = store.timeline(origin).unwrap().unwrap();
    if timeline.older_missing {
        assert!(origin < store.first_position(), "the timeline of {origin} is not whole, though its log is");
        return None;
    }
    Some(timeline.events.iter().filter(|event| matches!(event.what, Happened::Asked { .. })).count())
}

fn bodies(visible: &Visible) -> BTreeMap<&'static str, Vec<&String>> {
    visible.iter().map(|(topic, queue)| (*topic, queue.iter().map(|(_, body)| body).collect())).collect()
}

/// Origin, body, whether it is in doubt, and its asks.
type First<'s> = (u64, &'s str, bool, (u32, Option<usize>));

/// The first message of each open transaction, whether it is in doubt, and its asks as far as `told` tells them: what
/// joined behind the first is not shown. It is compared when it is committed.
fn firsts<'s>(open: &'s BTreeMap<u64, Open>, told: &BTreeMap<u64, Open>) -> Vec<First<'s>> {
    let first = |(origin, open): (&u64, &'s Open)| {
        let is_told = told.get(origin).is_none_or(|told| told.asks.1.is_some());
        let asks = (open.asks.0, open.asks.1.filter(|_| is_told));
        (*origin, open.messages[0].1.as_str(), open.in_doubt, asks)
    };
    open.iter().map(first).collect()
}

/// A queue offset that a consumer has seen belongs to its message for ever.
fn check_seen(seen: &Visible, shown: &Visible, what: &str) {
    for (topic, queue) in shown {
        let by_offset: BTreeMap<u64, &String> = queue.iter().map(|(offset, body)| (*offset, body)).collect();
        assert_eq!(by_offset.len(), queue.len(), "{what}: an offset twice in {topic}");
        for (offset, body) in seen.get(topic).into_iter().flatten() {
            let now = by_offset.get(offset);
            assert!(now.is_none_or(|now| *now == body), "{what}: {topic}/{offset} was {body} and is {now:?}");
        }
    }
}

/// A store that was opened after a crash and shows what the model wants.
pub struct Recovered {
    store: Arc<Store>,
    shown: State,
    /// The model's state; of an earlier end of the log if `known` is `None`.
    want: State,
    /// End of the log, if the model knows it: not so when the frame whose write failed did reach the disk.
    pub known: Option<u64>,
}

/// Opens the disk after the crash and compares what it shows with the model. `kept_all`: nothing was lost that had been
/// appended.
pub fn compare(run: &Run, disk: &SimulatedDisk, kept_all: bool, what: &str) -> Recovered {
    let (store, report) = match open(disk, &run.options, run.now + 1000) {
        Ok(opened) => opened,
        Err(e) => panic!("{what}: recovery fails: {e}"),
    };
    let end = report.log.end;
    // what consumers have seen at `durable` is never taken back
    let seen = if run.is_durable() { run.published } else { 0 };
    let least = if kept_all { run.appended } else { run.synced }.max(seen);
    assert!(end >= least, "{what}: all up to {least} had to be kept, recovered to {end}");
    let next = store.end().0;
    assert!(end >= run.appended || next >= run.appended, "{what}: {next} is given out again");
    let (known, want) = run.state_at(end);
    let shown = run.shown(&store);
    let known = Some(end).filter(|end| *end == known);
    if known.is_some() {
        let wanted = run.still_there(&want.visible, store.first_position().0);
        if run.is_durable() {
            assert_eq!(shown.visible, wanted, "{what}: visible messages at {end}");
        } else {
            // offsets go on further ahead after each stop that was not in order
            assert_eq!(bodies(&shown.visible), bodies(&wanted), "{what}: visible messages at {end}");
        }
        let (open, wanted) = (firsts(&shown.open, &shown.open), firsts(&want.open, &shown.open));
        assert_eq!(open, wanted, "{what}: open transactions at {end}");
        let offsets = |state: &State| (state.lease, state.moved, state.reported);
        assert_eq!(offsets(&shown), offsets(&want), "{what}: leases, offsets at {end}");
        assert_eq!(shown.policy, want.policy, "{what}: the group's policy at {end}");
        assert_eq!(shown.names, want.names, "{what}: topics and groups at {end}");
        let messages: usize = want.open.values().map(|open| open.messages.len()).sum();
        assert_eq!(store.open_messages(), messages + want.due.len(), "{what}: open messages at {end}");
    }
    check_seen(&run.state_at(run.published).1.visible, &shown.visible, what);
    Recovered { store, shown, want, known }
}

/// As [`compare`]; then what was shown must outlive a power cut, and the store must go on working: every decision
/// stands, every open message is decided or comes due, retention runs, and nothing gets an offset that another has had.
/// The end of the log, if the model knows it.
pub fn verify(run: &Run, disk: SimulatedDisk, kept_all: bool, what: &str) -> Option<u64> {
    let Recovered { store, shown, want, known } = compare(run, &disk, kept_all, what);
    let (again, _) = open(&disk.crash(CrashMode::LoseUnsynced), &run.options, run.now + 1000)
        .unwrap_or_else(|e| panic!("{what}: a power cut behind the recovery: {e}"));
    assert_eq!(run.shown(&again), shown, "{what}: a power cut behind the recovery");
    drop(again);
    let seen = [run.state_at(run.published).1.visible, shown.visible.clone()];
    let mut state = State { decided: want.decided.clone(), due: want.due.clone(), ..shown };
    if known.is_some() {
        let visible = if run.is_durable() { want.visible } else { state.visible };
        state = State { visible, ..want };
    }
    let mut run = Run {
        disk,
        options: run.options.clone(),
        store: Some(store),
        state,
        past: BTreeMap::new(),
        places: run.places.clone(),
        started: Vec::new(),
        ..*run
    };
    go_on(&mut run, known.is_some(), what);
    let before = run.shown(&run.store());
    seen.iter().for_each(|seen| check_seen(seen, &before.visible, what));
    run.close().unwrap();
    let (store, report) = open(&run.disk, &run.options, run.now).unwrap();
    assert!(report.log.clean, "{what}: a stop in order is clean");
    assert_eq!(run.shown(&store), before, "{what}: after a stop in order");
    run.store = Some(store);
    run.check_decisions();
    known
}

fn go_on(run: &mut Run, known: bool, what: &str) {
    run.check_decisions();
    for topic in TOPICS {
        if run.store().topic(topic).is_some() {
            run.send(topic, Visibility::Now, 10).unwrap();
        }
    }
    run.sync().unwrap();
    if !known {
        return;
    }
    run.check_visible(&format!("{what}: when it has gone on"));
    if run.options.retention_ms < RETENTION_RUNS_BELOW_MS {
        run.checkpoint().unwrap();
        run.keep().unwrap();
        run.check_visible(&format!("{what}: when retention has gone on"));
    }
    let open: Vec<(u64, bool)> =
        run.state.open.iter().map(|(origin, open)| (*origin, open.with_id)).collect();
    for (origin, with_id) in open {
        let outcome = if with_id { Outcome::Committed } else { Outcome::RolledBack };
        run.end(origin, outcome).unwrap();
    }
    run.sync().unwrap();
    run.check_visible(&format!("{what}: when all is decided"));
    if let Some((due_ms, _)) = run.state.due.keys().next_back().copied() {
        run.tick_at(due_ms + 1).unwrap();
        run.sync().unwrap();
        run.check_visible(&format!("{what}: when all was due"));
        assert!(run.state.due.is_empty(), "{what}");
    }
}

impl Run {
    /// Each decision stands: END again is answered as before, the opposite one refused.
    fn check_decisions(&mut self) {
        let decided = self.state.decided.iter().map(|(origin, (_, outcome))| (*origin, *outcome));
        for (origin, outcome) in decided.collect::<Vec<_>>() {
            let other = if outcome == Outcome::Committed { Outcome::RolledBack } else { Outcome::Committed };
            self.end(origin, outcome).unwrap();
            self.end(origin, other).unwrap();
        }
    }
}
