//! Deserialisers for what clients write in several ways.

use serde::{Deserialize, Deserializer};

/// A number or its text.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum NumberOrText {
    Number(i64),
    Text(String),
}

impl NumberOrText {
    fn number(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok(),
        }
    }
}

/// A number, with or without quotes; `null` and what is no number are 0.
pub(super) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let read = Option::<NumberOrText>::deserialize(deserializer)?;
    Ok(read.and_then(|read| read.number()).unwrap_or_default())
}

/// Numbers, each with or without quotes (Go writes hashes as text); `null` is none, and what is no number is left out.
pub(super) fn numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<i64>, D::Error> {
    let read = Option::<Vec<NumberOrText>>::deserialize(deserializer)?;
    Ok(read.unwrap_or_default().iter().filter_map(NumberOrText::number).collect())
}

/// A value or `null`, which counts as its default.
pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// An enum by its name in any case or by its number, found in `variants` (name and value by number); anything else and
/// `null` is the default.
pub(super) fn choice<'de, D, T>(deserializer: D, variants: &[(&str, T)]) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Copy + Default,
{
    let read = Option::<NumberOrText>::deserialize(deserializer)?;
    let by_number = |number: i64| usize::try_from(number).ok().and_then(|index| variants.get(index));
    let found = match &read {
        Some(NumberOrText::Number(number)) => by_number(*number),
        Some(NumberOrText::Text(text)) => variants
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(text))
            .or_else(|| text.parse().ok().and_then(by_number)),
        None => None,
    };
    Ok(found.map(|(_, value)| *value).unwrap_or_default())
}
