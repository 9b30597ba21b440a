//! The offsets of a broadcast consumer, in a file of its own.
//!
//! ```text
//! mezzo offsets 1
//! <offset> <queue> <topic> <broker>      one line per queue; the broker's name goes to the end of the line
//! end <number of queues>                 a file without this line was not written by us, or cut off
//! ```
//!
//! Beside it lies `<file>.lock`, empty and locked while a consumer uses the file: two that did would each undo what the
//! other wrote, and after a restart pass over messages that they never had.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use mezzo_protocol::ids::{MessageQueue, QueueId, QueueOffset, TopicName};

use super::held_queue::HeldQueue;
use crate::error::Error;

const HEADER: &str = "mezzo offsets 1";

/// Largest file that is read, in bytes: room for about 100,000 queues.
const FILE_BYTES_MAX: u64 = 16 << 20;

type Table = BTreeMap<MessageQueue, QueueOffset>;

/// A file of offsets, and what it says.
#[derive(Debug)]
pub(super) struct OffsetFile {
    path: Arc<Path>,
    /// Queues that are not held now are kept: they may come back.
    table: Mutex<Table>,
    /// One writer at a time, so that an older state never replaces a newer one. The writing itself holds it: it goes on
    /// when whoever waits for it is gone.
    writing: Arc<tokio::sync::Mutex<()>>,
    /// `None` once the consumer has ended. Who writes has a share of it, so that nobody else begins before the end.
    lock: Mutex<Option<Arc<FileLock>>>,
}

/// A locked file; `None` where the file system has no locks.
#[derive(Debug)]
struct FileLock(#[expect(dead_code, reason = "held, never read: closing it ends the lock")] Option<File>);

impl OffsetFile {
    /// Makes the file's folder, keeps others from the file, and reads it if it is there.
    pub(super) async fn open(path: PathBuf) -> Result<Self, Error> {
        let path: Arc<Path> = path.into();
        let unusable = |path: &Path, reason: String| Error::Config {
            setting: "broadcast",
            reason: format!("{}: {reason}", path.display()),
        };
        let read = tokio::task::spawn_blocking({
            let path = Arc::clone(&path);
            move || lock(&path).and_then(|lock| Ok((lock, read(&path)?)))
        });
        let (lock, text) = match read.await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => return Err(unusable(&path, error.to_string())),
            Err(error) => return Err(unusable(&path, error.to_string())),
        };
        let table = match text {
            None => Table::new(),
            Some(text) => {
                parse(&text).ok_or_else(|| unusable(&path, "it is not a whole file of offsets".to_owned()))?
            }
        };
        let lock = Mutex::new(Some(Arc::new(lock)));
        Ok(Self { path, table: Mutex::new(table), writing: Arc::default(), lock })
    }

    /// Leaves the file to others, when what is being written now has been written. Nothing can be saved from now on.
    pub(super) fn release(&self) {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// The offset of a queue.
    pub(super) fn find(&self, queue: &MessageQueue) -> Option<QueueOffset> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).get(queue).copied()
    }

    /// Notes the offsets that `due` gives when it is this writer's turn, and replaces the file. Returns them when the disk
    /// has it.
    pub(super) async fn save(
        &self,
        due: impl FnOnce() -> Vec<(Arc<HeldQueue>, QueueOffset)>,
    ) -> io::Result<Vec<(Arc<HeldQueue>, QueueOffset)>> {
        let writer = Arc::clone(&self.writing).lock_owned().await;
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let lock = lock.ok_or_else(|| io::Error::other("the consumer has ended"))?;
        let due = due();
        let text = {
            let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
            table.extend(due.iter().map(|(held, offset)| (held.queue.clone(), *offset)));
            render(&table)
        };
        let path = Arc::clone(&self.path);
        let write = move || {
            let (_lock, _writer) = (lock, writer);
            replace(&path, &text)
        };
        tokio::task::spawn_blocking(write).await.map_err(io::Error::other)??;
        Ok(due)
    }
}

