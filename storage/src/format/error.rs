//! The one error of all stored formats.

/// Bytes that are not what a stored format demands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The bytes end inside a field.
    #[error("{what} is cut short")]
    Truncated {
        /// The field or structure.
        what: &'static str,
    },
    /// Bytes are left over where none may be.
    #[error("{got} bytes too many after {what}")]
    Trailing {
        /// The structure that ended.
        what: &'static str,
        /// How many bytes follow it.
        got: usize,
    },
    /// A field holds a value that this format does not have.
    #[error("{field} has no value {got}")]
    BadValue {
        /// The field.
        field: &'static str,
        /// The value found.
        got: u64,
    },
    /// A string is not UTF-8.
    #[error("{what} is not UTF-8")]
    Utf8 {
        /// The string.
        what: &'static str,
    },
    /// A magic number is not the expected one: these are not the bytes of such a thing at all.
    #[error("no {what} here")]
    BadMagic {
        /// What was looked for.
        what: &'static str,
    },
    /// A checksum does not hold.
    #[error("checksum of {what} does not hold")]
    Crc {
        /// What the checksum covers.
        what: &'static str,
    },
    /// Written by a development version, before the format was fixed.
    #[error("{what} {got} is of a development version")]
    Development {
        /// Which number it is.
        what: &'static str,
        /// The number found.
        got: u32,
    },
    /// Written by a newer program.
    #[error("{what} {got} is newer than {newest}")]
    Newer {
        /// Which number is too new.
        what: &'static str,
        /// The number found.
        got: u32,
        /// The greatest number known.
        newest: u32,
    },
}
