//! Sockets, the table of requests, and what waits: held pulls, delays, check-backs.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::BytesMut;
use mezzo_protocol::remoting::{RemotingCommand, RequestCode, frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::groups::Groups;
use super::messages::Stored;
use super::words::{self, Release, Words};

/// The broker's name in routes.
pub(super) const NAME: &str = "broker-a";
/// The topic whose route stands in for new ones, and its queues.
const STAND_IN: (&str, u32) = ("TBW102", 8);
const FRAME_MAX: usize = 8 << 20;

/// A queue's name.
pub(super) type QueueId = (String, u32);

/// A half message that is not settled, by its place among halves.
#[derive(Debug, Clone)]
pub(super) struct Half {
    pub(super) stored: Stored,
    pub(super) topic: String,
    pub(super) queue: u32,
    pub(super) group: String,
}

/// Everything the broker knows.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) topics: HashMap<String, u32>,
    pub(super) queues: HashMap<QueueId, Vec<Stored>>,
    pub(super) halves: BTreeMap<u64, Half>,
    pub(super) halves_so_far: u64,
    /// How many bytes the log has.
    pub(super) log: u64,
    pub(super) committed: HashMap<(String, String, u32), i64>,
    pub(super) groups: Groups,
}

/// One connection as the table of requests sees it.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) number: usize,
    pub(super) address: SocketAddr,
    /// Whether it came to the slave's port.
    pub(super) of_slave: bool,
    pub(super) writer: mpsc::UnboundedSender<Vec<u8>>,
}

pub(super) struct Shared {
    pub(super) release: Release,
    pub(super) master: SocketAddr,
    addresses: [String; 2],
    state: Mutex<State>,
    /// Counts what arrived in queues.
    pub(super) arrivals: watch::Sender<u64>,
}

/// A broker with its name server and its slave, for as long as it is held.
pub(crate) struct ApacheLike {
    shared: Arc<Shared>,
    listening: [JoinHandle<()>; 2],
}

impl ApacheLike {
    pub(crate) async fn start(release: Release) -> Self {
        let listeners = [
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        ];
        let addresses = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            release,
            master: addresses[0],
            addresses: addresses.map(|address| address.to_string()),
            state: Mutex::default(),
            arrivals: watch::Sender::new(0),
        });
        shared.state().topics.insert(STAND_IN.0.to_owned(), STAND_IN.1);
        let [master, slave] = listeners;
        let listening = [
            tokio::spawn(accept(Arc::clone(&shared), master, false)),
            tokio::spawn(accept(Arc::clone(&shared), slave, true)),
        ];
        Self { shared, listening }
    }

    /// Its name server.
    pub(crate) fn name_server(&self) -> String {
        self.shared.addresses[0].clone()
    }
}

