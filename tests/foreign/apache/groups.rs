//! Who is there: heartbeats, members of groups, locks of queues.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use mezzo_protocol::remoting::body::heartbeat::HeartbeatData;
use mezzo_protocol::remoting::body::lock::LockBatchRequest;
use mezzo_protocol::remoting::{RemotingCommand, RequestCode};
use tokio::sync::mpsc;

use super::broker::{Peer, Shared, field};
use super::words::Words;

/// One connection that gave a heartbeat.
#[derive(Debug)]
struct Client {
    id: String,
    producers: Vec<String>,
    consumers: Vec<String>,
    writer: mpsc::UnboundedSender<Vec<u8>>,
}

/// All of them, and the locks.
#[derive(Debug, Default)]
pub(super) struct Groups {
    clients: BTreeMap<usize, Client>,
    locks: HashMap<(String, String, i64), String>,
    /// The members of each group as they were told last.
    told: BTreeMap<String, Vec<String>>,
    requests: i32,
}

impl Groups {
    /// The connection is gone.
    pub(super) fn forget(&mut self, connection: usize) {
        self.clients.remove(&connection);
    }

    /// Any producer of the group.
    pub(super) fn producer(&self, group: &str) -> Option<mpsc::UnboundedSender<Vec<u8>>> {
        let in_group = |client: &&Client| client.producers.iter().any(|known| known == group);
        self.clients.values().find(in_group).map(|client| client.writer.clone())
    }

    /// A number for a request of the broker's own.
    pub(super) const fn next_request(&mut self) -> i32 {
        self.requests += 1;
        self.requests
    }

    fn members(&self, group: &str) -> Vec<String> {
        let in_group = |client: &&Client| client.consumers.iter().any(|known| known == group);
        let mut ids: Vec<_> =
            self.clients.values().filter(in_group).map(|client| client.id.clone()).collect();
        ids.dedup();
        ids
    }
}

impl Shared {
    pub(super) fn heartbeat(&self, peer: &Peer, request: &RemotingCommand) -> Words {
        let heartbeat = HeartbeatData::decode(&request.body).unwrap();
        let mut state = self.state();
        let consumers: Vec<_> =
            heartbeat.consumer_data_set.into_iter().map(|consumer| consumer.group_name).collect();
        for group in &consumers {
            state.topics.entry(format!("%RETRY%{group}")).or_insert(1);
        }
        let producers = heartbeat.producer_data_set.into_iter().map(|producer| producer.group_name).collect();
        let client = Client { id: heartbeat.client_id, producers, consumers, writer: peer.writer.clone() };
        state.groups.clients.insert(peer.number, client);
        drop(state);
        self.tell_groups();
        let reply = Words::reply(request.opaque, 0);
        reply.field("IS_SUPPORT_HEART_BEAT_V2", true).field("IS_SUB_CHANGE", true)
    }

    pub(super) fn unregister(&self, peer: &Peer, request: &RemotingCommand) -> Words {
        let (producer, consumer) = (field(request, "producerGroup"), field(request, "consumerGroup"));
        if let Some(client) = self.state().groups.clients.get_mut(&peer.number) {
            client.producers.retain(|group| group != producer);
            client.consumers.retain(|group| group != consumer);
        }
        self.tell_groups();
        Words::reply(request.opaque, 0)
    }

    pub(super) fn members(&self, request: &RemotingCommand) -> Words {
        let group = field(request, "consumerGroup");
        let ids = self.state().groups.members(group);
        if ids.is_empty() {
            let reply = Words::reply(request.opaque, 1);
            return reply.remark(format!("no consumer for this group, {group}"));
        }
        let ids: Vec<_> = ids.iter().map(|id| format!("\"{id}\"")).collect();
        Words::reply(request.opaque, 0).body(format!("{{\"consumerIdList\":[{}]}}", ids.join(",")))
    }

    /// Says to the members of groups that changed that they did.
    pub(super) fn tell_groups(&self) {
        let mut state = self.state();
        let groups = &mut state.groups;
        let mut all: Vec<_> = groups.clients.values().flat_map(|client| client.consumers.clone()).collect();
        all.sort();
        all.dedup();
        for group in all {
            let members = groups.members(&group);
            if groups.told.get(&group) == Some(&members) {
                continue;
            }
            groups.told.insert(group.clone(), members);
            let code = RequestCode::NOTIFY_CONSUMER_IDS_CHANGED.0;
            let words = Words::oneway(groups.next_request(), code).field("consumerGroup", &group);
            for client in groups.clients.values().filter(|client| client.consumers.contains(&group)) {
                self.say(&client.writer, &words);
            }
        }
    }

    pub(super) fn locks(self: &Arc<Self>, request: &RemotingCommand) -> Words {
        let asked = LockBatchRequest::decode(&request.body).unwrap();
        let mut state = self.state();
        let locks = &mut state.groups.locks;
        let mut given = Vec::new();
        for queue in asked.mq_set {
            let key = (asked.consumer_group.clone(), queue.topic.clone(), queue.queue_id);
            let ours = locks.get(&key).is_none_or(|owner| *owner == asked.client_id);
            if RequestCode(request.code) == RequestCode::UNLOCK_BATCH_MQ {
                if ours {
                    locks.remove(&key);
                }
            } else if ours {
                locks.insert(key, asked.client_id.clone());
                let (topic, broker, id) = (queue.topic, queue.broker_name, queue.queue_id);
                given.push(format!("{{\"brokerName\":\"{broker}\",\"queueId\":{id},\"topic\":\"{topic}\"}}"));
            }
        }
        let reply = Words::reply(request.opaque, 0);
        if RequestCode(request.code) == RequestCode::UNLOCK_BATCH_MQ {
            return reply;
        }
        reply.body(format!("{{\"lockOKMQSet\":[{}]}}", given.join(",")))
    }
}
