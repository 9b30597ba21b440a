//! The answers to the sends of one run: turned into receipts where they are read, so that no header is parsed twice and
//! one waiter wakes once for many messages.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mezzo_protocol::ids::MessageQueue;
use mezzo_protocol::remoting::{Frame, HeaderView};
use tokio::sync::Notify;

use super::receipt::SendReceipt;
use crate::error::RequestError;
use crate::net::{AnswerSink, Connection, Deadline, RunWaiter};

type Answer = Result<SendReceipt, RequestError>;

struct State {
    answers: Vec<Option<Answer>>,
    missing: usize,
    lost: bool,
}

/// Collects the receipts of one run.
pub(super) struct Receipts {
    address: Arc<str>,
    /// Key and queue of each message.
    sent: Vec<(Arc<str>, MessageQueue)>,
    state: Mutex<State>,
    /// Notified when nothing is missing any more, or nothing more will come.
    complete: Notify,
}

impl Receipts {
    /// None yet of the messages `sent` to `address`.
    pub(super) fn new(address: Arc<str>, sent: Vec<(Arc<str>, MessageQueue)>) -> Self {
        let missing = sent.len();
        let answers = std::iter::repeat_with(|| None).take(missing).collect();
        let state = Mutex::new(State { answers, missing, lost: false });
        Self { address, sent, state, complete: Notify::new() }
    }

    /// One answer for each message, waiting for them until the deadline.
    pub(super) async fn collect(
        &self,
        connection: &Connection,
        waiter: RunWaiter,
        deadline: Deadline,
    ) -> Vec<Answer> {
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

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, and each change is complete in itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AnswerSink for Receipts {
    fn answer(&self, index: usize, header: &HeaderView<'_>, _frame: &Frame) {
        let Some((key, queue)) = self.sent.get(index) else { return };
        let answer = SendReceipt::from_header(header, &self.address, key, queue);
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
