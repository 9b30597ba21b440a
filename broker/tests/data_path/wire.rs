//! A broker on ports of its own and in a folder that vanishes, a clock that is moved by hand, and a connection that says
//! what a foreign client would say.

use std::{
    collections::VecDeque,
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use mezzo_broker::{Broker, Config};
use mezzo_protocol::{
    message::{
        properties,
        record::{MessageView, decode_delivered},
    },
    remoting::{HeaderEncoding, RemotingCommand, frame},
    time::{Clock, Timestamp},
};
use tempfile::TempDir;

/// Longer than anything here takes; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
/// Largest frame these tests read.
const FRAME_MAX: usize = 16 << 20;

/// Stands still until it is moved.
struct ManualClock(AtomicU64);

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.0.load(Ordering::SeqCst))
    }
}

/// A running broker.
pub(crate) struct TestBroker {
    broker: Broker,
    clock: Arc<ManualClock>,
    _dir: TempDir,
}

impl TestBroker {
    /// Starts one with these settings (`section.key=value`) beside those that make it small.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let mut config = Config::default();
        let small = [
            "server.listen=127.0.0.1:0",
            "server.name_server_listen=127.0.0.1:0",
            "server.reactors=2",
            "store.segment_size=4MiB",
            "limits.message_size=512KiB",
        ];
        for setting in small.iter().chain(settings) {
            config.set(setting).unwrap();
        }
        config.store.dir = dir.path().join("data");
        let clock = Arc::new(ManualClock(AtomicU64::new(1_700_000_000_000)));
        let broker = Broker::start_blocking_with_clock(config, Arc::<ManualClock>::clone(&clock)).unwrap();
        Self { broker, clock, _dir: dir }
    }

    /// Moves time on.
    pub(crate) fn advance(&self, ms: u64) {
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now().as_ms()
    }

    /// A new connection to it.
    pub(crate) fn connect(&self) -> Wire {
        let stream = TcpStream::connect(self.broker.broker_address()).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Wire { stream, input: BytesMut::new(), opaque: 0, others: VecDeque::new() }
    }
}

/// One connection.
pub(crate) struct Wire {
    stream: TcpStream,
    input: BytesMut,
    opaque: i32,
    /// Frames that came while another was waited for.
    others: VecDeque<RemotingCommand>,
}

/// Header fields by name.
pub(crate) type Fields<'a> = &'a [(&'static str, &'a str)];

impl Wire {
    /// Sends a request; gives its opaque.
    pub(crate) fn send(&mut self, code: i32, fields: Fields<'_>, body: &[u8]) -> i32 {
        self.opaque += 1;
        self.write(&command(code, fields, body).with_opaque(self.opaque));
        self.opaque
    }

    /// Sends a request that wants no answer.
    pub(crate) fn oneway(&mut self, code: i32, fields: Fields<'_>, body: &[u8]) {
        self.write(&command(code, fields, body).oneway());
    }

