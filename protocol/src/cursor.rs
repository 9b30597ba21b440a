//! A checked reader over borrowed big-endian bytes. Every decoder of this crate reads through it, so that a length from
//! the network is compared with what is there before it is used.

use crate::error::DecodeError;

/// A position in a byte slice; each `take` moves it on or fails without moving.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    /// What is being read, for errors.
    what: &'static str,
}

impl<'a> Cursor<'a> {
    pub(crate) const fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    /// Bytes not read yet.
    pub(crate) const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `count` bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let Some((head, rest)) = self.rest.split_at_checked(count) else {
            return Err(DecodeError::Truncated { what: self.what, needed: count, have: self.rest.len() });
        };
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(DecodeError::Truncated { what: self.what, needed: N, have: self.rest.len() });
        };
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn i16(&mut self) -> Result<i16, DecodeError> {
        self.array().map(i16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_be_bytes)
    }

    pub(crate) fn u128(&mut self) -> Result<u128, DecodeError> {
        self.array().map(u128::from_be_bytes)
    }

    /// A signed 16-bit length that must lie in `0..=max`.
    pub(crate) fn length_i16(&mut self, field: &'static str, max: usize) -> Result<usize, DecodeError> {
        let raw = self.i16()?;
        checked_length(i64::from(raw), field, max)
    }

    /// A signed 32-bit length that must lie in `0..=max`.
    pub(crate) fn length_i32(&mut self, field: &'static str, max: usize) -> Result<usize, DecodeError> {
        let raw = self.i32()?;
        checked_length(i64::from(raw), field, max)
    }

    /// The next `count` bytes as text.
    pub(crate) fn text(&mut self, count: usize, field: &'static str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes(count)?).map_err(|_| DecodeError::Utf8 { what: field })
    }
}

fn checked_length(raw: i64, field: &'static str, max: usize) -> Result<usize, DecodeError> {
    let Ok(length) = usize::try_from(raw) else {
        return Err(DecodeError::bad_value(field, raw.to_string(), "a length of 0 or more"));
    };
    if length > max {
        return Err(DecodeError::TooLong { what: field, got: length, max });
    }
    Ok(length)
}
