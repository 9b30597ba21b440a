//! Data folders on a real file system, as people and their tools leave them: lock files that are gone or something else,
//! files that are not the broker's, segments that grew, permissions that are missing, two brokers on one folder. Each is
//! served, or refused with the path and what to do; nothing panics, and nothing is lost.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use mezzo_protocol::ids::{QueueId, QueueOffset, TopicName};
use mezzo_protocol::message::record::MessageParts;
use mezzo_protocol::message::sys_flag::SysFlag;
use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::RealFileSystem;
use mezzo_storage::{
    Batch, NoObserver, Operation, StorageError, Store, StoreOptions, TopicConfig, Visibility,
};
use tempfile::TempDir;

const NOW: Timestamp = Timestamp::from_ms(1_700_000_000_000);
const MESSAGES: usize = 60;
const SEGMENT_BYTES: u64 = 32 << 10;
/// Says to a copy of this program which folder it is to open.
const OPEN: &str = "MEZZO_TEST_FOLDER";
/// Who owns nothing.
const NOBODY: u32 = 65_534;

fn open(dir: &Path) -> Result<Arc<Store>, StorageError> {
    let options =
        StoreOptions { segment_bytes: SEGMENT_BYTES, frame_bytes_max: 8 << 10, ..StoreOptions::new(dir) };
    Store::open(Arc::new(RealFileSystem), options, NOW, Arc::new(NoObserver)).map(|(store, _)| store)
}

fn refusal(dir: &Path) -> String {
    match open(dir) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{} is opened", dir.display()),
    }
}

/// Messages over several segments, closed in order or not.
fn filled(dir: &Path, in_order: bool) {
    let store = open(dir).unwrap();
    let mut batch = Batch::default();
    batch.push(Operation::PutTopic(TopicConfig::new(TopicName::new("t").unwrap(), 1)));
    store.append(NOW, &mut batch).unwrap();
    store.sync().unwrap();
    let topic = store.topic("t").unwrap();
    for number in 0..MESSAGES {
        while store.prepare_step().unwrap() {}
        let body = format!("{number}-{}", "x".repeat(2000));
        let parts = MessageParts {
            topic: "t",
            queue_id: QueueId(0),
            flag: 0,
            sys_flag: SysFlag(0),
            born_timestamp: NOW,
            born_host: "127.0.0.1:1".parse().unwrap(),
            store_host_v6: false,
            reconsume_times: 0,
            body: body.as_bytes(),
            properties: b"",
        };
        let mut batch = Batch::default();
        batch.send(&store.encoder(), &topic, QueueId(0), Visibility::Now, &parts).unwrap();
        store.append(NOW, &mut batch).unwrap();
        store.sync().unwrap();
    }
    if in_order {
        store.close(NOW).unwrap();
    }
}

/// Every message is there.
fn holds_all(dir: &Path) {
    let store = open(dir).unwrap();
    let queue = store.topic("t").unwrap().queue(QueueId(0)).unwrap();
    let read = store.read_entries(&queue, QueueOffset(0), usize::MAX, &mut |_| true).unwrap();
    assert_eq!(read.entries.len(), MESSAGES);
    for (_, entry) in read.entries {
        store.read_message(&entry).unwrap();
    }
}

/// Each file below a folder, with its bytes.
fn content(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        if entry.path().is_dir() {
            found.extend(content(&entry.path()));
        } else if !["lock", "reserve"].iter().any(|name| entry.path().ends_with(name)) {
            found.push((entry.path(), fs::read(entry.path()).unwrap()));
        }
    }
    found.sort_unstable();
    found
}

#[test]
fn whatever_happens_to_the_lock_file_one_broker_has_the_folder() {
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("data");
    let lock = dir.join("lock");
    filled(&dir, true);
    for damage in ["", "process 1", "\u{0}\u{7}garbage\n\n"] {
        fs::write(&lock, damage).unwrap();
        holds_all(&dir);
    }
    fs::remove_file(&lock).unwrap();
    holds_all(&dir);

    let first = open(&dir).unwrap();
    let told = refusal(&dir);
    assert!(told.contains(lock.to_str().unwrap()), "{told}");
    assert!(told.contains(&format!("process {}", std::process::id())) && told.contains("stop it"), "{told}");
    // somebody takes it for a leftover
    fs::remove_file(&lock).unwrap();
    let told = refusal(&dir);
    assert!(told.contains(lock.to_str().unwrap()) && told.contains("held by another process"), "{told}");
    assert!(!lock.exists(), "a refused start leaves nothing behind");
    drop(first);
    holds_all(&dir);

    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    let told = refusal(&dir);
    assert!(told.contains(lock.to_str().unwrap()) && told.contains("move it away"), "{told}");
    fs::remove_dir(&lock).unwrap();
    holds_all(&dir);
}

