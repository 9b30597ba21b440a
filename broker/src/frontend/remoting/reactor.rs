//! Reactor threads and the acceptors that feed them. One thread per core, each with a runtime of its own: a connection
//! lives on one thread from accept to close, so its turns never hop between cores.

use std::{
    io,
    net::{SocketAddr, TcpStream as StdStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
};

use super::{
    complaint,
    connection::{self, Connection},
    outbound::{self, OutboundBounds},
    transport::Transport,
    turn::Role,
};
use crate::service::{Services, client_channel::ChannelId, stop::Stop};

/// Threads of one reactor that may wait for the disk at a time, for messages sent back or looked up by their position;
/// each holds one message. Further ones wait for their turn.
const DISK_THREADS_MAX: usize = 16;
/// Accepted sockets that may wait for one reactor.
const HANDOVER_MAX: usize = 256;
/// Pause after the operating system refused to accept (no file descriptors left): accepting again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// An accepted socket on its way to a reactor.
pub(crate) struct Accepted {
    stream: StdStream,
    remote: SocketAddr,
    role: Role,
    id: ChannelId,
    /// Its place among the connections that may be open, free again when the connection ends.
    permit: OwnedSemaphorePermit,
}

/// Hands accepted sockets to the reactors in turn.
#[derive(Clone)]
pub(crate) struct Handover {
    reactors: Vec<mpsc::Sender<Accepted>>,
    places: Arc<Semaphore>,
    next_id: Arc<AtomicU64>,
}

/// Starts `count` reactor threads for at most `connections_max` connections. They end once the stop signal is given and their connections have finished, at the
/// latest `limits.stop_timeout` later.
///
/// # Errors
/// The operating system refuses a thread or a runtime; the threads started so far end by the stop signal.
pub(crate) fn spawn(
    count: usize,
    connections_max: usize,
    services: &Arc<Services>,
    stop: &Stop,
) -> io::Result<(Handover, Vec<JoinHandle<()>>)> {
    let mut reactors = Vec::with_capacity(count);
    let mut threads = Vec::with_capacity(count);
    for index in 0..count {
        let (sender, receiver) = mpsc::channel(HANDOVER_MAX);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(DISK_THREADS_MAX)
            .build()?;
        let services = Arc::clone(services);
        let stop = stop.clone();
        threads.push(
            std::thread::Builder::new()
                .name(format!("reactor-{index}"))
                .spawn(move || runtime.block_on(react(services, receiver, stop)))?,
        );
        reactors.push(sender);
    }
    let places = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
    Ok((Handover { reactors, places, next_id: Arc::new(AtomicU64::new(1)) }, threads))
}

/// One reactor: takes sockets until the stop, then lets its connections finish.
async fn react(services: Arc<Services>, mut sockets: mpsc::Receiver<Accepted>, mut stop: Stop) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.stopped() => break,
            accepted = sockets.recv() => match accepted {
                Some(accepted) => open(&services, accepted, &stop, &mut connections),
                None => break,
            },
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection was lost to an error of the broker");
                }
            }
        }
    }
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(services.config.limits.stop_timeout, all).await.is_err() {
        tracing::warn!("connections were cut: they did not finish within limits.stop_timeout");
    }
}

fn open(services: &Arc<Services>, accepted: Accepted, stop: &Stop, connections: &mut JoinSet<()>) {
    let Accepted { stream, remote, role, id, permit } = accepted;
    let stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%remote, %error, "the reactor could not take a connection"),
    };
    let connection = connect(services, stream, remote, role, id, stop);
    connections.spawn(async move {
        connection::serve(connection).await;
        drop(permit);
    });
}

/// What serves a client on `stream`, within the bounds of the settings.
pub(crate) fn connect<T: Transport>(
    services: &Arc<Services>,
    stream: T,
    remote: SocketAddr,
    role: Role,
    id: ChannelId,
    stop: &Stop,
) -> Connection<T> {
    let limits = &services.config.limits;
    let bounds = OutboundBounds {
        frames: limits.outbound_frames,
        bytes: usize::try_from(limits.outbound_bytes.as_u64()).unwrap_or(usize::MAX),
        held: limits.held_pulls_per_connection,
        groups: limits.groups_per_connection,
    };
    let (metrics, in_flight) = (Arc::clone(&services.metrics), services.in_flight.share());
    let (channel, outbound) = outbound::channel(id, remote, bounds, metrics, in_flight);
    Connection { role, services: Arc::clone(services), channel, outbound, stream, stop: stop.clone() }
}

/// Accepts connections on one listener until the stop.
pub(crate) async fn accept(
    listener: TcpListener,
    role: Role,
    handover: Handover,
    services: Arc<Services>,
    mut stop: Stop,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.stopped() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => handover.place(stream, remote, role, &services).await,
            Err(error) => {
                complaint::cannot_accept(&error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Handover {
    async fn place(&self, stream: TcpStream, remote: SocketAddr, role: Role, services: &Services) {
        let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() else {
            complaint::refused(&services.metrics, remote);
            return;
        };
        services.metrics.connections_accepted.add(1);
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        // answers are written whole, so there is nothing to wait for
        let nodelay = stream.set_nodelay(true);
        let stream = match nodelay.and_then(|()| stream.into_std()) {
            Ok(stream) => stream,
            Err(error) => {
                return tracing::debug!(%remote, %error, "a connection was gone before it was served");
            }
        };
        let turn = usize::try_from(id).unwrap_or_default() % self.reactors.len().max(1);
        if let Some(reactor) = self.reactors.get(turn) {
            // an error means that the reactor has stopped; the socket closes
            let _ = reactor.send(Accepted { stream, remote, role, id: ChannelId(id), permit }).await;
        }
    }
}
