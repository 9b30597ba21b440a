//! `mezzo config`: prints all settings with their documentation.

use super::{exit::Exit, output::conclude};
use crate::config::{Config, commented_toml};

/// Prints `config` as commented TOML.
pub(super) fn print(config: &Config) -> Exit {
    conclude(commented_toml(config).trim_end());
    Exit::Done
}
