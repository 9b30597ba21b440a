//! JSON strings: reading escapes, writing them, and decimal numbers without a detour through the heap.

use std::fmt::{self, Write};

use bytes::{BufMut, BytesMut};

/// Resolves the escapes of a string literal's inside, which the scanner has checked. A lone surrogate, which UTF-8
/// cannot hold, becomes U+FFFD.
pub(crate) fn unescape(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        let (plain, escape) = rest.split_at(at);
        text.push_str(plain);
        // What separates the properties of a message, and so by far the most frequent escapes.
        if let Some(digits) = escape.strip_prefix("\\u00") {
            let (hex, behind) = digits.split_at_checked(2).unwrap_or_default();
            if let Ok(code) = u8::from_str_radix(hex, 16) {
                text.push(char::from(code));
                rest = behind;
                continue;
            }
        }
        let mut chars = escape.chars();
        chars.next();
        match chars.next() {
            Some('b') => text.push('\u{8}'),
            Some('f') => text.push('\u{c}'),
            Some('n') => text.push('\n'),
            Some('r') => text.push('\r'),
            Some('t') => text.push('\t'),
            Some('u') => {
                let (character, behind) = unicode_escape(chars.as_str());
                text.push(character);
                rest = behind;
                continue;
            }
            Some(other) => text.push(other),
            None => {}
        }
        rest = chars.as_str();
    }
    text.push_str(rest);
    text
}

/// The character of a `\u` escape whose digits are at the start of `digits`, and what follows it; a pair of surrogates
/// is one character.
fn unicode_escape(digits: &str) -> (char, &str) {
    let (unit, rest) = hex4(digits);
    if let 0xD800..=0xDBFF = unit
        && let Some(second) = rest.strip_prefix("\\u")
        && let (low @ 0xDC00..=0xDFFF, behind) = hex4(second)
    {
        let code = 0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
        return (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), behind);
    }
    (char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER), rest)
}

/// Four hex digits as a number; anything else as U+FFFD, with nothing consumed.
#[inline]
fn hex4(text: &str) -> (u32, &str) {
    let mut unit = 0;
    for digit in text.bytes().take(4) {
        let Some(value) = char::from(digit).to_digit(16) else { return (REPLACEMENT, text) };
        unit = unit << 4 | value;
    }
    match text.get(4..) {
        Some(rest) => (unit, rest),
        None => (REPLACEMENT, text),
    }
}

const REPLACEMENT: u32 = char::REPLACEMENT_CHARACTER as u32;

/// Whether JSON must escape `byte`.
#[inline]
const fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Appends `text` as a JSON string, quotes included.
pub(crate) fn put_string(out: &mut BytesMut, text: &str) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.put_u8(b'"');
    // Without an early exit the compiler can test many bytes at once.
    if bytes.iter().fold(false, |found, byte| found | needs_escape(*byte)) {
        put_escaped(out, bytes);
    } else {
        out.put_slice(bytes);
    }
    out.put_u8(b'"');
}

/// Appends the inside of a string that holds something to escape.
fn put_escaped(out: &mut BytesMut, bytes: &[u8]) {
    let mut plain_from = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if !needs_escape(*byte) {
            continue;
        }
        out.put_slice(bytes.get(plain_from..at).unwrap_or_default());
        plain_from = at + 1;
        match *byte {
            b'"' => out.put_slice(b"\\\""),
            b'\\' => out.put_slice(b"\\\\"),
            b'\n' => out.put_slice(b"\\n"),
            b'\r' => out.put_slice(b"\\r"),
            b'\t' => out.put_slice(b"\\t"),
            control => {
                const HEX: [u8; 16] = *b"0123456789abcdef";
                let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
                out.put_slice(&[b'\\', b'u', b'0', b'0', digit(control >> 4), digit(control & 0xF)]);
            }
        }
    }
    out.put_slice(bytes.get(plain_from..).unwrap_or_default());
}

/// Appends a decimal number.
pub(crate) fn put_number(out: &mut BytesMut, number: i64) {
    out.put_slice(Decimal::new(number).as_str().as_bytes());
}

/// Longest decimal text of an `i64`: a sign and 19 digits.
const DECIMAL_BYTES_MAX: usize = 20;

/// The decimal text of a number, on the stack.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decimal {
    text: [u8; DECIMAL_BYTES_MAX],
    start: usize,
}

impl Decimal {
    pub(crate) fn new(number: i64) -> Self {
        let mut text = [0; DECIMAL_BYTES_MAX];
        let mut start = DECIMAL_BYTES_MAX;
        let mut rest = number.unsigned_abs();
        let mut push = |byte: u8| {
            start -= 1;
            text[start] = byte;
        };
        loop {
            // A remainder of ten fits one byte.
            push(b'0' + (rest % 10).to_le_bytes()[0]);
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if number < 0 {
            push(b'-');
        }
        Self { text, start }
    }

    pub(crate) fn as_str(&self) -> &str {
        // Digits are ASCII, so the conversion cannot fail.
        self.text.get(self.start..).and_then(|digits| std::str::from_utf8(digits).ok()).unwrap_or_default()
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Appends `text` as a JSON string to a `String`, for bodies written by hand.
pub(crate) fn push_json_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control < ' ' => {
                // Writing to a `String` cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_are_resolved() {
        assert_eq!(unescape(r#"a\"\\\/\b\f\n\r\t\u0001é"#), "a\"\\/\u{8}\u{c}\n\r\t\u{1}é");
        assert_eq!(unescape(r"\ud83d\ude00!"), "\u{1F600}!");
        assert_eq!(unescape(r"\ud83d\ud83d\ude00\ude00"), "\u{FFFD}\u{1F600}\u{FFFD}");
        assert_eq!(unescape(r"\ud83d"), "\u{FFFD}");
    }

    #[test]
    fn numbers_have_their_usual_text() {
        for number in [0, 7, 10, -1, 409, i64::MAX, i64::MIN] {
            assert_eq!(Decimal::new(number).as_str(), number.to_string());
        }
    }

    proptest! {
        #[test]
        fn written_strings_are_json_and_read_back(text in any::<String>()) {
            let mut out = BytesMut::new();
            put_string(&mut out, &text);
            prop_assert_eq!(&serde_json::from_slice::<String>(&out).unwrap(), &text);
            let inside = std::str::from_utf8(&out[1..out.len() - 1]).unwrap();
            prop_assert_eq!(&unescape(inside), &text);
            let mut other = String::new();
            push_json_string(&mut other, &text);
            prop_assert_eq!(&serde_json::from_str::<String>(&other).unwrap(), &text);
        }
    }
}
