//! The body of a batch (request code 320): several messages of one topic, one behind the other.
//!
//! ```text
//!   total i32 | magic i32 (0) | crc i32 (0) | flag i32 | body length i32 | body | properties length i16 | properties
//! ```
//! Clients write 0 as magic and checksum and brokers do not look at them, so neither does this reader.

use crate::cursor::Cursor;
use crate::error::{DecodeError, EncodeError};
use crate::limits::{BATCH_MESSAGES_MAX, BODY_BYTES_MAX, PROPERTIES_BYTES_MAX};

/// Bytes of one inner message without body and properties.
const FIXED_BYTES: usize = 4 + 4 + 4 + 4 + 4 + 2;

/// One message of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchMessage<'a> {
    /// The application's flag.
    pub flag: i32,
    /// The body.
    pub body: &'a [u8],
    /// Encoded properties, see [`super::properties`].
    pub properties: &'a [u8],
}

/// Walks over the messages of a batch body; ends after the first error.
#[derive(Debug, Clone)]
pub struct BatchMessages<'a> {
    cursor: Cursor<'a>,
    seen: usize,
    failed: bool,
}

/// The messages of a batch body, at most [`BATCH_MESSAGES_MAX`] of them.
#[must_use]
pub fn decode(body: &[u8]) -> BatchMessages<'_> {
    BatchMessages { cursor: Cursor::new(body, "batch"), seen: 0, failed: false }
}

impl<'a> BatchMessages<'a> {
    fn read(&mut self) -> Result<BatchMessage<'a>, DecodeError> {
        if self.seen == BATCH_MESSAGES_MAX {
            return Err(DecodeError::TooLong {
                what: "messages of a batch",
                got: self.seen + 1,
                max: BATCH_MESSAGES_MAX,
            });
        }
        let before = self.cursor.remaining();
        let total = self.cursor.length_i32("batch message", before)?;
        let _magic = self.cursor.i32()?;
        let _checksum = self.cursor.i32()?;
        let flag = self.cursor.i32()?;
        let body_bytes = self.cursor.length_i32("batch message body", BODY_BYTES_MAX)?;
        let body = self.cursor.bytes(body_bytes)?;
        let properties_bytes = self.cursor.length_i16("batch message properties", PROPERTIES_BYTES_MAX)?;
        let properties = self.cursor.bytes(properties_bytes)?;
        let used = before - self.cursor.remaining();
        if used != total {
            return Err(DecodeError::LengthMismatch { what: "batch message", got: total, expected: used });
        }
        self.seen += 1;
        Ok(BatchMessage { flag, body, properties })
    }
}

impl<'a> Iterator for BatchMessages<'a> {
    type Item = Result<BatchMessage<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.cursor.remaining() == 0 {
            return None;
        }
        let message = self.read();
        self.failed = message.is_err();
        Some(message)
    }
}

/// Appends one message to a batch body.
///
/// # Errors
/// If body or properties are longer than their bounds. Nothing is appended then.
pub fn encode(message: &BatchMessage<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let BatchMessage { flag, body, properties } = *message;
    let total = FIXED_BYTES + body.len() + properties.len();
    let too_long = |what, part: &[u8], max| EncodeError::TooLong { what, got: part.len(), max };
    if body.len() > BODY_BYTES_MAX {
        return Err(too_long("batch message body", body, BODY_BYTES_MAX));
    }
    // Both lengths are below their bounds here, so the conversions cannot fail.
    let (Ok(total), Ok(body_bytes), Ok(properties_bytes)) =
        (i32::try_from(total), i32::try_from(body.len()), i16::try_from(properties.len()))
    else {
        return Err(too_long("batch message properties", properties, PROPERTIES_BYTES_MAX));
    };
    out.extend_from_slice(&total.to_be_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&flag.to_be_bytes());
    out.extend_from_slice(&body_bytes.to_be_bytes());
    out.extend_from_slice(body);
    out.extend_from_slice(&properties_bytes.to_be_bytes());
    out.extend_from_slice(properties);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_clients() {
        let mut bytes = Vec::new();
        encode(&BatchMessage { flag: 7, body: b"hi", properties: b"A\x01b\x02" }, &mut bytes).unwrap();
        assert_eq!(bytes, b"\0\0\0\x1c\0\0\0\0\0\0\0\0\0\0\0\x07\0\0\0\x02hi\0\x04A\x01b\x02");
    }

    #[test]
    fn a_wrong_total_ends_the_walk_with_an_error() {
        let mut bytes = Vec::new();
        encode(&BatchMessage { flag: 0, body: b"one", properties: b"" }, &mut bytes).unwrap();
        let first = bytes.len();
        encode(&BatchMessage { flag: 0, body: b"two", properties: b"" }, &mut bytes).unwrap();
        bytes[first + 3] -= 1;
        let read: Vec<_> = decode(&bytes).collect();
        assert_eq!(read.len(), 2);
        assert!(read[0].is_ok());
        assert_eq!(
            read[1],
            Err(DecodeError::LengthMismatch { what: "batch message", got: 24, expected: 25 })
        );
    }

    #[test]
    fn too_many_messages_are_refused() {
        let mut bytes = Vec::new();
        for _ in 0..=BATCH_MESSAGES_MAX {
            encode(&BatchMessage { flag: 0, body: b"", properties: b"" }, &mut bytes).unwrap();
        }
        let mut read = decode(&bytes);
        assert_eq!(read.by_ref().take(BATCH_MESSAGES_MAX).filter(Result::is_ok).count(), BATCH_MESSAGES_MAX);
        assert!(matches!(read.next(), Some(Err(DecodeError::TooLong { .. }))));
        assert!(read.next().is_none());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(messages in proptest::collection::vec(
            (any::<i32>(), proptest::collection::vec(any::<u8>(), 0..50), proptest::collection::vec(any::<u8>(), 0..50)),
            0..8,
        )) {
            let mut bytes = Vec::new();
            for (flag, body, properties) in &messages {
                encode(&BatchMessage { flag: *flag, body, properties }, &mut bytes).unwrap();
            }
            let read: Result<Vec<_>, _> = decode(&bytes).collect();
            let read = read.unwrap();
            prop_assert_eq!(read.len(), messages.len());
            for (one, (flag, body, properties)) in read.iter().zip(&messages) {
                prop_assert_eq!(one, &BatchMessage { flag: *flag, body, properties });
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for message in decode(&bytes) {
                let _ = message;
            }
        }
    }
}
