//! One setting as data: its name, its help, and how to read and write it inside a [`Config`]; and the search for the
//! setting that a misspelt one was meant to be.

use super::sections::{Config, KEYS};

/// One row of the table of settings.
pub(super) struct Key {
    /// First part of its name.
    pub(super) section: &'static str,
    /// Second part of its name.
    pub(super) name: &'static str,
    /// Its documentation, line by line.
    pub(super) help: &'static [&'static str],
    /// What its value may be.
    pub(super) expected: &'static str,
    /// Whether TOML writes its value without quotes.
    pub(super) bare: bool,
    /// Writes a value into the configuration; `None` if the text is no such value.
    pub(super) set: fn(&mut Config, &str) -> Option<()>,
    /// The configuration's value as text.
    pub(super) show: fn(&Config) -> String,
}

impl Key {
    /// `section.name`.
    pub(super) fn full_name(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }
}

/// The row of a full name.
pub(super) fn find(full_name: &str) -> Option<&'static Key> {
    let (section, name) = full_name.split_once('.')?;
    KEYS.iter().find(|key| key.section == section && key.name == name)
}

/// The existing name that is most like `wrong`, if any is near enough to be meant.
pub(super) fn nearest(wrong: &str) -> Option<String> {
    let wrong = wrong.trim().replace('-', "_").to_ascii_lowercase();
    let last = wrong.rsplit('.').next().unwrap_or(&wrong);
    KEYS.iter()
        .map(|key| {
            let whole = distance(&wrong, &key.full_name());
            // a right name in a wrong section, or without one, is a near miss too
            let own = distance(last, key.name) + 1;
            (whole.min(own), key)
        })
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, key)| *distance <= 1 + key.name.len() / 3)
        .map(|(_, key)| key.full_name())
}

/// Longest text that is compared, in bytes: the table of the edit distance grows with it.
const COMPARED_BYTES_MAX: usize = 64;

/// Edits (insert, delete, replace) between two short texts.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > COMPARED_BYTES_MAX {
        return usize::MAX - 1;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let above = *cell;
            left = (diagonal + usize::from(x != y)).min(above + 1).min(left + 1);
            diagonal = above;
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_single_edits() {
        assert_eq!(distance("ack", "ack"), 0);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn a_misspelt_key_finds_the_one_that_was_meant() {
        let cases = [
            ("store.akc", "store.ack"),
            ("store.ak", "store.ack"),
            ("transaction.check-interval", "transaction.check_interval"),
            ("transactions.timeout", "transaction.timeout"),
            ("ack", "store.ack"),
            ("broker.ack", "store.ack"),
            ("limits.conections", "limits.connections"),
        ];
        for (wrong, meant) in cases {
            assert_eq!(nearest(wrong).as_deref(), Some(meant), "{wrong}");
        }
        assert_eq!(nearest("completely.different_thing"), None);
    }
}
