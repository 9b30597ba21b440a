//! `mezzo config`: prints all settings with their documentation.

use std::io::Write as _;

use super::exit::Exit;
use crate::config::{Config, commented_toml};

/// Prints `config` as commented TOML.
pub(super) fn print(config: &Config) -> Exit {
    // a reader that closes early (`mezzo config | head`) is no failure
    let _ = std::io::stdout().write_all(commented_toml(config).as_bytes());
    Exit::Done
}