impl Drop for ApacheLike {
    fn drop(&mut self) {
        self.listening.iter().for_each(JoinHandle::abort);
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, of_slave: bool) {
    let mut number = usize::from(of_slave);
    while let Ok((stream, address)) = listener.accept().await {
        number += 2;
        tokio::spawn(serve(Arc::clone(&shared), stream, address, number, of_slave));
    }
}

async fn serve(shared: Arc<Shared>, stream: TcpStream, address: SocketAddr, number: usize, of_slave: bool) {
    let (reader, mut writing) = stream.into_split();
    let (writer, mut outbox) = mpsc::unbounded_channel::<Vec<u8>>();
    tokio::spawn(async move {
        while let Some(bytes) = outbox.recv().await {
            if writing.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let peer = Peer { number, address, of_slave, writer };
    read_all(&shared, reader, &peer).await;
    shared.state().groups.forget(number);
    shared.tell_groups();
}

async fn read_all(shared: &Arc<Shared>, mut reader: OwnedReadHalf, peer: &Peer) {
    let mut buffer = BytesMut::new();
    while matches!(reader.read_buf(&mut buffer).await, Ok(read) if read > 0) {
        while let Some(frame) = frame::split(&mut buffer, FRAME_MAX).unwrap() {
            let request = RemotingCommand::from_frame(&frame).unwrap();
            if RequestCode(request.code) == RequestCode::PULL_MESSAGE {
                let (shared, peer) = (Arc::clone(shared), peer.clone());
                tokio::spawn(async move { shared.pull(&peer, &request).await });
            } else if let Some(reply) = shared.answer(peer, &request)
                && !request.is_oneway()
            {
                shared.say(&peer.writer, &reply);
            }
        }
    }
}

/// A request's field.
pub(super) fn field<'a>(request: &'a RemotingCommand, name: &str) -> &'a str {
    request.ext_value(name).unwrap_or_default()
}

/// A request's field that is a number; 0 without it.
pub(super) fn number(request: &RemotingCommand, name: &str) -> i64 {
    field(request, name).parse().unwrap_or(0)
}

/// The queue that a request of consumers names.
pub(super) fn queue_of(request: &RemotingCommand) -> QueueId {
    (field(request, "topic").to_owned(), u32::try_from(number(request, "queueId")).unwrap())
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn say(&self, writer: &mpsc::UnboundedSender<Vec<u8>>, words: &Words) {
        // a connection that is gone hears nothing
        let _ = writer.send(words.bytes(self.release));
    }

    fn answer(self: &Arc<Self>, peer: &Peer, request: &RemotingCommand) -> Option<Words> {
        let reply = |code: i32| Words::reply(request.opaque, code);
        Some(match RequestCode(request.code) {
            RequestCode::GET_ROUTEINFO_BY_TOPIC => self.route(request),
            RequestCode::GET_BROKER_CLUSTER_INFO => reply(0).body(words::cluster(NAME, &self.addresses)),
            RequestCode::HEART_BEAT => self.heartbeat(peer, request),
            RequestCode::UNREGISTER_CLIENT => self.unregister(peer, request),
            RequestCode::GET_CONSUMER_LIST_BY_GROUP => self.members(request),
            RequestCode::SEND_MESSAGE_V2 | RequestCode::SEND_BATCH_MESSAGE => self.send(peer, request),
            RequestCode::END_TRANSACTION => return self.end_transaction(request),
            RequestCode::CONSUMER_SEND_MSG_BACK => self.send_back(request),
            RequestCode::QUERY_CONSUMER_OFFSET => self.committed_offset(request),
            RequestCode::UPDATE_CONSUMER_OFFSET => self.commit(request),
            RequestCode::GET_MAX_OFFSET | RequestCode::GET_MIN_OFFSET => self.end_of_queue(request),
            RequestCode::SEARCH_OFFSET_BY_TIMESTAMP => self.offset_at_time(request),
            RequestCode::LOCK_BATCH_MQ | RequestCode::UNLOCK_BATCH_MQ => self.locks(request),
            RequestCode::DELETE_SUBSCRIPTIONGROUP => {
                let group = field(request, "groupName");
                let cleans = match self.release {
                    Release::V4 => field(request, "removeOffset"),
                    Release::V5 => field(request, "cleanOffset"),
                };
                self.state().committed.retain(|(known, _, _), _| known != group || cleans != "true");
                reply(0)
            }
            _ => reply(3).remark(format!(" request type {} not supported", request.code)),
        })
    }

    fn route(&self, request: &RemotingCommand) -> Words {
        let topic = field(request, "topic");
        let reply = |code| Words::reply(request.opaque, code);
        let Some(queues) = self.state().topics.get(topic).copied() else {
            let remark = format!(
                "No topic route info in name server for the topic: {topic}\nSee https://rocketmq.apache.org/docs/bestPractice/06FAQ \
                 for further details."
            );
            return reply(17).remark(remark);
        };
        let standard = request.version >= 401 || field(request, "acceptStandardJsonOnly") == "true";
        reply(0).body(words::route(NAME, &self.addresses, queues, standard))
    }

    /// Does `then` after a while.
    pub(super) fn later(self: &Arc<Self>, wait: Duration, then: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let shared = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            if let Some(shared) = shared.upgrade() {
                then(&shared);
            }
        });
    }
}
