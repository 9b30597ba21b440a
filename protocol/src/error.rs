//! The two errors of this crate: bytes that do not say what they should ([`DecodeError`]) and values that cannot be
//! written ([`EncodeError`]). Each variant says what was got and what was expected, so that a log line suffices.

/// Longest piece of foreign text that an error quotes, in bytes: errors travel in remarks and logs.
const QUOTED_BYTES_MAX: usize = 64;

/// Why some bytes or text from the network or the disk could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the value does.
    #[error("{what} is cut off: {needed} bytes needed, {have} there")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Bytes the value needs.
        needed: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// A length or a count is above its bound in [`crate::limits`].
    #[error("{what} is too long: {got}, at most {max} allowed")]
    TooLong {
        /// What was being read.
        what: &'static str,
        /// The length that was announced or found.
        got: usize,
        /// The bound.
        max: usize,
    },
    /// Two lengths that must agree do not.
    #[error("{what} has the wrong length: {got}, expected {expected}")]
    LengthMismatch {
        /// What was being read.
        what: &'static str,
        /// The length found.
        got: usize,
        /// The length that the rest of the bytes calls for.
        expected: usize,
    },
    /// The bytes do not start with a known magic number.
    #[error("{what} has the unknown magic number {got:#010x}")]
    BadMagic {
        /// What was being read.
        what: &'static str,
        /// The number found.
        got: u32,
    },
    /// The body does not have the checksum that stands beside it.
    #[error("{what} has checksum {got:#010x}, expected {expected:#010x}")]
    BadChecksum {
        /// What was checked.
        what: &'static str,
        /// The checksum of the bytes.
        got: u32,
        /// The checksum that was stored.
        expected: u32,
    },
    /// A field holds a value outside its domain.
    #[error("{field} is {got:?}, expected {expected}")]
    BadValue {
        /// The field, by its name on the wire.
        field: &'static str,
        /// The value, clipped to a quotable length.
        got: String,
        /// What the field may hold.
        expected: &'static str,
    },
    /// A field without which the request means nothing is absent.
    #[error("the field {0} is missing")]
    MissingField(&'static str),
    /// Text that is not UTF-8.
    #[error("{what} is not valid UTF-8")]
    Utf8 {
        /// What was being read.
        what: &'static str,
    },
    /// Text that is not the JSON it should be.
    #[error("{what} is not valid JSON: {reason}")]
    Json {
        /// What was being read.
        what: &'static str,
        /// Where and why the reader stopped.
        reason: String,
    },
}

impl DecodeError {
    /// A [`DecodeError::BadValue`] that quotes at most 64 bytes of `got`.
    #[must_use]
    pub fn bad_value(field: &'static str, got: impl AsRef<str>, expected: &'static str) -> Self {
        Self::BadValue { field, got: clipped(got.as_ref()), expected }
    }

    /// A [`DecodeError::Json`] with its reason clipped to a quotable length.
    #[must_use]
    pub fn json(what: &'static str, reason: impl AsRef<str>) -> Self {
        Self::Json { what, reason: clipped(reason.as_ref()) }
    }
}

/// Why a value cannot be written: the fault of the caller, found before anything is sent or stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A part is longer than its length field or its bound in [`crate::limits`] allows.
    #[error("{what} is too long: {got}, at most {max} allowed")]
    TooLong {
        /// What was being written.
        what: &'static str,
        /// Its length.
        got: usize,
        /// The bound.
        max: usize,
    },
    /// A part holds what its encoding cannot carry.
    #[error("{field} is {got:?}, expected {expected}")]
    BadValue {
        /// The field, by its name on the wire.
        field: &'static str,
        /// The value, clipped to a quotable length.
        got: String,
        /// What the field may hold.
        expected: &'static str,
    },
}

impl EncodeError {
    /// An [`EncodeError::BadValue`] that quotes at most 64 bytes of `got`.
    #[must_use]
    pub fn bad_value(field: &'static str, got: impl AsRef<str>, expected: &'static str) -> Self {
        Self::BadValue { field, got: clipped(got.as_ref()), expected }
    }
}

/// The longest prefix of `text` that ends at a character boundary and fits the quoting bound.
fn clipped(text: &str) -> String {
    if text.len() <= QUOTED_BYTES_MAX {
        return text.to_owned();
    }
    let mut end = QUOTED_BYTES_MAX;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut quoted = text.get(..end).unwrap_or_default().to_owned();
    quoted.push('…');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_values_are_clipped_at_a_character_boundary() {
        let long = "é".repeat(100);
        let DecodeError::BadValue { got, .. } = DecodeError::bad_value("topic", &long, "short") else {
            panic!("wrong variant");
        };
        assert_eq!(got, format!("{}…", "é".repeat(32)));
    }

    #[test]
    fn messages_name_what_was_got_and_what_was_expected() {
        let error = DecodeError::Truncated { what: "header", needed: 8, have: 3 };
        assert_eq!(error.to_string(), "header is cut off: 8 bytes needed, 3 there");
        let error = DecodeError::BadMagic { what: "message", got: 0xDAA3_20A0 };
        assert_eq!(error.to_string(), "message has the unknown magic number 0xdaa320a0");
    }
}
