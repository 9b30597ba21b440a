//! Requests, built once and patched. Headers are written as the Java client writes them (JSON, every field a string),
//! so the broker parses what it would parse in life.

use super::number::{fill_decimal, fill_hex, push_decimal};
use crate::options::Mode;

/// Bytes of a unique key: 32 hexadecimal digits, the first half naming the connection, the second the message.
pub const UNIQUE_KEY_BYTES: usize = 32;
const COUNTER_BYTES: usize = 16;
const OPAQUE_BYTES: usize = 10;
const OPAQUE_PLACE: &str = "1000000000";
/// Length and header-length fields in front of the header.
const PREFIX_BYTES: usize = 8;
/// What newer clients say: 4.9.8. An older number would make route answers differ, nothing here.
const VERSION: u32 = 409;

/// The unique key of message `counter` of connection `seed`.
#[must_use]
pub fn unique_key(seed: u64, counter: u64) -> [u8; UNIQUE_KEY_BYTES] {
    let mut key = [0; UNIQUE_KEY_BYTES];
    let (front, back) = key.split_at_mut(COUNTER_BYTES);
    fill_hex(front, seed);
    fill_hex(back, counter);
    key
}

/// One SEND_MESSAGE_V2 frame in which opaque, queue and the unique key's counter are patched.
#[derive(Debug, Clone)]
pub struct SendTemplate {
    frame: Vec<u8>,
    opaque_at: usize,
    queue_at: usize,
    counter_at: usize,
}

