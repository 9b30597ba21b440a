//! The ceiling server's command line.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread;

use clap::Parser;

/// Answers sends and ends of transactions as fast as they can be parsed, and keeps nothing: what `mezzo-bench`
/// reaches against it is the most that any broker could reach on this machine.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:10921")]
    listen: SocketAddr,
    /// Reactor threads; 0: one per core
    #[arg(long, default_value_t = 0)]
    reactors: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let reactors = match arguments.reactors {
        0 => thread::available_parallelism().map_or(1, usize::from),
        chosen => chosen,
    };
    match mezzo_bench::ceiling::serve(arguments.listen, reactors) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // if standard error is closed there is nobody to tell
            let _ = writeln!(io::stderr(), "mezzo-ceiling: {}: {error}", arguments.listen);
            ExitCode::FAILURE
        }
    }
}
