//! Leases, and offsets that move with decisions: who may move one, when it is seen, and that neither a restart nor a
//! late report takes it back.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use std::sync::Arc;

use mezzo_protocol::ids::{GroupName, QueueId, QueueOffset, TopicName, TransactionId};
use mezzo_protocol::limits::TRANSACTION_OFFSETS_MAX;
use mezzo_protocol::message::record::MessageParts;
use mezzo_protocol::message::sys_flag::SysFlag;
use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::{CrashMode, SimulatedDisk};
use mezzo_storage::{
    AckLevel, Batch, Decision, EndTarget, EndTransaction, LeaseRequest, NoObserver, OffsetMove, Operation,
    OperationResult, Outcome, Refusal, Source, Store, StoreOptions, TopicConfig, TransactionOffsets,
    Visibility,
};

const T0: u64 = 1_700_000_000_000;
const TTL_MS: u64 = 1_000;

struct Fixture {
    disk: SimulatedDisk,
    store: Arc<Store>,
    now: u64,
}

fn open_on(disk: SimulatedDisk, now: u64) -> Fixture {
    open_at(disk, now, AckLevel::Durable)
}

fn open_at(disk: SimulatedDisk, now: u64, ack: AckLevel) -> Fixture {
    let options = StoreOptions {
        segment_bytes: 1 << 20,
        frame_bytes_max: 128 << 10,
        ack,
        nonce: Some([7; 16]),
        ..StoreOptions::new("/data")
    };
    let fs = Arc::new(disk.clone());
    let (store, _) = Store::open(fs, options, Timestamp::from_ms(now), Arc::new(NoObserver)).unwrap();
    Fixture { disk, store, now }
}

fn open() -> Fixture {
    let mut s = open_on(SimulatedDisk::new(), T0);
    assert_eq!(s.one(Operation::PutTopic(TopicConfig::new(topic(), 2))), OperationResult::Done);
    s.store.sync().unwrap();
    s
}

fn topic() -> TopicName {
    TopicName::new("t").unwrap()
}

fn group() -> GroupName {
    GroupName::new("cg").unwrap()
}

fn refused(refusal: Refusal) -> OperationResult {
    OperationResult::Refused(refusal)
}

/// Of a group that has not consumed before.
fn moving(entries: &[(u32, u64, u64)]) -> TransactionOffsets {
    moving_from(None, entries)
}

fn moving_from(from: Option<u64>, entries: &[(u32, u64, u64)]) -> TransactionOffsets {
    let entry = |(queue, offset, epoch): &(u32, u64, u64)| OffsetMove {
        topic: topic(),
        queue: QueueId(*queue),
        from: from.map(QueueOffset),
        offset: QueueOffset(*offset),
        epoch: *epoch,
    };
    TransactionOffsets { group: group(), entries: entries.iter().map(entry).collect() }
}

fn commit(id: &str, count: u16, offsets: Option<TransactionOffsets>) -> EndTransaction {
    let target = EndTarget::Id { group: GroupName::new("pg").unwrap(), id: TransactionId::new(id).unwrap() };
    let end = EndTransaction::new(target, Outcome::Committed, Source::Producer);
    EndTransaction { count: Some(count), offsets, ..end }
}

impl Fixture {
    fn append(&mut self, batch: &mut Batch) -> OperationResult {
        self.now += 1;
        self.store.append(Timestamp::from_ms(self.now), batch).unwrap();
        batch.results()[0].clone()
    }

    fn one(&mut self, operation: Operation) -> OperationResult {
        let mut batch = Batch::default();
        batch.push(operation);
        self.append(&mut batch)
    }

    fn end(&mut self, end: EndTransaction) -> OperationResult {
        self.one(Operation::End(end))
    }

    fn decided(&mut self, end: EndTransaction) -> Decision {
        match self.end(end) {
            OperationResult::Decided(decision) => decision,
            other => panic!("{other:?}"),
        }
    }

    fn ask(&mut self, client: &str, queue: u32) -> OperationResult {
        self.ask_or_renew(client, queue, None)
    }

