//! The command line of `mezzo`. Without a subcommand it serves. One file per subcommand; `arguments` declares them.
//!
//! Exit codes: 0 done or stopped in order; 1 the broker could not start or stop; 2 wrong usage or settings; 74 the disk
//! failed while serving (EX_IOERR).

mod arguments;
mod banner;
mod config;
mod exit;
mod serve;

pub use arguments::run;