/// Makes the folder of `path` and takes the lock that lies beside it.
fn lock(path: &Path) -> io::Result<FileLock> {
    if let Some(folder) = folder(path) {
        fs::create_dir_all(folder)?;
    }
    let file = File::options().create(true).truncate(false).write(true).open(beside(path, ".lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(FileLock(Some(file))),
        Err(TryLockError::WouldBlock) => {
            Err(io::Error::other("another consumer uses it; each member needs a file of its own"))
        }
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
            tracing::warn!(path = %path.display(), "files cannot be locked here: nothing keeps a second consumer away");
            Ok(FileLock(None))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn read(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(Some(text))
}

/// The folder of a path; `None` for a bare name, which lies in the current one.
fn folder(path: &Path) -> Option<&Path> {
    path.parent().filter(|folder| !folder.as_os_str().is_empty())
}

/// The path with something behind its name.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(ending);
    beside.into()
}

/// Writes beside the file, waits for the disk, and moves the new one into the old one's place.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let beside = beside(path, ".new");
    let mut file = File::create(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    drop(file);
    fs::rename(&beside, path)?;
    // The new name must survive a power cut too; where a folder cannot be opened, its system has no such thing.
    if let Ok(folder) = File::open(folder(path).unwrap_or(Path::new("."))) {
        folder.sync_all()?;
    }
    Ok(())
}

fn render(table: &Table) -> String {
    let mut text = format!("{HEADER}\n");
    for (queue, offset) in table {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} {} {} {}", offset.0, queue.queue_id.0, queue.topic, queue.broker_name);
    }
    let _ = writeln!(text, "end {}", table.len());
    text
}

fn parse(text: &str) -> Option<Table> {
    let mut lines = text.strip_prefix(HEADER)?.strip_prefix('\n')?.lines();
    let mut table = Table::new();
    for line in &mut lines {
        if let Some(count) = line.strip_prefix("end ") {
            return (count.parse() == Ok(table.len()) && lines.next().is_none()).then_some(table);
        }
        let mut parts = line.splitn(4, ' ');
        let offset = QueueOffset(parts.next()?.parse().ok()?);
        let queue_id = QueueId(parts.next()?.parse().ok()?);
        let topic = TopicName::new(parts.next()?).ok()?;
        table.insert(MessageQueue::new(topic, parts.next()?, queue_id), offset);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::backlog::{Backlog, Lock};
    use crate::consumer::contained::poll_once;
    use crate::core::process_queue::PrefetchLimits;
    use tokio_util::sync::CancellationToken;

    fn table() -> Table {
        let queue = |topic: &str, broker: &str, id| {
            MessageQueue::new(TopicName::new(topic).unwrap(), broker, QueueId(id))
        };
        Table::from([
            (queue("orders", "broker a", 3), QueueOffset(7)),
            (queue("prices", "b", 0), QueueOffset(u64::MAX)),
        ])
    }

    #[tokio::test]
    async fn a_save_that_is_given_up_ends_before_the_next_one_begins() {
        let folder = std::env::temp_dir().join(format!("mezzo-offset-file-{}", std::process::id()));
        let path = folder.join("offsets");
        let file = OffsetFile::open(path.clone()).await.unwrap();
        let queue = MessageQueue::new(TopicName::new("orders").unwrap(), "b", QueueId(0));
        let limits = PrefetchLimits { messages: 1, bytes: 1, span: 1 };
        let backlog = Backlog::new(false, Lock::NotNeeded, false);
        let held = Arc::new(HeldQueue::new(queue.clone(), limits, backlog, CancellationToken::new()));
        for number in 0..50 {
            let due = |offset| vec![(Arc::clone(&held), QueueOffset(offset))];
            let mut given_up = Box::pin(file.save(|| due(2 * number)));
            assert!(poll_once(given_up.as_mut()).await.is_pending());
            drop(given_up);
            file.save(|| due(2 * number + 1)).await.unwrap();
            let text = fs::read_to_string(&path).unwrap();
            assert_eq!(parse(&text), Some(Table::from([(queue.clone(), QueueOffset(2 * number + 1))])));
        }
        file.release();
        assert!(file.save(Vec::new).await.is_err(), "somebody else may have it");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_is_written_is_read_again() {
        assert_eq!(parse(&render(&table())), Some(table()));
        assert_eq!(parse(&render(&Table::new())), Some(Table::new()));
    }

    #[test]
    fn a_file_that_was_cut_off_or_is_something_else_is_not_taken_for_offsets() {
        let text = render(&table());
        for end in 0..text.len() - 1 {
            assert_eq!(parse(&text[..end]), None, "{end}");
        }
        assert_eq!(parse(&format!("{text}more\n")), None);
        assert_eq!(parse("orders 1\n"), None);
    }
}
