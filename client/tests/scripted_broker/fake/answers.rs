//! What the fake broker usually answers, and the little state it needs for it.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use mezzo_protocol::ids::{OffsetMessageId, PhysicalOffset};
use mezzo_protocol::remoting::body::cluster::ClusterInfo;
use mezzo_protocol::remoting::body::consumer_list::ConsumerList;
use mezzo_protocol::remoting::body::heartbeat::HeartbeatData;
use mezzo_protocol::remoting::body::lock::{LockBatchReply, LockBatchRequest};
use mezzo_protocol::remoting::body::route::{BrokerData, KeyStyle, QueueData, TopicRouteData};
use mezzo_protocol::remoting::{RemotingCommand, RequestCode, ResponseCode};

use super::messages::{compressed_record, record};
use super::mezzo::Leases;

/// The name of the fake broker.
pub(crate) const BROKER: &str = "fake";
/// The name of the one beside it; sorted before it, so that its queues come first.
const SECOND_BROKER: &str = "beside";

/// Topics, offsets and group members.
#[derive(Default)]
pub(crate) struct Queues {
    /// Queues of each topic; a topic that is not here has no route.
    topics: HashMap<String, u32>,
    records: HashMap<(String, u32), Vec<Vec<u8>>>,
    pub(crate) committed: BTreeMap<(String, String, u32), i64>,
    heartbeats: BTreeMap<usize, HeartbeatData>,
    /// Group members that are only said to exist.
    pub(crate) others: Vec<String>,
    /// Queues whose lock another client has.
    pub(crate) locked_elsewhere: Vec<u32>,
    /// Where a second broker is said to be, which has queues of every topic too.
    pub(crate) second: Option<SocketAddr>,
    /// Plays a Mezzo broker.
    pub(crate) leases: Option<Leases>,
    sent: i64,
}

impl Queues {
    pub(crate) fn add_topic(&mut self, topic: &str, queues: u32) {
        self.topics.insert(topic.to_owned(), queues);
    }

    pub(crate) fn put(&mut self, topic: &str, queue: u32, tag: &str, body: &str) {
        let records = self.records.entry((topic.to_owned(), queue)).or_default();
        let offset = records.len() as u64;
        records.push(record(topic, queue, offset, tag, body));
    }

    /// A message whose body is zlib data.
    pub(crate) fn put_compressed(&mut self, topic: &str, queue: u32, zlib: &[u8]) {
        let records = self.records.entry((topic.to_owned(), queue)).or_default();
        records.push(compressed_record(topic, queue, records.len() as u64, zlib));
    }

    /// A message whose body does not have its checksum.
    pub(crate) fn put_damaged(&mut self, topic: &str, queue: u32) {
        self.put(topic, queue, "t", "damaged");
        let record = self.records.get_mut(&(topic.to_owned(), queue)).unwrap().last_mut().unwrap();
        let body = record.windows(7).position(|window| window == b"damaged").unwrap();
        record[body] ^= 1;
    }

    /// A record that is not one: its length is right, and nothing else.
    pub(crate) fn put_broken(&mut self, topic: &str, queue: u32) {
        self.put(topic, queue, "t", "broken");
        let record = self.records.get_mut(&(topic.to_owned(), queue)).unwrap().last_mut().unwrap();
        record[4..].fill(0xff);
    }

    pub(crate) fn committed_of(&self, group: &str, topic: &str, queue: u32) -> Option<i64> {
        self.committed.get(&(group.to_owned(), topic.to_owned(), queue)).copied()
    }

    /// Connections that gave a heartbeat.
    pub(crate) fn greeted(&self) -> Vec<usize> {
        self.heartbeats.keys().copied().collect()
    }

    pub(crate) fn forget(&mut self, connection: usize) {
        self.heartbeats.remove(&connection);
    }