    fn write(&mut self, command: &RemotingCommand) {
        let mut out = BytesMut::new();
        command.encode(HeaderEncoding::Json, &mut out).unwrap();
        self.stream.write_all(&out).unwrap();
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn call(&mut self, code: i32, fields: Fields<'_>, body: &[u8]) -> RemotingCommand {
        let opaque = self.send(code, fields, body);
        self.answer(opaque)
    }

    /// Waits for the answer to a request.
    pub(crate) fn answer(&mut self, opaque: i32) -> RemotingCommand {
        self.wait_for(|command| command.is_response() && command.opaque == opaque)
    }

    /// Waits for a request of the broker's.
    pub(crate) fn asked(&mut self, code: i32) -> RemotingCommand {
        self.wait_for(|command| !command.is_response() && command.code == code)
    }

    /// A request of the broker's that has come already: everything sent before an answer that we have seen.
    pub(crate) fn was_asked(&mut self, code: i32) -> bool {
        let _ = self.max_offset("nothing", 0);
        self.others.iter().any(|command| !command.is_response() && command.code == code)
    }

    fn wait_for(&mut self, wanted: impl Fn(&RemotingCommand) -> bool) -> RemotingCommand {
        if let Some(at) = self.others.iter().position(&wanted) {
            return self.others.remove(at).unwrap();
        }
        loop {
            while let Some(frame) = frame::split(&mut self.input, FRAME_MAX).unwrap() {
                let command = RemotingCommand::from_frame(&frame).unwrap();
                if wanted(&command) {
                    return command;
                }
                self.others.push_back(command);
            }
            let mut chunk = [0; 65_536];
            let read = self.stream.read(&mut chunk).expect("the broker answers in time");
            assert_ne!(read, 0, "the broker closed the connection");
            self.input.extend_from_slice(&chunk[..read]);
        }
    }

    /// A plain send to queue 0 of a topic that is created with one queue.
    pub(crate) fn put(&mut self, topic: &str, props: &[(&str, &str)], body: &[u8]) -> RemotingCommand {
        let encoded = properties::encode(props.iter().copied()).unwrap();
        self.call(310, &send_fields("senders", topic, "0", &encoded), body)
    }

    /// Pulls queue 0 without waiting.
    pub(crate) fn pull(&mut self, topic: &str, from: u64, tags: &str) -> RemotingCommand {
        self.call(11, &pull_fields(topic, &from.to_string(), tags, "4", "0"), b"")
    }

    /// GET_MAX_OFFSET of a queue, -1 if there is none.
    pub(crate) fn max_offset(&mut self, topic: &str, queue: u32) -> i64 {
        let reply = self.call(30, &[("topic", topic), ("queueId", &queue.to_string())], b"");
        reply.ext_value("offset").map_or(-1, |offset| offset.parse().unwrap())
    }

    /// Waits until the queue ends at `offset`: a driver had to be woken first.
    pub(crate) fn wait_for_max(&mut self, topic: &str, offset: i64) {
        let begin = std::time::Instant::now();
        while self.max_offset(topic, 0) != offset {
            assert!(begin.elapsed() < PATIENCE, "{topic} does not reach {offset}");
            std::thread::yield_now();
        }
    }

    /// Creates a consumer group.
    pub(crate) fn create_group(&mut self, group: &str) {
        let body = format!(
            r#"{{"groupName":"{group}","retryQueueNums":1,"retryMaxTimes":16,"consumeEnable":true}}"#
        );
        assert_eq!(self.call(200, &[], body.as_bytes()).code, 0);
    }
}

fn command(code: i32, fields: Fields<'_>, body: &[u8]) -> RemotingCommand {
    let ext = fields.iter().map(|(name, value)| ((*name).into(), (*value).to_owned())).collect();
    RemotingCommand::request(code, ext, body.to_vec())
}

/// The fields of SEND_MESSAGE_V2.
pub(crate) fn send_fields<'a>(
    group: &'a str,
    topic: &'a str,
    queue: &'a str,
    props: &'a str,
) -> Vec<(&'static str, &'a str)> {
    vec![
        ("a", group),
        ("b", topic),
        ("c", "TBW102"),
        ("d", "1"),
        ("e", queue),
        ("f", "0"),
        ("g", "1700000000000"),
        ("h", "0"),
        ("i", props),
        ("j", "0"),
        ("k", "0"),
        ("m", "0"),
    ]
}

/// The fields of PULL_MESSAGE; sys flag 4 carries the subscription, 6 also waits.
pub(crate) fn pull_fields<'a>(
    topic: &'a str,
    from: &'a str,
    tags: &'a str,
    sys_flag: &'a str,
    suspend_ms: &'a str,
) -> Vec<(&'static str, &'a str)> {
    vec![
        ("consumerGroup", "g"),
        ("topic", topic),
        ("queueId", "0"),
        ("queueOffset", from),
        ("maxMsgNums", "32"),
        ("sysFlag", sys_flag),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", suspend_ms),
        ("subscription", tags),
        ("subVersion", "0"),
    ]
}

/// The bodies of the messages of a pull's answer.
pub(crate) fn bodies(reply: &RemotingCommand) -> Vec<String> {
    messages(reply).iter().map(|view| String::from_utf8(view.body().to_vec()).unwrap()).collect()
}

/// The messages of a pull's answer.
pub(crate) fn messages(reply: &RemotingCommand) -> Vec<MessageView<'_>> {
    decode_delivered(&reply.body).map(|view| view.unwrap()).collect()
}