impl SendTemplate {
    /// Builds the frame. `seed` makes this connection's unique keys its own; `born_ms` is the born timestamp that all
    /// its messages carry.
    #[must_use]
    pub fn new(mode: Mode, group: &str, topic: &str, body_bytes: usize, seed: u64, born_ms: u64) -> Self {
        let (sys_flag, transaction) = match mode {
            Mode::Plain => (0, String::new()),
            Mode::Transactional => (4, format!("TRAN_MSG\\u0001true\\u0002PGROUP\\u0001{group}\\u0002")),
        };
        let key = String::from_utf8_lossy(&unique_key(seed, 0)).into_owned();
        let front =
            format!(r#"{{"code":310,"extFields":{{"a":"{group}","b":"{topic}","c":"TBW102","d":"4","e":""#);
        let queue_to_key =
            format!(r#"0","f":"{sys_flag}","g":"{born_ms}","h":"0","i":"{transaction}UNIQ_KEY\u0001"#);
        let key_to_opaque = format!(
            r#"{key}\u0002WAIT\u0001true\u0002TAGS\u0001bench","j":"0","k":"false","m":"false"}},"flag":0,"language":"JAVA","opaque":"#
        );
        let back = format!(r#"{OPAQUE_PLACE},"serializeTypeCurrentRPC":"JSON","version":{VERSION}}}"#);
        let queue_at = PREFIX_BYTES + front.len();
        let key_at = queue_at + queue_to_key.len();
        let opaque_at = key_at + key_to_opaque.len();
        let header = [front, queue_to_key, key_to_opaque, back].concat();
        let body: Vec<u8> = (0..body_bytes).map(|i| b'a' + (i % 26) as u8).collect();
        Self {
            frame: frame(header.as_bytes(), &body),
            opaque_at,
            queue_at,
            counter_at: key_at + UNIQUE_KEY_BYTES - COUNTER_BYTES,
        }
    }

    /// Appends one request to `out`.
    pub fn append(&self, out: &mut Vec<u8>, opaque: u32, queue: u8, counter: u64) {
        let start = out.len();
        out.extend_from_slice(&self.frame);
        let frame = &mut out[start..];
        fill_decimal(&mut frame[self.opaque_at..self.opaque_at + OPAQUE_BYTES], u64::from(opaque));
        frame[self.queue_at] = b'0' + queue;
        fill_hex(&mut frame[self.counter_at..self.counter_at + COUNTER_BYTES], counter);
    }

    /// Bytes of one request.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        self.frame.len()
    }
}

/// END_TRANSACTION as a request (its answer is awaited), outcome COMMIT.
#[derive(Debug, Clone)]
pub struct EndTemplate {
    front: Vec<u8>,
    seed: u64,
}

impl EndTemplate {
    /// `seed` must be that of the sends.
    #[must_use]
    pub fn new(group: &str, seed: u64) -> Self {
        let front = format!(
            r#"{{"code":37,"extFields":{{"producerGroup":"{group}","commitOrRollback":"8","fromTransactionCheck":"false","commitLogOffset":""#
        );
        Self { front: front.into_bytes(), seed }
    }

    /// Appends the commit of the half message `counter`, which the broker answered with these two offsets.
    pub fn append(&self, out: &mut Vec<u8>, opaque: u32, log_offset: u64, table_offset: u64, counter: u64) {
        let start = out.len();
        let key = unique_key(self.seed, counter);
        out.extend_from_slice(&[0; PREFIX_BYTES]);
        out.extend_from_slice(&self.front);
        push_decimal(out, log_offset);
        out.extend_from_slice(br#"","tranStateTableOffset":""#);
        push_decimal(out, table_offset);
        out.extend_from_slice(br#"","msgId":""#);
        out.extend_from_slice(&key);
        out.extend_from_slice(br#"","transactionId":""#);
        out.extend_from_slice(&key);
        out.extend_from_slice(br#""},"flag":0,"language":"JAVA","opaque":"#);
        push_decimal(out, u64::from(opaque));
        out.extend_from_slice(br#","serializeTypeCurrentRPC":"JSON","version":409}"#);
        let header_bytes = out.len() - start - PREFIX_BYTES;
        out[start..start + PREFIX_BYTES].copy_from_slice(&prefix(header_bytes, 0));
    }
}

fn frame(header: &[u8], body: &[u8]) -> Vec<u8> {
    [&prefix(header.len(), body.len()), header, body].concat()
}

/// Frame length (without itself) and header length. Sizes here are bounded by the options, far below 2^24.
fn prefix(header_bytes: usize, body_bytes: usize) -> [u8; PREFIX_BYTES] {
    let mut prefix = [0; PREFIX_BYTES];
    prefix[..4].copy_from_slice(&((4 + header_bytes + body_bytes) as u32).to_be_bytes());
    prefix[4..].copy_from_slice(&(header_bytes as u32).to_be_bytes());
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header_of(frame: &[u8]) -> serde_json::Value {
        let header_bytes = u32::from_be_bytes(frame[4..8].try_into().unwrap()) as usize;
        assert_eq!(u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize, frame.len() - 4);
        serde_json::from_slice(&frame[8..8 + header_bytes]).unwrap()
    }

    #[test]
    fn a_patched_send_says_what_was_patched() {
        let template = SendTemplate::new(Mode::Transactional, "g", "t", 128, 0xAB, 1_700_000_000_000);
        let mut out = Vec::new();
        template.append(&mut out, 1_000_000_007, 3, 0xC0FFEE);
        let header = header_of(&out);
        assert_eq!(header["code"], 310);
        assert_eq!(header["opaque"], 1_000_000_007);
        assert_eq!(header["extFields"]["e"], "3");
        assert_eq!(header["extFields"]["f"], "4");
        let properties = header["extFields"]["i"].as_str().unwrap();
        assert!(properties.starts_with("TRAN_MSG\u{1}true\u{2}PGROUP\u{1}g\u{2}"));
        assert!(properties.contains("UNIQ_KEY\u{1}00000000000000AB0000000000C0FFEE\u{2}"));
        assert_eq!(out.len(), template.frame_bytes());
        assert_eq!(out.len() - 8 - header_bytes(&out), 128);
    }

    #[test]
    fn an_end_names_its_transaction_by_offsets_and_key() {
        let mut out = Vec::new();
        EndTemplate::new("g", 0xAB).append(&mut out, 1_600_000_001, 4096, 4096, 9);
        let header = header_of(&out);
        assert_eq!(header["code"], 37);
        assert_eq!(header["opaque"], 1_600_000_001);
        assert_eq!(header["extFields"]["commitLogOffset"], "4096");
        assert_eq!(header["extFields"]["msgId"], "00000000000000AB0000000000000009");
        assert_eq!(header["extFields"]["commitOrRollback"], "8");
    }

    fn header_bytes(frame: &[u8]) -> usize {
        u32::from_be_bytes(frame[4..8].try_into().unwrap()) as usize
    }
}