    pub(crate) fn usual_answer(
        &mut self,
        address: SocketAddr,
        connection: usize,
        request: &RemotingCommand,
    ) -> Option<RemotingCommand> {
        if let Some(answer) = self.mezzo_answer(request) {
            return Some(answer);
        }
        let field = |name: &str| request.ext_value(name).unwrap_or_default().to_owned();
        let number = |name: &str| field(name).parse::<i64>().unwrap_or(0);
        let queue = || (field("topic"), u32::try_from(number("queueId")).unwrap());
        let reply = |code: ResponseCode| RemotingCommand::response(request.opaque, code);
        let offset =
            |offset: i64| reply(ResponseCode::SUCCESS).with_ext(vec![("offset".into(), offset.to_string())]);
        Some(match RequestCode(request.code) {
            RequestCode::GET_ROUTEINFO_BY_TOPIC => match self.topics.get(&field("topic")) {
                Some(queues) => reply(ResponseCode::SUCCESS).with_body(route(address, self.second, *queues)),
                None => reply(ResponseCode::TOPIC_NOT_EXIST),
            },
            RequestCode::GET_BROKER_CLUSTER_INFO => {
                let broker_addr_table = BTreeMap::from([(BROKER.to_owned(), broker_data(BROKER, address))]);
                let info = ClusterInfo { broker_addr_table, ..ClusterInfo::default() };
                reply(ResponseCode::SUCCESS).with_body(info.encode(KeyStyle::Unquoted))
            }
            RequestCode::HEART_BEAT => {
                let heartbeat = HeartbeatData::decode(&request.body).unwrap();
                for consumer in &heartbeat.consumer_data_set {
                    self.topics.entry(format!("%RETRY%{}", consumer.group_name)).or_insert(1);
                }
                self.heartbeats.insert(connection, heartbeat);
                self.heartbeat_reply(reply(ResponseCode::SUCCESS))
            }
            RequestCode::UNREGISTER_CLIENT => {
                self.heartbeats.remove(&connection);
                reply(ResponseCode::SUCCESS)
            }
            RequestCode::GET_CONSUMER_LIST_BY_GROUP => {
                let group = field("consumerGroup");
                let in_group = |heartbeat: &&HeartbeatData| {
                    heartbeat.consumer_data_set.iter().any(|consumer| consumer.group_name == group)
                };
                let members =
                    self.heartbeats.values().filter(in_group).map(|heartbeat| heartbeat.client_id.clone());
                let client_ids = members.chain(self.others.iter().cloned()).collect();
                reply(ResponseCode::SUCCESS).with_body(ConsumerList { client_ids }.encode())
            }
            RequestCode::SEND_MESSAGE_V2 => {
                self.sent += 1;
                let position = PhysicalOffset(u64::try_from(self.sent).unwrap() * 1_000);
                reply(ResponseCode::SUCCESS).with_ext(vec![
                    ("msgId".into(), OffsetMessageId::new(address, position).encode()),
                    ("queueId".into(), field("e")),
                    ("queueOffset".into(), self.sent.to_string()),
                    ("transactionId".into(), format!("tx-{}", self.sent)),
                ])
            }
            RequestCode::PULL_MESSAGE => {
                self.pull(&queue(), number("queueOffset"), number("maxMsgNums"), request)
            }
            RequestCode::QUERY_CONSUMER_OFFSET => {
                let (topic, id) = queue();
                match self.committed.get(&(field("consumerGroup"), topic, id)) {
                    Some(committed) => offset(*committed),
                    None => reply(ResponseCode::QUERY_NOT_FOUND),
                }
            }
            RequestCode::UPDATE_CONSUMER_OFFSET => {
                let (topic, id) = queue();
                self.committed.insert((field("consumerGroup"), topic, id), number("commitOffset"));
                reply(ResponseCode::SUCCESS)
            }
            RequestCode::GET_MAX_OFFSET => {
                offset(self.records.get(&queue()).map_or(0, |records| records.len() as i64))
            }
            RequestCode::GET_MIN_OFFSET => offset(0),
            RequestCode::SEARCH_OFFSET_BY_TIMESTAMP => offset(number("timestamp") % 100),
            RequestCode::LOCK_BATCH_MQ => {
                let mut locked = LockBatchRequest::decode(&request.body).unwrap().mq_set;
                locked.retain(|queue| {
                    !self.locked_elsewhere.iter().any(|other| i64::from(*other) == queue.queue_id)
                });
                reply(ResponseCode::SUCCESS).with_body(LockBatchReply { locked }.encode())
            }
            RequestCode::END_TRANSACTION
            | RequestCode::CONSUMER_SEND_MSG_BACK
            | RequestCode::UNLOCK_BATCH_MQ => reply(ResponseCode::SUCCESS),
            _ => reply(ResponseCode::REQUEST_CODE_NOT_SUPPORTED),
        })
    }

    fn pull(&self, queue: &(String, u32), from: i64, max: i64, request: &RemotingCommand) -> RemotingCommand {
        let records = self.records.get(queue).map_or(&[][..], Vec::as_slice);
        let from = usize::try_from(from).unwrap();
        let found: Vec<u8> =
            records.iter().skip(from).take(usize::try_from(max).unwrap()).flatten().copied().collect();
        let next = records.len().min(from + usize::try_from(max).unwrap()).max(from);
        let code = if found.is_empty() { ResponseCode::PULL_NOT_FOUND } else { ResponseCode::SUCCESS };
        let ext = [
            ("nextBeginOffset", next),
            ("minOffset", 0),
            ("maxOffset", records.len()),
            ("suggestWhichBrokerId", 0),
        ];
        RemotingCommand::response(request.opaque, code)
            .with_ext(ext.into_iter().map(|(name, value)| (name.into(), value.to_string())).collect())
            .with_body(found)
    }
}

fn route(address: SocketAddr, second: Option<SocketAddr>, queues: u32) -> Vec<u8> {
    let queues = i32::try_from(queues).unwrap();
    let brokers = [(BROKER, Some(address)), (SECOND_BROKER, second)];
    let brokers: Vec<_> = brokers.into_iter().filter_map(|(name, at)| at.map(|at| (name, at))).collect();
    let queue_data = |name: &str| QueueData {
        broker_name: name.into(),
        read_queue_nums: queues,
        write_queue_nums: queues,
        perm: 6,
        topic_sys_flag: 0,
    };
    let data = TopicRouteData {
        order_topic_conf: None,
        queue_datas: brokers.iter().map(|(name, _)| queue_data(name)).collect(),
        broker_datas: brokers.iter().map(|(name, address)| broker_data(name, *address)).collect(),
    };
    data.encode(KeyStyle::Unquoted)
}

fn broker_data(name: &str, address: SocketAddr) -> BrokerData {
    BrokerData {
        cluster: "c".into(),
        broker_name: name.into(),
        broker_addrs: BTreeMap::from([(0, address.to_string())]),
        zone_name: None,
        enable_acting_master: false,
    }
}
