//! What a topic asks for.

use crate::state::topics::TopicConfig;

/// A topic's attribute `dedup`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DedupRule {
    /// Every send is a new message.
    #[default]
    Off,
    /// A client's own retry of a send whose answer may be lost is no new message.
    Retries,
    /// As [`DedupRule::Retries`]; and of sends with the same explicit id only the first one counts, whatever happened to
    /// its answer.
    Strict,
}

impl DedupRule {
    /// The attribute's name.
    pub const ATTRIBUTE: &'static str = "dedup";

    /// The rule of this name; `None` if there is none.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "off" => Some(Self::Off),
            "retries" => Some(Self::Retries),
            "strict" => Some(Self::Strict),
            _ => None,
        }
    }
}

impl TopicConfig {
    /// What the topic asks for. One comparison for a topic without attributes.
    #[must_use]
    pub fn dedup(&self) -> DedupRule {
        if self.attributes.is_empty() {
            return DedupRule::Off;
        }
        self.attributes.get(DedupRule::ATTRIBUTE).and_then(|name| DedupRule::named(name)).unwrap_or_default()
    }
}
