//! Open messages outlive their segments: what is carried, what stays the same, and what moves.

use std::path::Path;

use mezzo_protocol::ids::{PhysicalOffset, QueueOffset};
use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::{CrashMode, FileSystem};
use mezzo_storage::{
    EndTarget, EndTransaction, Happened, OpenState, Operation, OperationResult, Outcome, ParkReason, Source,
    Visibility, key_hash,
};

use crate::fixture::{Fixture, SEGMENT_BYTES, T0, body_of, options};

const HALF: Visibility = Visibility::Prepared { delay_ms: None };

#[test]
fn one_undecided_half_does_not_keep_the_log() {
    let mut s = Fixture::new(options());
    let origin = s.half("h");
    s.fill(6);
    assert_eq!(s.store.first_position(), PhysicalOffset(0));
    s.keep();
    assert_eq!(s.store.first_position(), PhysicalOffset(0), "nothing is old yet");
    s.pass_retention();
    s.keep();
    assert!(s.store.first_position().0 >= 5 * SEGMENT_BYTES, "{}", s.store.first_position());
    assert!(s.store.first_position() > origin);
    let half = s.store.half_message(origin).unwrap().unwrap();
    assert_eq!((body_of(&half.bytes).as_str(), half.origin), ("h", Some(origin)));
    assert!(half.position >= s.store.first_position(), "the location has moved");
    assert_eq!(s.store.topic("t").unwrap().open_messages(), 1);
}

#[test]
fn a_half_in_doubt_is_carried_many_times_and_then_committed_and_shown_once() {
    let mut s = Fixture::new(options());
    let origin = s.half("h");
    let parked = s.one(Operation::Park { origin, reason: ParkReason::MaxAge });
    assert_eq!(parked, OperationResult::Done);
    let mut places = Vec::new();
    for round in 0..7 {
        s.fill(3);
        s.pass_retention();
        s.keep();
        places.push(s.store.half_message(origin).unwrap().unwrap().position);
        // each kind of end, a start without its checkpoint among them
        s = match round % 4 {
            0 => s.crash(CrashMode::LoseUnsynced),
            1 => s.crash(CrashMode::KeepAll),
            2 => {
                s.store.close(s.now()).unwrap();
                s.crash(CrashMode::LoseUnsynced)
            }
            _ => {
                let dir = Path::new("/data/checkpoint");
                for file in s.disk.list(dir).unwrap() {
                    s.disk.remove(&dir.join(file)).unwrap();
                }
                s.crash(CrashMode::KeepAll)
            }
        };
        assert_eq!(s.store.open_state(origin), Some(OpenState::InDoubt));
        assert_eq!(s.store.in_doubt_of_group("pg", 9), [origin]);
        assert_eq!(s.store.topic("t").unwrap().open_messages(), 1);
    }
    assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "{places:?}");
    let decision = s.end(origin, "h", Outcome::Committed);
    assert_eq!(decision.origin, origin);
    s.store.sync().unwrap();
    assert_eq!(s.shown("h"), 1);
    let offset = decision.queue_offset.unwrap();
    let read = s.store.read_entries(&s.queue(), offset, 1, &mut |_| true).unwrap();
    let message = s.store.read_message(&read.entries[0].1).unwrap();
    assert_eq!((message.origin, message.position), (Some(origin), *places.last().unwrap()));
    // by id, as consumers know it
    let found = s.store.read_by_position(message.position).unwrap();
    assert_eq!((found.queue_offset, found.message.origin), (Some(offset), Some(origin)));
    let timeline = s.store.timeline(origin).unwrap().unwrap();
    assert!(matches!(timeline.events.last().unwrap().what, Happened::Decided { .. }));
    // and again after a start
    let s = s.crash(CrashMode::LoseUnsynced);
    assert_eq!((s.shown("h"), s.store.open_messages()), (1, 0));
    assert!(s.store.read_by_position(message.position).is_ok());
}

#[test]
fn an_undecided_or_rolled_back_message_is_not_shown_at_the_place_it_was_carried_to() {
    let mut s = Fixture::new(options());
    let origin = s.half("h");
    s.fill(3);
    s.pass_retention();
    s.keep();
    let place = s.store.half_message(origin).unwrap().unwrap().position;
    assert!(place > origin);
    assert!(s.store.read_by_position(place).is_err());
    s.end(origin, "h", Outcome::RolledBack);
    s.store.sync().unwrap();
    assert!(s.store.read_by_position(place).is_err());
    assert_eq!(s.shown("h"), 0);
}

#[test]
fn delayed_messages_keep_their_time_and_their_order() {
    let mut s = Fixture::new(options());
    let due = Timestamp::from_ms(T0 + 100_000_000);
    let first = s.send("d1", Visibility::Due(due));
    assert!(matches!(first, OperationResult::Scheduled { .. }));
    s.fill(3);
    s.pass_retention();
    s.keep();
    // written later, due at the same time
    s.send("d2", Visibility::Due(due));
    s.fill(1);
    let mut s = s.crash(CrashMode::LoseUnsynced);
    assert_eq!((s.store.open_messages(), s.shown("d1")), (2, 0));
    s.now = due.as_ms();
    let ticked = s.one(Operation::Tick(due));
    assert_eq!(ticked, OperationResult::Ticked { messages: 2 });
    s.store.sync().unwrap();
    let visible: Vec<String> = s.visible().into_values().filter(|body| body.starts_with('d')).collect();
    assert_eq!(visible, ["d1", "d2"]);
    assert_eq!(s.store.topic("t").unwrap().open_messages(), 0);
}

