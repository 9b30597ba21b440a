//! The broker's settings. `sections` declares each of them once, with its default and its documentation; the file, the
//! command line's `--set` and the printed defaults are all made from that one table.
//!
//! ```text
//!   defaults ──► file (TOML) ──► --set and flags ──► check (settings that must fit each other) ──► Config
//! ```

pub(crate) mod check;
mod embedded;
mod key;
mod load;
mod print;
mod sections;
mod value;

pub use load::{ConfigError, Origin};
pub use print::commented_toml;
pub use sections::{Broker, Config, Limits, Metrics, Server, Store, Topic, Transaction};
pub use value::{Ack, AtMax};
