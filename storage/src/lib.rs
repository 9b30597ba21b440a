//! See the crate's description in `Cargo.toml`; the modules arrive with their first use.

pub mod error;
pub mod file_system;
pub mod format;
pub mod log;
