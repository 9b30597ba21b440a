//! Pausing: what the application wants to stand still, over rebalances too.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use mezzo_protocol::ids::MessageQueue;

use super::member::GroupMember;

/// What is paused.
#[derive(Debug, Default)]
pub(super) struct Paused {
    all: bool,
    /// At most the queues that the application has named.
    queues: BTreeSet<MessageQueue>,
}

impl Paused {
    /// Whether a queue is paused, by itself or with all.
    pub(super) fn is_paused(&self, queue: &MessageQueue) -> bool {
        self.all || self.queues.contains(queue)
    }
}

impl GroupMember {
    /// Pauses or resumes the consumer as a whole.
    pub(super) fn pause_all(&self, all: bool) {
        self.change(|paused| paused.all = all);
    }

    /// Pauses or resumes one queue.
    pub(super) fn pause_queue(&self, queue: &MessageQueue, pause: bool) {
        self.change(|paused| {
            if pause {
                paused.queues.insert(queue.clone());
            } else {
                paused.queues.remove(queue);
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Paused)) {
        // Held until all queues know: two changes at one time must not leave a mixture of both.
        let mut paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut paused);
        for held in self.all_held() {
            let stands = paused.is_paused(&held.queue);
            let _handing_out = held.handing_out();
            self.hand_out(&held, held.pause(stands));
            if stands {
                // Their place in the order is kept, and they do not stand before the messages of other queues.
                self.recall(&held);
            }
        }
    }
}
