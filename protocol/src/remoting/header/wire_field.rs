//! How one extension field becomes a value and back, and the macro that makes a typed header of a table of fields.

use std::borrow::Cow;
use std::str::FromStr;

use crate::error::DecodeError;
use crate::ids::QueueId;
use crate::message::sys_flag::SysFlag;
use crate::time::Timestamp;

/// A type that can be the value of an extension field.
pub(super) trait WireField<'a>: Sized {
    /// Reads a text that is not empty.
    fn read(field: &'static str, text: Cow<'a, str>) -> Result<Self, DecodeError>;

    /// What an absent field means.
    fn absent(field: &'static str) -> Result<Self, DecodeError> {
        Err(DecodeError::MissingField(field))
    }

    /// The text on the wire; `None` leaves the field out.
    fn write(&self) -> Option<String>;
}

impl<'a> WireField<'a> for Cow<'a, str> {
    fn read(_: &'static str, text: Self) -> Result<Self, DecodeError> {
        Ok(text)
    }

    fn write(&self) -> Option<String> {
        Some(self.clone().into_owned())
    }
}

impl<'a, T: WireField<'a>> WireField<'a> for Option<T> {
    fn read(field: &'static str, text: Cow<'a, str>) -> Result<Self, DecodeError> {
        T::read(field, text).map(Some)
    }

    fn absent(_: &'static str) -> Result<Self, DecodeError> {
        Ok(None)
    }

    fn write(&self) -> Option<String> {
        self.as_ref().and_then(T::write)
    }
}

/// A number, blanks around it ignored; they are rare, so the text is tried as it is first.
#[inline]
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok().or_else(|| trimmed_number(text))
}

#[cold]
fn trimmed_number<T: FromStr>(text: &str) -> Option<T> {
    text.trim().parse().ok()
}

impl WireField<'_> for i32 {
    #[inline]
    fn read(field: &'static str, text: Cow<'_, str>) -> Result<Self, DecodeError> {
        number(&text).ok_or_else(|| DecodeError::bad_value(field, text, "a 32-bit number"))
    }

    fn write(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl WireField<'_> for i64 {
    #[inline]
    fn read(field: &'static str, text: Cow<'_, str>) -> Result<Self, DecodeError> {
        number(&text).ok_or_else(|| DecodeError::bad_value(field, text, "a 64-bit number"))
    }

    fn write(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl WireField<'_> for bool {
    #[inline]
    fn read(field: &'static str, text: Cow<'_, str>) -> Result<Self, DecodeError> {
        match &*text {
            "false" | "0" => return Ok(false),
            "true" | "1" => return Ok(true),
            _ => {}
        }
        match text.trim() {
            "1" => Ok(true),
            "0" => Ok(false),
            word if word.eq_ignore_ascii_case("true") => Ok(true),
            word if word.eq_ignore_ascii_case("false") => Ok(false),
            other => Err(DecodeError::bad_value(field, other, "true, false, 1 or 0")),
        }
    }

    fn write(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl WireField<'_> for QueueId {
    #[inline]
    fn read(field: &'static str, text: Cow<'_, str>) -> Result<Self, DecodeError> {
        let raw = i32::read(field, Cow::Borrowed(&*text))?;
        Self::from_wire(raw).ok_or_else(|| DecodeError::bad_value(field, text, "a queue number of 0 or more"))
    }

    fn write(&self) -> Option<String> {
        Some(self.as_wire().to_string())
    }
}

impl WireField<'_> for SysFlag {
    #[inline]
    fn read(field: &'static str, text: Cow<'_, str>) -> Result<Self, DecodeError> {
        i32::read(field, text).map(Self)
    }

    fn write(&self) -> Option<String> {
        Some(self.bits().to_string())
    }
}

impl WireField<'_> for Timestamp {
    #[inline]
    fn read(field: &'static str, text: Cow<'_, str>) -> Result<Self, DecodeError> {
        i64::read(field, text).map(Self::from_wire_ms)
    }

    fn write(&self) -> Option<String> {
        Some(self.as_wire_ms().to_string())
    }
}

/// Makes a header struct with `decode` and `encode` from lines `field: Type = "name on the wire" or default;`. Without a
/// default, an absent field is an error, or `None` for an `Option`.
macro_rules! wire_header {
    ($(#[$doc:meta])* $name:ident<$life:lifetime> { $($fields:tt)* }) => {
        wire_header!(@define [$(#[$doc])*] [$name<$life>] [$life] [<$life>] $($fields)*);
    };
    ($(#[$doc:meta])* $name:ident { $($fields:tt)* }) => {
        wire_header!(@define [$(#[$doc])*] [$name] ['_] [] $($fields)*);
    };
    (@define [$($doc:tt)*] [$($name:tt)*] [$life:lifetime] [$($generics:tt)*]
        $($(#[$field_doc:meta])* $field:ident: $ty:ty = $wire:literal $(or $default:expr)?;)*
    ) => {
        $($doc)*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $($name)* {
            $($(#[$field_doc])* pub $field: $ty,)*
        }

        impl $($generics)* $($name)* {
            /// Reads the extension fields in one pass; of several with one name the last counts.
            ///
            /// # Errors
            /// If a field that must be there is missing, or one has a value outside its domain.
            pub fn decode(ext: &$crate::remoting::header::ExtFields<$life>) -> Result<Self, $crate::error::DecodeError> {
                use $crate::remoting::header::wire_field::WireField;
                $(let mut $field: Option<$ty> = None;)*
                for found in ext.fields() {
                    let value = found.value();
                    if value.is_empty() {
                        continue;
                    }
                    match &*found.key() {
                        $($wire => $field = Some(WireField::read($wire, value)?),)*
                        _ => {}
                    }
                }
                Ok(Self {
                    $($field: match $field {
                        Some(value) => value,
                        None => wire_header!(@absent $wire $(, $default)?),
                    },)*
                })
            }

            /// The extension fields, those without a value left out.
            #[must_use]
            pub fn encode(&self) -> $crate::remoting::command::ExtPairs {
                use $crate::remoting::header::wire_field::WireField;
                let fields = [$(($wire, WireField::write(&self.$field)),)*];
                fields
                    .into_iter()
                    .filter_map(|(name, value)| value.map(|value| (std::borrow::Cow::Borrowed(name), value)))
                    .collect()
            }
        }
    };
    (@absent $wire:literal) => { WireField::absent($wire)? };
    (@absent $wire:literal, $default:expr) => { $default };
}

pub(super) use wire_header;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_and_numbers_are_read_as_clients_write_them() {
        for (text, value) in [("true", true), ("1", true), ("TRUE", true), ("false", false), ("0", false)] {
            assert_eq!(bool::read("k", text.into()).unwrap(), value, "{text}");
        }
        assert!(bool::read("k", "yes".into()).is_err());
        assert_eq!(i64::read("g", " 12 ".into()).unwrap(), 12);
        assert!(i32::read("d", "2147483648".into()).is_err());
        assert!(QueueId::read("queueId", "-1".into()).is_err());
        assert_eq!(Timestamp::read("t", "-1".into()).unwrap(), Timestamp::ZERO);
    }
}
