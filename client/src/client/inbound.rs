//! Requests of brokers: check-backs (39) go to the group's transaction producer, changes of a group (40) to its
//! consumer, everything else is politely refused.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use mezzo_protocol::error::DecodeError;
use mezzo_protocol::ids::TopicName;
use mezzo_protocol::message::properties;
use mezzo_protocol::message::record::MessageView;
use mezzo_protocol::remoting::header::check_transaction_state::CheckTransactionStateHeader;
use mezzo_protocol::remoting::header::client::NotifyConsumerIdsChangedHeader;
use mezzo_protocol::remoting::{HeaderView, RemotingCommand, RequestCode, ResponseCode};
use tokio::sync::mpsc;

use super::Shared;
use crate::message::{INFLATED_BYTES_MAX, ReceivedMessage, UnreadableMessage};
use crate::net::{Connection, Inbound};

/// A broker's question about one half message.
#[derive(Debug)]
pub(crate) struct CheckBackRequest {
    /// Where the answer goes: the connection that brought the question.
    pub(crate) connection: Arc<Connection>,
    /// The half message as it came: what waits for an answer takes no more memory than the frames that brought it.
    record: Bytes,
    /// The topic that the message is meant for.
    pub(crate) topic: TopicName,
    /// Its unique key, or its id for producers that give none.
    pub(crate) unique_key: String,
    /// Comes back in the answer.
    pub(crate) tran_state_table_offset: i64,
    /// Comes back in the answer.
    pub(crate) commit_log_offset: i64,
    /// Comes back in the answer.
    pub(crate) transaction_id: Option<String>,
}

impl CheckBackRequest {
    /// The half message for the handler, checked and inflated to the usual bound.
    pub(crate) fn message(&self) -> Result<ReceivedMessage, UnreadableMessage> {
        let view = MessageView::parse(&self.record)?;
        ReceivedMessage::from_record(&self.record, &view, &self.topic, &"".into(), INFLATED_BYTES_MAX)
    }
}

/// Why a check-back was not handed on.
#[derive(Debug, thiserror::Error)]
enum CheckBackError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("its message names no producer group")]
    NoGroup,
    #[error("this client has no transaction producer in group {0}")]
    ForeignGroup(String),
    #[error("too many check-backs of group {0} wait already")]
    TooMany(String),
}

/// Runs until the client is stopped or dropped.
pub(super) async fn run(shared: Weak<Shared>, mut inbound: mpsc::Receiver<Inbound>) {
    let Some(stopped) = shared.upgrade().map(|shared| shared.stopped.clone()) else { return };
    loop {
        let request = tokio::select! {
            () = stopped.cancelled() => return,
            request = inbound.recv() => request,
        };
        let (Some(request), Some(shared)) = (request, shared.upgrade()) else { return };
        shared.dispatch(&request);
    }
}

impl Shared {
    fn dispatch(&self, inbound: &Inbound) {
        let address = inbound.connection.address();
        let header = match HeaderView::parse(&inbound.frame) {
            Ok(header) => header,
            Err(error) => return tracing::warn!(%address, %error, "a broker's request cannot be read"),
        };
        match header.request_code() {
            RequestCode::CHECK_TRANSACTION_STATE => {
                if let Err(error) = self.check_back(inbound, &header) {
                    tracing::warn!(%address, %error, "a check-back is not answered; the broker will ask again");
                }
            }
            RequestCode::NOTIFY_CONSUMER_IDS_CHANGED => {
                match NotifyConsumerIdsChangedHeader::decode(&header.ext) {
                    Ok(changed) => {
                        let known = self.members.group_changed(&changed.consumer_group);
                        tracing::debug!(%address, group = %changed.consumer_group, known, "consumer group changed");
                    }
                    Err(error) => tracing::warn!(%address, %error, "a change of a group cannot be read"),
                }
            }
            other if !header.is_oneway() => {
                let reply = RemotingCommand::response_to(&header, ResponseCode::REQUEST_CODE_NOT_SUPPORTED)
                    .with_remark(format!("request code {} is not supported by this client", other.0));
                if let Err(error) = inbound.connection.try_answer(&reply, inbound.frame.encoding) {
                    tracing::debug!(%address, %error, "a refusal could not be sent");
                }
            }
            other => tracing::debug!(%address, code = other.0, "a broker's request is not known here"),
        }
    }

    fn check_back(&self, inbound: &Inbound, header: &HeaderView<'_>) -> Result<(), CheckBackError> {
        let ask = CheckTransactionStateHeader::decode(&header.ext)?;
        let record: &Bytes = &inbound.frame.body;
        let view = MessageView::parse(record)?;
        let group = view.property(properties::PRODUCER_GROUP).ok_or(CheckBackError::NoGroup)?;
        let check_backs =
            self.members.check_backs(group).ok_or_else(|| CheckBackError::ForeignGroup(group.to_owned()))?;
        // Old brokers ask with the message as they store it: its real topic is a property then.
        let topic = TopicName::new(view.property(properties::REAL_TOPIC).unwrap_or_else(|| view.topic()))?;
        let unique_key = view
            .unique_key()
            .or(ask.msg_id.as_deref())
            .map_or_else(|| view.offset_message_id().encode(), str::to_owned);
        let request = CheckBackRequest {
            connection: Arc::clone(&inbound.connection),
            record: record.clone(),
            topic,
            unique_key,
            tran_state_table_offset: ask.tran_state_table_offset,
            commit_log_offset: ask.commit_log_offset,
            transaction_id: ask.transaction_id.map(|id| id.into_owned()),
        };
        check_backs.try_send(request).map_err(|_| CheckBackError::TooMany(group.to_owned()))
    }
}