    fn ask_or_renew(&mut self, client: &str, queue: u32, renews: Option<u64>) -> OperationResult {
        self.one(Operation::Lease(LeaseRequest {
            group: group(),
            topic: topic(),
            queue: QueueId(queue),
            client: client.to_owned(),
            ttl_ms: TTL_MS,
            renews,
        }))
    }

    /// Epoch and next offset.
    fn lease(&mut self, client: &str, queue: u32) -> (u64, Option<u64>) {
        self.lease_or_renew(client, queue, None)
    }

    fn lease_or_renew(&mut self, client: &str, queue: u32, renews: Option<u64>) -> (u64, Option<u64>) {
        match self.ask_or_renew(client, queue, renews) {
            OperationResult::Leased { epoch, next_offset, expires_at } => {
                assert_eq!(expires_at.as_ms(), self.now + TTL_MS);
                (epoch, next_offset.map(|offset| offset.0))
            }
            other => panic!("{other:?}"),
        }
    }

    fn release(&mut self, queue: u32, epoch: u64) -> OperationResult {
        let queue = QueueId(queue);
        self.one(Operation::ReleaseLease { group: group(), topic: topic(), queue, epoch })
    }

    fn half(&mut self, id: &str) {
        let properties =
            format!("UNIQ_KEY\u{1}{id}\u{2}PGROUP\u{1}pg\u{2}MEZZO_TX\u{1}{id}\u{2}MEZZO_TX_SEQ\u{1}0\u{2}");
        let parts = MessageParts {
            topic: "t",
            queue_id: QueueId(0),
            flag: 0,
            sys_flag: SysFlag(0),
            born_timestamp: Timestamp::from_ms(T0),
            born_host: "127.0.0.1:1".parse().unwrap(),
            store_host_v6: false,
            reconsume_times: 0,
            body: id.as_bytes(),
            properties: properties.as_bytes(),
        };
        let mut batch = Batch::default();
        let prepared = Visibility::Prepared { delay_ms: None };
        let handle = self.store.topic("t").unwrap();
        batch.send(&self.store.encoder(), &handle, QueueId(0), prepared, &parts).unwrap();
        assert!(matches!(self.append(&mut batch), OperationResult::Prepared { .. }));
    }

    fn offset(&self, queue: u32) -> Option<u64> {
        self.store.offset("cg", &topic(), QueueId(queue)).map(|offset| offset.0)
    }

    fn report(&self, queue: u32, offset: u64) -> bool {
        self.store.commit_offset(&group(), &topic(), QueueId(queue), QueueOffset(offset)).is_ok()
    }

    fn visible(&self) -> u64 {
        self.store.topic("t").unwrap().queue(QueueId(0)).unwrap().max_offset().0
    }

    /// The process dies after a sync, without an orderly stop.
    fn restart(self) -> Self {
        self.store.sync().unwrap();
        let (disk, now) = (self.disk.crash(CrashMode::LoseUnsynced), self.now + 10);
        drop(self.store);
        open_on(disk, now)
    }
}

#[test]
fn messages_and_offsets_become_visible_together() {
    let mut s = open();
    let (epoch, next) = s.lease("a", 0);
    assert_eq!(next, None);
    s.half("tx");
    assert_eq!(s.decided(commit("tx", 1, Some(moving(&[(0, 7, epoch)])))).outcome, Outcome::Committed);
    assert_eq!((s.visible(), s.offset(0)), (0, None), "not before the decision is durable");
    s.store.sync().unwrap();
    assert_eq!((s.visible(), s.offset(0)), (1, Some(7)));
    let s = s.restart();
    assert_eq!((s.visible(), s.offset(0)), (1, Some(7)));
}

