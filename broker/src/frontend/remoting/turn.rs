//! A turn: everything that one read of one connection asks for. Handlers put storage operations into its batch and one
//! reply per request into its list; the connection appends the batch once and writes all replies with one write.

use std::{fmt, ops::Range, sync::Arc};

use bytes::Bytes;
use mezzo_protocol::{
    error::DecodeError,
    ids::{GroupName, Opaque, PhysicalOffset, QueueId},
    remoting::{
        command::RemotingCommand,
        frame::{Frame, HeaderEncoding},
        header::HeaderView,
        response_code::ResponseCode,
    },
    time::Timestamp,
};
use mezzo_storage::{Batch, Operation, OperationResult, SendKey, SenderId};

use super::{outbound::RemotingChannel, response};
use crate::service::{
    Services, client_channel::ClientChannel, dedup::Candidate, send::Keys, topic::TopicToCreate,
};

/// What a handler gives back. An error is answered with `SYSTEM_ERROR` and the error's text as remark; a handler that
/// returns one must have left the turn as it was.
pub(crate) type Handled = Result<Step, DecodeError>;

/// What the connection does after a handler ran.
#[derive(Debug)]
pub(crate) enum Step {
    /// Translated: the reply, if there is one, stands in the turn or comes later through the outbound queue.
    Done,
    /// Nothing was done yet, because a topic has to exist first. The connection creates it (waiting until that is
    /// durable) and hands the same request in again; if it cannot be created, the connection answers why.
    CreateTopic(TopicToCreate),
    /// The same for a consumer group.
    CreateGroup(GroupName),
    /// The same for all groups, then all topics, that a request of many needs: each time it comes again it is read again.
    CreateAll(Vec<GroupName>, Vec<TopicToCreate>),
    /// Nothing was done yet, because a send may repeat an earlier one. The connection settles that: a repeat is answered
    /// as the first one was, else the same request is handed in again.
    Settle(Box<Candidate>),
}

/// Which of the two services a listener offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Messages, offsets, transactions, administration.
    Broker,
    /// Routes and cluster information.
    NameServer,
}

/// One request, parsed as far as its header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'f> {
    /// Code, version, flags and ext fields.
    pub(crate) header: &'f HeaderView<'f>,
    /// The frame it came in.
    pub(crate) frame: &'f Frame,
}

impl<'f> Request<'f> {
    /// The body; cloning it is cheap.
    pub(crate) fn body(&self) -> &'f Bytes {
        &self.frame.body
    }

    /// Where the answer goes.
    pub(crate) fn reply_to(&self) -> ReplyTo {
        ReplyTo {
            opaque: Opaque(self.header.opaque),
            encoding: self.frame.encoding,
            wanted: !self.header.is_oneway(),
        }
    }
}

/// Enough of a request to answer it later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReplyTo {
    /// Pairs the answer with its request.
    pub(crate) opaque: Opaque,
    /// An answer uses the header encoding of its request.
    pub(crate) encoding: HeaderEncoding,
    /// False for a one-way request: nothing is written.
    pub(crate) wanted: bool,
}

/// Builds an answer from the results of the operations that its request put into the batch. Used for rare requests;
/// sends have a variant of their own that allocates nothing.
pub(crate) type Finish = Box<dyn FnOnce(&[OperationResult]) -> RemotingCommand + Send>;

/// The answer to one request of the turn.
pub(crate) enum PendingReply {
    /// Known already.
    Ready(ReplyTo, RemotingCommand),
    /// A send (10, 310, 320), encoded by `send_message::encode_reply` once the limit has passed the batch.
    Send(SendReply),
    /// A send that repeats an earlier one: answered with what that one became.
    Repeated(SendReply, Vec<OperationResult>),
    /// An END, answered by `end_transaction` from this operation's result, or from the failure of the append.
    End(ReplyTo, usize),
    /// Known once the limit has passed the batch.
    AfterAppend {
        /// Who asked.
        to: ReplyTo,
        /// Which operations of the batch belong to it.
        operations: Range<usize>,
        /// Turns their results into the answer.
        finish: Finish,
    },
}

/// What the answer to a send needs besides the operations' results.
#[derive(Debug)]
pub(crate) struct SendReply {
    /// Who asked.
    pub(crate) to: ReplyTo,
    /// The request's operations in the batch: one per message.
    pub(crate) operations: Range<usize>,
    /// The queue the messages went to.
    pub(crate) queue: QueueId,
    /// The answer's `transactionId`: the message's unique key, where it has one.
    pub(crate) transaction_id: Option<String>,
    /// What its messages are told by, on topics that tell repeats.
    pub(crate) keys: Option<Box<Keys>>,
}

