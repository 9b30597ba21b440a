//! What a half message says of its transaction, read out of its properties: once when it is appended and once more
//! whenever the log is folded, by the same function.

use mezzo_protocol::check_policy::CheckWish;
use mezzo_protocol::ids::{GroupName, TransactionId};
use mezzo_protocol::limits::TRANSACTION_MESSAGES_MAX;
use mezzo_protocol::message::properties;

use crate::format::history_row::key_hash;

/// Where a stored message has the checksum of its body, in bytes from its start; big-endian.
const BODY_CRC_AT: usize = 8;

/// A property that keeps a message from being a half message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HalfError {
    /// It is not there.
    Missing(&'static str),
    /// It is there and cannot be.
    Bad { property: &'static str, expected: &'static str },
}

impl std::fmt::Display for HalfError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing(property) => write!(f, "half message without property {property}"),
            Self::Bad { property, expected } => {
                write!(f, "half message whose property {property} is not {expected}")
            }
        }
    }
}

/// What the open-transaction table keeps of a half message beyond its place.
#[derive(Debug, Clone)]
pub(crate) struct HalfFacts {
    pub(crate) group: GroupName,
    /// Of the transaction's id if it has one, else of the message's unique key.
    pub(crate) key_hash: u64,
    /// From `CHECK_IMMUNITY_TIME_SECONDS`, milliseconds.
    pub(crate) immunity_ms: Option<u64>,
    /// From `MEZZO_CHECK`: parts of a check-back policy.
    pub(crate) wish: Option<Box<CheckWish>>,
    /// Only for a message of a transaction of many: those of others pay eight bytes for it.
    pub(crate) of_many: Option<Box<OneOfMany>>,
}

/// A message's place in a transaction of many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OneOfMany {
    pub(crate) id: TransactionId,
    pub(crate) sequence: u16,
    pub(crate) fingerprint: Fingerprint,
}

/// What tells a repeat of a message from another message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    /// Length of the stored message, bytes.
    pub(crate) message_bytes: u32,
    pub(crate) body_crc: u32,
}

impl Fingerprint {
    /// Of one message in RocketMQ's encoding.
    pub(crate) fn of(message: &[u8]) -> Self {
        let crc = message.get(BODY_CRC_AT..).and_then(|bytes| bytes.first_chunk::<4>());
        Self {
            message_bytes: u32::try_from(message.len()).unwrap_or(u32::MAX),
            body_crc: crc.map_or(0, |bytes| u32::from_be_bytes(*bytes)),
        }
    }
}

impl HalfFacts {
    /// Reads them out of a message's property string in one pass. The fingerprint of one of many is left empty: the
    /// message may not be encoded yet.
    pub(crate) fn of(props: &[u8]) -> Result<Self, HalfError> {
        let (mut key, mut group, mut immunity, mut id, mut sequence) = (None, None, None, None, None);
        let mut check = None;
        for (name, value) in properties::iter(props) {
            match name {
                properties::UNIQUE_KEY => key = Some(value),
                properties::PRODUCER_GROUP => group = Some(value),
                properties::CHECK_IMMUNITY_TIME_SECONDS => immunity = Some(value),
                properties::MEZZO_CHECK => check = Some(value),
                properties::MEZZO_TRANSACTION => id = Some(value),
                properties::MEZZO_TRANSACTION_SEQUENCE => sequence = Some(value),
                _ => {}
            }
        }
        let key = key.ok_or(HalfError::Missing(properties::UNIQUE_KEY))?;
        let group = group
            .and_then(|group| GroupName::new(group).ok())
            .ok_or(HalfError::Missing(properties::PRODUCER_GROUP))?;
        let immunity_ms = immunity.and_then(|v| v.trim().parse::<u64>().ok()).map(|s| s.saturating_mul(1000));
        let of_many = match (id, sequence) {
            (None, None) => None,
            (Some(id), Some(sequence)) => Some(Box::new(OneOfMany::read(id, sequence)?)),
            (Some(_), None) => return Err(HalfError::Missing(properties::MEZZO_TRANSACTION_SEQUENCE)),
            (None, Some(_)) => return Err(HalfError::Missing(properties::MEZZO_TRANSACTION)),
        };
        let key_hash = key_hash(of_many.as_ref().map_or(key, |one| one.id.as_str()));
        let bad_wish = |_| HalfError::Bad {
            property: properties::MEZZO_CHECK,
            expected: "a check-back policy, any of first=6s,interval=30s,backoff=150,attempts=15,max_age=24h,then=park \
                       (or then=rollback)",
        };
        let wish = check.map(|text| CheckWish::parse(text).map(Box::new).map_err(bad_wish)).transpose()?;
        Ok(Self { group, key_hash, immunity_ms, wish, of_many })
    }
}

