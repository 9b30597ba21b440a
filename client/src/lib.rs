//! See the crate's description in `Cargo.toml`; the modules arrive with their first use.
