//! What makes a send equal to another: the facts that stay the same when a client repeats it, read from the message as
//! it is stored, so that a restart and the check against the log find the same key.

use std::hash::{BuildHasher as _, RandomState};

use mezzo_protocol::message::properties;

use super::rule::DedupRule;

/// What two sends have in common if one repeats the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SendFacts<'a> {
    /// The producer says so: topic and explicit id.
    Explicit {
        /// Where to.
        topic: &'a str,
        /// Property [`properties::MEZZO_DEDUP_ID`].
        id: &'a str,
    },
    /// A client that sends the same message again. The queue is not among them: a retry may choose another.
    Retry {
        /// Where to.
        topic: &'a str,
        /// Whether it is a half message.
        half: bool,
        /// The id that the client gave the message.
        unique_key: &'a str,
        /// The producer group.
        group: &'a str,
        /// Length of the body.
        body_bytes: usize,
        /// Its checksum, as the message carries it.
        body_crc: u32,
    },
}

impl<'a> SendFacts<'a> {
    /// The facts of a message under `rule`, from its encoded properties as they are stored. `None` for a message that is
    /// never a repeat: without the properties that say so, or of a transaction of many messages, whose own numbering
    /// tells repeats. Of several properties with one name the last counts.
    #[must_use]
    pub fn of(rule: DedupRule, topic: &'a str, half: bool, props: &'a [u8], body: &[u8]) -> Option<Self> {
        let (mut id, mut unique_key, mut group) = (None, None, None);
        for (name, value) in properties::iter(props) {
            match name {
                properties::MEZZO_DEDUP_ID => id = Some(value),
                properties::UNIQUE_KEY => unique_key = Some(value),
                properties::PRODUCER_GROUP => group = Some(value),
                properties::MEZZO_TRANSACTION => return None,
                _ => {}
            }
        }
        match (rule, id) {
            (DedupRule::Off, _) => None,
            (DedupRule::Strict, Some(id)) => Some(Self::Explicit { topic, id }),
            _ => Some(Self::Retry {
                topic,
                half,
                unique_key: unique_key?,
                group: group?,
                body_bytes: body.len(),
                body_crc: mezzo_protocol::message::record::body_crc(body),
            }),
        }
    }

    /// Whether the producer named the message itself.
    #[must_use]
    pub const fn is_explicit(&self) -> bool {
        matches!(self, Self::Explicit { .. })
    }
}

/// 128 bits of a keyed hash over [`SendFacts`]: nobody outside this process can make two that are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SendKey(pub(super) [u64; 2]);

/// The secret of the hash, drawn anew at each start.
#[derive(Debug, Default)]
pub(super) struct KeySecret {
    low: RandomState,
    high: RandomState,
}

impl KeySecret {
    pub(super) fn key(&self, facts: &SendFacts<'_>) -> SendKey {
        SendKey([self.low.hash_one(facts), self.high.hash_one(facts)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn props(entries: &[(&str, &str)]) -> String {
        properties::encode(entries.iter().copied()).unwrap()
    }

    #[test]
    fn each_fact_makes_another_key() {
        let secret = KeySecret::default();
        let key = |topic, half, unique_key, group, body: &[u8]| {
            let props = props(&[("UNIQ_KEY", unique_key), ("PGROUP", group)]);
            let facts = SendFacts::of(DedupRule::Retries, topic, half, props.as_bytes(), body);
            secret.key(&facts.unwrap())
        };
        let first = key("t", false, "k", "g", b"body");
        assert_eq!(first, key("t", false, "k", "g", b"body"));
        for other in [
            key("u", false, "k", "g", b"body"),
            key("t", true, "k", "g", b"body"),
            key("t", false, "l", "g", b"body"),
            key("t", false, "k", "h", b"body"),
            key("t", false, "k", "g", b"bodies"),
            key("t", false, "k", "g", b"bodY"),
        ] {
            assert_ne!(first, other);
        }
        assert_ne!(first, KeySecret::default().key(&SendFacts::Explicit { topic: "t", id: "k" }));
    }

    #[test]
    fn an_explicit_id_counts_where_the_topic_is_strict_only() {
        let both = props(&[("UNIQ_KEY", "k"), ("PGROUP", "g"), ("MEZZO_DEDUP_ID", "order-7")]);
        let of = |rule| SendFacts::of(rule, "t", false, both.as_bytes(), b"");
        assert_eq!(of(DedupRule::Strict), Some(SendFacts::Explicit { topic: "t", id: "order-7" }));
        assert!(matches!(of(DedupRule::Retries), Some(SendFacts::Retry { unique_key: "k", .. })));
        assert_eq!(of(DedupRule::Off), None);
    }

    #[test]
    fn what_cannot_be_told_from_others_has_no_key() {
        for entries in [
            &[("UNIQ_KEY", "k")][..],
            &[("PGROUP", "g")],
            &[("UNIQ_KEY", "k"), ("PGROUP", "g"), ("MEZZO_TX", "tx"), ("MEZZO_TX_SEQ", "0")],
        ] {
            let props = props(entries);
            assert_eq!(SendFacts::of(DedupRule::Retries, "t", false, props.as_bytes(), b""), None);
        }
    }
}
