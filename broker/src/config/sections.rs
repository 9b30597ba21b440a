//! Every setting, once: its name, type, default, and what it does. A doc comment here is both the field's documentation
//! and the help that `mezzo config` prints.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use bytesize::ByteSize;
use mezzo_protocol::check_policy::Exhausted;

use super::{
    key::Key,
    value::{Ack, AtMax, Value},
};

/// Declares the sections, their defaults and the table of keys.
macro_rules! sections {
    ($(
        $(#[doc = $section_doc:literal])+
        $section:ident: $name:ident {
            $( $(#[doc = $doc:literal])+ $key:ident: $kind:ty = $default:expr; )+
        }
    )+) => {
        $(
            $(#[doc = $section_doc])+
            #[derive(Debug, Clone, PartialEq)]
            pub struct $name {
                $( $(#[doc = $doc])+ pub $key: $kind, )+
            }

            impl Default for $name {
                fn default() -> Self {
                    Self { $( $key: $default, )+ }
                }
            }
        )+

        /// All settings of a broker. `Config::default()` is what runs without a file and without flags.
        #[derive(Debug, Clone, PartialEq, Default)]
        pub struct Config {
            $( $(#[doc = $section_doc])+ pub $section: $name, )+
        }

        /// One row per setting, in the order of declaration.
        pub(super) const KEYS: &[Key] = &[ $( $(
            Key {
                section: stringify!($section),
                name: stringify!($key),
                help: &[$($doc),+],
                expected: <$kind as Value>::EXPECTED,
                bare: <$kind as Value>::BARE,
                set: |config, text| {
                    config.$section.$key = <$kind as Value>::parse(text)?;
                    Some(())
                },
                show: |config| Value::show(&config.$section.$key),
            },
        )+ )+ ];

        /// The sections with their documentation, in the order of declaration.
        pub(super) const SECTIONS: &[(&str, &[&str])] = &[ $( (stringify!($section), &[$($section_doc),+]), )+ ];
    };
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn localhost(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port)
}

sections! {
    /// Where the broker listens and how many threads serve.
    server: Server {
        /// The broker's address. There is no access control yet: listen on trusted networks only. Port 0 takes a free one.
        listen: SocketAddr = localhost(10911);
        /// The name server's address, to be given to clients as "name server".
        name_server_listen: SocketAddr = localhost(9876);
        /// HOST or HOST:PORT under which clients reach the broker; it stands in routes and message ids. A name is resolved
        /// once, at start. Empty: the address that is listened on.
        advertise: Option<String> = None;
        /// Threads that serve connections. 0: one per processor core.
        reactors: usize = 0;
    }

    /// What the broker is called.
    broker: Broker {
        /// The broker's name in routes; clients key their tables by it, so it must not change while they run.
        name: String = "broker-a".to_owned();
        /// The cluster's name in routes.
        cluster: String = "DefaultCluster".to_owned();
    }

    /// The log: when it answers, how it is cut, how long it keeps.
    store: Store {
        /// The data folder; created when missing. One running broker owns it.
        dir: PathBuf = PathBuf::from("./mezzo-data");
        /// When a send or a decision is answered. "durable": when it is on the disk. "memory": when the operating system has
        /// it, which a power cut can take back.
        ack: Ack = Ack::Durable;
        /// Bytes of one log segment. Fixed when the data folder is created. A segment holds at least four of the largest
        /// message.
        segment_size: ByteSize = ByteSize::mib(128);
        /// How long a message is kept after it became visible.
        retention: Duration = secs(72 * 3600);
        /// Bytes that the data folder may take: log, prepared segments, queues, history and state. 0: no bound but the disk.
        /// Open half and delayed messages may take half of it; the history of decisions takes up to history.max_bytes.
        max_bytes: ByteSize = ByteSize(0);
        /// What gives way when that is reached and nothing is older than the retention. "reject": new messages, until there
        /// is room. "delete-oldest": the oldest visible messages, read or not; what was not read is counted and logged.
        at_max_bytes: AtMax = AtMax::Reject;
        /// The newest part of the log that is read through memory; older messages are read from the disk on another thread.
        hot_size: ByteSize = ByteSize::gib(1);
        /// A checkpoint is written after this many bytes of log; more means fewer writes and a longer start.
        checkpoint_size: ByteSize = ByteSize::mib(256);
        /// At ack "memory": the longest time until what was answered is on the disk.
        flush_interval: Duration = Duration::from_millis(500);
        /// Bytes per second that are read again in the background (closed segments, base, history), so that damage is found
        /// before somebody needs the bytes. 0 turns it off.
        scrub_rate: ByteSize = ByteSize::mib(4);
        /// Time from the end of one such round to the beginning of the next.
        scrub_interval: Duration = secs(24 * 3600);
    }

    /// What was decided: how long it can be asked for, by a repeated END or by an operator.
    history: History {
        /// How long after it was taken a decision is remembered. Never less than store.retention.
        horizon: Duration = secs(7 * 24 * 3600);
        /// Bytes of decisions kept, about 60 each; beyond, the oldest go before the horizon, but never those whose part of
        /// the log is still there.
        max_bytes: ByteSize = ByteSize::gib(1);
    }

    /// Transactions: when an undecided one is asked about, and when asking ends.
    transaction: Transaction {
        /// Age at which an undecided transaction is asked about first.
        timeout: Duration = secs(6);
        /// Time from one ask to the next.
        check_interval: Duration = secs(30);
        /// Each pause between asks in percent of the one before, 100 to 1000; at most an hour. 0: five plain intervals, then
        /// doubling up to sixteen times.
        backoff: u32 = 0;
        /// Asks after which the transaction is parked: asked no more, still open for a decision, never dropped.
        check_max: u32 = 15;
        /// Age at which it is parked even if fewer asks counted.
        max_age: Duration = secs(24 * 3600);
        /// What asking ends with: "park" makes the transaction IN_DOUBT, "rollback" rolls it back. Do not roll back what a
        /// database may already have committed. Producer groups and messages may say otherwise.
        then: Exhausted = Exhausted::Park;
        /// Asks per second that the broker sends at most, over all producers.
        check_rate: u32 = 2_000;
    }

    /// Topics that clients create by sending to them.
    topic: Topic {
        /// Whether a send to an unknown topic creates it.
        auto_create: bool = true;
        /// Queues of a topic created that way; a client may ask for fewer.
        default_queues: u32 = 4;
    }

    /// Send de-duplication, for topics with the attribute "dedup" (retries or strict).
    dedup: Dedup {
        /// Bytes of the table that repeats are told by, taken when the first topic asks for it; a send takes 40, and a
        /// quarter of the table is room. When it is full, the older half is forgotten.
        table_bytes: ByteSize = ByteSize::mib(64);
        /// How long after a send its repeat is told.
        window: Duration = secs(15 * 60);
        /// An answer that was written this long after its send came, or later, may have found nobody waiting: a repeat of
        /// that send is no new message. RocketMQ's clients wait 3 s; set it to what the impatient of yours wait.
        answer_timeout: Duration = secs(3);
    }

    /// Watching the broker from outside, over HTTP.
    metrics: Metrics {
        /// Where /metrics (for Prometheus), /healthz and /readyz are served, such as 127.0.0.1:5557. Empty: nowhere. There is
        /// no access control: whoever reaches it reads the names of producer groups.
        listen: Option<SocketAddr> = None;
    }

    /// The bound of everything that clients could make grow. Past a bound a client gets a clear refusal or has to wait.
    limits: Limits {
        /// Connections open at once, broker and name server together; more are closed at once.
        connections: usize = 10_000;
        /// Bytes of one message's body.
        message_size: ByteSize = ByteSize::mib(4);
        /// Bytes of one request, batches included; a longer one closes its connection.
        frame_size: ByteSize = ByteSize::mib(16);
        /// Bytes of requests that are not answered yet and of answers that are not read yet, over all connections. Beyond,
        /// sends are refused as busy and pulls by flow control, and all else is served: decisions, offsets, heartbeats. The
        /// first 64KiB of each connection's requests are not counted; the memory behind a byte may be three.
        in_flight_bytes: ByteSize = ByteSize::mib(512);
        /// Half and delayed messages open at once; more are refused as busy.
        open_messages: usize = 1_000_000;
        /// Answers and notices that wait for one client to read them.
        outbound_frames: usize = 1_024;
        /// Bytes that wait for one client to read them.
        outbound_bytes: ByteSize = ByteSize::mib(16);
        /// How long one write to a client may take before its connection is closed.
        write_timeout: Duration = secs(15);
        /// How long a request may take from its first byte to its last before its connection is closed.
        frame_timeout: Duration = secs(30);
        /// A connection on which nothing arrives for this long is closed. Clients send a heartbeat every 30 s.
        idle_timeout: Duration = secs(180);
        /// A client whose last heartbeat is older than this has left its groups.
        heartbeat_timeout: Duration = secs(120);
        /// Pulls that wait for messages, over all connections; more are answered at once as empty.
        held_pulls: usize = 100_000;
        /// Pulls of one connection that wait for messages or for the disk.
        held_pulls_per_connection: usize = 4_096;
        /// Messages in one pull's answer.
        pull_messages: u32 = 256;
        /// Bytes in one pull's answer; a single larger message is still answered.
        pull_bytes: ByteSize = ByteSize::mib(1);
        /// Asks about transactions that one connection may have unanswered.
        unanswered_checks: usize = 256;
        /// Topics, those that clients created and those made for retries and dead letters together.
        topics: usize = 50_000;
        /// Consumer groups, those that appeared with their first heartbeat and those that were configured together.
        groups: usize = 50_000;
        /// Queues of one topic.
        queues_per_topic: u32 = 1_024;
        /// Consumer and producer groups that one connection may be a member of, each kind by itself.
        groups_per_connection: usize = 1_024;
        /// Topics that one consumer group may subscribe to.
        subscriptions_per_group: usize = 1_024;
        /// Bytes that the subscriptions of one consumer group take: topics and expressions. A heartbeat beyond is refused.
        subscription_bytes_per_group: ByteSize = ByteSize::mib(1);
        /// Bytes that members and subscriptions of all consumer groups take together. A heartbeat that needs more is refused as
        /// busy; those who are known already stay.
        membership_bytes: ByteSize = ByteSize::mib(256);
        /// Queues locked by consumers of ordered messages, over all groups.
        locked_queues: usize = 1_000_000;
        /// How long a stop waits for requests in flight.
        stop_timeout: Duration = secs(5);
    }
}
