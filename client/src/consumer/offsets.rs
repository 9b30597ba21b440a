//! Offsets at the broker: where a group continues, and how far it has come.

use std::sync::Arc;

use mezzo_protocol::ids::{MessageQueue, QueueOffset};
use mezzo_protocol::remoting::header::consumer_offset::{
    Boundary, OffsetReply, QueryConsumerOffsetHeader, QueueHeader, SearchOffsetHeader,
    UpdateConsumerOffsetHeader,
};
use mezzo_protocol::remoting::{RemotingCommand, RequestCode, ResponseCode};
use mezzo_protocol::system_topic::is_retry;
use tokio::task::JoinSet;

use super::held_queue::HeldQueue;
use super::member::{Commits, GroupMember};
use super::offset_file::OffsetFile;
use super::seek::SeekTo;
use crate::config::StartPosition;
use crate::error::RequestError;
use crate::net::{Patience, Reply};

/// How far the clocks of client and broker may be apart, in milliseconds, without a message being missed that came after
/// a consumer that begins with the last one.
const CLOCKS_APART_MS: u64 = 60_000;

/// Where a queue begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) offset: QueueOffset,
    /// Whether the broker has it as the group's offset.
    pub(super) committed: bool,
}

impl GroupMember {
    /// Where this group begins on `queue`: at its committed offset, else as configured. Retry topics always begin at
    /// their first message: what was sent back must come again.
    pub(super) async fn start_of(&self, queue: &MessageQueue) -> Result<Start, RequestError> {
        let committed = match &self.commits {
            Commits::InFile(file) => file.find(queue),
            Commits::AtBrokers | Commits::WhenTold | Commits::InTransactions => {
                self.committed_offset(queue).await?
            }
        };
        if let Some(offset) = committed {
            return Ok(Start { offset, committed: true });
        }
        let to = match self.config.start {
            _ if is_retry(&queue.topic) => SeekTo::Begin,
            StartPosition::First => SeekTo::Begin,
            StartPosition::Last => match self.appeared_since(queue) {
                // All its messages came after the group's start, those from before it was found too.
                Some(began) => SeekTo::Time(began.saturating_sub_ms(CLOCKS_APART_MS)),
                None => SeekTo::End,
            },
            StartPosition::At(timestamp) => SeekTo::Time(timestamp),
        };
        Ok(Start { offset: self.offset_at(queue, to).await?, committed: false })
    }

    /// Where a place in a queue is.
    pub(super) async fn offset_at(
        &self,
        queue: &MessageQueue,
        to: SeekTo,
    ) -> Result<QueueOffset, RequestError> {
        match to {
            SeekTo::Offset(offset) => Ok(offset),
            SeekTo::Begin => self.queue_end(queue, RequestCode::GET_MIN_OFFSET).await,
            SeekTo::End => self.queue_end(queue, RequestCode::GET_MAX_OFFSET).await,
            SeekTo::Time(timestamp) => {
                let header = SearchOffsetHeader {
                    topic: queue.topic.as_str().into(),
                    queue_id: queue.queue_id,
                    timestamp,
                    boundary: Boundary::Lower,
                };
                self.ask_offset(queue, RequestCode::SEARCH_OFFSET_BY_TIMESTAMP, header.encode()).await
            }
        }
    }

    /// Tells brokers all offsets that they do not have yet. Returns whether they took all of them.
    pub(super) async fn commit_all(self: &Arc<Self>) -> bool {
        if let Commits::InFile(file) = &self.commits {
            return self.save(file, &self.all_held_and_leaving()).await;
        }
        let mut commits = JoinSet::new();
        for held in self.all_held_and_leaving() {
            let member = Arc::clone(self);
            commits.spawn(async move { member.commit(&held).await });
        }
        let mut all = true;
        while let Some(committed) = commits.join_next().await {
            all &= committed.unwrap_or(false);
        }
        all
    }

