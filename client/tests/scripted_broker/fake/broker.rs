//! The sockets of the fake broker, its script, and its memory of requests.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use mezzo_client::Client;
use mezzo_client::config::{BackoffPolicy, ClientConfig};
use mezzo_protocol::remoting::{
    HeaderEncoding, LanguageCode, RemotingCommand, RequestCode, ResponseCode, frame,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::answers::Queues;

/// Longest wait of a test for something that must happen.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the broker does with a request instead of answering it as usual.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// Answers with this code.
    Code(ResponseCode),
    /// Answers with this code and these fields.
    Fields(ResponseCode, Vec<(&'static str, String)>),
    /// Never answers.
    Silence,
    /// Closes the connection without an answer.
    HangUp,
}

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) connection: usize,
    pub(crate) encoding: HeaderEncoding,
    pub(crate) command: RemotingCommand,
}

impl Seen {
    pub(crate) fn code(&self) -> RequestCode {
        RequestCode(self.command.code)
    }

    pub(crate) fn field(&self, name: &str) -> &str {
        self.command.ext_value(name).unwrap_or_default()
    }
}

#[derive(Default)]
pub(crate) struct Memory {
    seen: Vec<Seen>,
    script: HashMap<i32, VecDeque<Action>>,
    always: HashMap<i32, Action>,
    /// Where to write to each connection; `None` closes it.
    writers: HashMap<usize, mpsc::UnboundedSender<Option<RemotingCommand>>>,
    connections: usize,
    open: usize,
    /// Takes everything and says nothing, as a machine does that lost its power behind a network that still stands.
    pub(crate) frozen: bool,
    /// Hangs up when it gets a binary header, as a proxy does that reads only JSON.
    pub(crate) json_only: bool,
    /// Answers with binary headers.
    pub(crate) writes_binary: bool,
    /// What its answers say of it.
    pub(crate) claims: Option<(LanguageCode, i32)>,
    /// The address that routes lead to, if not its own.
    pub(crate) advertised: Option<SocketAddr>,
    pub(crate) queues: Queues,
}

impl Memory {
    /// All requests with this code, in their order.
    pub(crate) fn all(&self, code: RequestCode) -> Vec<Seen> {
        self.seen.iter().filter(|seen| seen.code() == code).cloned().collect()
    }

    /// How often a request with this code came for a topic.
    pub(crate) fn count(&self, code: RequestCode, topic: &str) -> usize {
        self.seen.iter().filter(|seen| seen.code() == code && seen.field("topic") == topic).count()
    }
}

pub(crate) struct Shared {
    pub(crate) address: SocketAddr,
    pub(crate) memory: Mutex<Memory>,
    pub(crate) happened: Notify,
}

pub(crate) struct FakeBroker {
    pub(crate) shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

impl FakeBroker {
    pub(crate) async fn start() -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    /// Serves a connection that came another way than by its port.
    pub(crate) fn attach(&self, stream: impl AsyncRead + AsyncWrite + Send + 'static) {
        tokio::spawn(serve(Arc::clone(&self.shared), stream));
    }

    fn listen(listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { address, memory: Mutex::default(), happened: Notify::new() });
        let listening = tokio::spawn(accept(Arc::clone(&shared), listener));
        Self { shared, listening }
    }

    pub(crate) fn address(&self) -> String {
        self.shared.address.to_string()
    }

    /// A client of this broker with short times.
    pub(crate) async fn client(&self) -> Client {
        Client::builder(self.address()).config(settings()).build().await.unwrap()
    }

    /// The next requests with this code are answered like this, one action each.
    pub(crate) fn script(&self, code: RequestCode, actions: impl IntoIterator<Item = Action>) {
        self.shared.lock().script.entry(code.0).or_default().extend(actions);
    }

    /// All requests with this code are answered like this, until told otherwise.
    pub(crate) fn always(&self, code: RequestCode, action: Option<Action>) {
        let mut memory = self.shared.lock();
        match action {
            Some(action) => memory.always.insert(code.0, action),
            None => memory.always.remove(&code.0),
        };
    }

    /// Stops listening and closes all connections; returns when the other side has noticed.
    pub(crate) async fn go_down(&mut self) {
        self.listening.abort();
        let _ = (&mut self.listening).await;
        self.hang_up();
        self.wait_until("the end of all connections", |memory| (memory.open == 0).then_some(())).await;
    }

    /// Listens again at the same address.
    pub(crate) async fn come_back(&mut self) {
        let listener = TcpListener::bind(self.shared.address).await.unwrap();
        self.listening = tokio::spawn(accept(Arc::clone(&self.shared), listener));
    }

    /// Closes all connections.
    pub(crate) fn hang_up(&self) {
        for writer in self.shared.lock().writers.drain().map(|(_, writer)| writer) {
            let _ = writer.send(None);
        }
    }

    /// Sends a command to every connection that gave a heartbeat.
    pub(crate) fn push(&self, command: &RemotingCommand) {
        let memory = self.shared.lock();
        for connection in memory.queues.greeted() {
            if let Some(writer) = memory.writers.get(&connection) {
                let _ = writer.send(Some(command.clone()));
            }
        }
    }

    /// All requests with this code so far.
    pub(crate) fn all(&self, code: RequestCode) -> Vec<Seen> {
        self.shared.lock().all(code)
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.lock().connections
    }

    /// Waits for a request that fits.
    pub(crate) async fn wait(&self, what: &str, fits: impl Fn(&Seen) -> bool) -> Seen {
        self.wait_until(what, |memory| memory.seen.iter().find(|seen| fits(seen)).cloned()).await
    }

