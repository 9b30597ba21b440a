//! The JSON header: a scanner that borrows, and the writer.
//!
//! The scanner reads what clients really send: any order of members, unknown members (`serializeTypeCurrentRPC`), a line
//! feed behind the object (C++), extension fields that are numbers, booleans or `null`, names without quotes, numbers in
//! quotes, raw control characters inside strings. Extension fields are kept as text.
//! The writer puts every extension field into quotes, because C++ ignores those that are not strings.

use bytes::{BufMut, BytesMut};

use super::command::Head;
use super::header::{ExtField, ExtFields, HeaderView};
use super::json_text::{put_number, put_string, unescape};
use super::language::LanguageCode;
use crate::error::DecodeError;
use crate::limits::JSON_DEPTH_MAX;

const WHAT: &str = "header";

/// Reads a JSON header.
pub(super) fn parse(header: &[u8]) -> Result<HeaderView<'_>, DecodeError> {
    let text = std::str::from_utf8(header).map_err(|_| DecodeError::Utf8 { what: WHAT })?;
    let mut scanner = Scanner { text, at: 0 };
    let mut code = None;
    let mut view = HeaderView {
        code: 0,
        language: LanguageCode::OTHER,
        version: 0,
        opaque: 0,
        flag: 0,
        remark: None,
        ext: ExtFields::new(),
    };
    scanner.expect(b'{')?;
    while let Some(key) = scanner.next_key()? {
        match key.text {
            "code" => code = Some(scanner.integer("code")?),
            "version" => view.version = scanner.integer("version")?,
            "opaque" => view.opaque = scanner.integer("opaque")?,
            "flag" => view.flag = scanner.integer("flag")?.cast_unsigned(),
            "language" => view.language = language(scanner.value()?),
            "remark" => {
                view.remark = match scanner.value()? {
                    Value::Text(piece) if piece.escaped => Some(unescape(piece.text).into()),
                    Value::Text(piece) | Value::Bare(piece) => Some(piece.text.into()),
                    Value::Null => None,
                }
            }
            "extFields" => scanner.ext_fields(&mut view.ext)?,
            _ => {
                scanner.value()?;
            }
        }
    }
    scanner.skip_blank();
    if scanner.at != text.len() {
        return Err(scanner.unexpected("the end"));
    }
    view.code = code.ok_or(DecodeError::MissingField("code"))?;
    Ok(view)
}

/// A language by name, or by number as some clients write enums.
fn language(value: Value<'_>) -> LanguageCode {
    match value {
        Value::Text(piece) => LanguageCode::from_name(piece.text),
        Value::Bare(piece) => piece.text.parse().map_or(LanguageCode::OTHER, LanguageCode),
        Value::Null => LanguageCode::OTHER,
    }
}

/// A piece of the header; with `escaped`, the inside of a string literal whose escapes are checked but not resolved.
#[derive(Debug, Clone, Copy)]
struct Piece<'a> {
    text: &'a str,
    escaped: bool,
}

