//! What a broker said about a message that it stored.

use std::sync::Arc;

use mezzo_protocol::ids::{MessageQueue, OffsetMessageId, QueueId, QueueOffset};
use mezzo_protocol::remoting::header::send_message::SendMessageReply;
use mezzo_protocol::remoting::{HeaderView, ResponseCode};

use crate::error::RequestError;
use crate::net::{refused, unreadable};

/// How safely a message is stored.
///
/// ```
/// use mezzo_client::Stored;
///
/// fn survives_the_master(stored: Stored) -> bool {
///     !matches!(stored, Stored::DiskUnconfirmed | Stored::ReplicaUnconfirmed | Stored::NoReplica)
/// }
/// assert!(survives_the_master(Stored::AsConfigured));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stored {
    /// As safely as the broker's configuration promises.
    AsConfigured,
    /// In memory; the broker's disk did not confirm in time.
    DiskUnconfirmed,
    /// On the master; a replica did not confirm in time.
    ReplicaUnconfirmed,
    /// On the master; there is no replica.
    NoReplica,
}

impl Stored {
    /// What a reply's code says; `None` if the message is not stored.
    const fn from_code(code: ResponseCode) -> Option<Self> {
        match code {
            ResponseCode::SUCCESS => Some(Self::AsConfigured),
            ResponseCode::FLUSH_DISK_TIMEOUT => Some(Self::DiskUnconfirmed),
            ResponseCode::FLUSH_SLAVE_TIMEOUT => Some(Self::ReplicaUnconfirmed),
            ResponseCode::SLAVE_NOT_AVAILABLE => Some(Self::NoReplica),
            _ => None,
        }
    }
}

/// A broker's word that it has the message.
///
/// ```
/// use mezzo_client::{SendReceipt, Stored};
///
/// fn log(receipt: &SendReceipt) {
///     println!("{} is at {} of {}", receipt.unique_key, receipt.queue_offset, receipt.queue);
///     if receipt.may_be_duplicated || receipt.stored != Stored::AsConfigured {
///         println!("after {} attempts, {:?}", receipt.attempts, receipt.stored);
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendReceipt {
    /// The id that this client gave the message; consumers see it too.
    pub unique_key: Arc<str>,
    /// The id that the broker gave it: where it is stored. Empty for a message of a batch behind the first if the broker
    /// names only that one.
    pub offset_message_id: String,
    /// The transaction's id, for the half message of a transaction.
    pub transaction_id: Option<String>,
    /// The queue it went to.
    pub queue: MessageQueue,
    /// Its position there; for a half message its position among the half messages.
    pub queue_offset: QueueOffset,
    /// How safely it is stored.
    pub stored: Stored,
    /// Attempts it took.
    pub attempts: u32,
    /// Whether an earlier attempt may have stored the message too: its outcome is unknown, and consumers may see the
    /// message twice, with the same `unique_key`.
    pub may_be_duplicated: bool,
    /// The broker's address.
    pub(crate) address: Arc<str>,
}

impl SendReceipt {
    /// Reads the answer to a send. A refusal is an error that says so.
    pub(super) fn from_header(
        header: &HeaderView<'_>,
        address: &Arc<str>,
        unique_key: &Arc<str>,
        queue: &MessageQueue,
    ) -> Result<Self, RequestError> {
        let stored = Stored::from_code(header.response_code()).ok_or_else(|| refused(address, header))?;
        let answer = SendMessageReply::decode(&header.ext).map_err(|reason| unreadable(address, reason))?;
        let queue_id: QueueId = answer.queue_id;
        Ok(Self {
            unique_key: Arc::clone(unique_key),
            offset_message_id: answer.msg_id.into_owned(),
            transaction_id: answer.transaction_id.map(|id| id.into_owned()),
            queue: MessageQueue { queue_id, ..queue.clone() },
            queue_offset: QueueOffset::from_wire(answer.queue_offset).unwrap_or_default(),
            stored,
            attempts: 1,
            may_be_duplicated: false,
            address: Arc::clone(address),
        })
    }

    /// The broker's id in its parts; `None` if the broker uses ids of another form.
    #[must_use]
    pub fn parsed_offset_message_id(&self) -> Option<OffsetMessageId> {
        OffsetMessageId::decode(&self.offset_message_id).ok()
    }
}
