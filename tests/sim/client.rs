//! A client's connection: requests as raw header fields, answers by their number, and what the broker asks unasked.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use mezzo_protocol::limits::FRAME_BYTES_MAX;
use mezzo_protocol::remoting::{HeaderEncoding, RemotingCommand, frame};
use tokio::sync::{mpsc, oneshot};

use crate::dice::Dice;
use crate::net::{ClientEnd, ClientReader};
use crate::trace::note;
use crate::world::World;

/// How long a client waits for an answer, as RocketMQ's do.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// What the Java client of RocketMQ 4.9.8 says of itself.
const CLIENT_VERSION: i32 = 409;

/// Header fields.
pub type Fields = Vec<(&'static str, String)>;

type Waiting = Arc<Mutex<BTreeMap<i32, oneshot::Sender<RemotingCommand>>>>;

/// A connection, cheap to share. It closes with its last owner.
pub struct Connection {
    world: Arc<World>,
    end: ClientEnd,
    encoding: HeaderEncoding,
    next_opaque: AtomicI32,
    waiting: Waiting,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connection {
    /// Connects, and gives what the broker will ask. Tries until somebody listens.
    pub async fn open(
        world: &Arc<World>,
        dice: &mut Dice,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<RemotingCommand>) {
        loop {
            tokio::time::sleep(dice.pause(0, 20)).await;
            let (client, broker) = world.net.connect();
            if world.host.accept(broker) {
                let waiting = Waiting::default();
                let (ask, asked) = mpsc::unbounded_channel();
                let reading = read(Arc::clone(world), client.reader(), Arc::clone(&waiting), ask);
                world.spawn(reading);
                let encoding = if dice.one_in(3) { HeaderEncoding::Binary } else { HeaderEncoding::Json };
                let connection = Self {
                    world: Arc::clone(world),
                    end: client,
                    encoding,
                    next_opaque: AtomicI32::new(1),
                    waiting,
                };
                return (Arc::new(connection), asked);
            }
            tokio::time::sleep(dice.pause(20, 500)).await;
            world.host.serves().await;
        }
    }

    /// A request, not sent yet.
    pub fn request(&self, code: i32, fields: Fields, body: &[u8]) -> RemotingCommand {
        let ext = fields.into_iter().map(|(key, value)| (key.into(), value)).collect();
        let opaque = self.next_opaque.fetch_add(1, Ordering::Relaxed);
        let mut command = RemotingCommand::request(code, ext, body.to_vec()).with_opaque(opaque);
        command.version = CLIENT_VERSION;
        command
    }

    /// Sends requests in one piece and wants no answer.
    pub fn post(&self, commands: &[RemotingCommand]) {
        let mut out = BytesMut::new();
        for command in commands {
            // the binary header has 16 bits for a code, and Mezzo's own ones are larger
            let fits = i16::try_from(command.code).is_ok();
            let encoding = if fits { self.encoding } else { HeaderEncoding::Json };
            command.encode(encoding, &mut out).expect("a simulated client's request fits a frame");
        }
        self.end.send(out.freeze());
    }

    /// Sends requests in one piece and waits for their answers; `None` where none came in time.
    pub async fn call_all(&self, commands: &[RemotingCommand]) -> Vec<Option<RemotingCommand>> {
        let mut answers = Vec::new();
        for command in commands {
            let (tell, told) = oneshot::channel();
            locked(&self.waiting).insert(command.opaque, tell);
            answers.push(told);
        }
        self.post(commands);
        let until = tokio::time::Instant::now() + PATIENCE;
        let mut got = Vec::new();
        for (answer, command) in answers.into_iter().zip(commands) {
            let answer = tokio::time::timeout_at(until, answer).await.ok().and_then(Result::ok);
            locked(&self.waiting).remove(&command.opaque);
            match &answer {
                Some(answer) => note!(
                    self.world.trace,
                    "client {}: {} answered {} {}",
                    self.end.id(),
                    command.code,
                    answer.code,
                    answer.remark.as_deref().unwrap_or_default()
                ),
                None => note!(self.world.trace, "client {}: {} not answered", self.end.id(), command.code),
            }
            got.push(answer);
        }
        got
    }

    /// Sends one request and waits for its answer.
    pub async fn call(&self, code: i32, fields: Fields, body: &[u8]) -> Option<RemotingCommand> {
        let request = self.request(code, fields, body);
        self.call_all(&[request]).await.pop().flatten()
    }
}

/// Reads until the connection ends.
async fn read(
    world: Arc<World>,
    mut reader: ClientReader,
    waiting: Waiting,
    ask: mpsc::UnboundedSender<RemotingCommand>,
) {
    let mut input = BytesMut::new();
    while reader.read(&mut input).await.is_some() {
        loop {
            let command = match frame::split(&mut input, FRAME_BYTES_MAX) {
                Ok(Some(frame)) => RemotingCommand::from_frame(&frame),
                Ok(None) => break,
                Err(error) => Err(error),
            };
            match command {
                Ok(command) if command.is_response() => {
                    if let Some(tell) = locked(&waiting).remove(&command.opaque) {
                        // whoever asked may have given up
                        let _ = tell.send(command);
                    }
                }
                Ok(command) => {
                    let _ = ask.send(command);
                }
                Err(error) => {
                    world.history().violation(format!("the broker sent no frame: {error}"));
                    return;
                }
            }
        }
    }
    // nobody will be answered any more
    locked(&waiting).clear();
}
