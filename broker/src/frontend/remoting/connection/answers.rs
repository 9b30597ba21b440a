//! The end of a turn: one append, one wait, one write.

use bytes::BytesMut;
use mezzo_protocol::ids::PhysicalOffset;
use mezzo_storage::SendKey;
use tokio::io::AsyncWriteExt as _;

use super::{
    super::{
        end_transaction, response, send_message,
        transport::Transport,
        turn::{PendingReply, SendReply},
    },
    BUFFER_BYTES_KEPT, Ended, Session, TURN_REPLY_BYTES_MAX,
};

impl<T: Transport> Session<T> {
    /// Sends of this turn that were stored under a guard.
    fn guarded(&self) -> Vec<(SendKey, PhysicalOffset)> {
        let results = self.batch.results();
        let sends = self.replies.iter().filter_map(|reply| match reply {
            PendingReply::Send(reply) => Some((reply, results.get(reply.operations.clone())?)),
            _ => None,
        });
        sends.flat_map(|(reply, results)| reply.guarded(results)).collect()
    }

    /// Appends what the turn collected, waits where an answer needs it, and answers in request order.
    pub(super) async fn finish_turn(&mut self) -> Result<(), Ended> {
        let mut refused = None;
        if !self.batch.is_empty() {
            let is_guarded =
                |reply: &PendingReply| matches!(reply, PendingReply::Send(reply) if reply.keys.is_some());
            let guards = self.replies.iter().any(is_guarded);
            if guards {
                self.own_sends.open_door();
            }
            match self.services.store.append(self.services.now(), &mut self.batch) {
                Ok(end) => {
                    let guarded = if guards { self.guarded() } else { Vec::new() };
                    for (key, position) in &guarded {
                        self.own_sends.appended(*key, *position);
                    }
                    if self.replies.iter().any(|reply| !matches!(reply, PendingReply::Ready(..))) {
                        self.waiter.wait_for(end).await?;
                    } else if self.services.store.limit() < end {
                        // one-way requests alone: nobody waits, but they must not stay behind for long
                        self.services.store.request_sync();
                    }
                    if guards && self.began.elapsed() >= self.services.config.dedup.answer_timeout {
                        // too late: the client may have given up waiting
                        self.own_sends.lose(guarded);
                    }
                }
                Err(error) => refused = Some(error),
            }
        }
        let metrics = &self.services.metrics;
        for reply in self.replies.drain(..) {
            let results = self.batch.results();
            match (reply, &refused) {
                (PendingReply::Ready(to, command), _) => {
                    response::write(&mut self.out, to, command, metrics);
                }
                (PendingReply::Send(reply), None) => {
                    let results = results.get(reply.operations.clone()).unwrap_or_default();
                    if !send_message::encode_reply(&mut self.out, &reply, results, &self.services) {
                        // refused as a whole: the client may send all of it again
                        self.own_sends.lose(reply.guarded(results));
                    }
                }
                (PendingReply::Repeated(reply, results), _) => {
                    send_message::encode_reply(&mut self.out, &reply, &results, &self.services);
                }
                (PendingReply::End(to, operation), None) => {
                    let command = end_transaction::answer(results.get(operation));
                    response::write(&mut self.out, to, command, metrics);
                }
                (PendingReply::End(to, _), Some(error)) => {
                    response::write(&mut self.out, to, end_transaction::unwritten(error), metrics);
                }
                (PendingReply::AfterAppend { to, operations, finish }, None) => {
                    let command = finish(results.get(operations).unwrap_or_default());
                    response::write(&mut self.out, to, command, metrics);
                }
                (PendingReply::Send(SendReply { to, .. }), Some(error))
                | (PendingReply::AfterAppend { to, .. }, Some(error)) => {
                    response::write(&mut self.out, to, response::storage_refusal(error), metrics);
                }
            }
        }
        self.batch.clear();
        self.write().await
    }

    /// Writes a frame from the outbound queue and those that wait behind it, as one write where they are small.
    pub(super) async fn write_outbound(&mut self, frame: bytes::Bytes) -> Result<(), Ended> {
        self.out.extend_from_slice(&frame);
        while self.out.len() < TURN_REPLY_BYTES_MAX {
            let Some(frame) = self.outbound.try_next() else { break };
            self.out.extend_from_slice(&frame);
        }
        self.write().await
    }

    async fn write(&mut self) -> Result<(), Ended> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.lane().bytes_written.add(self.out.len() as u64);
        // most answers fit the socket's buffer: no timer then
        let written = match self.stream.try_write(&self.out) {
            Ok(written) => written,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error.into()),
        };
        let rest = self.out.get(written..).unwrap_or_default();
        if !rest.is_empty() {
            let patience = self.services.config.limits.write_timeout;
            let waiting = rest.len();
            self.in_flight.add(waiting);
            let written = tokio::time::timeout(patience, self.stream.write_all(rest)).await;
            self.in_flight.give_back(waiting);
            written.map_err(|_| Ended::SlowReader(patience))??;
        }
        self.out.clear();
        if self.out.capacity() > BUFFER_BYTES_KEPT || self.quiet {
            self.out = BytesMut::new();
        }
        Ok(())
    }
}
