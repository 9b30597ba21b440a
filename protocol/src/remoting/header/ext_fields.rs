//! The extension fields of a header: a small bounded list that borrows from the frame.
//!
//! No map: the typed headers walk over the fields once. Escapes are resolved when a value is asked for, so a field that
//! nobody reads costs nothing, and ordinary headers allocate nothing at all.

use std::borrow::Cow;

use crate::error::DecodeError;
use crate::limits::EXT_FIELDS_MAX;
use crate::remoting::json_text::unescape;

/// Fields held without an allocation; the widest common request (a send with credentials) has 20.
const INLINE_FIELDS: usize = 24;

/// One field as it stands in the frame.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExtField<'a> {
    pub(in crate::remoting) key: &'a str,
    pub(in crate::remoting) value: &'a str,
    pub(in crate::remoting) key_escaped: bool,
    pub(in crate::remoting) value_escaped: bool,
}

impl<'a> ExtField<'a> {
    /// The name.
    #[must_use]
    pub fn key(&self) -> Cow<'a, str> {
        resolved(self.key, self.key_escaped)
    }

    /// The value as text; numbers and booleans of JSON as they were written.
    #[must_use]
    pub fn value(&self) -> Cow<'a, str> {
        resolved(self.value, self.value_escaped)
    }

    /// Whether this is the field `name`.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        if self.key_escaped { unescape(self.key) == name } else { self.key == name }
    }
}

fn resolved(raw: &str, escaped: bool) -> Cow<'_, str> {
    if escaped { Cow::Owned(unescape(raw)) } else { Cow::Borrowed(raw) }
}

/// The extension fields of one header, in the order of the frame, at most [`EXT_FIELDS_MAX`].
#[derive(Debug, Clone, Default)]
pub struct ExtFields<'a> {
    inline: [ExtField<'a>; INLINE_FIELDS],
    /// Fields in `inline`.
    inline_count: usize,
    spilled: Vec<ExtField<'a>>,
}

impl<'a> ExtFields<'a> {
    /// No fields.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Fields from pairs of text: for tests and for requests that never were bytes.
    ///
    /// # Errors
    /// If there are more than [`EXT_FIELDS_MAX`].
    pub fn from_pairs(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, DecodeError> {
        let mut fields = Self::new();
        for (key, value) in pairs {
            fields.push(ExtField { key, value, key_escaped: false, value_escaped: false })?;
        }
        Ok(fields)
    }

    pub(in crate::remoting) fn push(&mut self, field: ExtField<'a>) -> Result<(), DecodeError> {
        if let Some(slot) = self.inline.get_mut(self.inline_count) {
            *slot = field;
            self.inline_count += 1;
            return Ok(());
        }
        if self.len() == EXT_FIELDS_MAX {
            return Err(DecodeError::TooLong {
                what: "extension fields",
                got: EXT_FIELDS_MAX + 1,
                max: EXT_FIELDS_MAX,
            });
        }
        self.spilled.push(field);
        Ok(())
    }

    /// The fields in the order of the frame.
    pub fn fields(&self) -> impl DoubleEndedIterator<Item = &ExtField<'a>> {
        self.inline.iter().take(self.inline_count).chain(&self.spilled)
    }

    /// Names and values in the order of the frame.
    pub fn iter(&self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> {
        self.fields().map(|field| (field.key(), field.value()))
    }

    /// The value of `key`; of several the last, as in a map that was filled in order.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Cow<'a, str>> {
        self.fields().rev().find(|field| field.is(key)).map(ExtField::value)
    }

    /// Number of fields.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.inline_count + self.spilled.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_fields_than_fit_inline_are_kept_up_to_the_bound() {
        let names: Vec<String> = (0..EXT_FIELDS_MAX).map(|n| format!("k{n}")).collect();
        let fields = ExtFields::from_pairs(names.iter().map(|name| (name.as_str(), name.as_str()))).unwrap();
        assert_eq!(fields.len(), EXT_FIELDS_MAX);
        for name in &names {
            assert_eq!(fields.get(name).as_deref(), Some(name.as_str()));
        }
        assert_eq!(fields.iter().count(), EXT_FIELDS_MAX);
        let more = names.iter().map(String::as_str).chain(["more"]).map(|name| (name, ""));
        assert!(ExtFields::from_pairs(more).is_err());
    }

    #[test]
    fn of_two_fields_with_one_name_the_later_counts() {
        let fields = ExtFields::from_pairs([("a", "1"), ("b", "2"), ("a", "3")]).unwrap();
        assert_eq!(fields.get("a").as_deref(), Some("3"));
        assert_eq!(fields.get("c"), None);
    }
}
