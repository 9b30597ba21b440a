//! Language codes and protocol versions: who is at the other end.

use std::fmt;

/// The language of a peer. Unknown codes are kept; unknown names become [`LanguageCode::OTHER`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LanguageCode(pub u8);

/// Names by code.
const NAMES: [&str; 14] = [
    "JAVA", "CPP", "DOTNET", "PYTHON", "DELPHI", "ERLANG", "RUBY", "OTHER", "HTTP", "GO", "PHP", "OMS",
    "RUST", "NODE_JS",
];

impl LanguageCode {
    /// Java.
    pub const JAVA: Self = Self(0);
    /// C++.
    pub const CPP: Self = Self(1);
    /// .NET.
    pub const DOTNET: Self = Self(2);
    /// Python.
    pub const PYTHON: Self = Self(3);
    /// Delphi.
    pub const DELPHI: Self = Self(4);
    /// Erlang.
    pub const ERLANG: Self = Self(5);
    /// Ruby.
    pub const RUBY: Self = Self(6);
    /// Any other; also what this implementation says of itself, because every client knows it.
    pub const OTHER: Self = Self(7);
    /// HTTP.
    pub const HTTP: Self = Self(8);
    /// Go.
    pub const GO: Self = Self(9);
    /// PHP.
    pub const PHP: Self = Self(10);
    /// OpenMessaging.
    pub const OMS: Self = Self(11);
    /// Rust.
    pub const RUST: Self = Self(12);
    /// Node.js.
    pub const NODE_JS: Self = Self(13);

    /// The name in JSON headers; `OTHER` for unknown codes.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES.get(usize::from(self.0)).copied().unwrap_or("OTHER")
    }

    /// The code of a name; [`LanguageCode::OTHER`] for unknown names.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        let index = NAMES.iter().position(|known| *known == name);
        index.and_then(|index| u8::try_from(index).ok()).map_or(Self::OTHER, Self)
    }
}

impl fmt::Display for LanguageCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The version that this implementation writes into its headers: RocketMQ 4.9.8, whose remoting features it has.
pub const PROTOCOL_VERSION: i32 = 409;

/// From this version on (RocketMQ 4.9.4) a client reads routes in standard JSON; older ones need unquoted number keys.
pub const STANDARD_JSON_VERSION_MIN: i32 = 401;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_belong_together() {
        for code in 0..=13 {
            assert_eq!(LanguageCode::from_name(LanguageCode(code).name()), LanguageCode(code));
        }
        assert_eq!(LanguageCode::GO.name(), "GO");
        assert_eq!(LanguageCode::RUST.name(), "RUST");
        assert_eq!(LanguageCode(200).name(), "OTHER");
        assert_eq!(LanguageCode::from_name("COBOL"), LanguageCode::OTHER);
    }
}
