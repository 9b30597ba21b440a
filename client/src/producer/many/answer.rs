//! What a broker says to a message that joins a transaction.

use std::sync::Arc;

use mezzo_protocol::ids::MessageQueue;
use mezzo_protocol::remoting::HeaderView;

use super::super::end_transaction::OUTCOME_FIELD;
use super::super::receipt::SendReceipt;
use crate::error::RequestError;

/// Holds the number that comes next.
const EXPECTED_FIELD: &str = "mezzoExpected";
/// Holds the decision that stands.
const DECISION_FIELD: &str = "mezzoDecision";

/// An answer that arrived.
#[derive(Debug)]
pub(super) enum JoinAnswer {
    /// It is in the transaction, now or since an earlier attempt.
    Joined(SendReceipt),
    /// Others that come before it are missing; this number comes next.
    OutOfSequence(u16),
    /// No transaction of this id is open.
    NotOpen,
    /// It is decided; the broker's word for how.
    Decided(String),
    /// It has as many messages or bytes as it may.
    Full,
    /// Refused for a reason that is not about transactions.
    Refused(RequestError),
}

impl JoinAnswer {
    /// Reads the answer to a send.
    pub(super) fn read(
        header: &HeaderView<'_>,
        address: &Arc<str>,
        unique_key: &Arc<str>,
        queue: &MessageQueue,
    ) -> Result<Self, RequestError> {
        let field = |name| header.ext.get(name).map(|value| value.into_owned());
        let word = field(OUTCOME_FIELD);
        match word.as_deref() {
            Some("OUT_OF_SEQUENCE") => {
                let expected = field(EXPECTED_FIELD).and_then(|number| number.parse().ok());
                return Ok(Self::OutOfSequence(expected.unwrap_or(0)));
            }
            Some("NOT_OPEN") => return Ok(Self::NotOpen),
            Some("DECIDED") => return Ok(Self::Decided(field(DECISION_FIELD).unwrap_or_default())),
            Some("FULL") => return Ok(Self::Full),
            _ => {}
        }
        match SendReceipt::from_header(header, address, unique_key, queue) {
            Ok(receipt) => Ok(Self::Joined(receipt)),
            Err(error @ RequestError::Refused { .. }) => Ok(Self::Refused(error)),
            Err(error) => Err(error),
        }
    }
}
