//! The kinds of values a setting can have, and how people write them: `6s`, `64MiB`, `true`, `127.0.0.1:10911`.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use bytesize::ByteSize;
use mezzo_protocol::check_policy::Exhausted;

/// When an append may be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    /// When it is on the disk: it survives a power cut.
    Durable,
    /// When it is in the page cache: it survives the end of the process, not of the machine.
    Memory,
}

/// What gives way when the data folder has reached its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtMax {
    /// New messages: refused, to be sent again later.
    Reject,
    /// The oldest visible messages, read or not.
    DeleteOldest,
}

/// A kind of value: how to read it from text, and how to write it so that it reads back the same.
pub(super) trait Value: Sized {
    /// What may stand there, for messages and for the printed defaults.
    const EXPECTED: &'static str;
    /// Whether TOML writes it without quotes.
    const BARE: bool = false;
    /// Reads it.
    fn parse(text: &str) -> Option<Self>;
    /// Writes it.
    fn show(&self) -> String;
}

impl Value for Duration {
    const EXPECTED: &'static str = "a duration with its unit, such as 500ms, 6s, 5m or 24h";

    fn parse(text: &str) -> Option<Self> {
        humantime::parse_duration(text.trim()).ok()
    }

    fn show(&self) -> String {
        humantime::format_duration(*self).to_string()
    }
}

impl Value for ByteSize {
    const EXPECTED: &'static str = "a size such as 4194304, 512KiB, 64MiB or 1GiB";

    fn parse(text: &str) -> Option<Self> {
        Self::from_str(text.trim()).ok()
    }

    fn show(&self) -> String {
        let bytes = self.as_u64();
        for (unit, name) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
            if bytes >= unit && bytes.is_multiple_of(unit) {
                return format!("{}{name}", bytes / unit);
            }
        }
        format!("{bytes}B")
    }
}

impl Value for Ack {
    const EXPECTED: &'static str = "\"durable\" or \"memory\"";

    fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "durable" => Some(Self::Durable),
            "memory" => Some(Self::Memory),
            _ => None,
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Durable => "durable".to_owned(),
            Self::Memory => "memory".to_owned(),
        }
    }
}

impl Value for AtMax {
    const EXPECTED: &'static str = "\"reject\" or \"delete-oldest\"";

    fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "reject" => Some(Self::Reject),
            "delete-oldest" => Some(Self::DeleteOldest),
            _ => None,
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Reject => "reject".to_owned(),
            Self::DeleteOldest => "delete-oldest".to_owned(),
        }
    }
}

impl Value for Exhausted {
    const EXPECTED: &'static str = "\"park\" or \"rollback\"";

    fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "park" => Some(Self::Park),
            "rollback" => Some(Self::RollBack),
            _ => None,
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Park => "park".to_owned(),
            Self::RollBack => "rollback".to_owned(),
        }
    }
}

impl Value for bool {
    const EXPECTED: &'static str = "true or false";
    const BARE: Self = true;

    fn parse(text: &str) -> Option<Self> {
        text.trim().parse().ok()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// Counts: whole numbers that must not be negative.
macro_rules! count {
    ($($kind:ty),+) => { $(
        impl Value for $kind {
            const EXPECTED: &'static str = "a whole number, 0 or more";
            const BARE: bool = true;

            fn parse(text: &str) -> Option<Self> {
                text.trim().replace('_', "").parse().ok()
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )+ };
}
count!(u32, usize);

impl Value for SocketAddr {
    const EXPECTED: &'static str = "an address and a port, such as 127.0.0.1:10911 or [::]:10911";

    fn parse(text: &str) -> Option<Self> {
        text.trim().parse().ok()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Option<SocketAddr> {
    const EXPECTED: &'static str = "an address and a port, such as 127.0.0.1:5557, or nothing";

    fn parse(text: &str) -> Option<Self> {
        if text.trim().is_empty() { Some(None) } else { text.trim().parse().ok().map(Some) }
    }

    fn show(&self) -> String {
        self.map_or_else(String::new, |address| address.to_string())
    }
}

impl Value for String {
    const EXPECTED: &'static str = "a word";

    fn parse(text: &str) -> Option<Self> {
        (!text.trim().is_empty()).then(|| text.trim().to_owned())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl Value for Option<String> {
    const EXPECTED: &'static str = "HOST or HOST:PORT, or nothing";

    fn parse(text: &str) -> Option<Self> {
        Some((!text.trim().is_empty()).then(|| text.trim().to_owned()))
    }

    fn show(&self) -> String {
        self.clone().unwrap_or_default()
    }
}

impl Value for PathBuf {
    const EXPECTED: &'static str = "a folder";

    fn parse(text: &str) -> Option<Self> {
        (!text.trim().is_empty()).then(|| Self::from(text))
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_reads_back_as_the_same_value() {
        for text in ["0B", "1000B", "64MiB", "1GiB", "1025KiB"] {
            let value = <ByteSize as Value>::parse(text).unwrap();
            assert_eq!(Value::show(&value), text);
        }
        for text in ["500ms", "6s", "30s", "1day", "1h 30m"] {
            let value = <Duration as Value>::parse(text).unwrap();
            assert_eq!(Value::show(&value), text);
        }
    }

    #[test]
    fn a_duration_without_a_unit_is_refused() {
        assert_eq!(<Duration as Value>::parse("6"), None);
        assert_eq!(<Duration as Value>::parse("-1s"), None);
    }

    #[test]
    fn a_negative_count_is_refused() {
        assert_eq!(<u32 as Value>::parse("-1"), None);
        assert_eq!(<usize as Value>::parse("10_000"), Some(10_000));
    }
}
