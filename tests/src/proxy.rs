//! A proxy between a client and a broker that reads frames and does something to one of them: loses it, cuts the
//! connection around it, repeats it, keeps it back, or lets the connection fall silent without closing it.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use bytes::BytesMut;
use mezzo_protocol::limits::FRAME_BYTES_MAX;
use mezzo_protocol::remoting::{RemotingCommand, frame};

use crate::producer::{CHECK_TRANSACTION_STATE, END_TRANSACTION, SEND_MESSAGE_V2};
use crate::wait;

/// The arrows of the transaction protocol, each one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrow {
    /// A half message.
    Half,
    /// Its answer.
    HalfAnswer,
    /// A decision of the producer's own accord.
    End,
    /// Its answer.
    EndAnswer,
    /// The broker's question.
    Check,
    /// The decision that answers it.
    CheckAnswer,
}

/// What happens to the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is lost, and the connection breaks.
    LostAndCut,
    /// It arrives, and the connection breaks behind it.
    ArrivesAndCut,
    /// It is lost, as is all that follows in both directions; neither side learns of it: half open.
    LostInSilence,
    /// It arrives, and then all is silent.
    ArrivesInSilence,
    /// It arrives twice.
    Twice,
    /// It is kept back until [`Proxy::let_go`]; what comes behind it passes.
    KeptBack,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

#[derive(Default)]
struct Plan {
    armed: Option<(Arrow, Fault)>,
    struck: bool,
    kept: Option<(TcpStream, Vec<u8>)>,
}

/// Stands in front of a broker; each of its connections gets one of its own there.
pub struct Proxy {
    address: SocketAddr,
    plan: Arc<Mutex<Plan>>,
}

impl Proxy {
    /// In front of `broker`. It listens until the test program ends.
    pub fn before(broker: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let plan = Arc::<Mutex<Plan>>::default();
        let shared = Arc::clone(&plan);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // a broker that is gone is a connection that breaks
                let Ok(server) = TcpStream::connect(broker) else { continue };
                relay(&client, &server, &shared);
            }
        });
        Self { address, plan }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Does `fault` to the next frame that is this arrow.
    pub fn arm(&self, arrow: Arrow, fault: Fault) {
        *lock(&self.plan) = Plan { armed: Some((arrow, fault)), ..Plan::default() };
    }

    /// Does nothing more to what comes by. What fell silent stays silent.
    pub fn be_well(&self) {
        lock(&self.plan).armed = None;
    }

    /// Waits until the fault has happened.
    pub fn wait_until_struck(&self) {
        wait::until("the frame comes by", || lock(&self.plan).struck.then_some(()));
    }

    /// Whether the fault has happened.
    pub fn has_struck(&self) -> bool {
        lock(&self.plan).struck
    }

    /// Sends on what was kept back.
    pub fn let_go(&self) {
        let (mut to, bytes) = lock(&self.plan).kept.take().expect("something was kept back");
        to.write_all(&bytes).expect("the other side is still there");
    }
}

fn lock(plan: &Mutex<Plan>) -> MutexGuard<'_, Plan> {
    plan.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What both directions of one connection know.
#[derive(Default)]
struct Connection {
    /// Codes of requests by their opaque.
    asked: HashMap<i32, i32>,
    silent: bool,
}

fn relay(client: &TcpStream, server: &TcpStream, plan: &Arc<Mutex<Plan>>) {
    let connection = Arc::<Mutex<Connection>>::default();
    for (from, to, direction) in [(client, server, Direction::Up), (server, client, Direction::Down)] {
        let pair = from.try_clone().and_then(|from| Ok((from, to.try_clone()?)));
        let (from, to) = pair.expect("sockets can be shared");
        to.set_nodelay(true).expect("a connected socket takes options");
        let (plan, connection) = (Arc::clone(plan), Arc::clone(&connection));
        thread::spawn(move || pump(from, to, direction, &plan, &connection));
    }
}

fn pump(
    mut from: TcpStream,
    mut to: TcpStream,
    direction: Direction,
    plan: &Mutex<Plan>,
    connection: &Mutex<Connection>,
) {
    let mut buffer = BytesMut::new();
    let mut chunk = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut chunk) {
        buffer.extend_from_slice(&chunk[..read]);
        while let Ok(Some(view)) = frame::peek(&buffer, FRAME_BYTES_MAX) {
            let bytes = buffer.split_to(view.frame_len());
            let fault = judge(&bytes, direction, plan, connection);
            if connection.lock().unwrap_or_else(PoisonError::into_inner).silent {
                continue;
            }
            let written = match fault {
                None => to.write_all(&bytes),
                Some(Fault::Twice) => to.write_all(&[&bytes[..], &bytes[..]].concat()),
                Some(Fault::KeptBack) => {
                    lock(plan).kept = Some((to.try_clone().expect("sockets can be shared"), bytes.to_vec()));
                    Ok(())
                }
                Some(fault) => {
                    if matches!(fault, Fault::ArrivesAndCut | Fault::ArrivesInSilence) {
                        // the other side may be gone, which is a cut as well
                        let _ = to.write_all(&bytes);
                    }
                    if matches!(fault, Fault::LostInSilence | Fault::ArrivesInSilence) {
                        connection.lock().unwrap_or_else(PoisonError::into_inner).silent = true;
                        Ok(())
                    } else {
                        Err(std::io::ErrorKind::ConnectionAborted.into())
                    }
                }
            };
            if fault.is_some() {
                lock(plan).struck = true;
            }
            if written.is_err() {
                close(&from, &to);
                return;
            }
        }
    }
    // a side that closes closes the other; silence hides that, too
    if !connection.lock().unwrap_or_else(PoisonError::into_inner).silent {
        close(&from, &to);
    }
}

fn close(from: &TcpStream, to: &TcpStream) {
    // they may be closed already
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// What is to happen to this frame; a fault happens once.
fn judge(
    bytes: &[u8],
    direction: Direction,
    plan: &Mutex<Plan>,
    connection: &Mutex<Connection>,
) -> Option<Fault> {
    let frame = frame::split(&mut BytesMut::from(bytes), FRAME_BYTES_MAX).ok()??;
    let command = RemotingCommand::from_frame(&frame).ok()?;
    let arrow =
        arrow_of(&command, direction, &mut connection.lock().unwrap_or_else(PoisonError::into_inner))?;
    let mut plan = lock(plan);
    let (_, fault) = plan.armed.take_if(|(wanted, _)| *wanted == arrow)?;
    Some(fault)
}

fn arrow_of(command: &RemotingCommand, direction: Direction, connection: &mut Connection) -> Option<Arrow> {
    match (direction, command.is_response()) {
        (Direction::Up, false) => {
            connection.asked.insert(command.opaque, command.code);
            match command.code {
                SEND_MESSAGE_V2 => Some(Arrow::Half),
                END_TRANSACTION if command.ext_value("fromTransactionCheck") == Some("true") => {
                    Some(Arrow::CheckAnswer)
                }
                END_TRANSACTION => Some(Arrow::End),
                _ => None,
            }
        }
        (Direction::Down, true) => match connection.asked.remove(&command.opaque)? {
            SEND_MESSAGE_V2 => Some(Arrow::HalfAnswer),
            END_TRANSACTION => Some(Arrow::EndAnswer),
            _ => None,
        },
        (Direction::Down, false) if command.code == CHECK_TRANSACTION_STATE => Some(Arrow::Check),
        _ => None,
    }
}
