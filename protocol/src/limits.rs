//! Every bound of the wire in one place, with the relations between them checked at compile time.
//!
//! These are hard bounds of the encodings or defaults that a configuration may lower. What lies beyond one is refused
//! with an error; it is never cut silently and never makes memory grow.

/// Largest remoting frame that is read, in bytes after the length field, unless the configuration says less.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

/// Bytes of the length field in front of each frame.
pub const FRAME_LENGTH_BYTES: usize = 4;

/// Largest remoting header, in bytes. The properties of a message travel inside the header, where JSON writes each of
/// their separators as six bytes; the rest leaves room for topic, group and credentials.
pub const HEADER_BYTES_MAX: usize = (64 << 10) + 6 * PROPERTIES_BYTES_MAX;

/// Most extension fields in one remoting header. The widest request known (a send with credentials and the name server
/// additions of RocketMQ 5) has 24.
pub const EXT_FIELDS_MAX: usize = 64;

/// Deepest nesting of objects and arrays in a JSON header or body.
pub const JSON_DEPTH_MAX: usize = 32;

/// Largest JSON body that is parsed (heartbeats, queue locks, routes), in bytes.
pub const JSON_BODY_BYTES_MAX: usize = 4 << 20;

/// Longest remark of a reply, in bytes; longer ones are clipped when written.
pub const REMARK_BYTES_MAX: usize = 4 << 10;

/// Longest ordinary topic name, in bytes: its length is one signed byte in the first message encoding.
pub const TOPIC_BYTES_MAX: usize = 127;

/// Longest name of a retry or dead-letter topic, in bytes: these use the second message encoding when needed.
pub const GROUP_TOPIC_BYTES_MAX: usize = 255;

/// Longest group name, in bytes: the longest whose retry topic is still a valid topic name.
pub const GROUP_BYTES_MAX: usize = GROUP_TOPIC_BYTES_MAX - "%RETRY%".len();

/// Longest client id, in bytes: address, instance name and unit name joined by `@`.
pub const CLIENT_ID_BYTES_MAX: usize = 1024;

/// Longest encoded properties of a message, in bytes: their length is a signed 16-bit integer.
pub const PROPERTIES_BYTES_MAX: usize = i16::MAX as usize;

/// Largest message body, in bytes (after the client's compression).
pub const BODY_BYTES_MAX: usize = 4 << 20;

/// Most producer groups with a check-back policy of their own.
pub const CHECK_POLICIES_MAX: usize = 10_000;

/// Most messages in one batch (request code 320).
pub const BATCH_MESSAGES_MAX: usize = 4096;

/// Largest stored message in RocketMQ's encoding, in bytes: V6 hosts, second magic, longest topic, body, properties.
pub const RECORD_BYTES_MAX: usize =
    RECORD_FIXED_BYTES_MAX + BODY_BYTES_MAX + GROUP_TOPIC_BYTES_MAX + PROPERTIES_BYTES_MAX;

/// Bytes of a stored message apart from body, topic and properties when both hosts are V6 and the topic is long.
pub const RECORD_FIXED_BYTES_MAX: usize = 88 + 12 + 12 + 2 + 2;

/// Most tags in one subscription expression.
pub const SUBSCRIPTION_TAGS_MAX: usize = 1024;

/// Longest subscription expression, in bytes.
pub const SUBSCRIPTION_BYTES_MAX: usize = 32 << 10;

/// Longest name of an expression type, in bytes: `TAG`, `SQL92`, and room for what others may call theirs.
pub const EXPRESSION_TYPE_BYTES_MAX: usize = 64;

/// Most messages that one pull returns, whatever the client asks for.
pub const PULL_MESSAGES_MAX: usize = 1024;

/// Most transactions in one answer to MEZZO_LIST_TRANSACTIONS.
pub const TRANSACTIONS_PER_PAGE_MAX: usize = 500;

/// Longest id that a client gives to a transaction of many messages, in bytes.
pub const TRANSACTION_ID_BYTES_MAX: usize = 128;

/// Most messages of one transaction.
pub const TRANSACTION_MESSAGES_MAX: u16 = 1_000;

/// Most bytes of log that the messages of one transaction take together.
pub const TRANSACTION_BYTES_MAX: u64 = 64 << 20;

/// Most queues whose offsets move with one transaction.
pub const TRANSACTION_OFFSETS_MAX: usize = 1_024;

/// Shortest lease of a queue, in milliseconds.
pub const LEASE_TTL_MS_MIN: u64 = 1_000;

/// Longest lease of a queue, in milliseconds.
pub const LEASE_TTL_MS_MAX: u64 = 600_000;

/// Longest reason that a person gives for a decision, in bytes.
pub const REASON_BYTES_MAX: usize = 512;

/// Most queues of one topic on one broker.
pub const QUEUES_PER_TOPIC_MAX: u32 = 1024;

const _: () =
    assert!(HEADER_BYTES_MAX + BODY_BYTES_MAX + 8 <= FRAME_BYTES_MAX, "a largest send fits one frame");
const _: () = assert!(HEADER_BYTES_MAX < 1 << 24, "a header's length is 24 bits on the wire");
const _: () =
    assert!(RECORD_BYTES_MAX + 8 * 1024 < FRAME_BYTES_MAX, "a pull reply can carry the largest message");
const _: () = assert!(RECORD_BYTES_MAX < i32::MAX as usize, "a message's length is a signed 32-bit integer");
const _: () = assert!(RECORD_BYTES_MAX < 8 << 20, "a largest message fits one log frame of 8 MiB");
const _: () = assert!(TOPIC_BYTES_MAX == i8::MAX as usize);
