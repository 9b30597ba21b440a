//! The binary `mezzo`: everything is in the library, so that tests run the same code in process.

use std::process::ExitCode;

fn main() -> ExitCode {
    mezzo_broker::cli::run(std::env::args_os())
}
