//! Decisions answer for longer than the log holds them: from files, across restarts, until they take too much room; and a
//! file that cannot be read is never taken for one that knows nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mezzo_protocol::ids::{PhysicalOffset, QueueId, TopicName};
use mezzo_protocol::message::record::MessageParts;
use mezzo_protocol::message::sys_flag::SysFlag;
use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::RealFileSystem;
use mezzo_storage::{
    AckLevel, Batch, EndTarget, EndTransaction, NoObserver, Operation, OperationResult, Outcome, Refusal,
    Source, Store, StoreOptions, TopicConfig, Visibility, key_hash,
};

const T0: u64 = 1_700_000_000_000;
const SEGMENT: u64 = 1 << 20;
const DAY_MS: u64 = 24 * 3_600_000;

fn options(dir: &Path) -> StoreOptions {
    let mut options = StoreOptions::new(dir);
    options.ack = AckLevel::Memory;
    (options.segment_bytes, options.frame_bytes_max) = (SEGMENT, 64 << 10);
    (options.retention_ms, options.checkpoint_bytes) = (1_000, 1 << 18);
    options
}

struct Fixture {
    store: Arc<Store>,
    now: u64,
}

impl Fixture {
    fn open(options: StoreOptions, now: u64) -> Self {
        let now_ms = Timestamp::from_ms(now);
        let (store, _) =
            Store::open(Arc::new(RealFileSystem), options, now_ms, Arc::new(NoObserver)).unwrap();
        Self { store, now }
    }

    fn one(&self, operation: Operation) -> OperationResult {
        let mut batch = Batch::default();
        batch.push(operation);
        self.store.append(Timestamp::from_ms(self.now), &mut batch).unwrap();
        batch.results()[0].clone()
    }

    fn send(&self, key: &str, body: &[u8], visibility: Visibility) -> OperationResult {
        let properties = format!("UNIQ_KEY\u{1}{key}\u{2}PGROUP\u{1}pg\u{2}");
        let parts = MessageParts {
            topic: "t",
            queue_id: QueueId(0),
            flag: 0,
            sys_flag: SysFlag::default(),
            born_timestamp: Timestamp::from_ms(self.now),
            born_host: "127.0.0.1:1".parse().unwrap(),
            store_host_v6: false,
            reconsume_times: 0,
            body,
            properties: properties.as_bytes(),
        };
        let mut batch = Batch::default();
        let topic = self.store.topic("t").unwrap();
        batch.send(&self.store.encoder(), &topic, QueueId(0), visibility, &parts).unwrap();
        self.store.append(Timestamp::from_ms(self.now), &mut batch).unwrap();
        while self.store.prepare_step().unwrap() {}
        batch.results()[0].clone()
    }

    fn end(&self, origin: PhysicalOffset, key: &str, outcome: Outcome) -> OperationResult {
        self.one(Operation::End(EndTransaction {
            target: EndTarget::Origin(origin),
            table_offset: Some(origin.0),
            keys: Some([key_hash(key), 0]),
            producer_group: Some("pg".try_into().unwrap()),
            outcome,
            source: Source::Producer,
            count: None,
            offsets: None,
            only_in_doubt: false,
            decider: None,
            reason: None,
        }))
    }

    /// Fills a segment, so that the decisions before are in a file that is older than the log.
    fn roll(&mut self) {
        let first = self.store.first_position();
        for _ in 0..40 {
            self.send("filler", &[0; 50_000], Visibility::Now);
        }
        self.store.sync().unwrap();
        self.now += 5_000;
        for _ in 0..4 {
            self.store.keep(Timestamp::from_ms(self.now)).unwrap();
        }
        assert!(self.store.first_position() > first);
    }
}

