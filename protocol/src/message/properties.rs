//! The properties of a message: names and values in one string, `name 0x01 value 0x02 name 0x01 value 0x02 …`.
//!
//! Reading follows RocketMQ's Java client, on which consumers rely: an entry without a name or without a value is
//! skipped, the last 0x02 may be missing, and of two entries with one name the later counts. Reading borrows; nothing
//! here builds a map.

use crate::error::EncodeError;
use crate::limits::PROPERTIES_BYTES_MAX;

/// Stands between a name and its value.
pub const NAME_VALUE_SEPARATOR: char = '\u{1}';
/// Stands behind each entry.
pub const PROPERTY_SEPARATOR: char = '\u{2}';
/// Stands between the keys inside the property [`KEYS`].
pub const KEY_SEPARATOR: char = ' ';

macro_rules! property_names {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $text;)*
    };
}

property_names! {
    /// Keys to find the message by, separated by spaces.
    KEYS = "KEYS";
    /// The tag that subscriptions filter by.
    TAGS = "TAGS";
    /// `false` lets a broker answer before the message is safe.
    WAIT = "WAIT";
    /// The delay level, see [`crate::delay_level`].
    DELAY = "DELAY";
    /// The topic of the first attempt, on messages of a retry topic.
    RETRY_TOPIC = "RETRY_TOPIC";
    /// The topic a delayed or half message is meant for.
    REAL_TOPIC = "REAL_TOPIC";
    /// The queue a delayed or half message is meant for.
    REAL_QUEUE_ID = "REAL_QID";
    /// `true` makes the message a half message.
    TRANSACTION_PREPARED = "TRAN_MSG";
    /// The producer group of a half message: whom to ask.
    PRODUCER_GROUP = "PGROUP";
    /// The queue's first offset, added by consumers.
    MIN_OFFSET = "MIN_OFFSET";
    /// The queue's last offset, added by consumers.
    MAX_OFFSET = "MAX_OFFSET";
    /// A legacy routing key.
    BUYER_ID = "BUYER_ID";
    /// Offset id of the first attempt, on messages of a retry topic.
    ORIGIN_MESSAGE_ID = "ORIGIN_MESSAGE_ID";
    /// Legacy.
    TRANSFER_FLAG = "TRANSFER_FLAG";
    /// Legacy.
    CORRECTION_FLAG = "CORRECTION_FLAG";
    /// Legacy.
    MQ2_FLAG = "MQ2_FLAG";
    /// Attempts so far, on messages that a consumer sent back itself.
    RECONSUME_TIME = "RECONSUME_TIME";
    /// The broker's region, for traces.
    MSG_REGION = "MSG_REGION";
    /// Whether traces are wanted.
    TRACE_ON = "TRACE_ON";
    /// The id that the producer gave the message.
    UNIQUE_KEY = "UNIQ_KEY";
    /// What makes an id unique across regions.
    EXTEND_UNIQUE_INFO = "EXTEND_UNIQ_INFO";
    /// Most attempts, on messages that a consumer sent back itself.
    MAX_RECONSUME_TIMES = "MAX_RECONSUME_TIMES";
    /// When a consumer began to process the message, ms.
    CONSUME_START_TIME = "CONSUME_START_TIME";
    /// Number of messages in a batch stored as one.
    INNER_NUM = "INNER_NUM";
    /// First queue offset of a batch stored as one.
    INNER_BASE = "INNER_BASE";
    /// Marks of de-duplication in RocketMQ's replication.
    DUP_INFO = "DUP_INFO";
    /// Seconds before the first check-back of this half message.
    CHECK_IMMUNITY_TIME_SECONDS = "CHECK_IMMUNITY_TIME_IN_SECONDS";
    /// Where RocketMQ first stored a half message that it wrote again.
    TRANSACTION_PREPARED_QUEUE_OFFSET = "TRAN_PREPARED_QUEUE_OFFSET";
    /// The transaction's id, set by clients.
    TRANSACTION_ID = "__transactionId__";
    /// How often a producer was asked about this half message.
    TRANSACTION_CHECK_TIMES = "TRANSACTION_CHECK_TIMES";
    /// The instance a message belongs to.
    INSTANCE_ID = "INSTANCE_ID";
    /// Connects a reply message with its request message.
    CORRELATION_ID = "CORRELATION_ID";
    /// The client that waits for a reply message.
    REPLY_TO_CLIENT = "REPLY_TO_CLIENT";
    /// How long a request message waits for its reply, ms.
    TTL = "TTL";
    /// When a reply message arrived, ms.
    ARRIVE_TIME = "ARRIVE_TIME";
    /// When a reply message was pushed, ms.
    PUSH_REPLY_TIME = "PUSH_REPLY_TIME";
    /// The cluster a request message was sent to.
    CLUSTER = "CLUSTER";
    /// The kind of message, `reply` for reply messages.
    MESSAGE_TYPE = "MSG_TYPE";
    /// The receipt of a popped message.
    POP_CK = "POP_CK";
    /// Queue offset of a receipt.
    POP_CK_OFFSET = "POP_CK_OFFSET";
    /// When the message was first popped, ms.
    FIRST_POP_TIME = "1ST_POP_TIME";
    /// What orders messages.
    SHARDING_KEY = "__SHARDINGKEY";
    /// The queue a message was forwarded from.
    FORWARD_QUEUE_ID = "PROPERTY_FORWARD_QUEUE_ID";
    /// Whether a message was redirected.
    REDIRECT = "REDIRECT";
    /// Further queues that the message appears in.
    INNER_MULTI_DISPATCH = "INNER_MULTI_DISPATCH";
    /// Its offsets in those queues.
    INNER_MULTI_QUEUE_OFFSET = "INNER_MULTI_QUEUE_OFFSET";
    /// Trace context of OpenTelemetry.
    TRACE_CONTEXT = "TRACE_CONTEXT";
    /// Deliver after so many seconds.
    TIMER_DELAY_SEC = "TIMER_DELAY_SEC";
    /// Deliver after so many milliseconds.
    TIMER_DELAY_MS = "TIMER_DELAY_MS";
    /// Deliver at this time, ms.
    TIMER_DELIVER_MS = "TIMER_DELIVER_MS";
    /// Deletes a timer message.
    TIMER_DEL_UNIQUE_KEY = "TIMER_DEL_UNIQKEY";
    /// The producer's address.
    BORN_HOST = "__BORNHOST";
    /// When the message was made, ms.
    BORN_TIMESTAMP = "BORN_TIMESTAMP";
    /// The topic of a message in a dead-letter topic.
    DLQ_ORIGIN_TOPIC = "DLQ_ORIGIN_TOPIC";
    /// The offset id of a message in a dead-letter topic.
    DLQ_ORIGIN_MESSAGE_ID = "DLQ_ORIGIN_MESSAGE_ID";
    /// Checksum over a message's properties.
    CRC32 = "__CRC32#";
    /// Prefix of properties that brokers do not store.
    TRANSIENT_PREFIX = "__RMQ.TRANSIENT.";
    /// Mezzo: the id of the transaction that several half messages belong to, see
    /// [`crate::ids::TransactionId`].
    MEZZO_TRANSACTION = "MEZZO_TX";
    /// Mezzo: the place of a half message among those of its transaction: 0, 1, 2, …
    MEZZO_TRANSACTION_SEQUENCE = "MEZZO_TX_SEQ";
    /// Mezzo: on the first message of a transaction, the consumer group whose offsets move with its commit. The answer to
    /// a check-back carries no offsets, so it must not be a commit.
    MEZZO_TRANSACTION_CONSUMER = "MEZZO_TX_CONSUMER";
    /// Mezzo: how a half message wants to be asked about, see [`crate::check_policy`].
    MEZZO_CHECK = "MEZZO_CHECK";
    /// Mezzo: what a producer itself calls the message, on topics with `dedup=strict`: 1 to 128 visible ASCII bytes.
    MEZZO_DEDUP_ID = "MEZZO_DEDUP_ID";
}