#[test]
fn files_that_are_not_the_brokers_are_left_alone() {
    for in_order in [true, false] {
        let scratch = TempDir::new().unwrap();
        let dir = scratch.path().join("data");
        filled(&dir, in_order);
        let mut strangers = Vec::new();
        for folder in ["", "log", "base", "checkpoint", "queues", "history"] {
            for name in
                ["README", "7", "+5", "00000000000000000001.bak", "notes.deleted", "x.unfinished", "pages-x"]
            {
                let path = dir.join(folder).join(name);
                fs::write(&path, "somebody's").unwrap();
                strangers.push(path);
            }
            fs::create_dir(dir.join(folder).join("old")).unwrap();
            strangers.push(dir.join(folder).join("old"));
        }
        holds_all(&dir);
        let store = open(&dir).unwrap();
        store.keep(NOW).unwrap();
        store.close(NOW).unwrap();
        drop(store);
        holds_all(&dir);
        for stranger in strangers {
            assert!(stranger.exists(), "{} is gone", stranger.display());
        }
    }
}

#[test]
fn a_folder_that_cannot_be_used_is_refused_with_its_place_and_what_to_do_and_nothing_is_lost() {
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("data");
    filled(&dir, false);
    let segment = dir.join("log/00000000000000032768");
    let before = content(&dir);

    File::options().append(true).open(&segment).unwrap().write_all(&[b'x'; 5000]).unwrap();
    let told = refusal(&dir);
    assert!(told.contains(segment.to_str().unwrap()) && told.contains("37768 bytes"), "{told}");
    assert!(told.contains("truncate -s 32768"), "{told}");
    File::options().write(true).open(&segment).unwrap().set_len(SEGMENT_BYTES).unwrap();
    assert_eq!(content(&dir), before);

    let stray = dir.join("log/00000000000000032769");
    fs::write(&stray, "no segment").unwrap();
    let told = refusal(&dir);
    assert!(told.contains(stray.to_str().unwrap()) && told.contains("move it out"), "{told}");
    fs::remove_file(&stray).unwrap();

    let (log, aside) = (dir.join("log"), scratch.path().join("aside"));
    fs::rename(&log, &aside).unwrap();
    fs::write(&log, "no folder").unwrap();
    let told = refusal(&dir);
    assert!(told.contains(log.to_str().unwrap()) && told.contains("move it away"), "{told}");
    fs::remove_file(&log).unwrap();
    fs::rename(&aside, &log).unwrap();
    assert_eq!(content(&dir), before);
    holds_all(&dir);
}

/// Is no test: what [`what_may_not_be_read_is_refused_with_its_place`] starts as somebody who is not root.
#[test]
fn opens_the_folder_that_it_is_told() {
    let Some(dir) = std::env::var_os(OPEN) else { return };
    match open(Path::new(&dir)) {
        Ok(_) => println!("it was opened"),
        Err(error) => println!("refused: {error}"),
    }
}

/// What a program says that opens the folder and is not root; `None` where it cannot be started.
fn told_to_nobody(dir: &Path) -> Option<String> {
    let mut other = Command::new(std::env::current_exe().unwrap());
    other
        .args(["--exact", "opens_the_folder_that_it_is_told", "--nocapture"])
        .env(OPEN, dir)
        .current_dir("/");
    if rustix::process::geteuid().is_root() {
        other.uid(NOBODY).gid(NOBODY);
    }
    let output = match other.output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("skipped: nobody else can open the folder: {error}");
            return None;
        }
    };
    assert!(output.status.success(), "{output:?}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn give_to_nobody(path: &Path) {
    if rustix::process::geteuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap().flatten() {
            give_to_nobody(&entry.path());
        }
    }
}

#[test]
fn what_may_not_be_read_is_refused_with_its_place() {
    let scratch = TempDir::new().unwrap();
    fs::set_permissions(scratch.path(), Permissions::from_mode(0o755)).unwrap();
    let dir = scratch.path().join("data");
    filled(&dir, false);
    give_to_nobody(&dir);
    let before = content(&dir);
    let hidden: [(&str, u32); 4] = [
        ("log/00000000000000032768", 0o000),
        ("base/00000000000000000001", 0o000),
        ("lock", 0o400),
        ("log", 0o000),
    ];
    for (name, mode) in hidden {
        let path = dir.join(name);
        let was = fs::metadata(&path).unwrap().permissions();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let Some(told) = told_to_nobody(&dir) else { return };
        fs::set_permissions(&path, was).unwrap();
        assert!(told.contains("refused") && told.contains(path.to_str().unwrap()), "{name}: {told}");
        assert!(told.contains("must be able to read and write"), "{name}: {told}");
        assert_eq!(content(&dir), before, "{name}");
    }
    assert!(told_to_nobody(&dir).unwrap().contains("it was opened"));
    holds_all(&dir);
}
