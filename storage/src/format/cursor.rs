//! A checked reader over stored bytes and its counterpart for strings: the only place where formats slice.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::FormatError;

/// Reads little-endian fields front to back; every read is checked.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Cursor<'a> {
    /// A reader over `bytes`, which errors call `what`.
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { rest: bytes, what }
    }

    /// The next `len` bytes.
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], FormatError> {
        let (taken, rest) =
            self.rest.split_at_checked(len).ok_or(FormatError::Truncated { what: self.what })?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes by value.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (taken, rest) =
            self.rest.split_first_chunk::<N>().ok_or(FormatError::Truncated { what: self.what })?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, FormatError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn i32(&mut self) -> Result<i32, FormatError> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A u16 length and that many bytes of UTF-8.
    pub(crate) fn string(&mut self, what: &'static str) -> Result<&'a str, FormatError> {
        let len = usize::from(self.u16()?);
        std::str::from_utf8(self.take(len)?).map_err(|_| FormatError::Utf8 { what })
    }

    /// What [`put_peer`] wrote.
    pub(crate) fn peer(&mut self) -> Result<Option<SocketAddr>, FormatError> {
        let host = Ipv6Addr::from(self.array::<16>()?);
        let port = self.u16()?;
        let known = !host.is_unspecified() || port != 0;
        Ok(known.then(|| SocketAddr::new(IpAddr::V6(host).to_canonical(), port)))
    }

    /// All bytes that are left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// How many items of at least `item_bytes` can still follow: the bound for an announced `count`.
    pub(crate) fn capacity_for(&self, count: usize, item_bytes: usize) -> usize {
        count.min(self.rest.len() / item_bytes.max(1))
    }

    /// Whether everything has been read.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Fails unless everything has been read.
    pub(crate) fn finish(self) -> Result<(), FormatError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(FormatError::Trailing { what: self.what, got: self.rest.len() })
    }
}

/// Appends a string as a u16 length and its bytes. Longer strings are cut at the last character boundary below
/// 64 KiB: every name and attribute is bounded far below that before it gets here.
pub(crate) fn put_string(out: &mut Vec<u8>, text: &str) {
    let mut len = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    let announced = u16::try_from(len).unwrap_or(u16::MAX);
    out.extend_from_slice(&announced.to_le_bytes());
    out.extend_from_slice(&text.as_bytes()[..len]);
}

/// Appends an address: IPv6, or IPv4 mapped into it, 16 bytes big-endian, and the port; zeros if none is known.
pub(crate) fn put_peer(out: &mut Vec<u8>, peer: Option<SocketAddr>) {
    let host = match peer.map(|peer| peer.ip()) {
        Some(IpAddr::V4(host)) => host.to_ipv6_mapped(),
        Some(IpAddr::V6(host)) => host,
        None => Ipv6Addr::UNSPECIFIED,
    };
    out.extend_from_slice(&host.octets());
    out.extend_from_slice(&peer.map_or(0, |peer| peer.port()).to_le_bytes());
}

/// Appends the pairs of an attribute table: count u16, then key and value strings.
pub(crate) fn put_attributes(out: &mut Vec<u8>, attributes: &[(&str, &str)]) {
    let count = u16::try_from(attributes.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&count.to_le_bytes());
    for (key, value) in attributes.iter().take(usize::from(count)) {
        put_string(out, key);
        put_string(out, value);
    }
}

/// Reads what [`put_attributes`] wrote.
pub(crate) fn attributes<'a>(cursor: &mut Cursor<'a>) -> Result<Vec<(&'a str, &'a str)>, FormatError> {
    let count = usize::from(cursor.u16()?);
    let mut pairs = Vec::with_capacity(cursor.capacity_for(count, 4));
    for _ in 0..count {
        pairs.push((cursor.string("attribute key")?, cursor.string("attribute value")?));
    }
    Ok(pairs)
}

/// Appends a count of rows as u32; a table beyond that cannot exist inside one frame.
pub(crate) fn put_count(out: &mut Vec<u8>, rows: usize) {
    out.extend_from_slice(&u32::try_from(rows).unwrap_or(u32::MAX).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlong_string_is_cut_at_a_character_boundary() {
        let text = "é".repeat(40_000);
        let mut out = Vec::new();
        put_string(&mut out, &text);
        let mut cursor = Cursor::new("test", &out);
        assert_eq!(cursor.string("text").unwrap().len(), 65_534);
        cursor.finish().unwrap();
    }

    #[test]
    fn reading_past_the_end_says_what_was_cut_short() {
        let mut cursor = Cursor::new("thing", &[1, 2, 3]);
        assert_eq!(cursor.u16().unwrap(), 0x0201);
        assert_eq!(cursor.u32(), Err(FormatError::Truncated { what: "thing" }));
        assert_eq!(cursor.finish(), Err(FormatError::Trailing { what: "thing", got: 1 }));
    }
}