/// A committed transaction whose message and decision the log no longer holds.
fn committed_and_gone(dir: &Path) -> (Fixture, PhysicalOffset) {
    let mut s = Fixture::open(options(dir), T0);
    s.one(Operation::PutTopic(TopicConfig::new(TopicName::new("t").unwrap(), 1)));
    s.store.sync().unwrap();
    let OperationResult::Prepared { origin, .. } = s.send("k", b"x", Visibility::Prepared { delay_ms: None })
    else {
        panic!("not prepared")
    };
    assert!(matches!(s.end(origin, "k", Outcome::Committed), OperationResult::Decided(_)));
    s.roll();
    assert!(s.store.first_position() > origin);
    (s, origin)
}

fn history_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(dir.join("history")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn a_decision_answers_long_after_its_message_is_gone_also_after_a_restart_and_expires_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (mut s, origin) = committed_and_gone(dir.path());
    for _ in 0..2 {
        let OperationResult::AlreadyDecided(again) = s.end(origin, "k", Outcome::Committed) else {
            panic!("the commit is forgotten")
        };
        assert!(again.queue_offset.is_some());
        assert!(matches!(s.end(origin, "k", Outcome::RolledBack), OperationResult::Conflict(_)));
        assert_eq!(s.end(origin, "other", Outcome::Committed), OperationResult::Refused(Refusal::WrongKey));
        assert_eq!(s.store.decided_by_key("pg", "k").unwrap(), Some((origin, again)));
        assert_eq!(s.store.decided_by_key("pg", "other").unwrap(), None);
        assert_eq!(s.store.decided_by_key("other", "k").unwrap(), None);
        let now = s.now;
        s.store.close(Timestamp::from_ms(now)).unwrap();
        drop(s);
        s = Fixture::open(options(dir.path()), now);
    }
    s.now += 6 * DAY_MS;
    s.store.keep(Timestamp::from_ms(s.now)).unwrap();
    assert!(matches!(s.end(origin, "k", Outcome::Committed), OperationResult::AlreadyDecided(_)));
    s.now += 2 * DAY_MS;
    s.store.keep(Timestamp::from_ms(s.now)).unwrap();
    assert_eq!(s.end(origin, "k", Outcome::Committed), OperationResult::Refused(Refusal::Expired));
}

#[test]
fn beyond_their_bytes_the_oldest_decisions_expire_before_the_horizon() {
    let dir = tempfile::tempdir().unwrap();
    let (s, origin) = committed_and_gone(dir.path());
    let now = s.now;
    drop(s);
    let mut small = options(dir.path());
    small.history_bytes_max = 1;
    let s = Fixture::open(small, now);
    assert!(matches!(s.end(origin, "k", Outcome::Committed), OperationResult::AlreadyDecided(_)));
    s.store.keep(Timestamp::from_ms(now)).unwrap();
    assert_eq!(s.end(origin, "k", Outcome::Committed), OperationResult::Refused(Refusal::Expired));
    assert!(history_files(dir.path()).is_empty());
}

#[test]
fn what_cannot_be_read_is_refused_as_such_and_answers_again_once_it_is_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let (s, origin) = committed_and_gone(dir.path());
    let [file] = history_files(dir.path()).try_into().unwrap();
    let whole = fs::read(&file).unwrap();
    let now = s.now;
    let unreadable = OperationResult::Refused(Refusal::HistoryUnreadable);
    OpenOptions::new().write(true).open(&file).unwrap().write_all_at(&[!whole[9]], 9).unwrap();
    assert_eq!(s.end(origin, "k", Outcome::Committed), unreadable, "damaged while it runs");
    assert!(s.store.transaction_record(origin).is_err());
    drop(s);
    let s = Fixture::open(options(dir.path()), now);
    assert_eq!(s.end(origin, "k", Outcome::Committed), unreadable, "a page");
    drop(s);
    fs::write(&file, &whole[..100]).unwrap();
    let s = Fixture::open(options(dir.path()), now);
    assert_eq!(s.end(origin, "k", Outcome::Committed), unreadable, "the footer");
    drop(s);
    fs::write(&file, &whole).unwrap();
    let s = Fixture::open(options(dir.path()), now);
    assert!(matches!(s.end(origin, "k", Outcome::Committed), OperationResult::AlreadyDecided(_)));
}