    /// Waits for the `count`th request with this code.
    pub(crate) async fn wait_nth(&self, code: RequestCode, count: usize) -> Seen {
        let what = format!("request {} number {count}", code.name());
        self.wait_until(&what, |memory| {
            memory.seen.iter().filter(|seen| seen.code() == code).nth(count - 1).cloned()
        })
        .await
    }

    /// Waits until `find` finds something.
    pub(crate) async fn wait_until<T>(&self, what: &str, find: impl Fn(&Memory) -> Option<T>) -> T {
        let found = async {
            loop {
                let happened = self.shared.happened.notified();
                tokio::pin!(happened);
                happened.as_mut().enable();
                if let Some(found) = find(&self.shared.lock()) {
                    return found;
                }
                happened.await;
            }
        };
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(found) => found,
            Err(_) => panic!("{what} did not happen"),
        }
    }
}

impl Drop for FakeBroker {
    fn drop(&mut self) {
        self.listening.abort();
        self.hang_up();
    }
}

impl Shared {
    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap()
    }
}

/// Client settings with times short enough for a test.
pub(crate) fn settings() -> ClientConfig {
    ClientConfig::default()
        .heartbeat_interval_ms(300)
        .request_timeout_ms(2_000)
        .reconnect(BackoffPolicy::new(5, 50))
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        tokio::spawn(serve(Arc::clone(&shared), stream));
    }
}

async fn serve(shared: Arc<Shared>, stream: impl AsyncRead + AsyncWrite + Send + 'static) {
    let (sender, outgoing) = mpsc::unbounded_channel();
    let connection = {
        let mut memory = shared.lock();
        memory.connections += 1;
        memory.open += 1;
        let connection = memory.connections;
        memory.writers.insert(connection, sender.clone());
        connection
    };
    let (mut reader, mut writer) = tokio::io::split(stream);
    converse(&shared, connection, (&mut reader, &mut writer), (sender, outgoing)).await;
    // Half closed first: when the other side closes as well, it has noticed.
    let _ = writer.shutdown().await;
    let mut rest = BytesMut::new();
    while matches!(reader.read_buf(&mut rest).await, Ok(1..)) {}
    let mut memory = shared.lock();
    memory.open -= 1;
    memory.writers.remove(&connection);
    memory.queues.forget(connection);
    drop(memory);
    shared.happened.notify_waiters();
}

type Outgoing = Option<RemotingCommand>;

async fn converse(
    shared: &Arc<Shared>,
    connection: usize,
    (reader, writer): (&mut (impl AsyncRead + Unpin), &mut (impl AsyncWrite + Unpin)),
    (sender, mut outgoing): (mpsc::UnboundedSender<Outgoing>, mpsc::UnboundedReceiver<Outgoing>),
) {
    let mut buffer = BytesMut::new();
    loop {
        while let Some(frame) = frame::split(&mut buffer, 1 << 24).unwrap() {
            if frame.encoding == HeaderEncoding::Binary && shared.lock().json_only {
                return;
            }
            let command = RemotingCommand::from_frame(&frame).unwrap();
            if !answer(shared, Seen { connection, encoding: frame.encoding, command }, &sender) {
                return;
            }
        }
        tokio::select! {
            read = reader.read_buf(&mut buffer) => match read {
                Ok(1..) => {}
                _ => return,
            },
            command = outgoing.recv() => {
                let Some(Some(command)) = command else { return };
                let mut bytes = BytesMut::new();
                let binary = shared.lock().writes_binary;
                let encoding = if binary { HeaderEncoding::Binary } else { HeaderEncoding::Json };
                command.encode(encoding, &mut bytes).unwrap();
                if writer.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Does what the script or habit says; `false` hangs up.
fn answer(shared: &Arc<Shared>, seen: Seen, writer: &mpsc::UnboundedSender<Option<RemotingCommand>>) -> bool {
    let mut memory = shared.lock();
    let (connection, command) = (seen.connection, seen.command.clone());
    memory.seen.push(seen);
    let scripted = memory.script.get_mut(&command.code).and_then(VecDeque::pop_front);
    let action = scripted.or_else(|| memory.always.get(&command.code).cloned());
    let reply = match action {
        Some(Action::HangUp) => {
            drop(memory);
            shared.happened.notify_waiters();
            return false;
        }
        Some(Action::Silence) => None,
        _ if memory.frozen => None,
        Some(Action::Code(code)) => {
            Some(RemotingCommand::response(command.opaque, code).with_remark("scripted"))
        }
        Some(Action::Fields(code, fields)) => {
            let ext = fields.into_iter().map(|(name, value)| (name.into(), value)).collect();
            Some(RemotingCommand::response(command.opaque, code).with_ext(ext))
        }
        None if command.is_response() => None,
        None => {
            let address = memory.advertised.unwrap_or(shared.address);
            memory.queues.usual_answer(address, connection, &command)
        }
    };
    let claims = memory.claims;
    drop(memory);
    shared.happened.notify_waiters();
    let reply = reply.map(|mut reply| {
        if let Some((language, version)) = claims {
            (reply.language, reply.version) = (language, version);
        }
        reply
    });
    if let Some(reply) = reply.filter(|_| !command.is_oneway() && !command.is_response()) {
        let held = reply.code == ResponseCode::PULL_NOT_FOUND.0;
        let writer = writer.clone();
        tokio::spawn(async move {
            if held {
                // A broker holds a pull that finds nothing; this one for a moment.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let _ = writer.send(Some(reply));
        });
    }
    true
}
