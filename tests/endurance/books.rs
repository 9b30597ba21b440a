//! What has to be delivered, and what was. All threads of a run write here; each key is a message's unique key.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mezzo_tests::consumer::Message;
use mezzo_tests::producer::Verdict;

/// What the producer of a message knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// An ordinary message without an answer: it may be there.
    Sent,
    /// An ordinary message that was accepted, or a transaction whose application has committed: it is there once.
    Once,
    /// A transaction whose application has not decided yet.
    Undecided,
    /// A refused message, or a transaction whose application has rolled back or will not run: it is never there.
    Never,
}

/// Both sides of the account.
#[derive(Debug, Default)]
pub(crate) struct Books {
    known: Mutex<HashMap<String, Known>>,
    /// Where each message was seen: queue and offset.
    seen: Mutex<HashMap<String, (u32, u64)>>,
    wrong: Mutex<Vec<String>>,
}

/// What a run was about, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sums {
    /// Messages that have to be there.
    pub(crate) once: usize,
    /// Messages that must not be.
    pub(crate) never: usize,
    /// Messages that were seen.
    pub(crate) seen: usize,
}

impl Books {
    pub(crate) fn note(&self, key: &str, known: Known) {
        locked(&self.known).insert(key.to_owned(), known);
    }

    /// What an application answers when it is asked about its transaction.
    pub(crate) fn verdict(&self, key: &str) -> Option<Verdict> {
        locked(&self.known).get(key).map(|known| match known {
            Known::Once => Verdict::Commit,
            Known::Never => Verdict::RollBack,
            Known::Undecided | Known::Sent => Verdict::Unknown,
        })
    }

    /// A consumer has got this message; again and again it may, but from one place.
    pub(crate) fn see(&self, message: &Message) {
        let key = message.key.clone().unwrap_or_default();
        let place = (message.queue, message.queue_offset);
        let before = *locked(&self.seen).entry(key.clone()).or_insert(place);
        if before != place {
            self.complain(format!("{key} is at {before:?} and at {place:?}"));
        }
    }

    pub(crate) fn complain(&self, what: String) {
        locked(&self.wrong).push(what);
    }

    /// How many messages that have to be there were not seen yet.
    pub(crate) fn missing(&self) -> usize {
        let seen = locked(&self.seen);
        locked(&self.known)
            .iter()
            .filter(|(key, known)| **known == Known::Once && !seen.contains_key(*key))
            .count()
    }

    pub(crate) fn sums(&self) -> Sums {
        let known = locked(&self.known);
        let count = |wanted: Known| known.values().filter(|known| **known == wanted).count();
        Sums { once: count(Known::Once), never: count(Known::Never), seen: locked(&self.seen).len() }
    }

    /// All that is wrong, in words.
    pub(crate) fn audit(&self) -> Vec<String> {
        let mut wrong = locked(&self.wrong).clone();
        let (known, seen) = (locked(&self.known), locked(&self.seen));
        for (key, known) in &*known {
            match (known, seen.get(key)) {
                (Known::Once, None) => wrong.push(format!("{key} is lost")),
                (Known::Never | Known::Undecided, Some(place)) => {
                    wrong.push(format!("{key} is {known:?}, and delivered at {place:?}"));
                }
                _ => {}
            }
        }
        wrong.extend(
            seen.keys().filter(|key| !known.contains_key(*key)).map(|key| format!("{key} was never sent")),
        );
        wrong
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(key: &str, queue_offset: u64) -> Message {
        Message {
            topic: "t".into(),
            queue: 0,
            queue_offset,
            physical_offset: 0,
            prepared_offset: 0,
            sys_flag: 0,
            reconsume_times: 0,
            store_ms: 1,
            key: Some(key.into()),
            body: Vec::new(),
            properties: Vec::new(),
        }
    }

    #[test]
    fn what_is_lost_doubled_or_uncalled_for_is_noticed() {
        for (known, seen, is_right) in [
            (Known::Once, &[3][..], true),
            (Known::Once, &[3, 3], true),
            (Known::Once, &[], false),
            (Known::Once, &[3, 4], false),
            (Known::Sent, &[], true),
            (Known::Sent, &[3], true),
            (Known::Never, &[], true),
            (Known::Never, &[3], false),
            (Known::Undecided, &[3], false),
        ] {
            let books = Books::default();
            books.note("k", known);
            seen.iter().for_each(|offset| books.see(&message("k", *offset)));
            assert_eq!(books.audit().is_empty(), is_right, "{known:?} seen at {seen:?}");
        }
        let books = Books::default();
        books.see(&message("ghost", 1));
        assert_eq!(books.audit().len(), 1);
    }
}
