//! Connections that send to topics with de-duplication: what each has been answered and not shown to have read, and the
//! door at which another connection may knock to learn whether this one lives.
//!
//! A client that gives a connection up and sends again on a new one is often faster than the broker's own notice that
//! the old one is gone: that one's task may be waiting for the disk. So whoever has the repeat knocks, and the task
//! answers when it has looked at its socket once more. An end is noticed then, and with it what was lost.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mezzo_protocol::ids::PhysicalOffset;
use mezzo_storage::{FirstSends, SendKey, SenderId};
use tokio::sync::{Notify, watch};

/// Answers of one connection that are remembered as not shown to be read; beyond, the oldest count as read. More can
/// only come together in one read of the connection.
const UNHEARD_MAX: usize = 16_384;

/// Where one connection is knocked at.
#[derive(Debug)]
struct Door {
    bell: Notify,
    knocks: AtomicU64,
    /// The last knock that was answered; its sender lives as long as the connection.
    answered: watch::Receiver<u64>,
}

/// What came of a knock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Knocked {
    /// The connection is open, as far as its socket knows.
    Lives,
    /// It has ended; what it had not read is known as lost.
    Gone,
    /// It did not answer in time: it waits for the disk, or for its client to read.
    Silent,
}

/// The doors of all connections that have sent to a topic with de-duplication.
#[derive(Debug, Default)]
pub(crate) struct Senders {
    doors: Mutex<HashMap<SenderId, Arc<Door>>>,
}

impl Senders {
    fn doors(&self) -> MutexGuard<'_, HashMap<SenderId, Arc<Door>>> {
        // whole after each step
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks a connection whether it lives; waits for `patience` at most.
    pub(super) async fn knock(&self, id: SenderId, patience: Duration) -> Knocked {
        let Some(door) = self.doors().get(&id).map(Arc::clone) else { return Knocked::Gone };
        let mut answered = door.answered.clone();
        let knock = door.knocks.fetch_add(1, Ordering::AcqRel) + 1;
        door.bell.notify_one();
        match tokio::time::timeout(patience, answered.wait_for(|last| *last >= knock)).await {
            Ok(Ok(_)) => Knocked::Lives,
            Ok(Err(_)) => Knocked::Gone,
            Err(_) => Knocked::Silent,
        }
    }
}

/// One connection's side: owned by its task, so that its end, however it comes, is noticed here.
#[derive(Debug)]
pub(crate) struct OwnSends {
    id: SenderId,
    sends: Arc<FirstSends>,
    senders: Arc<Senders>,
    /// Made with the first send that is guarded: other connections pay nothing.
    door: Option<(Arc<Door>, watch::Sender<u64>)>,
    /// Answered, or about to be, since the client last showed a byte.
    unheard: Vec<(SendKey, PhysicalOffset)>,
}

impl OwnSends {
    /// Of the connection with this number.
    pub(crate) fn new(connection: u64, sends: &Arc<FirstSends>, senders: &Arc<Senders>) -> Self {
        Self {
            id: SenderId::of(connection),
            sends: Arc::clone(sends),
            senders: Arc::clone(senders),
            door: None,
            unheard: Vec::new(),
        }
    }

    /// The connection's name in the table.
    pub(crate) fn id(&self) -> SenderId {
        self.id
    }

    /// A guarded send is about to be appended: from here on others may knock.
    pub(crate) fn open_door(&mut self) {
        if self.door.is_none() {
            let (answer, answered) = watch::channel(0);
            let door = Arc::new(Door { bell: Notify::new(), knocks: AtomicU64::new(0), answered });
            self.senders.doors().insert(self.id, Arc::clone(&door));
            self.door = Some((door, answer));
        }
    }

    /// A guarded send was appended and will be answered.
    pub(crate) fn appended(&mut self, key: SendKey, position: PhysicalOffset) {
        if self.unheard.len() >= UNHEARD_MAX {
            self.unheard.drain(..UNHEARD_MAX / 2);
        }
        self.unheard.push((key, position));
    }