impl SendReply {
    /// Messages that were stored under a guard, as their `results` say.
    pub(crate) fn guarded<'r>(
        &'r self,
        results: &'r [OperationResult],
    ) -> impl Iterator<Item = (SendKey, PhysicalOffset)> + 'r {
        let keys = self.keys.iter().flat_map(|keys| &keys.keys);
        keys.zip(results).filter_map(|(key, result)| match result {
            OperationResult::Stored { position, .. }
            | OperationResult::Prepared { position, .. }
            | OperationResult::Scheduled { position } => Some(((*key)?, *position)),
            _ => None,
        })
    }
}

impl fmt::Debug for PendingReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(to, command) => f.debug_tuple("Ready").field(to).field(&command.code).finish(),
            Self::Send(reply) => f.debug_tuple("Send").field(reply).finish(),
            Self::Repeated(reply, results) => f.debug_tuple("Repeated").field(reply).field(results).finish(),
            Self::End(to, operation) => f.debug_tuple("End").field(to).field(operation).finish(),
            Self::AfterAppend { to, operations, .. } => {
                f.debug_struct("AfterAppend").field("to", to).field("operations", operations).finish()
            }
        }
    }
}

/// What one read of one connection collects. The lists belong to the connection and are reused by every turn.
pub(crate) struct Turn<'c> {
    /// The broker.
    pub(crate) services: &'c Arc<Services>,
    /// The connection.
    pub(crate) channel: &'c Arc<RemotingChannel>,
    /// The connection's name among those that send.
    pub(crate) sender: SenderId,
    /// Earlier sends that the request at hand is known not to repeat.
    pub(crate) judged: &'c [PhysicalOffset],
    /// The time of this turn, read once.
    pub(crate) now: Timestamp,
    /// Goes to the log as one frame when all requests of the read are translated.
    pub(crate) batch: &'c mut Batch,
    /// In request order.
    pub(crate) replies: &'c mut Vec<PendingReply>,
}

impl Turn<'_> {
    /// Answers `request` now. The opaque is stamped when the answer is written; a one-way request gets nothing.
    pub(crate) fn reply(&mut self, request: &Request<'_>, command: RemotingCommand) {
        let to = request.reply_to();
        if to.wanted {
            self.replies.push(PendingReply::Ready(to, command));
        }
    }

    /// Answers `request` now with a code other than success and a remark that says why.
    pub(crate) fn refuse(&mut self, request: &Request<'_>, code: ResponseCode, remark: impl Into<String>) {
        self.reply(request, response::refusal(code, remark));
    }

    /// Answers `request` as busy: its connection has as many requests waiting as it may.
    pub(crate) fn refuse_held(&mut self, request: &Request<'_>) {
        self.services.metrics.held_by_connection.add(1);
        self.refuse(request, ResponseCode::SYSTEM_BUSY, response::TOO_MANY_HELD);
    }

    /// A request named `group` as its producer group: from now on the connection can be asked about its transactions.
    /// Costs one short look on every call but the first. A name that is no group name is ignored.
    pub(crate) fn producer_seen(&self, group: &str) {
        if group.is_empty() || self.channel.knows_producer_group(group) {
            return;
        }
        let Ok(group) = GroupName::new(group) else { return };
        if self.channel.is_new_producer_group(&group) {
            let channel: Arc<dyn ClientChannel> = Arc::<RemotingChannel>::clone(self.channel);
            self.services.clients.producer_joined(&group, channel);
        }
    }

    /// Adds an operation to the batch and says at which index its result will stand.
    pub(crate) fn operation(&mut self, operation: Operation) -> usize {
        self.batch.push(operation)
    }

    /// Answers `request` when the limit has passed the batch, from the results of `operations`.
    pub(crate) fn reply_after_append(
        &mut self,
        request: &Request<'_>,
        operations: Range<usize>,
        finish: impl FnOnce(&[OperationResult]) -> RemotingCommand + Send + 'static,
    ) {
        let to = request.reply_to();
        if to.wanted {
            self.replies.push(PendingReply::AfterAppend { to, operations, finish: Box::new(finish) });
        }
    }
}