    /// Tells the broker of one queue its offset, if it does not have it yet.
    pub(super) async fn commit(&self, held: &Arc<HeldQueue>) -> bool {
        if let Commits::InFile(file) = &self.commits {
            return self.save(file, std::slice::from_ref(held)).await;
        }
        let _one_at_a_time = held.committing.lock().await;
        let Some(offset) = held.uncommitted() else { return true };
        let header = UpdateConsumerOffsetHeader {
            consumer_group: self.group.as_str().into(),
            topic: held.queue.topic.as_str().into(),
            queue_id: held.queue.queue_id,
            commit_offset: offset.as_wire(),
        };
        let asked = self.ask_broker(&held.queue, RequestCode::UPDATE_CONSUMER_OFFSET, header.encode()).await;
        match asked.and_then(|reply| reply.success().map(|_| ())) {
            Ok(()) => {
                held.committed(offset);
                true
            }
            Err(error) => {
                held.commit_is_open();
                tracing::warn!(queue = %held.queue, %offset, %error, "the offset could not be committed");
                false
            }
        }
    }

    /// Writes the offsets of these queues to the file of a broadcast consumer, if it does not have them yet.
    async fn save(&self, file: &OffsetFile, queues: &[Arc<HeldQueue>]) -> bool {
        let due = |held: &Arc<HeldQueue>| Some((Arc::clone(held), held.uncommitted()?));
        if !queues.iter().any(|held| held.uncommitted().is_some()) {
            return true;
        }
        match file.save(|| queues.iter().filter_map(due).collect()).await {
            Ok(saved) => {
                saved.iter().for_each(|(held, offset)| held.committed(*offset));
                true
            }
            Err(error) => {
                tracing::warn!(group = %self.group, %error, "the offsets could not be saved");
                false
            }
        }
    }

    async fn committed_offset(&self, queue: &MessageQueue) -> Result<Option<QueueOffset>, RequestError> {
        let header = QueryConsumerOffsetHeader {
            consumer_group: self.group.as_str().into(),
            topic: queue.topic.as_str().into(),
            queue_id: queue.queue_id,
            // Else some brokers answer 0 for a group that never committed, and the start position would not count.
            set_zero_if_not_found: Some(false),
        };
        let asked = self.ask_offset(queue, RequestCode::QUERY_CONSUMER_OFFSET, header.encode()).await;
        match asked {
            Ok(offset) => Ok(Some(offset)),
            Err(RequestError::Refused { code: ResponseCode::QUERY_NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn queue_end(
        &self,
        queue: &MessageQueue,
        code: RequestCode,
    ) -> Result<QueueOffset, RequestError> {
        let header =
            QueueHeader { topic: queue.topic.as_str().into(), queue_id: queue.queue_id, committed: None };
        self.ask_offset(queue, code, header.encode()).await
    }

    async fn ask_offset(
        &self,
        queue: &MessageQueue,
        code: RequestCode,
        ext: mezzo_protocol::remoting::command::ExtPairs,
    ) -> Result<QueueOffset, RequestError> {
        let reply = self.ask_broker(queue, code, ext).await?;
        let answer = OffsetReply::decode(&reply.success()?.ext).map_err(|reason| reply.unreadable(reason))?;
        // Some clients commit -1 for "nothing yet"; the queue begins at 0 for them.
        Ok(QueueOffset::from_wire(answer.offset).unwrap_or_default())
    }

    /// One request to the master of a queue's broker.
    pub(super) async fn ask_broker(
        &self,
        queue: &MessageQueue,
        code: RequestCode,
        ext: mezzo_protocol::remoting::command::ExtPairs,
    ) -> Result<Reply, RequestError> {
        self.ask_broker_with(queue, code, ext, Vec::new()).await
    }

    /// The same with a body.
    pub(super) async fn ask_broker_with(
        &self,
        queue: &MessageQueue,
        code: RequestCode,
        ext: mezzo_protocol::remoting::command::ExtPairs,
        body: Vec<u8>,
    ) -> Result<Reply, RequestError> {
        let shared = self.shared();
        let address = shared.master_of(&queue.broker_name).ok_or_else(|| RequestError::Unreachable {
            address: Arc::clone(&queue.broker_name),
            reason: "no route has a master for this broker".to_owned(),
        })?;
        let command = RemotingCommand::request(code, ext, body);
        shared.request(&address, Patience::FailFast, command, shared.request_deadline()).await
    }
}

/// Commits offsets at every interval until the consumer stops.
pub(super) async fn run(member: Arc<GroupMember>) {
    let interval = std::time::Duration::from_millis(member.config.commit_interval_ms.max(1));
    loop {
        tokio::select! {
            () = member.stop.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        member.commit_all().await;
    }
}