impl OneOfMany {
    fn read(id: &str, sequence: &str) -> Result<Self, HalfError> {
        let id = TransactionId::new(id).map_err(|_| HalfError::Bad {
            property: properties::MEZZO_TRANSACTION,
            expected: "1 to 128 bytes of visible ASCII",
        })?;
        // "007" or "+7" would make two spellings of one place
        let sequence = sequence
            .parse::<u16>()
            .ok()
            .filter(|number| *number < TRANSACTION_MESSAGES_MAX && number.to_string() == sequence)
            .ok_or(HalfError::Bad {
                property: properties::MEZZO_TRANSACTION_SEQUENCE,
                expected: "a number from 0 to 999, without signs and leading zeros",
            })?;
        Ok(Self { id, sequence, fingerprint: Fingerprint::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(props: &[(&str, &str)]) -> Result<HalfFacts, HalfError> {
        HalfFacts::of(properties::encode(props.iter().copied()).unwrap().as_bytes())
    }

    const PLAIN: [(&str, &str); 2] = [("UNIQ_KEY", "k"), ("PGROUP", "g")];

    #[test]
    fn a_half_message_of_its_own_is_known_by_its_unique_key() {
        let facts = of(&PLAIN).unwrap();
        assert_eq!((facts.group.as_str(), facts.key_hash), ("g", key_hash("k")));
        assert!(facts.of_many.is_none());
        assert_eq!(of(&PLAIN[..1]).unwrap_err(), HalfError::Missing("PGROUP"));
        assert_eq!(of(&PLAIN[1..]).unwrap_err(), HalfError::Missing("UNIQ_KEY"));
    }

    #[test]
    fn one_of_many_is_known_by_the_transactions_id() {
        let facts = of(&[PLAIN[0], PLAIN[1], ("MEZZO_TX", "tx-1"), ("MEZZO_TX_SEQ", "12")]).unwrap();
        assert_eq!(facts.key_hash, key_hash("tx-1"));
        let one = facts.of_many.unwrap();
        assert_eq!((one.id.as_str(), one.sequence), ("tx-1", 12));
    }

    #[test]
    fn a_check_back_policy_is_read_strictly() {
        let facts = of(&[PLAIN[0], PLAIN[1], ("MEZZO_CHECK", "attempts=2,then=rollback")]).unwrap();
        assert_eq!(facts.wish.map(|wish| wish.to_string()).as_deref(), Some("attempts=2,then=rollback"));
        let bad = of(&[PLAIN[0], PLAIN[1], ("MEZZO_CHECK", "attempts=2, then=rollback")]);
        assert!(matches!(bad, Err(HalfError::Bad { property: "MEZZO_CHECK", .. })));
    }

    #[test]
    fn what_names_no_place_in_a_transaction_is_refused() {
        for sequence in ["-1", "+1", "01", "x", "1000", "65536"] {
            let props = [PLAIN[0], PLAIN[1], ("MEZZO_TX", "t"), ("MEZZO_TX_SEQ", sequence)];
            assert!(matches!(of(&props), Err(HalfError::Bad { property: "MEZZO_TX_SEQ", .. })), "{sequence}");
        }
        let spaces = [PLAIN[0], PLAIN[1], ("MEZZO_TX", "a b"), ("MEZZO_TX_SEQ", "0")];
        assert!(matches!(of(&spaces), Err(HalfError::Bad { property: "MEZZO_TX", .. })));
        let alone = [PLAIN[0], PLAIN[1], ("MEZZO_TX", "t")];
        assert_eq!(of(&alone).unwrap_err(), HalfError::Missing("MEZZO_TX_SEQ"));
        let nameless = [PLAIN[0], PLAIN[1], ("MEZZO_TX_SEQ", "0")];
        assert_eq!(of(&nameless).unwrap_err(), HalfError::Missing("MEZZO_TX"));
    }
}
