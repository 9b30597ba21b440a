//! A name server in front of several brokers: it leads every topic to all of them, as a real one does after the topic was
//! made on each. Mezzo's own name server speaks for its own broker only.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;
use mezzo_protocol::limits::FRAME_BYTES_MAX;
use mezzo_protocol::remoting::body::cluster::ClusterInfo;
use mezzo_protocol::remoting::body::route::{BrokerData, KeyStyle, QueueData, TopicRouteData};
use mezzo_protocol::remoting::{HeaderEncoding, RemotingCommand, RequestCode, ResponseCode, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Queues of each topic on each broker; a retry topic has one.
const QUEUES: i32 = 4;

type Brokers = Arc<Mutex<BTreeMap<String, SocketAddr>>>;

/// A running name server; it ends with this handle.
pub struct NameServer {
    address: SocketAddr,
    brokers: Brokers,
    listening: JoinHandle<()>,
}

impl NameServer {
    /// Leads to brokers by name and address. Needs a tokio runtime.
    ///
    /// # Panics
    /// If there is no free port.
    pub async fn start<'a>(brokers: impl IntoIterator<Item = (&'a str, SocketAddr)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let brokers = brokers.into_iter().map(|(name, address)| (name.to_owned(), address)).collect();
        let brokers: Brokers = Arc::new(Mutex::new(brokers));
        let known = Arc::clone(&brokers);
        let listening = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A conversation ends when its client hangs up.
                tokio::spawn(converse(stream, Arc::clone(&known)));
            }
        });
        Self { address, brokers, listening }
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// One more broker, or another address of one.
    pub fn register(&self, name: &str, address: SocketAddr) {
        let mut brokers = self.brokers.lock().unwrap_or_else(PoisonError::into_inner);
        brokers.insert(name.to_owned(), address);
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn converse(mut stream: TcpStream, brokers: Brokers) -> std::io::Result<()> {
    let mut input = BytesMut::new();
    while stream.read_buf(&mut input).await? > 0 {
        while let Some(frame) = frame::split(&mut input, FRAME_BYTES_MAX).map_err(std::io::Error::other)? {
            let request = RemotingCommand::from_frame(&frame).map_err(std::io::Error::other)?;
            let known = brokers.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let mut reply = BytesMut::new();
            answer(&request, &known)
                .encode(HeaderEncoding::Json, &mut reply)
                .map_err(std::io::Error::other)?;
            stream.write_all(&reply).await?;
        }
    }
    Ok(())
}

fn answer(request: &RemotingCommand, brokers: &BTreeMap<String, SocketAddr>) -> RemotingCommand {
    let success = RemotingCommand::response(request.opaque, ResponseCode::SUCCESS);
    let datas = || brokers.iter().map(|(name, address)| broker_data(name, *address));
    match RequestCode(request.code) {
        RequestCode::GET_ROUTEINFO_BY_TOPIC => {
            let topic = request.ext_value("topic").unwrap_or_default();
            let queues = if topic.starts_with("%RETRY%") { 1 } else { QUEUES };
            let route = TopicRouteData {
                order_topic_conf: None,
                queue_datas: brokers.keys().map(|name| queue_data(name, queues)).collect(),
                broker_datas: datas().collect(),
            };
            success.with_body(route.encode(KeyStyle::Standard))
        }
        RequestCode::GET_BROKER_CLUSTER_INFO => {
            let mut info = ClusterInfo::default();
            info.broker_addr_table.extend(datas().map(|broker| (broker.broker_name.clone(), broker)));
            success.with_body(info.encode(KeyStyle::Unquoted))
        }
        _ => RemotingCommand::response(request.opaque, ResponseCode::REQUEST_CODE_NOT_SUPPORTED),
    }
}

fn queue_data(broker_name: &str, queues: i32) -> QueueData {
    QueueData {
        broker_name: broker_name.to_owned(),
        read_queue_nums: queues,
        write_queue_nums: queues,
        perm: 6,
        topic_sys_flag: 0,
    }
}

fn broker_data(broker_name: &str, address: SocketAddr) -> BrokerData {
    BrokerData {
        cluster: "mezzo".to_owned(),
        broker_name: broker_name.to_owned(),
        broker_addrs: BTreeMap::from([(0, address.to_string())]),
        zone_name: None,
        enable_acting_master: false,
    }
}
