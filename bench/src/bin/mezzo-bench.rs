//! The load generator's command line: one run and its JSON line, or a table over many such lines.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mezzo_bench::options::LoadOptions;
use mezzo_bench::report::Report;
use mezzo_bench::{load, table};

/// Loads a broker (Mezzo or any other that speaks RocketMQ's remoting protocol) and prints one JSON line:
/// rate, latencies in microseconds, CPU seconds, errors.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    load: LoadOptions,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reads result lines from standard input and prints a Markdown table of medians
    Table,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Some(Command::Table) => print_table(),
        None => load_once(&arguments.load),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            // if standard error is closed there is nobody to tell
            let _ = writeln!(io::stderr(), "mezzo-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn load_once(options: &LoadOptions) -> io::Result<ExitCode> {
    let report = load::run(options)?;
    writeln!(io::stdout(), "{}", serde_json::to_string(&report)?)?;
    Ok(if report.errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_table() -> io::Result<ExitCode> {
    let mut lines = String::new();
    io::stdin().read_to_string(&mut lines)?;
    let reports: Vec<Report> = lines
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    write!(io::stdout(), "{}", table::markdown(&reports))?;
    Ok(ExitCode::SUCCESS)
}