#[test]
fn a_lease_is_one_clients_until_it_expires_or_is_given_back() {
    let mut s = open();
    let (first, _) = s.lease("a", 0);
    let until = s.now + TTL_MS;
    assert_eq!(s.ask("b", 0), refused(Refusal::LeaseHeld { until: Timestamp::from_ms(until) }));
    assert_eq!(s.lease_or_renew("a", 0, Some(first)).0, first, "renewed");
    assert_eq!(s.ask_or_renew("a", 0, Some(first + 1)), refused(Refusal::LeaseLost));
    s.lease("b", 1);
    s.now += TTL_MS - 4;
    assert!(matches!(s.ask("b", 0), OperationResult::Refused(Refusal::LeaseHeld { .. })));
    let (second, _) = s.lease("b", 0);
    assert!(second > first, "expired");
    assert_eq!(s.release(0, first), refused(Refusal::LeaseLost));
    assert_eq!(s.release(0, second), OperationResult::Done);
    assert_eq!(s.release(0, second), OperationResult::Done, "a repeat");
    assert_eq!(s.ask_or_renew("b", 0, Some(second)), refused(Refusal::LeaseLost), "given back");
    let (third, _) = s.lease("a", 0);
    assert!(third > second);
    assert_eq!(s.ask("c", 9), refused(Refusal::NotFound), "no such queue");
}

#[test]
fn an_expired_lease_that_nobody_took_still_counts() {
    let mut s = open();
    let (epoch, _) = s.lease("a", 0);
    s.now += 10 * TTL_MS;
    s.half("tx");
    assert_eq!(s.decided(commit("tx", 1, Some(moving(&[(0, 3, epoch)])))).outcome, Outcome::Committed);
    assert_eq!(
        s.lease_or_renew("a", 0, Some(epoch)),
        (epoch, Some(3)),
        "and is renewed under the same epoch"
    );
}

#[test]
fn a_commit_without_the_right_lease_is_rolled_back_as_fenced() {
    let mut s = open();
    let (old, _) = s.lease("a", 0);
    let (other, _) = s.lease("a", 1);
    s.now += 2 * TTL_MS;
    let (new, _) = s.lease("b", 0);
    s.half("tx");
    // one of two is enough
    let late = commit("tx", 1, Some(moving(&[(1, 5, other), (0, 5, old)])));
    let decision = s.decided(late.clone());
    assert_eq!((decision.outcome, decision.source), (Outcome::RolledBack, Source::Fenced));
    assert_eq!(s.end(late), OperationResult::Conflict(decision), "a repeat hears what stands");
    let mut s = s.restart();
    assert_eq!((s.visible(), s.offset(0), s.offset(1)), (0, None, None));
    for (id, epoch) in [("never", 99), ("released", new)] {
        s.half(id);
        assert_eq!(s.release(0, new), OperationResult::Done);
        let decision = s.decided(commit(id, 1, Some(moving(&[(0, 5, epoch)]))));
        assert_eq!((decision.outcome, decision.source), (Outcome::RolledBack, Source::Fenced), "{id}");
    }
}

#[test]
fn what_a_client_sent_before_its_restart_has_no_effect_after_it() {
    let mut s = open();
    let (before, _) = s.lease("a", 0);
    s.half("late");
    let late = commit("late", 1, Some(moving(&[(0, 1, before)])));
    // restarted under its name, it begins with the same message, since nothing is decided
    let (after, next) = s.lease("a", 0);
    assert!(after > before);
    assert_eq!(next, None);
    s.half("again");
    assert_eq!(s.decided(commit("again", 1, Some(moving(&[(0, 1, after)])))).outcome, Outcome::Committed);
    assert_eq!(s.decided(late).source, Source::Fenced);
}

#[test]
fn two_transactions_of_one_lease_do_not_both_consume_a_message() {
    let mut s = open();
    let (epoch, _) = s.lease("a", 0);
    for id in ["one", "two", "three"] {
        s.half(id);
    }
    assert_eq!(s.decided(commit("one", 1, Some(moving(&[(0, 1, epoch)])))).outcome, Outcome::Committed);
    assert_eq!(s.decided(commit("two", 1, Some(moving(&[(0, 1, epoch)])))).source, Source::Fenced);
    let on = commit("three", 1, Some(moving_from(Some(1), &[(0, 2, epoch)])));
    assert_eq!(s.decided(on).outcome, Outcome::Committed);
}

