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

/// Room made at once for a header that is written; longer ones make more.
const HEADER_BYTES_USUAL: usize = 256;

/// Reads a JSON header.
pub(super) fn parse(header: &[u8]) -> Result<HeaderView<'_>, DecodeError> {
    let text = std::str::from_utf8(header).map_err(|_| DecodeError::Utf8 { what: WHAT })?;
    let mut view = HeaderView {
        code: 0,
        language: LanguageCode::OTHER,
        version: 0,
        opaque: 0,
        flag: 0,
        remark: None,
        ext: ExtFields::new(),
    };
    let mut scanner = Scanner { text, at: 0, failure: None };
    match scanner.header(&mut view) {
        Ok(true) => Ok(view),
        Ok(false) => Err(DecodeError::MissingField("code")),
        Err(Stopped) => Err(scanner.into_error()),
    }
}

/// A language by name, or by number as some clients write enums.
fn language(value: Value<'_>) -> LanguageCode {
    match value {
        Value::Text(piece) => LanguageCode::from_name(piece.text),
        Value::Bare(text) => text.parse().map_or(LanguageCode::OTHER, LanguageCode),
        Value::Null => LanguageCode::OTHER,
    }
}

/// The inside of a string literal; with `escaped`, its escapes are checked but not resolved.
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
    Bare(&'a str),
    Null,
}

/// The scanner cannot go on; why is in [`Scanner::failure`]. Without size, so that every step returns in registers.
#[derive(Debug, Clone, Copy)]
struct Stopped;

/// The inside of the string that starts at `at`, and the position behind it; `None` if there is none, or one with escapes.
#[inline(always)]
fn plain_string(text: &str, at: usize) -> Option<(&str, usize)> {
    let bytes = text.as_bytes();
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let start = at + 1;
    let mut end = start;
    loop {
        match bytes.get(end)? {
            b'"' => return Some((text.get(start..end)?, end + 1)),
            b'\\' => return None,
            _ => end += 1,
        }
    }
}

/// Why the scanner stopped.
enum Failure {
    /// This was expected at [`Scanner::at`].
    Expected(&'static str),
    Other(DecodeError),
}

struct Scanner<'a> {
    text: &'a str,
    /// Always at a character boundary: the scanner stops at ASCII bytes only.
    at: usize,
    failure: Option<Failure>,
}

impl<'a> Scanner<'a> {
    /// The whole header; whether it has a code.
    fn header(&mut self, view: &mut HeaderView<'a>) -> Result<bool, Stopped> {
        let mut has_code = false;
        self.expect(b'{', "'{'")?;
        while let Some(key) = self.next_key()? {
            match key.text {
                "code" => {
                    view.code = self.integer("code")?;
                    has_code = true;
                }
                "version" => view.version = self.integer("version")?,
                "opaque" => view.opaque = self.integer("opaque")?,
                "flag" => view.flag = self.integer("flag")?.cast_unsigned(),
                "language" => view.language = language(self.value()?),
                "remark" => {
                    view.remark = match self.value()? {
                        Value::Text(piece) if piece.escaped => Some(unescape(piece.text).into()),
                        Value::Text(Piece { text, .. }) | Value::Bare(text) => Some(text.into()),
                        Value::Null => None,
                    }
                }
                "extFields" => self.ext_fields(&mut view.ext)?,
                _ => {
                    self.value()?;
                }
            }
        }
        self.skip_blank();
        if self.at == self.text.len() { Ok(has_code) } else { Err(self.expected("the end")) }
    }

