//! The answers to the sends of one run: turned into receipts where they are read, so that no header is parsed twice and
//! one waiter wakes once for many messages.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mezzo_protocol::ids::MessageQueue;
use mezzo_protocol::remoting::{Frame, HeaderView};
use tokio::sync::Notify;

use super::receipt::SendReceipt;
use crate::error::RequestError;
use crate::net::{AnswerSink, Connection, Deadline, RunWaiter};

type Answer<T> = Result<T, RequestError>;

/// Reads the answer of this address to the message with this key that was sent to this queue.
type Read<T> = fn(&HeaderView<'_>, &Arc<str>, &Arc<str>, &MessageQueue) -> Answer<T>;

struct State<T> {
    answers: Vec<Option<Answer<T>>>,
    missing: usize,
    lost: bool,
}

/// Collects the receipts of one run.
pub(super) struct Receipts<T = SendReceipt> {
    address: Arc<str>,
    /// Key and queue of each message.
    sent: Vec<(Arc<str>, MessageQueue)>,
    read: Read<T>,
    state: Mutex<State<T>>,
    /// Notified when nothing is missing any more, or nothing more will come.
    complete: Notify,
}

impl Receipts {
    /// None yet of the messages `sent` to `address`.
    pub(super) fn new(address: Arc<str>, sent: Vec<(Arc<str>, MessageQueue)>) -> Self {
        Self::reading(address, sent, SendReceipt::from_header)
    }
}

impl<T> Receipts<T> {
    /// As [`Receipts::new`], for answers that say more than a receipt does.
    pub(super) fn reading(address: Arc<str>, sent: Vec<(Arc<str>, MessageQueue)>, read: Read<T>) -> Self {
        let missing = sent.len();
        let answers = std::iter::repeat_with(|| None).take(missing).collect();
        let state = Mutex::new(State { answers, missing, lost: false });
        Self { address, sent, read, state, complete: Notify::new() }
    }

    /// One answer for each message, waiting for them until the deadline.
    pub(super) async fn collect(
        &self,
        connection: &Connection,
        waiter: RunWaiter,
        deadline: Deadline,
    ) -> Vec<Answer<T>> {
        let complete = async {
            while !self.is_complete() {
                self.complete.notified().await;
            }
        };
        // What is missing after this is told apart below.
        let _ = tokio::time::timeout_at(deadline.at(), complete).await;
        drop(waiter);
        let mut state = self.lock();
        let (answers, lost) = (std::mem::take(&mut state.answers), state.lost);
        drop(state);
        let missing = || {
            if lost {
                return connection.lost();
            }
            let (address, waited_ms) = (Arc::clone(&self.address), deadline.waited_ms());
            RequestError::TimedOut { address, waited_ms }
        };
        answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(missing()))).collect()
    }

    fn is_complete(&self) -> bool {
        let state = self.lock();
        state.missing == 0 || state.lost
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No code panics while it holds the lock, and each change is complete in itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send + 'static> AnswerSink for Receipts<T> {
    fn answer(&self, index: usize, header: &HeaderView<'_>, _frame: &Frame) {
        let Some((key, queue)) = self.sent.get(index) else { return };
        let answer = (self.read)(header, &self.address, key, queue);
        let mut state = self.lock();
        // The place is gone if the run was given up meanwhile.
        if let Some(place @ None) = state.answers.get_mut(index) {
            *place = Some(answer);
            state.missing -= 1;
        }
        let complete = state.missing == 0;
        drop(state);
        if complete {
            self.complete.notify_one();
        }
    }

    fn lost(&self) {
        self.lock().lost = true;
        self.complete.notify_one();
    }
}