#[test]
fn the_next_holder_begins_where_the_last_decision_ended_also_before_it_is_durable() {
    let mut s = open();
    let (epoch, _) = s.lease("a", 0);
    s.half("tx");
    s.decided(commit("tx", 1, Some(moving(&[(0, 7, epoch)]))));
    s.release(0, epoch);
    assert_eq!(s.lease("b", 0).1, Some(7));
    assert_eq!(s.offset(0), None, "nobody else is told yet");
}

#[test]
fn plain_reports_leave_a_leased_queue_alone() {
    let mut s = open();
    assert!(s.report(0, 1));
    let (epoch, next) = s.lease("a", 0);
    assert_eq!(next, Some(1));
    assert!(s.report(0, 2), "the lease is not durable yet");
    s.store.sync().unwrap();
    assert!(!s.report(0, 3));
    assert!(s.report(1, 3), "another queue");
    assert_eq!(s.offset(0), Some(2));
    let mut s = s.restart();
    assert!(!s.report(0, 3), "also after a restart");
    s.release(0, epoch);
    s.store.sync().unwrap();
    assert!(s.report(0, 4));
    let held = s.lease("a", 0).0;
    s.store.sync().unwrap();
    s.now += 2 * TTL_MS;
    s.store.keep(Timestamp::from_ms(s.now)).unwrap();
    assert!(s.report(0, 5), "expired");
    assert_eq!(s.store.lease("cg", &topic(), QueueId(0)).unwrap().epoch, held);
}

#[test]
fn a_report_of_before_is_not_logged_over_a_decision() {
    for synced in [false, true] {
        let mut s = open();
        assert!(s.report(0, 2));
        let (epoch, _) = s.lease("a", 0);
        s.half("tx");
        s.decided(commit("tx", 1, Some(moving_from(Some(2), &[(0, 7, epoch)]))));
        if synced {
            s.store.sync().unwrap();
        }
        s.now += 1;
        s.store.flush_offsets(Timestamp::from_ms(s.now)).unwrap();
        let s = s.restart();
        assert_eq!(s.offset(0), Some(7), "synced {synced}");
    }
}

#[test]
fn offsets_and_leases_survive_checkpoints() {
    let mut s = open();
    let (epoch, _) = s.lease("a", 0);
    s.half("tx");
    s.decided(commit("tx", 1, Some(moving(&[(0, 7, epoch)]))));
    s.store.checkpoint(true).unwrap();
    let mut s = s.restart();
    assert_eq!(s.offset(0), Some(7));
    assert!(!s.report(0, 3));
    assert_eq!(s.lease_or_renew("a", 0, Some(epoch)), (epoch, Some(7)));
}

#[test]
fn leases_go_with_their_group_and_topic_and_no_epoch_comes_again() {
    for topic_goes in [false, true] {
        let mut s = open();
        let (epoch, _) = s.lease("a", 0);
        let delete =
            if topic_goes { Operation::DeleteTopic(topic()) } else { Operation::DeleteGroup(group()) };
        assert_eq!(s.one(delete), OperationResult::Done);
        s.one(Operation::PutTopic(TopicConfig::new(topic(), 2)));
        s.store.sync().unwrap();
        assert_eq!(s.store.lease("cg", &topic(), QueueId(0)), None);
        assert!(s.lease("b", 0).0 > epoch);
    }
}

#[test]
fn a_transaction_may_move_offsets_alone() {
    let mut s = open();
    let (epoch, _) = s.lease("a", 0);
    let end = commit("tx", 0, Some(moving(&[(0, 4, epoch)])));
    let decision = s.decided(end.clone());
    assert_eq!((decision.outcome, decision.count, decision.queue_offset), (Outcome::Committed, 0, None));
    let later = commit("later", 0, Some(moving_from(Some(4), &[(0, 6, epoch)])));
    s.decided(later);
    let again = OperationResult::AlreadyDecided(decision.clone());
    assert_eq!(s.end(end.clone()), again, "a repeat moves nothing back");
    let mut s = s.restart();
    assert_eq!(s.end(end.clone()), again);
    assert_eq!(s.offset(0), Some(6));
    s.half("mine");
    s.store.checkpoint(true).unwrap();
    let mut s = s.restart();
    assert_eq!(s.end(end), again, "from a checkpoint");
    assert_eq!(s.offset(0), Some(6));
    let by_origin =
        EndTransaction::new(EndTarget::Origin(decision.origin), Outcome::RolledBack, Source::Operator);
    assert_eq!(s.end(by_origin), OperationResult::Conflict(decision));
}

