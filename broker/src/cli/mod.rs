//! The command line of `mezzo`. Without a subcommand it serves. One file per subcommand; `arguments` declares them.
//!
//! Those that talk to a running broker do so through the SDK, as any program could. `mezzo log` works on the folder of a
//! broker that is stopped.
//!
//! Exit codes: 0 done or stopped in order; 1 it could not be done, or the broker could not start or stop; 2 wrong usage
//! or settings; 3 and 4 damage that `mezzo log` found; 74 the disk failed while serving (EX_IOERR). docs/command-line.md tells users about them and about every
//! field that `--json` prints.

mod arguments;
mod banner;
mod cluster;
mod config;
mod demo;
mod exit;
mod log;
mod log_dump;
mod output;
mod send;
mod serve;
mod tail;
mod timeline;
mod transactions;

pub use arguments::run;
