//! A value that others wait for: as tokio's `watch`, except that waiters wake in the order in which they came. There
//! chance decides, so nothing that is built on it repeats itself; the rest of the broker owes its order to nobody's dice.

use std::{
    pin::pin,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

/// Lists of waiters: many of them come and go at a time, and would else queue up for the lock of one list.
const LISTS: usize = 8;

/// The sender is gone; the value will not change any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

#[derive(Debug)]
struct Shared<T> {
    value: RwLock<T>,
    gone: AtomicBool,
    lists: [Notify; LISTS],
    next_list: AtomicUsize,
}

/// Changes the value. One of them; dropping it tells all waiters.
#[derive(Debug)]
pub(crate) struct Sender<T>(Arc<Shared<T>>);

/// Looks at the value. Each waits in a list of its own choice, made once.
#[derive(Debug)]
pub(crate) struct Receiver<T> {
    shared: Arc<Shared<T>>,
    list: usize,
}

/// A value that nobody waits for yet.
pub(crate) fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let shared = Shared {
        value: RwLock::new(value),
        gone: AtomicBool::new(false),
        lists: std::array::from_fn(|_| Notify::new()),
        next_list: AtomicUsize::new(0),
    };
    let sender = Sender(Arc::new(shared));
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Shared<T> {
    fn value(&self) -> RwLockReadGuard<'_, T> {
        self.value.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn receiver(shared: &Arc<Self>) -> Receiver<T> {
        let list = shared.next_list.fetch_add(1, Ordering::Relaxed) % LISTS;
        Receiver { shared: Arc::clone(shared), list }
    }

    fn wake(&self) {
        for list in &self.lists {
            list.notify_waiters();
        }
    }
}

impl<T> Sender<T> {
    /// One more who looks.
    pub(crate) fn subscribe(&self) -> Receiver<T> {
        Shared::receiver(&self.0)
    }

    /// Changes the value by `change`, which says whether it did; if so, everyone who waits looks again.
    pub(crate) fn change(&self, change: impl FnOnce(&mut T) -> bool) {
        let changed = change(&mut self.0.value.write().unwrap_or_else(PoisonError::into_inner));
        if changed {
            self.0.wake();
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.gone.store(true, Ordering::Release);
        self.0.wake();
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Shared::receiver(&self.shared)
    }
}

impl<T> Receiver<T> {
    /// The value now. Nothing may be awaited while the guard lives.
    pub(crate) fn borrow(&self) -> RwLockReadGuard<'_, T> {
        self.shared.value()
    }

    /// Whether the sender is gone.
    pub(crate) fn is_gone(&self) -> bool {
        self.shared.gone.load(Ordering::Acquire)
    }

    /// Returns once the value is `wanted`, at once if it is. Cancel safe.
    ///
    /// # Errors
    /// [`Gone`]: the sender went first.
    pub(crate) async fn wait_for(&self, wanted: impl Fn(&T) -> bool) -> Result<(), Gone> {
        if wanted(&self.borrow()) {
            return Ok(());
        }
        let list = self.shared.lists.get(self.list).ok_or(Gone)?;
        loop {
            // on the list before the look: a change in between is not missed
            let mut notified = pin!(list.notified());
            notified.as_mut().enable();
            if wanted(&self.borrow()) {
                return Ok(());
            }
            if self.is_gone() {
                return Err(Gone);
            }
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn a_value_that_came_first_is_found_and_one_that_comes_later_wakes() {
        let (sender, receiver) = channel(1);
        receiver.wait_for(|value| *value == 1).await.unwrap();
        let waiter = tokio::spawn(async move { receiver.wait_for(|value| *value == 3).await });
        tokio::task::yield_now().await;
        for value in [2, 3] {
            sender.change(|held| {
                *held = value;
                true
            });
            tokio::task::yield_now().await;
        }
        assert_eq!(waiter.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn those_who_share_a_list_wake_in_the_order_in_which_they_came() {
        let (sender, receiver) = channel(false);
        let order = Arc::new(Mutex::new(Vec::new()));
        let waiters: Vec<_> = (0..3 * LISTS)
            .map(|number| {
                let (receiver, order) = (receiver.clone(), Arc::clone(&order));
                tokio::spawn(async move {
                    receiver.wait_for(|value| *value).await.unwrap();
                    order.lock().unwrap().push((receiver.list, number));
                })
            })
            .collect();
        tokio::task::yield_now().await;
        sender.change(|value| {
            *value = true;
            true
        });
        for waiter in waiters {
            waiter.await.unwrap();
        }
        let order = order.lock().unwrap().clone();
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(order, sorted);
    }

    #[tokio::test]
    async fn waiters_are_told_that_the_sender_is_gone() {
        let (sender, receiver) = channel(1);
        let waiting = receiver.clone();
        let waiter = tokio::spawn(async move { waiting.wait_for(|value| *value == 2).await });
        tokio::task::yield_now().await;
        drop(sender);
        assert_eq!(waiter.await.unwrap(), Err(Gone));
        assert!(receiver.is_gone());
        assert_eq!(receiver.wait_for(|value| *value == 1).await, Ok(()), "the last value stays");
    }
}
