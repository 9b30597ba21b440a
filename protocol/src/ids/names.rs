//! Names of topics and groups, with RocketMQ's rules for them: letters, digits and `% | _ -`, bounded lengths; and the
//! ids that clients give to transactions of many messages, which follow rules of our own.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::error::DecodeError;
use crate::limits::{GROUP_BYTES_MAX, GROUP_TOPIC_BYTES_MAX, TOPIC_BYTES_MAX, TRANSACTION_ID_BYTES_MAX};
use crate::system_topic::{DLQ_PREFIX, RETRY_PREFIX};

/// What a name may hold, for errors.
const ALLOWED: &str = "a name of letters, digits, '%', '|', '_' and '-'";

/// Whether RocketMQ allows `byte` in names.
const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'%' | b'|' | b'_' | b'-')
}

fn check(field: &'static str, name: &str, bytes_max: usize) -> Result<(), DecodeError> {
    if name.is_empty() {
        return Err(DecodeError::bad_value(field, name, ALLOWED));
    }
    if name.len() > bytes_max {
        return Err(DecodeError::TooLong { what: field, got: name.len(), max: bytes_max });
    }
    if !name.bytes().all(is_name_byte) {
        return Err(DecodeError::bad_value(field, name, ALLOWED));
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        // Hash and order are those of `str` (derived through `Arc<str>`), so tables can be asked with a plain `&str`.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                &*self.0 == *other
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = DecodeError;

            fn try_from(name: &str) -> Result<Self, DecodeError> {
                Self::new(name)
            }
        }
    };
}

name! {
    /// The valid name of a topic. At most 127 bytes, 255 for a group's retry or dead-letter topic.
    TopicName
}
name! {
    /// The valid name of a producer or consumer group. At most 248 bytes, so that its retry topic is a valid topic.
    GroupName
}
name! {
    /// The id that a client gave to a transaction of many messages (property `MEZZO_TX`): 1 to 128 bytes of visible
    /// ASCII. It names the transaction within its producer group.
    TransactionId
}

impl TransactionId {
    /// Validates `id`.
    ///
    /// # Errors
    /// If it is empty, longer than [`TRANSACTION_ID_BYTES_MAX`], or holds a byte outside `!` to `~`.
    pub fn new(id: &str) -> Result<Self, DecodeError> {
        const FIELD: &str = "transaction id";
        if id.len() > TRANSACTION_ID_BYTES_MAX {
            return Err(DecodeError::TooLong { what: FIELD, got: id.len(), max: TRANSACTION_ID_BYTES_MAX });
        }
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(DecodeError::bad_value(FIELD, id, "1 to 128 bytes of visible ASCII"));
        }
        Ok(Self(Arc::from(id)))
    }
}

impl TopicName {
    /// Validates `name`.
    ///
    /// # Errors
    /// If it is empty, too long, or holds a character that RocketMQ does not allow.
    pub fn new(name: &str) -> Result<Self, DecodeError> {
        Self::validate(name)?;
        Ok(Self(Arc::from(name)))
    }

    /// Checks `name` without making a [`TopicName`] of it.
    ///
    /// # Errors
    /// As [`TopicName::new`].
    pub fn validate(name: &str) -> Result<(), DecodeError> {
        let of_group = name.starts_with(RETRY_PREFIX) || name.starts_with(DLQ_PREFIX);
        check("topic", name, if of_group { GROUP_TOPIC_BYTES_MAX } else { TOPIC_BYTES_MAX })
    }

    /// A group's topic; valid because the group's name is, and [`GROUP_BYTES_MAX`] leaves room for the prefix.
    pub(crate) fn with_prefix(prefix: &'static str, group: &GroupName) -> Self {
        debug_assert!(prefix == RETRY_PREFIX || prefix == DLQ_PREFIX);
        let mut name = String::with_capacity(prefix.len() + group.len());
        name.push_str(prefix);
        name.push_str(group);
        Self(Arc::from(name))
    }
}

impl GroupName {
    /// Validates `name`.
    ///
    /// # Errors
    /// If it is empty, too long, or holds a character that RocketMQ does not allow.
    pub fn new(name: &str) -> Result<Self, DecodeError> {
        check("group", name, GROUP_BYTES_MAX)?;
        Ok(Self(Arc::from(name)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn names_follow_rocketmqs_character_rule() {
        for good in ["a", "%RETRY%group-1", "order_topic|x", "A-z0_9"] {
            assert_eq!(TopicName::new(good).unwrap().as_str(), good);
            assert_eq!(GroupName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", " ", "a b", "topic\u{1}", "日本", "a.b", "a/b"] {
            assert!(TopicName::new(bad).is_err(), "{bad:?}");
            assert!(GroupName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn topics_of_groups_may_be_longer_than_others() {
        assert!(TopicName::new(&"t".repeat(127)).is_ok());
        assert!(TopicName::new(&"t".repeat(128)).is_err());
        assert!(TopicName::new(&format!("%DLQ%{}", "t".repeat(250))).is_ok());
        assert!(TopicName::new(&format!("%DLQ%{}", "t".repeat(251))).is_err());
        assert!(GroupName::new(&"g".repeat(248)).is_ok());
        assert!(GroupName::new(&"g".repeat(249)).is_err());
    }

    #[test]
    fn transaction_ids_are_visible_ascii() {
        for good in ["a", "order/7:pay+x", &"i".repeat(128)] {
            assert_eq!(TransactionId::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "a b", "a\u{1}", "\u{e9}", "a\n", &"i".repeat(129)] {
            assert!(TransactionId::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_table_of_names_can_be_asked_with_text() {
        let table = HashMap::from([(TopicName::new("orders").unwrap(), 7)]);
        assert_eq!(table.get("orders"), Some(&7));
        assert_eq!(table.get("other"), None);
    }
}