#[test]
fn a_transaction_without_anything_needs_no_decision() {
    let mut s = open();
    assert_eq!(s.end(commit("tx", 0, None)), OperationResult::NothingToDecide);
    assert_eq!(s.end(commit("tx", 1, None)), refused(Refusal::UnknownOrExpired), "its message never came");
    let one = Some(moving(&[(0, 4, 1)]));
    assert_eq!(s.end(commit("tx", 1, one)), refused(Refusal::UnknownOrExpired));
    s.half("tx");
    let incomplete = Refusal::Incomplete { expected: 1, got: Some(0) };
    assert_eq!(s.end(commit("tx", 0, None)), refused(incomplete));
}

#[test]
fn a_rollback_moves_no_offsets() {
    let mut s = open();
    let (epoch, _) = s.lease("a", 0);
    s.half("tx");
    let end =
        EndTransaction { outcome: Outcome::RolledBack, ..commit("tx", 1, Some(moving(&[(0, 4, epoch)]))) };
    assert_eq!(s.decided(end).source, Source::Producer);
    s.store.sync().unwrap();
    assert_eq!(s.offset(0), None);
}

#[test]
fn offsets_of_one_transaction_are_bounded() {
    let mut s = open();
    let (epoch, _) = s.lease("a", 0);
    s.half("tx");
    let many = vec![(0, 4, epoch); TRANSACTION_OFFSETS_MAX + 1];
    assert_eq!(s.end(commit("tx", 1, Some(moving(&many)))), refused(Refusal::TooManyOffsets));
    s.decided(commit("tx", 1, Some(moving(&many[1..]))));
}

#[test]
fn one_batch_gives_no_epoch_twice_though_the_group_is_deleted_in_between() {
    let mut s = open();
    let lease = |client: &str| {
        Operation::Lease(LeaseRequest {
            group: group(),
            topic: topic(),
            queue: QueueId(0),
            client: client.to_owned(),
            ttl_ms: TTL_MS,
            renews: None,
        })
    };
    let mut batch = Batch::default();
    for operation in [lease("a"), Operation::DeleteGroup(group()), lease("b")] {
        batch.push(operation);
    }
    s.append(&mut batch);
    let epoch = |at: usize| match &batch.results()[at] {
        OperationResult::Leased { epoch, .. } => *epoch,
        other => panic!("{other:?}"),
    };
    let (a, b) = (epoch(0), epoch(2));
    assert!(b > a);
    assert_eq!(s.decided(commit("of-a", 0, Some(moving(&[(0, 7, a)])))).source, Source::Fenced);
    assert_eq!(s.decided(commit("of-b", 0, Some(moving(&[(0, 7, b)])))).source, Source::Producer);
}

#[test]
fn an_epoch_that_a_power_cut_took_back_is_nobodys_afterwards() {
    let mut s = open_at(SimulatedDisk::new(), T0, AckLevel::Memory);
    s.one(Operation::PutTopic(TopicConfig::new(topic(), 2)));
    let (a, _) = s.lease("a", 0);
    s.store.sync().unwrap();
    s.now += 2 * TTL_MS;
    let (b, _) = s.lease("b", 0);
    // what the second client was told is lost, and a third one comes
    let (disk, now) = (s.disk.crash(CrashMode::LoseUnsynced), s.now);
    drop(s.store);
    let mut s = open_at(disk, now, AckLevel::Memory);
    let (c, _) = s.lease("c", 0);
    assert!(a < b && b < c, "{a} {b} {c}");
    assert_eq!(s.decided(commit("of-b", 0, Some(moving(&[(0, 7, b)])))).source, Source::Fenced);
}
