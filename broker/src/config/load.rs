//! From text to a checked [`Config`]: a TOML file, then single assignments. Every error is one line that says what is
//! wrong, where, and what to write instead.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::{check, key, sections::Config};

/// Largest configuration file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A configuration file.
    File(PathBuf),
    /// `--set` or a flag of the command line.
    CommandLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::CommandLine => f.write_str("command line"),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A name that no setting has.
    #[error("{origin}: unknown setting \"{key}\"{}", hint(.nearest.as_deref()))]
    UnknownKey {
        /// Where it stands.
        origin: Origin,
        /// The name.
        key: String,
        /// The setting that was probably meant.
        nearest: Option<String>,
    },
    /// A value that the setting cannot have.
    #[error("{origin}: {key} = \"{value}\": expected {expected}")]
    BadValue {
        /// Where it stands.
        origin: Origin,
        /// The setting.
        key: String,
        /// What was written.
        value: String,
        /// What can be written.
        expected: &'static str,
    },
    /// `--set` without an assignment.
    #[error("--set \"{0}\": write it as section.key=value, for example --set store.ack=memory")]
    NoAssignment(String),
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file is not TOML.
    #[error("{}:{line}: not TOML: {reason}", path.display())]
    NotToml {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What the parser says.
        reason: String,
    },
    /// Settings that do not fit each other.
    #[error("{0}")]
    Unfit(String),
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(
        || "; `mezzo config` prints all settings".to_owned(),
        |nearest| format!("; did you mean \"{nearest}\"?"),
    )
}

impl Config {
    /// Puts the settings of a TOML file over the present ones.
    ///
    /// # Errors
    /// [`ConfigError`]: unreadable file, no TOML, unknown key, bad value.
    pub fn merge_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let unreadable = |reason: String| ConfigError::Unreadable { path: path.to_owned(), reason };
        let bytes = std::fs::metadata(path).map_err(|e| unreadable(e.to_string()))?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(unreadable(format!("{bytes} bytes; at most {FILE_BYTES_MAX} are read")));
        }
        let text = std::fs::read_to_string(path).map_err(|e| unreadable(e.to_string()))?;
        self.merge_toml(&text, path)
    }

    /// Puts the settings of a TOML text over the present ones; `path` is named in errors.
    ///
    /// # Errors
    /// [`ConfigError`]: no TOML, unknown key, bad value.
    pub fn merge_toml(&mut self, text: &str, path: &Path) -> Result<(), ConfigError> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let start = error.span().map_or(0, |span| span.start);
            ConfigError::NotToml {
                path: path.to_owned(),
                line: 1 + text.bytes().take(start).filter(|byte| *byte == b'\n').count(),
                reason: error.message().lines().next().unwrap_or_default().to_owned(),
            }
        })?;
        let origin = Origin::File(path.to_owned());
        for (section, value) in &table {
            let toml::Value::Table(settings) = value else {
                return Err(unknown(section, &origin));
            };
            for (name, value) in settings {
                self.assign(&format!("{section}.{name}"), &scalar(value), &origin)?;
            }
        }
        Ok(())
    }

    /// Carries out one `section.key=value` of the command line.
    ///
    /// # Errors
    /// [`ConfigError`]: no assignment, unknown key, bad value.
    pub fn set(&mut self, assignment: &str) -> Result<(), ConfigError> {
        let (key, value) =
            assignment.split_once('=').ok_or_else(|| ConfigError::NoAssignment(assignment.to_owned()))?;
        self.assign(key.trim(), value, &Origin::CommandLine)
    }

    /// Whether the settings fit each other.
    ///
    /// # Errors
    /// [`ConfigError::Unfit`] with what to change.
    pub fn check(&self) -> Result<(), ConfigError> {
        check::check(self).map_err(ConfigError::Unfit)
    }

    fn assign(&mut self, name: &str, value: &str, origin: &Origin) -> Result<(), ConfigError> {
        let key = key::find(name).ok_or_else(|| unknown(name, origin))?;
        (key.set)(self, value).ok_or_else(|| ConfigError::BadValue {
            origin: origin.clone(),
            key: key.full_name(),
            value: value.to_owned(),
            expected: key.expected,
        })
    }
}

fn unknown(name: &str, origin: &Origin) -> ConfigError {
    ConfigError::UnknownKey { origin: origin.clone(), key: name.to_owned(), nearest: key::nearest(name) }
}

/// A TOML value as the text that the same value has on the command line.
fn scalar(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Ack;

    fn merged(text: &str) -> Result<Config, ConfigError> {
        let mut config = Config::default();
        config.merge_toml(text, Path::new("mezzo.toml")).map(|()| config)
    }

    fn message(result: Result<Config, ConfigError>) -> String {
        let text = result.unwrap_err().to_string();
        assert!(!text.contains('\n'), "one line: {text}");
        text
    }

    #[test]
    fn file_and_command_line_write_the_same_keys() {
        let from_file =
            merged("[store]\nack = \"memory\"\n[transaction]\ntimeout = \"2s\"\ncheck_max = 3\n").unwrap();
        let mut from_flags = Config::default();
        for assignment in ["store.ack=memory", "transaction.timeout=2s", "transaction.check_max=3"] {
            from_flags.set(assignment).unwrap();
        }
        assert_eq!(from_file, from_flags);
        assert_eq!(from_file.store.ack, Ack::Memory);
        assert_eq!(from_file.transaction.timeout, Duration::from_secs(2));
    }

    #[test]
    fn an_unknown_key_names_the_nearest_one() {
        let text = message(merged("[store]\nakc = \"memory\"\n"));
        assert_eq!(text, "mezzo.toml: unknown setting \"store.akc\"; did you mean \"store.ack\"?");
        let text = message(merged("ack = \"memory\"\n"));
        assert!(text.contains("did you mean \"store.ack\"?"), "{text}");
        let text = message(merged("[nonsense]\nzzzzzzzzzzzzzz = 1\n"));
        assert!(text.contains("`mezzo config`"), "{text}");
    }

    #[test]
    fn a_bad_value_says_what_can_be_written() {
        let text = message(merged("[transaction]\ntimeout = 6\n"));
        assert_eq!(
            text,
            "mezzo.toml: transaction.timeout = \"6\": expected a duration with its unit, such as 500ms, 6s, 5m or 24h"
        );
        let text = Config::default().set("store.ack=yes").unwrap_err().to_string();
        assert_eq!(text, "command line: store.ack = \"yes\": expected \"durable\" or \"memory\"");
    }

    #[test]
    fn broken_toml_names_its_line() {
        let text = message(merged("[store]\nack = \"memory\"\nretention = = 3\n"));
        assert!(text.starts_with("mezzo.toml:3: not TOML: "), "{text}");
    }

    #[test]
    fn an_assignment_without_a_value_shows_an_example() {
        let text = Config::default().set("store.ack").unwrap_err().to_string();
        assert!(text.contains("--set store.ack=memory"), "{text}");
    }
}
