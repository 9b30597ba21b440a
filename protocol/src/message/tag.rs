//! Tags: their hash as Java computes it, and the filter of a subscription.
//!
//! A broker filters by the hash in the consume queue and lets a few wrong messages through; the client compares again.

use std::borrow::Cow;

use crate::error::DecodeError;
use crate::limits::{SUBSCRIPTION_BYTES_MAX, SUBSCRIPTION_TAGS_MAX};

/// The expression that takes every message.
pub const ALL: &str = "*";
/// The expression type of tag filters (the other one is `SQL92`).
pub const EXPRESSION_TYPE_TAG: &str = "TAG";

/// Java's `String.hashCode`: over UTF-16 units, each step times 31, wrapping.
#[must_use]
pub fn java_hash(text: &str) -> i32 {
    let step = |hash: i32, unit: u16| hash.wrapping_mul(31).wrapping_add(i32::from(unit));
    if text.is_ascii() {
        text.bytes().fold(0, |hash, byte| step(hash, u16::from(byte)))
    } else {
        text.encode_utf16().fold(0, step)
    }
}

/// The hash that a consume queue holds for a message with this tag; 0 for a message without one.
#[must_use]
pub fn tag_hash(tag: Option<&str>) -> i32 {
    tag.map_or(0, java_hash)
}

/// Which tags a subscription takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagFilter {
    /// Every message, with or without a tag.
    All,
    /// Messages with one of these tags.
    Any(TagSet),
}

/// The tags of a subscription and their hashes, each sorted and without duplicates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagSet {
    tags: Vec<String>,
    hashes: Vec<i32>,
}

impl TagSet {
    /// The tags in order.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.tags.iter().map(String::as_str)
    }

    /// The hashes in order.
    #[must_use]
    pub fn hashes(&self) -> &[i32] {
        &self.hashes
    }
}

impl TagFilter {
    /// Reads an expression: `*` or nothing takes all, else tags joined by `||`, blanks around them ignored.
    ///
    /// # Errors
    /// If the expression is too long, has too many tags, or none (only separators).
    pub fn parse(expression: &str) -> Result<Self, DecodeError> {
        if expression.len() > SUBSCRIPTION_BYTES_MAX {
            return Err(DecodeError::TooLong {
                what: "subscription",
                got: expression.len(),
                max: SUBSCRIPTION_BYTES_MAX,
            });
        }
        if expression.trim().is_empty() || expression.trim() == ALL {
            return Ok(Self::All);
        }
        let mut tags: Vec<String> =
            expression.split("||").map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect();
        if tags.is_empty() {
            return Err(DecodeError::bad_value("subscription", expression, "'*' or tags joined by '||'"));
        }
        tags.sort_unstable();
        tags.dedup();
        if tags.len() > SUBSCRIPTION_TAGS_MAX {
            return Err(DecodeError::TooLong {
                what: "tags of a subscription",
                got: tags.len(),
                max: SUBSCRIPTION_TAGS_MAX,
            });
        }
        let mut hashes: Vec<i32> = tags.iter().map(|tag| java_hash(tag)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        Ok(Self::Any(TagSet { tags, hashes }))
    }

    /// Whether a message whose tag has this hash may be wanted. A broker asks this; it never says no wrongly.
    #[must_use]
    pub fn matches_hash(&self, hash: i32) -> bool {
        match self {
            Self::All => true,
            Self::Any(set) => set.hashes.binary_search(&hash).is_ok(),
        }
    }

    /// Whether a message with this tag is wanted: exact, for the client.
    #[must_use]
    pub fn matches_tag(&self, tag: Option<&str>) -> bool {
        match (self, tag) {
            (Self::All, _) => true,
            (Self::Any(set), Some(tag)) => {
                set.tags.binary_search_by(|wanted| wanted.as_str().cmp(tag)).is_ok()
            }
            (Self::Any(_), None) => false,
        }
    }

    /// The expression, in a normal form. No spaces: there are brokers (rocketmq-rust 1.0) that hash a tag with those around
    /// it, and then find none. Only a tag that begins or ends with a bar gets them, or it would be read as part of the
    /// separator.
    #[must_use]
    pub fn expression(&self) -> Cow<'static, str> {
        let Self::Any(set) = self else { return Cow::Borrowed(ALL) };
        let mut written = String::new();
        for tag in &set.tags {
            if !written.is_empty() {
                written.push_str("||");
            }
            let blank = if tag.starts_with('|') || tag.ends_with('|') { " " } else { "" };
            written.extend([blank, tag, blank]);
        }
        if written == ALL {
            // a tag of that name, not all tags
            written.push_str("||");
        }
        Cow::Owned(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_java() {
        // Values from a Java runtime's String.hashCode.
        for (text, hash) in
            [("", 0), ("a", 97), ("TagA", 2_598_919), ("hello", 99_162_322), ("FB", 2_236), ("Ea", 2_236)]
        {
            assert_eq!(java_hash(text), hash, "{text}");
        }
        assert_eq!(java_hash("日本"), 26_085 * 31 + 26_412);
        // U+1F600 is hashed as its surrogates D83D and DE00.
        assert_eq!(java_hash("\u{1F600}"), 0xD83D * 31 + 0xDE00);
        // Overflow wraps.
        assert_eq!(java_hash("polygenelubricants"), i32::MIN);
    }

    #[test]
    fn an_expression_is_a_set_of_tags() {
        let filter = TagFilter::parse(" TagB||TagA || TagA ||  ").unwrap();
        assert_eq!(filter.expression(), "TagA||TagB");
        assert!(filter.matches_tag(Some("TagA")));
        assert!(!filter.matches_tag(Some("TagC")));
        assert!(!filter.matches_tag(None));
        assert!(filter.matches_hash(java_hash("TagB")));
        assert!(!filter.matches_hash(0));
    }

    #[test]
    fn a_tag_with_bars_around_it_is_written_so_that_it_is_read_again() {
        let filter = TagFilter::parse("|o|||a").unwrap();
        assert_eq!(filter.expression(), " |a || |o ");
        assert_eq!(TagFilter::parse(&filter.expression()).unwrap(), filter);
        let star = TagFilter::parse("||*||").unwrap();
        assert_eq!(TagFilter::parse(&star.expression()).unwrap(), star);
    }

    #[test]
    fn a_star_or_nothing_takes_everything() {
        for expression in ["*", "", " * "] {
            let filter = TagFilter::parse(expression).unwrap();
            assert_eq!(filter, TagFilter::All);
            assert!(filter.matches_tag(None) && filter.matches_hash(0) && filter.matches_hash(5));
        }
    }

    #[test]
    fn equal_hashes_pass_the_broker_and_fail_at_the_client() {
        let filter = TagFilter::parse("FB").unwrap();
        assert!(filter.matches_hash(java_hash("Ea")));
        assert!(!filter.matches_tag(Some("Ea")));
    }

    #[test]
    fn an_expression_without_tags_is_refused() {
        assert!(TagFilter::parse("||").is_err());
        assert!(TagFilter::parse(&"a||".repeat(20_000)).is_err());
        let many: String = (0..=SUBSCRIPTION_TAGS_MAX).map(|n| format!("{n}||")).collect();
        assert!(TagFilter::parse(&many).is_err());
    }
}