#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    /// A string.
    Text(Piece<'a>),
    /// A number, a boolean, or a whole object or array, as it was written.
    Bare(Piece<'a>),
    Null,
}

struct Scanner<'a> {
    text: &'a str,
    /// Always at a character boundary: the scanner stops at ASCII bytes only.
    at: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_blank(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t' | 0) = self.peek() {
            self.at += 1;
        }
    }

    #[cold]
    fn unexpected(&self, expected: &str) -> DecodeError {
        let found = self.text.get(self.at..).and_then(|rest| rest.chars().next());
        let found = found.map_or_else(|| "the end".to_owned(), |found| format!("{found:?}"));
        DecodeError::json(WHAT, format!("{found} at byte {}, expected {expected}", self.at))
    }

    fn slice(&self, from: usize, to: usize) -> &'a str {
        self.text.get(from..to).unwrap_or_default()
    }

    fn expect(&mut self, wanted: u8) -> Result<(), DecodeError> {
        self.skip_blank();
        if self.peek() == Some(wanted) {
            self.at += 1;
            return Ok(());
        }
        Err(self.unexpected(&format!("{:?}", char::from(wanted))))
    }

    /// Inside an object, in front of a member or its end: the next member's name with its colon, or `None` at the end.
    /// Commas are separators that may be repeated or missing; nobody's meaning depends on them.
    fn next_key(&mut self) -> Result<Option<Piece<'a>>, DecodeError> {
        loop {
            self.skip_blank();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(None);
                }
                Some(b'"') => {
                    let key = self.string()?;
                    self.expect(b':')?;
                    return Ok(Some(key));
                }
                _ => {
                    let key = self.bare_word("a member's name")?;
                    self.expect(b':')?;
                    return Ok(Some(key));
                }
            }
        }
    }

    /// A string whose opening quote is next.
    fn string(&mut self) -> Result<Piece<'a>, DecodeError> {
        let bytes = self.text.as_bytes();
        let start = self.at + 1;
        let mut at = start;
        let mut escaped = false;
        loop {
            match bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    at += match bytes.get(at + 1..) {
                        Some([b'u', a, b, c, d, ..])
                            if [a, b, c, d].into_iter().all(u8::is_ascii_hexdigit) =>
                        {
                            6
                        }
                        Some([b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' | b'\'', ..]) => 2,
                        _ => {
                            self.at = at;
                            return Err(self.unexpected("an escape of JSON"));
                        }
                    };
                }
                Some(_) => at += 1,
                None => {
                    self.at = at;
                    return Err(self.unexpected("the end of a string"));
                }
            }
        }
        self.at = at + 1;
        Ok(Piece { text: self.slice(start, at), escaped })
    }

    /// Letters, digits and what numbers need.
    fn bare_word(&mut self, expected: &str) -> Result<Piece<'a>, DecodeError> {
        let start = self.at;
        while let Some(b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'$' | b'+' | b'-' | b'.') =
            self.peek()
        {
            self.at += 1;
        }
        if self.at == start {
            return Err(self.unexpected(expected));
        }
        Ok(Piece { text: self.slice(start, self.at), escaped: false })
    }

    fn value(&mut self) -> Result<Value<'a>, DecodeError> {
        self.skip_blank();
        match self.peek() {
            Some(b'"') => Ok(Value::Text(self.string()?)),
            Some(b'{' | b'[') => Ok(Value::Bare(self.nested()?)),
            _ => {
                let word = self.bare_word("a value")?;
                Ok(if word.text == "null" { Value::Null } else { Value::Bare(word) })
            }
        }
    }

    /// A whole object or array, skipped with its brackets matched.
    fn nested(&mut self) -> Result<Piece<'a>, DecodeError> {
        let start = self.at;
        // One bit per open bracket, 1 for an object: no recursion, so no depth that the sender chooses.
        let mut open: u64 = 1;
        let mut depth = 0;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.string()?;
                    continue;
                }
                Some(bracket @ (b'{' | b'[')) => {
                    if depth == JSON_DEPTH_MAX {
                        return Err(DecodeError::TooLong {
                            what: "nesting of a header",
                            got: depth + 1,
                            max: JSON_DEPTH_MAX,
                        });
                    }
                    depth += 1;
                    open = open << 1 | u64::from(bracket == b'{');
                }
                Some(bracket @ (b'}' | b']')) => {
                    if open & 1 != u64::from(bracket == b'}') {
                        return Err(self.unexpected("the other bracket"));
                    }
                    depth -= 1;
                    open >>= 1;
                    if depth == 0 {
                        self.at += 1;
                        return Ok(Piece { text: self.slice(start, self.at), escaped: false });
                    }
                }
                Some(_) => {}
                None => return Err(self.unexpected("a closing bracket")),
            }
            self.at += 1;
        }
    }

    /// A number that fits 32 bits, with or without quotes.
    fn integer(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        let (Value::Text(piece) | Value::Bare(piece)) = self.value()? else { return Ok(0) };
        piece.text.parse().map_err(|_| DecodeError::bad_value(field, piece.text, "a 32-bit number"))
    }

    /// The object of extension fields, or `null`.
    fn ext_fields(&mut self, fields: &mut ExtFields<'a>) -> Result<(), DecodeError> {
        self.skip_blank();
        if self.peek() != Some(b'{') {
            return match self.value()? {
                Value::Null => Ok(()),
                Value::Text(_) | Value::Bare(_) => Err(DecodeError::json(WHAT, "extFields is not an object")),
            };
        }
        self.at += 1;
        while let Some(key) = self.next_key()? {
            if let Value::Text(value) | Value::Bare(value) = self.value()? {
                fields.push(ExtField {
                    key: key.text,
                    value: value.text,
                    key_escaped: key.escaped,
                    value_escaped: value.escaped,
                })?;
            }
        }
        Ok(())
    }
}

/// Appends a JSON header. Members in the order in which RocketMQ writes them; absent ones are left out.
pub(super) fn write<'a>(out: &mut BytesMut, head: &Head<'_>, ext: impl Iterator<Item = (&'a str, &'a str)>) {
    out.put_slice(b"{\"code\":");
    put_number(out, i64::from(head.code));
    let mut separator: &[u8] = b",\"extFields\":{";
    for (key, value) in ext {
        out.put_slice(separator);
        put_string(out, key);
        out.put_u8(b':');
        put_string(out, value);
        separator = b",";
    }
    if separator == b"," {
        out.put_u8(b'}');
    }
    out.put_slice(b",\"flag\":");
    put_number(out, i64::from(head.flag.cast_signed()));
    out.put_slice(b",\"language\":");
    put_string(out, head.language.name());
    out.put_slice(b",\"opaque\":");
    put_number(out, i64::from(head.opaque));
    if let Some(remark) = head.remark {
        out.put_slice(b",\"remark\":");
        put_string(out, remark);
    }
    out.put_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
    put_number(out, i64::from(head.version));
    out.put_u8(b'}');
}

#[cfg(test)]
mod tests;