/// Walks over the entries of encoded properties.
#[derive(Debug, Clone)]
pub struct Properties<'a> {
    rest: &'a [u8],
}

/// The entries of `properties` in their order, duplicates included. Entries that are not UTF-8 are skipped.
pub fn iter<P: AsRef<[u8]> + ?Sized>(properties: &P) -> Properties<'_> {
    Properties { rest: properties.as_ref() }
}

impl<'a> Iterator for Properties<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (name, value) = next_entry(&mut self.rest)?;
            if let (Ok(name), Ok(value)) = (std::str::from_utf8(name), std::str::from_utf8(value)) {
                return Some((name, value));
            }
        }
    }
}

/// The next entry with a name and a value.
fn next_entry<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == 0x02).unwrap_or(rest.len());
        let (entry, behind) = rest.split_at(end);
        *rest = behind.get(1..).unwrap_or_default();
        if let Some(middle) = entry.iter().position(|byte| *byte == 0x01) {
            let (name, value) = entry.split_at(middle);
            if let ([_, ..], [_, value @ ..]) = (name, value)
                && !value.is_empty()
            {
                return Some((name, value));
            }
        }
    }
    None
}

/// The value of `key`; of several the last. One pass, nothing allocated.
pub fn find<'a, P: AsRef<[u8]> + ?Sized>(properties: &'a P, key: &str) -> Option<&'a str> {
    let mut rest = properties.as_ref();
    let mut found = None;
    while let Some((name, value)) = next_entry(&mut rest) {
        if name == key.as_bytes() {
            found = Some(value);
        }
    }
    found.and_then(|value| std::str::from_utf8(value).ok())
}

