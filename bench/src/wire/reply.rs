//! Finds in each incoming frame what the generator must know: is it an answer, to which request, with which code, and
//! where the half message went. Fields stand at the same place in almost every answer of one server, so the place
//! where a field stood last is tried before searching.

use super::number::{hex, leading_decimal};

/// Length field and header-length field.
const PREFIX_BYTES: usize = 8;
/// An incoming frame longer than this ends the run: nothing that a broker sends to a producer is longer.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One incoming frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The answer to request `opaque`.
    Answer {
        /// As sent.
        opaque: u32,
        /// 0: it worked.
        code: u64,
        /// The whole header, for messages to people and for [`ReplyScanner::offsets`].
        header: &'a [u8],
    },
    /// A request of the broker's, for instance a check-back.
    Request {
        /// Its request code.
        code: u64,
    },
}

/// Remembers where each field stood.
#[derive(Debug)]
pub struct ReplyScanner {
    opaque: Field,
    code: Field,
    flag: Field,
    message_id: Field,
    queue_offset: Field,
}

impl Default for ReplyScanner {
    fn default() -> Self {
        Self {
            opaque: Field::new(br#""opaque":"#),
            code: Field::new(br#""code":"#),
            flag: Field::new(br#""flag":"#),
            message_id: Field::new(br#""msgId":""#),
            queue_offset: Field::new(br#""queueOffset":""#),
        }
    }
}

impl ReplyScanner {
    /// The first frame in `bytes` and its whole length, `None` when it is not all there yet.
    ///
    /// # Errors
    /// When the bytes are no frame with a JSON header, in words for a person.
    pub fn next<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<(Reply<'a>, usize)>, String> {
        let Some(prefix) = bytes.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let length = 4 + u32::from_be_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]) as usize;
        let mark = u32::from_be_bytes([prefix[4], prefix[5], prefix[6], prefix[7]]);
        let header_bytes = (mark & 0x00FF_FFFF) as usize;
        if length > FRAME_BYTES_MAX || PREFIX_BYTES + header_bytes > length || mark >> 24 != 0 {
            return Err(format!("the broker sent no JSON frame: length {length}, header mark {mark:#x}"));
        }
        if bytes.len() < length {
            return Ok(None);
        }
        let header = &bytes[PREFIX_BYTES..PREFIX_BYTES + header_bytes];
        let missing = || format!("an answer lacks code, flag or opaque: {}", String::from_utf8_lossy(header));
        let code = self.code.number(header).ok_or_else(missing)?;
        let is_answer = self.flag.number(header).ok_or_else(missing)? & 1 == 1;
        if !is_answer {
            return Ok(Some((Reply::Request { code }, length)));
        }
        let opaque = self.opaque.number(header).and_then(|n| u32::try_from(n).ok()).ok_or_else(missing)?;
        Ok(Some((Reply::Answer { opaque, code, header }, length)))
    }

    /// Where a half message went: the log offset in the answer's `msgId` (its last 16 hexadecimal digits), and its
    /// `queueOffset`. Both go into END_TRANSACTION.
    pub fn offsets(&mut self, header: &[u8]) -> Option<(u64, u64)> {
        let id = self.message_id.value(header)?;
        let id = id.split(|byte| *byte == b'"').next()?;
        let log_offset = hex(id.get(id.len().checked_sub(16)?..)?)?;
        Some((log_offset, self.queue_offset.number(header)?))
    }
}

/// One field: its name with quotes and colon (and the value's opening quote), and where its value stood last.
#[derive(Debug)]
struct Field {
    name: &'static [u8],
    last_at: usize,
}

impl Field {
    const fn new(name: &'static [u8]) -> Self {
        Self { name, last_at: 0 }
    }

    /// What follows the name in `header`.
    fn value<'a>(&mut self, header: &'a [u8]) -> Option<&'a [u8]> {
        if let Some(value) = header.get(self.last_at..).and_then(|rest| rest.strip_prefix(self.name)) {
            return Some(value);
        }
        self.last_at = header.windows(self.name.len()).position(|window| window == self.name)?;
        header.get(self.last_at + self.name.len()..)
    }

    fn number(&mut self, header: &[u8]) -> Option<u64> {
        leading_decimal(self.value(header)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(header: &str) -> Vec<u8> {
        let mut out = (4 + header.len() as u32).to_be_bytes().to_vec();
        out.extend_from_slice(&(header.len() as u32).to_be_bytes());
        out.extend_from_slice(header.as_bytes());
        out
    }

    #[test]
    fn fields_are_found_wherever_they_stand() {
        let mut scanner = ReplyScanner::default();
        for header in [
            r#"{"code":0,"flag":1,"opaque":1000000001,"extFields":{"msgId":"7F00000100002A9F0000000000000100","queueOffset":"256"}}"#,
            r#"{"extFields":{"queueOffset":"256","msgId":"7F00000100002A9F0000000000000100"},"flag":1,"code":0,"opaque":1000000001}"#,
        ] {
            let bytes = frame(header);
            let (reply, length) = scanner.next(&bytes).unwrap().unwrap();
            let Reply::Answer { opaque, code, header } = reply else { panic!("an answer") };
            assert_eq!((opaque, code, length), (1_000_000_001, 0, bytes.len()));
            assert_eq!(scanner.offsets(header), Some((256, 256)));
        }
    }

    #[test]
    fn a_check_back_is_no_answer() {
        let bytes = frame(r#"{"code":39,"flag":2,"opaque":5}"#);
        let (reply, _) = ReplyScanner::default().next(&bytes).unwrap().unwrap();
        assert_eq!(reply, Reply::Request { code: 39 });
    }

    #[test]
    fn half_a_frame_waits_and_nonsense_is_refused() {
        let bytes = frame(r#"{"code":0,"flag":1,"opaque":7}"#);
        for cut in 0..bytes.len() {
            assert_eq!(ReplyScanner::default().next(&bytes[..cut]).unwrap(), None);
        }
        assert!(ReplyScanner::default().next(b"HTTP/1.1 400 Bad Request").is_err());
        assert!(ReplyScanner::default().next(&frame(r#"{"flag":1}"#)).is_err());
    }
}
