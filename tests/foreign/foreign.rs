//! The foreign broker as a process of its own, one for all tests of this program.
//!
//! `MEZZO_FOREIGN_BROKER` names a launcher. It prints two lines when the broker serves, and ends what it started when its
//! standard input ends, which it does with this program however that ends:
//!
//! ```text
//! implementation rocketmq-rust 1.0.0
//! name server 127.0.0.1:23456
//! ```
//!
//! What the tests expect of the broker: topics and groups are made at their first use; delay level 1 is 1 s; transactions
//! are checked back after 2 s, every 2 s. `tests/foreign/rocketmq-rust` launches one.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// The environment variable that names the launcher.
const LAUNCHER: &str = "MEZZO_FOREIGN_BROKER";

/// A foreign broker that serves.
#[derive(Debug)]
pub(crate) struct Foreign {
    /// What it is, for the table of deviations: its name without its version.
    pub(crate) implementation: String,
    /// `host:port`.
    pub(crate) name_server: String,
    /// Holds the launcher's standard input open.
    _launcher: Child,
}

/// The broker, launched at the first call; `None` if there is no launcher.
pub(crate) fn get() -> Option<&'static Foreign> {
    static RUNNING: OnceLock<Option<Foreign>> = OnceLock::new();
    RUNNING.get_or_init(launch).as_ref()
}

fn launch() -> Option<Foreign> {
    let launcher = std::env::var_os(LAUNCHER)?;
    let mut child = Command::new(&launcher)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{} cannot be run: {error}", launcher.display()));
    let mut lines = BufReader::new(child.stdout.take().expect("standard output is piped")).lines();
    let mut line = |prefix: &str| {
        let line = lines.next().and_then(Result::ok).unwrap_or_default();
        let value = line.strip_prefix(prefix).map(str::trim);
        value.unwrap_or_else(|| panic!("the launcher says {line:?} and not {prefix:?}")).to_owned()
    };
    let implementation = line("implementation ");
    let implementation = implementation.split(' ').next().unwrap_or_default().to_owned();
    let name_server = line("name server ");
    Some(Foreign { implementation, name_server, _launcher: child })
}
