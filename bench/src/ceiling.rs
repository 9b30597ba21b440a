//! The ceiling: a server with the broker's structure (one current_thread runtime per core, accepted sockets handed
//! out, read what has arrived, parse every frame, answer with one write) and with the protocol crate's own parsing and
//! encoding, that keeps nothing. What a broker reaches beside it is the price of keeping messages.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use bytes::BytesMut;
use mezzo_protocol::ids::{OffsetMessageId, PhysicalOffset, QueueId, QueueOffset};
use mezzo_protocol::limits::FRAME_BYTES_MAX;
use mezzo_protocol::message::properties;
use mezzo_protocol::remoting::header::end_transaction::EndTransactionHeader;
use mezzo_protocol::remoting::header::send_message::SendMessageHeader;
use mezzo_protocol::remoting::{
    Frame, HeaderView, RemotingCommand, RequestCode, ResponseCode, SendReply, encode_send_reply, frame,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

/// Bytes asked for at once, as in the broker.
const READ_BYTES: usize = 256 * 1024;
/// Accepted sockets that wait for their reactor.
const HANDOVER_MAX: usize = 256;
/// The version that answers claim: 4.9.8.
const VERSION: i32 = 409;

/// Positions that answers name; they only have to differ.
static NEXT_POSITION: AtomicU64 = AtomicU64::new(0);

/// Serves until the process is ended.
///
/// # Errors
/// When the address cannot be listened on or the operating system refuses a thread.
pub fn serve(address: SocketAddr, reactors: usize) -> io::Result<()> {
    let mut senders = Vec::new();
    for index in 0..reactors.max(1) {
        let (sender, receiver) = mpsc::channel(HANDOVER_MAX);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new()
            .name(format!("reactor-{index}"))
            .spawn(move || LocalSet::new().block_on(&runtime, react(receiver, address)))?;
        senders.push(sender);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let listener = TcpListener::bind(address).await?;
        for sender in senders.iter().cycle() {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            // a reactor that has ended drops its sockets, which is all that can be done for them
            let _ = sender.send(stream.into_std()?).await;
        }
        Ok(())
    })
}

async fn react(mut sockets: mpsc::Receiver<std::net::TcpStream>, address: SocketAddr) {
    while let Some(socket) = sockets.recv().await {
        if let Ok(stream) = TcpStream::from_std(socket) {
            tokio::task::spawn_local(async move {
                // an error is a client that went away; there is nothing to undo
                let _ = answer(stream, address).await;
            });
        }
    }
}

async fn answer(mut stream: TcpStream, address: SocketAddr) -> io::Result<()> {
    let mut input = BytesMut::with_capacity(READ_BYTES);
    let mut out = BytesMut::with_capacity(READ_BYTES);
    loop {
        input.reserve(READ_BYTES);
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
        while let Some(frame) = frame::split(&mut input, FRAME_BYTES_MAX).map_err(io::Error::other)? {
            reply(&frame, address, &mut out).map_err(io::Error::other)?;
        }
        stream.write_all(&out).await?;
        out.clear();
    }
}

/// Parses one request as far as the broker would, and answers it.
fn reply(
    frame: &Frame,
    address: SocketAddr,
    out: &mut BytesMut,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let header = HeaderView::parse(frame)?;
    let position = NEXT_POSITION.fetch_add(1, Ordering::Relaxed);
    match header.request_code() {
        RequestCode::SEND_MESSAGE | RequestCode::SEND_MESSAGE_V2 => {
            let send = SendMessageHeader::decode(&header.ext)?;
            let key = properties::find(&*send.properties, properties::UNIQUE_KEY);
            let id = OffsetMessageId::new(address, PhysicalOffset(position)).encode();
            let reply = SendReply {
                opaque: header.opaque,
                version: VERSION,
                msg_id: &id,
                queue_id: QueueId(send.queue_id.cast_unsigned()),
                queue_offset: QueueOffset(position),
                transaction_id: key
                    .filter(|_| properties::is_true(&*send.properties, properties::TRANSACTION_PREPARED)),
            };
            encode_send_reply(out, frame.encoding, &reply)?;
        }
        RequestCode::END_TRANSACTION => {
            let end = EndTransactionHeader::decode(&header.ext)?;
            let offset = vec![("queueOffset".into(), end.commit_log_offset.to_string())];
            RemotingCommand::response_to(&header, ResponseCode::SUCCESS)
                .with_ext(offset)
                .encode(frame.encoding, out)?;
        }
        _ => RemotingCommand::response_to(&header, ResponseCode::SUCCESS).encode(frame.encoding, out)?,
    }
    Ok(())
}