    #[inline(always)]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_blank(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t' | 0) = self.peek() {
            self.at += 1;
        }
    }

    #[cold]
    fn expected(&mut self, what: &'static str) -> Stopped {
        self.failure = Some(Failure::Expected(what));
        Stopped
    }

    #[cold]
    fn failed(&mut self, error: DecodeError) -> Stopped {
        self.failure = Some(Failure::Other(error));
        Stopped
    }

    #[cold]
    fn into_error(self) -> DecodeError {
        let expected = match self.failure {
            Some(Failure::Other(error)) => return error,
            Some(Failure::Expected(expected)) => expected,
            None => "something else",
        };
        let found = self.text.get(self.at..).and_then(|rest| rest.chars().next());
        let found = found.map_or_else(|| "the end".to_owned(), |found| format!("{found:?}"));
        DecodeError::json(WHAT, format!("{found} at byte {}, expected {expected}", self.at))
    }

    #[inline(always)]
    fn slice(&self, from: usize, to: usize) -> &'a str {
        self.text.get(from..to).unwrap_or_default()
    }

    #[inline(always)]
    fn expect(&mut self, wanted: u8, name: &'static str) -> Result<(), Stopped> {
        if self.peek() != Some(wanted) {
            self.skip_blank();
            if self.peek() != Some(wanted) {
                return Err(self.expected(name));
            }
        }
        self.at += 1;
        Ok(())
    }

    /// Inside an object, in front of a member or its end: the next member's name with its colon, or `None` at the end.
    /// Commas are separators that may be repeated or missing; nobody's meaning depends on them.
    #[inline(always)]
    fn next_key(&mut self) -> Result<Option<Piece<'a>>, Stopped> {
        loop {
            let key = match self.peek() {
                Some(b'"') => self.string()?,
                Some(b',' | b' ' | b'\n' | b'\r' | b'\t') => {
                    self.at += 1;
                    continue;
                }
                Some(b'}') => {
                    self.at += 1;
                    return Ok(None);
                }
                _ => Piece { text: self.bare_word("a member's name")?, escaped: false },
            };
            self.expect(b':', "':'")?;
            return Ok(Some(key));
        }
    }

    /// A string whose opening quote is next.
    #[inline(always)]
    fn string(&mut self) -> Result<Piece<'a>, Stopped> {
        let start = self.at + 1;
        let mut at = start;
        loop {
            match self.text.as_bytes().get(at) {
                Some(b'"') => {
                    self.at = at + 1;
                    return Ok(Piece { text: self.slice(start, at), escaped: false });
                }
                Some(b'\\') => return self.escaped_string(start, at),
                Some(_) => at += 1,
                None => {
                    self.at = at;
                    return Err(self.expected("the end of a string"));
                }
            }
        }
    }

    /// The rest of a string from its first backslash on.
    fn escaped_string(&mut self, start: usize, backslash: usize) -> Result<Piece<'a>, Stopped> {
        let bytes = self.text.as_bytes();
        let mut at = backslash;
        loop {
            match bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    at += match bytes.get(at + 1..) {
                        Some([b'u', a, b, c, d, ..])
                            if [a, b, c, d].into_iter().all(u8::is_ascii_hexdigit) =>
                        {
                            6
                        }
                        Some([b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' | b'\'', ..]) => 2,
                        _ => {
                            self.at = at;
                            return Err(self.expected("an escape of JSON"));
                        }
                    };
                }
                Some(_) => at += 1,
                None => {
                    self.at = at;
                    return Err(self.expected("the end of a string"));
                }
            }
        }
        self.at = at + 1;
        Ok(Piece { text: self.slice(start, at), escaped: true })
    }

    /// Letters, digits and what numbers need.
    fn bare_word(&mut self, expected: &'static str) -> Result<&'a str, Stopped> {
        let start = self.at;
        while let Some(b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'$' | b'+' | b'-' | b'.') =
            self.peek()
        {
            self.at += 1;
        }
        if self.at == start {
            return Err(self.expected(expected));
        }
        Ok(self.slice(start, self.at))
    }

    #[inline(always)]
    fn value(&mut self) -> Result<Value<'a>, Stopped> {
        if self.peek() == Some(b'"') { self.string().map(Value::Text) } else { self.other_value() }
    }

    fn other_value(&mut self) -> Result<Value<'a>, Stopped> {
        self.skip_blank();
        match self.peek() {
            Some(b'"') => self.string().map(Value::Text),
            Some(b'{' | b'[') => self.nested().map(Value::Bare),
            _ => {
                let word = self.bare_word("a value")?;
                Ok(if word == "null" { Value::Null } else { Value::Bare(word) })
            }
        }
    }

    /// A whole object or array, skipped with its brackets matched.
    fn nested(&mut self) -> Result<&'a str, Stopped> {
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
                    depth += 1;
                    if depth > JSON_DEPTH_MAX {
                        let (what, max) = ("nesting of a header", JSON_DEPTH_MAX);
                        return Err(self.failed(DecodeError::TooLong { what, got: depth, max }));
                    }
                    open = open << 1 | u64::from(bracket == b'{');
                }
                Some(bracket @ (b'}' | b']')) => {
                    if open & 1 != u64::from(bracket == b'}') {
                        return Err(self.expected("the other bracket"));
                    }
                    depth -= 1;
                    open >>= 1;
                    if depth == 0 {
                        self.at += 1;
                        return Ok(self.slice(start, self.at));
                    }
                }
                Some(_) => {}
                None => return Err(self.expected("a closing bracket")),
            }
            self.at += 1;
        }
    }

    /// A number that fits 32 bits, with or without quotes; `null` is 0.
    fn integer(&mut self, field: &'static str) -> Result<i32, Stopped> {
        let (Value::Text(Piece { text, .. }) | Value::Bare(text)) = self.value()? else { return Ok(0) };
        text.parse().map_err(|_| self.failed(DecodeError::bad_value(field, text, "a 32-bit number")))
    }

    /// The object of extension fields, or `null`.
    fn ext_fields(&mut self, fields: &mut ExtFields<'a>) -> Result<(), Stopped> {
        self.skip_blank();
        if self.peek() != Some(b'{') {
            return match self.value()? {
                Value::Null => Ok(()),
                Value::Text(_) | Value::Bare(_) => {
                    Err(self.failed(DecodeError::json(WHAT, "extFields is not an object")))
                }
            };
        }
        self.at += 1;
        loop {
            self.plain_fields(fields)?;
            let Some(Piece { text: key, escaped: key_escaped }) = self.next_key()? else { return Ok(()) };
            let (value, value_escaped) = match self.value()? {
                Value::Text(piece) => (piece.text, piece.escaped),
                Value::Bare(text) => (text, false),
                Value::Null => continue,
            };
            let pushed = fields.push(ExtField { key, value, key_escaped, value_escaped });
            pushed.map_err(|error| self.failed(error))?;
        }
    }

    /// As many fields of the form `"name":"value",` as follow one another, without blanks and escapes: nearly all of
    /// them. The position stays in a register here, which the general way cannot do.
    fn plain_fields(&mut self, fields: &mut ExtFields<'a>) -> Result<(), Stopped> {
        let text = self.text;
        let mut at = self.at;
        while let Some((key, behind_key)) = plain_string(text, at)
            && text.as_bytes().get(behind_key) == Some(&b':')
            && let Some((value, behind_value)) = plain_string(text, behind_key + 1)
        {
            let pushed = fields.push(ExtField { key, value, key_escaped: false, value_escaped: false });
            pushed.map_err(|error| self.failed(error))?;
            at = behind_value + usize::from(text.as_bytes().get(behind_value) == Some(&b','));
        }
        self.at = at;
        Ok(())
    }
}

/// Appends a JSON header. Members in the order in which RocketMQ writes them; absent ones are left out.
pub(super) fn write<'a>(out: &mut BytesMut, head: &Head<'_>, ext: impl Iterator<Item = (&'a str, &'a str)>) {
    out.reserve(HEADER_BYTES_USUAL);
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
