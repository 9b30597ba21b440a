//! The first look whether a send is a repeat, and the guard that its messages are appended under.

use std::borrow::Cow;

use mezzo_protocol::{
    ids::{GroupName, PhysicalOffset},
    message::properties,
    system_topic,
};
use mezzo_storage::{Batch, DedupRule, Part, SendFacts, SendGuard, SendKey, SenderId, TopicConfig};

use super::{Send, SendError};
use crate::service::{Services, dedup::Candidate};

/// Longest explicit id, bytes.
const ID_BYTES_MAX: usize = 128;

/// Who sends, as far as repeats are concerned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender<'a> {
    /// The connection.
    pub(crate) id: SenderId,
    /// Whether it waits for an answer: without one nothing can be lost, and nobody retries.
    pub(crate) waits: bool,
    /// First sends that this one is known not to repeat.
    pub(crate) judged: &'a [PhysicalOffset],
}

/// Keys of a send's messages, in order, under the rule of their topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    /// What the topic asks for.
    pub(crate) rule: DedupRule,
    /// One per message; `None` for one that is never a repeat.
    pub(crate) keys: Vec<Option<SendKey>>,
}

/// The guard of one send, while its messages are read.
pub(super) struct Repeats<'a> {
    rule: DedupRule,
    services: &'a Services,
    topic: &'a str,
    sender: Sender<'a>,
    looked_to: PhysicalOffset,
    keys: Vec<Option<(SendKey, bool)>>,
}

/// What the topic of this send asks for; nothing ever for the topics of retries, dead letters and the system.
pub(super) fn rule(config: &TopicConfig, topic: &str) -> DedupRule {
    let rule = config.dedup();
    if rule != DedupRule::Off && takes_repeats(topic) { DedupRule::Off } else { rule }
}

/// Topics in which equal messages are nothing unusual: consumers send to them what they could not process.
pub(crate) fn takes_repeats(topic: &str) -> bool {
    system_topic::is_retry(topic) || system_topic::is_dlq(topic) || system_topic::is_system(topic)
}

/// The producer group that is stored with the message, because it tells repeats from others: where the topic asks for
/// it, and the message does not say one itself.
pub(super) fn group_to_store<'a>(rule: DedupRule, send: &Send<'a>) -> Option<&'a str> {
    (rule != DedupRule::Off && send.sender.waits)
        .then_some(send.producer_group)
        .filter(|group| GroupName::new(group).is_ok())
}

impl<'a> Repeats<'a> {
    /// For a send to `topic`; `None` where it is not asked for.
    pub(super) fn begin(
        rule: DedupRule,
        services: &'a Services,
        topic: &'a str,
        sender: Sender<'a>,
    ) -> Option<Self> {
        if rule == DedupRule::Off {
            return None;
        }
        // the end first: what is appended after it may be missing in the table's answer, and is looked for again when
        // this one is appended
        let looked_to = services.store.end();
        Some(Self { rule, services, topic, sender, looked_to, keys: Vec::new() })
    }

    /// Takes note of a message, as it will be stored.
    ///
    /// # Errors
    /// [`SendError::Illegal`] for an explicit id that is none.
    pub(super) fn message(&mut self, half: bool, kept: &str, body: &[u8]) -> Result<(), SendError> {
        if self.rule == DedupRule::Strict
            && let Some(id) = properties::find(kept, properties::MEZZO_DEDUP_ID)
            && (id.is_empty() || id.len() > ID_BYTES_MAX || !id.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            return Err(SendError::Illegal(Cow::Borrowed(
                "the property MEZZO_DEDUP_ID is not 1 to 128 bytes of visible ASCII",
            )));
        }
        let facts = SendFacts::of(self.rule, self.topic, half, kept.as_bytes(), body)
            .filter(|facts| self.sender.waits || facts.is_explicit());
        let sends = self.services.store.first_sends();
        self.keys.push(facts.map(|facts| (sends.key(&facts), facts.is_explicit())));
        Ok(())
    }

    /// Looks whether all messages may have come before.
    ///
    /// # Errors
    /// [`SendError::MayRepeat`] if so: to be settled, and to come again if it is a new one after all.
    pub(super) fn look(&self, unique_key: Option<&str>) -> Result<(), SendError> {
        let now = self.services.now();
        let mut firsts = Vec::new();
        for (index, key) in self.keys.iter().enumerate() {
            let Some((key, explicit)) = *key else { return Ok(()) };
            let found = self.services.store.first_sends().find(key, now).filter(|first| {
                first.part.may_be(self.part(index))
                    && (explicit || first.sender != Some(self.sender.id))
                    && !self.sender.judged.contains(&first.position)
            });
            let Some(first) = found else { return Ok(()) };
            firsts.push((key, explicit, first));
        }
        let unique_key = unique_key.map(str::to_owned);
        Err(SendError::MayRepeat(Box::new(Candidate { rule: self.rule, firsts, unique_key })))
    }

    /// Guards the messages, which stand in `batch` from `start` on.
    pub(super) fn guard(self, batch: &mut Batch, start: usize) -> Keys {
        for (index, key) in self.keys.iter().enumerate() {
            let Some((key, explicit)) = *key else { continue };
            let guard = SendGuard {
                key,
                explicit,
                sender: self.sender.id,
                part: self.part(index),
                looked_to: self.looked_to,
            };
            batch.guard(start + index, self.services.store.first_sends(), guard);
        }
        let keys = self.keys.into_iter().map(|key| key.map(|(key, _)| key)).collect();
        Keys { rule: self.rule, keys }
    }

    fn part(&self, index: usize) -> Part {
        let short = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
        Part { index: short(index), count: short(self.keys.len()) }
    }
}
