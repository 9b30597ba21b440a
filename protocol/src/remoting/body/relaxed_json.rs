//! JSON as fastjson writes and reads it: turned into strict JSON, then handed to serde.
//!
//! What is tolerated beyond the standard: names without quotes (`{0:"a",name:1}`), single-quoted strings, a comma behind
//! the last element, raw control characters in strings, blanks and zero bytes behind the end. Input and depth are bounded
//! before anything is allocated; the output is at most six times the input.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::DecodeError;
use crate::limits::{JSON_BODY_BYTES_MAX, JSON_DEPTH_MAX};

/// Reads `bytes` as strict JSON, or failing that as relaxed JSON. `what` names the body in errors.
///
/// # Errors
/// If the body is too long, too deep, not UTF-8, not JSON even so, or does not have the fields of `T`.
pub fn parse<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() > JSON_BODY_BYTES_MAX {
        return Err(DecodeError::TooLong { what, got: bytes.len(), max: JSON_BODY_BYTES_MAX });
    }
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    let strict = to_strict(what, bytes)?;
    serde_json::from_str(&strict).map_err(|error| DecodeError::json(what, error.to_string()))
}

/// Strict JSON of a body. The bodies of this folder hold text, numbers and lists only, which cannot fail to be written.
pub(super) fn write<T: Serialize>(body: &T) -> Vec<u8> {
    serde_json::to_vec(body).unwrap_or_default()
}

/// Turns relaxed JSON into strict JSON, as far as it is JSON at all: what is not stays as it is, for serde to refuse.
///
/// # Errors
/// If the text is too long, too deep, not UTF-8, or a string in it does not end.
pub fn to_strict(what: &'static str, bytes: &[u8]) -> Result<String, DecodeError> {
    if bytes.len() > JSON_BODY_BYTES_MAX {
        return Err(DecodeError::TooLong { what, got: bytes.len(), max: JSON_BODY_BYTES_MAX });
    }
    let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::Utf8 { what })?;
    let mut writer = Writer { what, out: String::with_capacity(text.len() + text.len() / 8), depth: 0 };
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        rest = match first {
            '"' | '\'' => writer.string(first, rest.get(1..).unwrap_or_default())?,
            ' ' | '\n' | '\r' | '\t' | '\0' => rest.get(1..).unwrap_or_default(),
            _ if is_word(first) => writer.word(rest),
            other => {
                writer.punctuation(other)?;
                rest.get(other.len_utf8()..).unwrap_or_default()
            }
        };
    }
    Ok(writer.out)
}

/// Whether a name, a number or a literal may hold `character`.
const fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '$' | '.' | '+' | '-')
}

struct Writer {
    what: &'static str,
    out: String,
    depth: usize,
}

impl Writer {
    /// Copies a string behind its opening quote; returns what follows its closing quote.
    fn string<'t>(&mut self, quote: char, inside: &'t str) -> Result<&'t str, DecodeError> {
        self.out.push('"');
        let mut characters = inside.chars();
        while let Some(character) = characters.next() {
            match character {
                end if end == quote => {
                    self.out.push('"');
                    return Ok(characters.as_str());
                }
                // A double quote inside single quotes.
                '"' => self.out.push_str("\\\""),
                '\\' => match characters.next() {
                    Some('\'') => self.out.push('\''),
                    Some(escaped) => {
                        self.out.push('\\');
                        self.out.push(escaped);
                    }
                    None => break,
                },
                control if control < ' ' => {
                    const HEX: [char; 16] =
                        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
                    self.out.push_str("\\u00");
                    let code = u32::from(control);
                    for nibble in [code >> 4, code & 0xF] {
                        self.out.push(HEX.get(nibble as usize).copied().unwrap_or('0'));
                    }
                }
                other => self.out.push(other),
            }
        }
        Err(DecodeError::json(self.what, "a string does not end"))
    }

    /// Copies a word, in quotes if it is a name; returns what follows it.
    fn word<'t>(&mut self, text: &'t str) -> &'t str {
        let end = text.find(|character| !is_word(character)).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        let is_name = rest.trim_start_matches([' ', '\n', '\r', '\t']).starts_with(':');
        if is_name {
            self.out.push('"');
        }
        self.out.push_str(word);
        if is_name {
            self.out.push('"');
        } else {
            // Words must stay apart where the blank between them is dropped.
            let next = rest.chars().next();
            if next.is_some_and(char::is_whitespace) {
                self.out.push(' ');
            }
        }
        rest
    }

    fn punctuation(&mut self, character: char) -> Result<(), DecodeError> {
        match character {
            '{' | '[' => {
                self.depth += 1;
                if self.depth > JSON_DEPTH_MAX {
                    return Err(DecodeError::TooLong {
                        what: self.what,
                        got: self.depth,
                        max: JSON_DEPTH_MAX,
                    });
                }
            }
            '}' | ']' => {
                self.depth = self.depth.saturating_sub(1);
                if self.out.ends_with(',') {
                    self.out.pop();
                }
            }
            _ => {}
        }
        self.out.push(character);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn strict(text: &str) -> String {
        to_strict("test", text.as_bytes()).unwrap()
    }

    #[test]
    fn what_fastjson_writes_becomes_strict() {
        assert_eq!(strict(r#"{0:"a", name : 1,'q':'it\'s "x"'}"#), r#"{"0":"a","name":1,"q":"it's \"x\""}"#);
        assert_eq!(strict("[1,2,]\n\0"), "[1,2]");
        assert_eq!(strict(r#"{"a":true,b:null,c:-1.5e3,}"#), r#"{"a":true,"b":null,"c":-1.5e3}"#);
        assert_eq!(strict("{\"a\":\"\u{1}\n\"}"), r#"{"a":"\u0001\u000a"}"#);
        assert_eq!(strict(r#"{"a\"b:":"{x:1}"}"#), r#"{"a\"b:":"{x:1}"}"#);
    }

    #[test]
    fn words_are_not_joined() {
        assert!(parse::<Value>("test", b"[1 2]").is_err());
        assert!(parse::<Value>("test", b"[tr ue]").is_err());
    }

    #[test]
    fn bounds_hold() {
        let deep = "[".repeat(JSON_DEPTH_MAX + 1);
        assert!(matches!(to_strict("test", deep.as_bytes()), Err(DecodeError::TooLong { .. })));
        let long = vec![b' '; JSON_BODY_BYTES_MAX + 1];
        assert!(matches!(parse::<Value>("test", &long), Err(DecodeError::TooLong { .. })));
        assert!(parse::<Value>("test", b"{\"a").is_err());
        assert!(parse::<Value>("test", b"{\"a\\").is_err());
    }

    proptest! {
        #[test]
        fn strict_json_means_the_same_afterwards(keys in proptest::collection::vec("\\PC{0,8}", 0..5), text in any::<String>()) {
            let object: serde_json::Map<String, Value> =
                keys.into_iter().map(|key| (key, Value::from(vec![text.clone()]))).collect();
            let value = Value::Object(object);
            let again: Value = serde_json::from_str(&strict(&value.to_string())).unwrap();
            prop_assert_eq!(again, value);
        }

        #[test]
        fn any_text_is_handled(text in any::<String>(), relaxed in "[{}\\[\\]:,'\"a0\\\\ ]{0,40}") {
            let _ = parse::<Value>("test", text.as_bytes());
            let _ = parse::<Value>("test", relaxed.as_bytes());
        }
    }
}
