//! Rows of the barrier table: what they are keyed by, and what they say.

use mezzo_protocol::ids::GroupName;
use mezzo_protocol::message::properties;

use super::error::DatabaseError;
use crate::message::ReceivedMessage;

/// Longest message key in bytes: with a group and an operation it fits MySQL's oldest limit of an index (767 bytes).
pub(super) const MESSAGE_KEY_BYTES_MAX: usize = 255;
/// Longest name of an operation in bytes; the names are this module's own.
pub(super) const OPERATION_BYTES_MAX: usize = 64;

/// What a row guards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// The local transaction behind a message of a producer group.
    Send,
    /// The processing of a message by a consumer group.
    Process,
}

impl Operation {
    /// As the table says it. Stored: a word is never given another meaning.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Process => "process",
        }
    }
}

/// The operation of the one row that names the database.
pub(super) const IDENTITY: &str = "identity";
/// When that row was made: in no purge's past.
pub(super) const NEVER_S: i64 = i64::MAX;

/// Which side inserted the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The local transaction, which has committed if others can read it.
    Commit,
    /// A check-back: the local transaction cannot commit any more.
    Rollback,
}

impl Reason {
    /// As the table says it.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Rollback => "rollback",
        }
    }

    pub(super) fn read(word: &str) -> Result<Self, sqlx::Error> {
        [Self::Commit, Self::Rollback].into_iter().find(|reason| reason.word() == word).ok_or_else(|| {
            sqlx::Error::Decode(format!("mezzo_barrier holds the unknown reason {word:?}").into())
        })
    }
}

/// What a row is keyed by.
#[derive(Debug, Clone)]
pub struct Key {
    pub(super) operation: Operation,
    pub(super) group: GroupName,
    pub(super) message: String,
}

impl Key {
    /// The row of the local transaction behind a message of `group`.
    pub(super) fn of_sending(group: &GroupName, unique_key: &str) -> Result<Self, DatabaseError> {
        Self::new(Operation::Send, group.clone(), unique_key)
    }

    /// The row of what `group` does with `message`.
    pub(super) fn of_processing(group: GroupName, message: &ReceivedMessage) -> Result<Self, DatabaseError> {
        let named = [message.unique_key(), message.property(properties::ORIGIN_MESSAGE_ID)];
        match named.into_iter().flatten().find(|name| is_usable(name)) {
            Some(name) => Self::new(Operation::Process, group, name),
            // A first delivery: the place of its record is what redeliveries name as their origin.
            None => Self::new(Operation::Process, group, &message.offset_message_id().encode()),
        }
    }

    /// The row of what `group` does under a name of the application's own.
    pub(super) fn of_processing_as(group: GroupName, name: &str) -> Result<Self, DatabaseError> {
        Self::new(Operation::Process, group, name)
    }

    fn new(operation: Operation, group: GroupName, message: &str) -> Result<Self, DatabaseError> {
        if !is_usable(message) {
            return Err(DatabaseError::Key { got: message.len(), max: MESSAGE_KEY_BYTES_MAX });
        }
        Ok(Self { operation, group, message: message.to_owned() })
    }
}

/// Control characters are out because PostgreSQL stores no NUL in text, and no client makes keys with any.
fn is_usable(name: &str) -> bool {
    (1..=MESSAGE_KEY_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

const _: () = assert!(
    OPERATION_BYTES_MAX + mezzo_protocol::limits::GROUP_BYTES_MAX + MESSAGE_KEY_BYTES_MAX <= 767,
    "the primary key fits an index of MySQL's COMPACT row format"
);
const _: () =
    assert!(IDENTITY.len() <= OPERATION_BYTES_MAX && Operation::Process.word().len() <= OPERATION_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_bounded_and_printable() {
        let group = || GroupName::new("g").unwrap();
        let longest = "k".repeat(MESSAGE_KEY_BYTES_MAX);
        assert!(Key::of_processing_as(group(), &longest).is_ok());
        for bad in [String::new(), format!("{longest}k"), "a\0b".to_owned()] {
            assert!(
                matches!(Key::of_processing_as(group(), &bad), Err(DatabaseError::Key { .. })),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_word_that_is_no_reason_is_an_error_and_no_decision() {
        assert_eq!(Reason::read("commit").unwrap(), Reason::Commit);
        assert_eq!(Reason::read("rollback").unwrap(), Reason::Rollback);
        assert!(Reason::read("Commit").is_err());
    }
}
