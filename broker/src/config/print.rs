//! All settings with their documentation as a TOML file: what `mezzo config` prints.

use std::fmt::Write as _;

use super::sections::{Config, KEYS, SECTIONS};

/// The settings of `config` as commented TOML; reading it back gives `config` again.
#[must_use]
pub fn commented_toml(config: &Config) -> String {
    let mut out = String::from("# Settings of mezzo. What is left out has the value shown here.\n");
    for (section, about) in SECTIONS {
        out.push('\n');
        for line in *about {
            // writing to a string cannot fail
            let _ = writeln!(out, "#{line}");
        }
        let _ = writeln!(out, "[{section}]");
        for key in KEYS.iter().filter(|key| key.section == *section) {
            for line in key.help {
                let _ = writeln!(out, "#{line}");
            }
            let value = (key.show)(config);
            let value = if key.bare { value } else { toml::Value::String(value).to_string() };
            let _ = writeln!(out, "{} = {value}", key.name);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn printed_settings_read_back_as_themselves() {
        let mut config = Config::default();
        for assignment in [
            "store.ack=memory",
            "server.advertise=example.org:1",
            "limits.topics=7",
            "topic.auto_create=false",
        ] {
            config.set(assignment).unwrap();
        }
        let mut read = Config::default();
        read.merge_toml(&commented_toml(&config), Path::new("printed")).unwrap();
        assert_eq!(read, config);
    }

    #[test]
    fn every_setting_is_printed_with_its_help() {
        let text = commented_toml(&Config::default());
        for key in KEYS {
            assert!(text.contains(&format!("\n{} = ", key.name)), "{}", key.full_name());
            assert!(key.help.iter().any(|line| !line.trim().is_empty()), "{}", key.full_name());
        }
    }
}
