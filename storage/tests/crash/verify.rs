//! What a store shows, and whether that is what the model held.

use std::collections::BTreeMap;

use mezzo_protocol::ids::{GroupName, PhysicalOffset, QueueId, QueueOffset, TopicName};
use mezzo_protocol::message::record::MessageView;
use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::SimulatedDisk;
use mezzo_storage::{AckLevel, Happened, OpenFilter, OpenState, Outcome, Store, Visibility};

use super::run::{Open, Run, State, TOPICS, open};

impl Run {
    /// What a store shows through every door that the model knows of.
    pub fn shown(&self, store: &Store) -> State {
        let leased = TopicName::new(TOPICS[0]).unwrap();
        let mut state = State {
            lease: store.lease("cg", &leased, QueueId(0)).map(|lease| lease.epoch),
            moved: store.offset("cg", &leased, QueueId(0)).map(|offset| offset.0),
            policy: store.check_policy(&GroupName::new("pg").unwrap()).map(|policy| policy.check_max),
            ..State::default()
        };
        for name in TOPICS {
            let Some(topic) = store.topic(name) else { continue };
            let queue = topic.queue(QueueId(0)).unwrap();
            let mut visible = Vec::new();
            let read = store.read_entries(&queue, QueueOffset(0), usize::MAX, &mut |_| true).unwrap();
            for (offset, entry) in &read.entries {
                let message = store.read_message(entry).unwrap();
                let view = MessageView::parse(&message.bytes).unwrap();
                visible.push((*offset, String::from_utf8(view.body().to_vec()).unwrap()));
            }
            state.visible.insert(name, visible);
        }
        let (all, now) = (OpenFilter::default(), Timestamp::from_ms(self.now + 1000));
        for open in store.open_transactions_page(&all, now, None, usize::MAX) {
            let open = open.transaction;
            let message = store.half_message(open.origin).unwrap().unwrap();
            let view = MessageView::parse(&message.bytes).unwrap();
            let topic = TOPICS.into_iter().find(|t| *t == view.topic()).unwrap();
            let body = String::from_utf8(view.body().to_vec()).unwrap();
            let in_doubt = open.state == OpenState::InDoubt;
            let asks = (open.asks, asks_told(store, open.origin));
            let open_now = Open { messages: vec![(topic, body)], with_id: false, in_doubt, asks };
            state.open.insert(open.origin.0, open_now);
        }
        state
    }
}

/// Asks that its timeline tells.
fn asks_told(store: &Store, origin: PhysicalOffset) -> usize {
    let timeline = store.timeline(origin).unwrap().unwrap();
    assert!(!timeline.older_missing);
    timeline.events.iter().filter(|event| matches!(event.what, Happened::Asked { .. })).count()
}

/// The disk after the crash is opened and compared with the model; then it must go on working. False when there was
/// nothing to compare with: the frame whose write failed did reach the disk.
pub fn verify(mut run: Run, disk: SimulatedDisk, what: &str) -> bool {
    let written = std::mem::take(&mut run.past);
    run.store = None;
    let (store, report) = match open(&disk, run.ack, run.now + 1000) {
        Ok(opened) => opened,
        Err(e) => panic!("{what}: recovery fails: {e}"),
    };
    if run.ack == AckLevel::Durable {
        assert!(
            report.log.end >= run.synced,
            "{what}: synced to {} but recovered to {}",
            run.synced,
            report.log.end
        );
    }
    let (end, want) = written
        .range(..=report.log.end)
        .next_back()
        .map_or_else(|| (0, State::default()), |(end, state)| (*end, state.clone()));
    let shown = run.shown(&store);
    let known = end == report.log.end && want.visible.len() == TOPICS.len();
    if known {
        let bodies = |s: &State| -> BTreeMap<&'static str, Vec<String>> {
            let names = |v: &Vec<(u64, String)>| v.iter().map(|(_, b)| b.clone()).collect();
            s.visible.iter().map(|(t, v)| (*t, names(v))).collect()
        };
        assert_eq!(bodies(&shown), bodies(&want), "{what}: visible messages at {end}");
        // what joined behind the first is not shown; it is compared when it is committed, below
        let firsts = |open: &BTreeMap<u64, Open>| -> Vec<(u64, String, bool, (u32, usize))> {
            let first = |(origin, open): (&u64, &Open)| {
                (*origin, open.messages[0].1.clone(), open.in_doubt, open.asks)
            };
            open.iter().map(first).collect()
        };
        assert_eq!(firsts(&shown.open), firsts(&want.open), "{what}: open transactions at {end}");
        assert_eq!((shown.lease, shown.moved), (want.lease, want.moved), "{what}: leases, offsets at {end}");
        assert_eq!(shown.policy, want.policy, "{what}: the group's policy at {end}");
        let messages: usize = want.open.values().map(|open| open.messages.len()).sum();
        assert_eq!(store.open_messages(), messages + want.due.len(), "{what}: open messages at {end}");
    }
    // offsets once shown keep their message, whatever was lost behind them
    for (topic, queue) in &shown.visible {
        let ever: BTreeMap<u64, &String> = queue.iter().map(|(o, b)| (*o, b)).collect();
        assert_eq!(ever.len(), queue.len(), "{what}: an offset twice in {topic}");
    }
    // it goes on: every decision still stands, and a new message finds its place
    run.disk = disk;
    run.state = State { decided: want.decided.clone(), ..shown };
    if known {
        run.state.open.clone_from(&want.open);
    }
    run.state.due = want.due.clone();
    run.past.insert(store.limit().0, run.state.clone());
    run.store = Some(store);
    let decided: Vec<(u64, Outcome)> = want.decided.iter().map(|(o, (_, outcome))| (*o, *outcome)).collect();
    for (origin, outcome) in decided {
        let other = if outcome == Outcome::Committed { Outcome::RolledBack } else { Outcome::Committed };
        run.end(origin, outcome).unwrap();
        run.end(origin, other).unwrap();
    }
    for (origin, _) in want.open.iter().filter(|(_, open)| known && open.with_id) {
        run.end(*origin, Outcome::Committed).unwrap();
        run.sync().unwrap();
        assert_eq!(run.shown(&run.store()).visible, run.state.visible, "{what}: messages of {origin}");
    }
    for topic in TOPICS {
        if run.store().topic(topic).is_some() {
            run.send(topic, Visibility::Now, 10).unwrap();
        }
    }
    run.sync().unwrap();
    let before = run.shown(&run.store());
    run.store().close(Timestamp::from_ms(run.now)).unwrap();
    run.store = None;
    let (store, report) = open(&run.disk, run.ack, run.now).unwrap();
    assert!(report.log.clean, "{what}: a stop in order is clean");
    assert_eq!(run.shown(&store), before, "{what}: after a stop in order");
    known
}
