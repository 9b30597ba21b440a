//! The extension fields of a header: a small bounded list that borrows from the frame.
//!
//! No map: the typed headers walk over the fields once. Escapes are resolved when a value is asked for, so a field that
//! nobody reads costs nothing, and ordinary headers allocate nothing at all.

use std::borrow::Cow;

use crate::error::DecodeError;
use crate::limits::EXT_FIELDS_MAX;
use crate::remoting::json_text::unescape;

/// Fields held without an allocation. A send has 13 to 16, whoever sends it; credentials may spill over.
const INLINE_FIELDS: usize = 16;

/// One field as it stands in the frame.
#[derive(Debug, Clone, Copy)]
pub struct ExtField<'a> {
    pub(in crate::remoting) key: &'a str,
    pub(in crate::remoting) value: &'a str,
    pub(in crate::remoting) key_escaped: bool,
    pub(in crate::remoting) value_escaped: bool,
}

impl<'a> ExtField<'a> {
    /// The name.
    #[must_use]
    #[inline]
    pub fn key(&self) -> Cow<'a, str> {
        resolved(self.key, self.key_escaped)
    }

    /// The value as text; numbers and booleans of JSON as they were written.
    #[must_use]
    #[inline]
    pub fn value(&self) -> Cow<'a, str> {
        resolved(self.value, self.value_escaped)
    }

    /// Whether this is the field `name`.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        if self.key_escaped { unescape(self.key) == name } else { self.key == name }
    }
}

#[inline]
fn resolved(raw: &str, escaped: bool) -> Cow<'_, str> {
    if escaped { Cow::Owned(unescape(raw)) } else { Cow::Borrowed(raw) }
}

/// The extension fields of one header, in the order of the frame, at most [`EXT_FIELDS_MAX`].
#[derive(Debug, Clone, Default)]
pub struct ExtFields<'a> {
    /// Name and value of the first fields.
    inline: [(&'a str, &'a str); INLINE_FIELDS],
    /// Fields in `inline`.
    inline_count: usize,
    spilled: Vec<(&'a str, &'a str)>,
    /// Bit n: the name of field n holds escapes.
    escaped_keys: u64,
    /// Bit n: the value of field n holds escapes.
    escaped_values: u64,
}

const _: () = assert!(EXT_FIELDS_MAX <= 64, "one bit of a u64 for each field");

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

    #[inline(always)]
    pub(in crate::remoting) fn push(&mut self, field: ExtField<'a>) -> Result<(), DecodeError> {
        let index = self.len();
        if let Some(slot) = self.inline.get_mut(self.inline_count) {
            *slot = (field.key, field.value);
            self.inline_count += 1;
        } else if index < EXT_FIELDS_MAX {
            self.spilled.push((field.key, field.value));
        } else {
            return Err(DecodeError::TooLong {
                what: "extension fields",
                got: EXT_FIELDS_MAX + 1,
                max: EXT_FIELDS_MAX,
            });
        }
        self.escaped_keys |= u64::from(field.key_escaped) << index;
        self.escaped_values |= u64::from(field.value_escaped) << index;
        Ok(())
    }

    /// The field in place `index`, if there is one.
    #[inline]
    fn field(&self, index: usize) -> Option<ExtField<'a>> {
        let (key, value) = if index < self.inline_count {
            *self.inline.get(index)?
        } else {
            *self.spilled.get(index - self.inline_count)?
        };
        Some(ExtField {
            key,
            value,
            key_escaped: self.escaped_keys >> index & 1 != 0,
            value_escaped: self.escaped_values >> index & 1 != 0,
        })
    }

    /// The fields in the order of the frame.
    #[inline]
    pub fn fields(&self) -> impl DoubleEndedIterator<Item = ExtField<'a>> {
        (0..self.len()).filter_map(|index| self.field(index))
    }

    /// Names and values in the order of the frame.
    pub fn iter(&self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> {
        self.fields().map(|field| (field.key(), field.value()))
    }

    /// The value of `key`; of several the last, as in a map that was filled in order.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Cow<'a, str>> {
        self.fields().rev().find(|field| field.is(key)).map(|field| field.value())
    }

    /// Number of fields.
    #[must_use]
    #[inline]
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