#[test]
fn a_committed_half_whose_delay_runs_is_carried_as_what_it_was() {
    let mut s = Fixture::new(options());
    let delay_ms = 100_000_000;
    let OperationResult::Prepared { origin, .. } =
        s.send("h", Visibility::Prepared { delay_ms: Some(delay_ms) })
    else {
        panic!()
    };
    // carried once while undecided, and again while its delay runs
    for decided in [false, true] {
        if decided {
            s.end(origin, "h", Outcome::Committed);
        }
        s.fill(3);
        s.pass_retention();
        let before = s.store.retention_figures().bytes_carried;
        s.keep();
        assert!(s.store.retention_figures().bytes_carried > before);
        s = s.crash(CrashMode::LoseUnsynced);
        assert_eq!((s.store.open_messages(), s.shown("h")), (1, 0));
    }
    s.now += delay_ms;
    let now = s.now();
    assert_eq!(s.one(Operation::Tick(now)), OperationResult::Ticked { messages: 1 });
    s.store.sync().unwrap();
    let (offset, _) = s.visible().into_iter().find(|(_, body)| body == "h").unwrap();
    let read = s.store.read_entries(&s.queue(), QueueOffset(offset), 1, &mut |_| true).unwrap();
    let message = s.store.read_message(&read.entries[0].1).unwrap();
    assert_eq!(message.origin, Some(origin), "still the message of a transaction");
    let found = s.store.read_by_position(message.position).unwrap();
    assert_eq!(found.queue_offset, Some(QueueOffset(offset)));
}

#[test]
fn the_messages_of_a_transaction_are_carried_each_for_itself_and_stay_in_order() {
    let mut s = Fixture::new(options());
    let mut origin = None;
    for sequence in 0..5 {
        let more = format!("MEZZO_TX\u{1}tx\u{2}MEZZO_TX_SEQ\u{1}{sequence}\u{2}");
        let sent = s.send_with(&format!("m{sequence}"), HALF, &more);
        let OperationResult::Prepared { origin: of, .. } = sent else { panic!("{sent:?}") };
        assert_eq!(*origin.get_or_insert(of), of);
        // spread over several segments
        s.fill(1);
    }
    let origin = origin.unwrap();
    for _ in 0..2 {
        s.fill(3);
        s.pass_retention();
        s.keep();
        s = s.crash(CrashMode::LoseUnsynced);
    }
    assert_eq!(s.store.topic("t").unwrap().open_messages(), 5);
    // one more joins after they have moved, and one comes again
    for (sequence, body) in [(5, "m5"), (2, "m2")] {
        let more = format!("MEZZO_TX\u{1}tx\u{2}MEZZO_TX_SEQ\u{1}{sequence}\u{2}");
        let sent = s.send_with(body, HALF, &more);
        assert!(matches!(sent, OperationResult::Prepared { origin: of, .. } if of == origin), "{sent:?}");
    }
    let ending = EndTransaction {
        target: EndTarget::Origin(origin),
        table_offset: Some(origin.0),
        keys: Some([key_hash("tx"), key_hash("m0")]),
        producer_group: None,
        outcome: Outcome::Committed,
        source: Source::Producer,
        count: Some(6),
        offsets: None,
        only_in_doubt: false,
        decider: None,
        reason: None,
    };
    let decided = s.one(Operation::End(ending));
    assert!(matches!(&decided, OperationResult::Decided(d) if d.queue_offsets.len() == 6), "{decided:?}");
    s.store.sync().unwrap();
    let s = s.crash(CrashMode::LoseUnsynced);
    let visible: Vec<String> = s.visible().into_values().filter(|body| body.starts_with('m')).collect();
    assert_eq!(visible, ["m0", "m1", "m2", "m3", "m4", "m5"]);
}

#[test]
fn a_segment_that_is_open_by_a_quarter_or_more_waits() {
    let mut s = Fixture::new(options());
    let big = "y".repeat(1500);
    let halves: Vec<_> = (0..6).map(|n| s.half(&format!("h{n}-{big}"))).collect();
    s.fill(4);
    s.pass_retention();
    s.keep();
    assert_eq!(s.store.first_position(), PhysicalOffset(0));
    assert_eq!(s.store.retention_figures().bytes_carried, 0);
    // two are decided: what is left is less than a quarter
    for (n, origin) in halves.iter().enumerate().take(2) {
        s.end(*origin, &format!("h{n}-"), Outcome::RolledBack);
    }
    s.keep();
    assert!(s.store.first_position().0 >= 3 * SEGMENT_BYTES);
    assert_eq!(s.store.open_messages(), 4);
}