    /// A repeat of this send is about to be answered: from here on its answer is the one that can be lost.
    pub(crate) fn answers_again(&mut self, key: SendKey, position: PhysicalOffset) {
        self.open_door();
        self.sends.answered_by(key, position, self.id);
        self.appended(key, position);
    }

    /// The client showed a byte: it lives, and what was written before has probably reached it.
    pub(crate) fn heard(&mut self) {
        self.unheard.clear();
    }

    /// Nobody has, or should have taken, the answers of these sends.
    pub(crate) fn lose(&self, sends: impl IntoIterator<Item = (SendKey, PhysicalOffset)>) {
        self.sends.lose(sends);
    }

    /// Everything that was answered since the client last showed a byte was answered too late.
    pub(crate) fn lose_unheard(&mut self) {
        self.sends.lose(self.unheard.drain(..));
    }

    /// Returns the number of the last knock when somebody has knocked. Cancel safe.
    pub(crate) async fn knocked(&self) -> u64 {
        let Some((door, _)) = &self.door else { return std::future::pending().await };
        door.bell.notified().await;
        door.knocks.load(Ordering::Acquire)
    }

    /// The socket has been looked at since that knock, and the client is still there.
    pub(crate) fn answer_knock(&self, knock: u64) {
        if let Some((_, answer)) = &self.door {
            answer.send_replace(knock);
        }
    }
}

impl Drop for OwnSends {
    fn drop(&mut self) {
        // in this order: whoever finds no door any more finds what was lost
        self.lose_unheard();
        if self.door.is_some() {
            self.senders.doors().remove(&self.id);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    pub(in crate::service::dedup) fn sends() -> Arc<FirstSends> {
        let dir = tempfile::tempdir().unwrap();
        let options = mezzo_storage::StoreOptions {
            segment_bytes: 1 << 20,
            frame_bytes_max: 64 << 10,
            ..mezzo_storage::StoreOptions::new(dir.path())
        };
        let fs = Arc::new(mezzo_storage::file_system::RealFileSystem);
        let now = mezzo_protocol::time::Timestamp::from_ms(1_700_000_000_000);
        let observer = Arc::new(mezzo_storage::NoObserver);
        let (store, _) = mezzo_storage::Store::open(fs, options, now, observer).unwrap();
        Arc::clone(store.first_sends())
    }

    #[tokio::test]
    async fn a_connection_that_looked_at_its_socket_lives_and_one_that_ended_is_gone() {
        let senders = Arc::new(Senders::default());
        let mut own = OwnSends::new(7, &sends(), &senders);
        assert_eq!(senders.knock(own.id(), PATIENCE).await, Knocked::Gone, "it never sent");
        own.open_door();
        let id = own.id();
        let knocking = senders.knock(id, PATIENCE);
        let answering = async {
            let knock = own.knocked().await;
            own.answer_knock(knock);
        };
        assert_eq!(tokio::join!(knocking, answering).0, Knocked::Lives);
        assert_eq!(senders.knock(id, Duration::ZERO).await, Knocked::Silent);
        let (came, ()) = tokio::join!(senders.knock(id, PATIENCE), async { drop(own) });
        assert_eq!(came, Knocked::Gone);
        assert!(senders.doors().is_empty());
    }

    #[test]
    fn answers_that_nobody_has_shown_to_have_read_are_bounded() {
        let store_sends = sends();
        let mut own = OwnSends::new(7, &store_sends, &Arc::default());
        let key = store_sends.key(&mezzo_storage::SendFacts::Explicit { topic: "t", id: "1" });
        for position in 0..3 * UNHEARD_MAX as u64 {
            own.appended(key, PhysicalOffset(position));
        }
        assert!(own.unheard.len() <= UNHEARD_MAX);
        own.heard();
        assert!(own.unheard.is_empty());
    }
}