/// Whether `key` has the value `true`, in any case.
pub fn is_true<P: AsRef<[u8]> + ?Sized>(properties: &P, key: &str) -> bool {
    find(properties, key).is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// The keys of a message, as [`KEYS`] holds them.
pub fn keys<P: AsRef<[u8]> + ?Sized>(properties: &P) -> impl Iterator<Item = &str> {
    find(properties, KEYS).unwrap_or_default().split(KEY_SEPARATOR).filter(|key| !key.is_empty())
}

/// `properties` without the entries whose name is among `dropped`; malformed entries go too.
#[must_use]
pub fn without(properties: &str, dropped: &[&str]) -> String {
    let mut kept = String::with_capacity(properties.len());
    for (name, value) in iter(properties).filter(|(name, _)| !dropped.contains(name)) {
        push_entry(&mut kept, name, value);
    }
    kept
}

/// Encodes entries in their order.
///
/// # Errors
/// As [`PropertiesWriter::put`].
pub fn encode<'a>(entries: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<String, EncodeError> {
    let mut writer = PropertiesWriter::new();
    for (name, value) in entries {
        writer.put(name, value)?;
    }
    Ok(writer.finish())
}

fn push_entry(out: &mut String, name: &str, value: &str) {
    out.push_str(name);
    out.push(NAME_VALUE_SEPARATOR);
    out.push_str(value);
    out.push(PROPERTY_SEPARATOR);
}

/// Builds encoded properties, entry by entry.
#[derive(Debug, Clone, Default)]
pub struct PropertiesWriter {
    text: String,
}

impl PropertiesWriter {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts from properties that are already encoded: their well-formed entries, without those named in `dropped`.
    #[must_use]
    pub fn from_encoded(properties: &str, dropped: &[&str]) -> Self {
        Self { text: without(properties, dropped) }
    }

    /// Goes on from what another writer has made, with room for so many bytes more: one copy, and nothing is read.
    #[must_use]
    pub fn continued(written: &str, more_bytes: usize) -> Self {
        let mut text = String::with_capacity(written.len() + more_bytes);
        text.push_str(written);
        Self { text }
    }

    /// Appends an entry. A name that is there already keeps its old entry; readers take the new one.
    ///
    /// # Errors
    /// If name or value is empty (no reader would see the entry) or holds a separator, or if the whole would be longer
    /// than its length field allows. Nothing is appended then.
    pub fn put(&mut self, name: &str, value: &str) -> Result<&mut Self, EncodeError> {
        for (part, field) in [(name, "property name"), (value, "property value")] {
            if part.is_empty() || part.contains([NAME_VALUE_SEPARATOR, PROPERTY_SEPARATOR]) {
                return Err(EncodeError::bad_value(
                    field,
                    part,
                    "non-empty text without bytes 0x01 and 0x02",
                ));
            }
        }
        let length = self.text.len() + name.len() + value.len() + 2;
        if length > PROPERTIES_BYTES_MAX {
            return Err(EncodeError::TooLong { what: "properties", got: length, max: PROPERTIES_BYTES_MAX });
        }
        push_entry(&mut self.text, name, value);
        Ok(self)
    }

    /// What was put so far.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The encoded properties.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_follows_the_java_client() {
        let text = "A\u{1}1\u{2}\u{1}x\u{2}B\u{1}\u{2}junk\u{2}C\u{1}x\u{1}y\u{2}\u{2}D\u{1}last";
        assert_eq!(iter(text).collect::<Vec<_>>(), [("A", "1"), ("C", "x\u{1}y"), ("D", "last")]);
        assert_eq!(find(text, "B"), None);
        assert_eq!(find(text.as_bytes(), "D"), Some("last"));
    }

    #[test]
    fn of_two_entries_with_one_name_the_later_counts() {
        assert_eq!(find("A\u{1}1\u{2}A\u{1}2\u{2}", "A"), Some("2"));
    }

    #[test]
    fn dropped_entries_leave_the_others_in_order() {
        let text =
            encode([(TRANSACTION_PREPARED, "true"), (TAGS, "a"), (DELAY, "3"), (KEYS, "k1  k2")]).unwrap();
        let kept = without(&text, &[TRANSACTION_PREPARED, DELAY]);
        assert_eq!(kept, "TAGS\u{1}a\u{2}KEYS\u{1}k1  k2\u{2}");
        assert_eq!(keys(&kept).collect::<Vec<_>>(), ["k1", "k2"]);
        assert!(is_true(&text, TRANSACTION_PREPARED));
        assert!(!is_true(&kept, TRANSACTION_PREPARED));
    }

    #[test]
    fn what_no_reader_could_read_is_refused() {
        for (name, value) in [("", "v"), ("n", ""), ("n\u{1}", "v"), ("n", "v\u{2}")] {
            assert!(encode([(name, value)]).is_err(), "{name:?} {value:?}");
        }
        let longest = "v".repeat(PROPERTIES_BYTES_MAX - 3);
        assert_eq!(encode([("n", longest.as_str())]).unwrap().len(), PROPERTIES_BYTES_MAX);
        assert!(encode([("nn", longest.as_str())]).is_err());
    }
}
