//! What the fake broker answers beyond RocketMQ when it plays a Mezzo broker: leases, and decisions that move offsets.

use std::collections::BTreeMap;

use mezzo_protocol::remoting::body::transaction_offsets::TransactionOffsetsBody;
use mezzo_protocol::remoting::header::client::{HEADER_ENCODINGS_BOTH, HeartbeatReplyHeader};
use mezzo_protocol::remoting::{RemotingCommand, RequestCode, ResponseCode};

use super::answers::Queues;

/// The newest epoch of each leased queue.
#[derive(Default)]
pub(crate) struct Leases {
    epochs: BTreeMap<(String, u32), i64>,
}

impl Leases {
    /// Another client takes the lease of a queue.
    pub(crate) fn take_over(&mut self, topic: &str, queue: u32) {
        *self.epochs.entry((topic.to_owned(), queue)).or_default() += 1;
    }
}

/// Fields of an answer with one word about what happened.
pub(crate) fn says(word: &str) -> Vec<(&'static str, String)> {
    vec![("mezzoOutcome", word.to_owned())]
}

impl Queues {
    /// The answer, if the request is one that only Mezzo understands, or answers in its own way.
    pub(super) fn mezzo_answer(&mut self, request: &RemotingCommand) -> Option<RemotingCommand> {
        let leases = self.leases.as_mut()?;
        let field = |name: &str| request.ext_value(name).unwrap_or_default().to_owned();
        let reply = |code: ResponseCode, fields: Vec<(&'static str, String)>| {
            let ext = fields.into_iter().map(|(name, value)| (name.into(), value)).collect();
            Some(RemotingCommand::response(request.opaque, code).with_ext(ext))
        };
        match RequestCode(request.code) {
            RequestCode::MEZZO_LEASE_QUEUE => {
                let queue = (field("topic"), field("queueId").parse().unwrap());
                let epoch = leases.epochs.entry(queue.clone()).or_default();
                match request.ext_value("epoch") {
                    Some(renewed) if renewed != epoch.to_string() => {
                        return reply(ResponseCode::ILLEGAL_OPERATION, says("LOST"));
                    }
                    Some(_) => {}
                    None => *epoch += 1,
                }
                let mut fields = vec![("epoch", epoch.to_string()), ("expiresAtMs", "1".to_owned())];
                let committed = self.committed.get(&(field("consumerGroup"), queue.0, queue.1));
                fields.extend(committed.map(|offset| ("nextOffset", offset.to_string())));
                reply(ResponseCode::SUCCESS, fields)
            }
            RequestCode::MEZZO_RELEASE_QUEUE => reply(ResponseCode::SUCCESS, Vec::new()),
            RequestCode::END_TRANSACTION if field("commitOrRollback") == "12" => {
                reply(ResponseCode::SUCCESS, says("ROLLED_BACK"))
            }
            RequestCode::END_TRANSACTION if field("mezzoOffsets") == "true" => {
                let body = TransactionOffsetsBody::decode(&request.body).unwrap();
                for moved in body.offsets {
                    let place = (body.consumer_group.clone(), moved.topic, moved.queue_id);
                    self.committed.insert(place, i64::try_from(moved.offset).unwrap());
                }
                reply(ResponseCode::SUCCESS, says("COMMITTED"))
            }
            _ => None,
        }
    }

    /// What the answer to a heartbeat says.
    pub(super) fn heartbeat_reply(&self, reply: RemotingCommand) -> RemotingCommand {
        if self.leases.is_none() {
            return reply;
        }
        let header = HeartbeatReplyHeader { header_encodings: Some(HEADER_ENCODINGS_BOTH.into()) };
        reply.with_ext(header.encode())
    }
}
