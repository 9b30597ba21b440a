//! What can be written on the command line, and which file carries it out.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use super::{cluster, config, demo, exit::Exit, log, output::conclude, send, serve, tail, transactions};
use crate::config::{Config, ConfigError};

const EXAMPLES: &str = "\
Examples:
  mezzo demo                           transactions at work, in a temporary folder
  mezzo                                serve on 127.0.0.1, data in ./mezzo-data
  mezzo tail orders                    in a second terminal: what arrives
  mezzo send orders 'one coffee'       in a third
  mezzo tx list --state in-doubt       transactions that wait for a person
  mezzo log verify                     is the data folder of a stopped broker sound?
  mezzo help tx                        more about a command

Exit codes: 0 done, or stopped in order; 1 it could not be done; 2 wrong usage or settings;
74 the disk failed while serving.
There is no access control yet: listen on trusted networks only.";

const SERVE: &str = "\
Examples:
  mezzo serve                          on 127.0.0.1, data in ./mezzo-data
  mezzo serve --data-dir /var/lib/mezzo --set store.ack=memory
  mezzo serve --listen 0.0.0.0:10911 --name-server-listen 0.0.0.0:9876 \\
              --advertise broker.example.org
  mezzo serve --config mezzo.toml --set transaction.timeout=20s

The banner goes to the standard output, the log to the standard error; RUST_LOG=debug shows more.
Exit codes: 0 stopped in order by SIGTERM or ctrl-C; 1 could not start or stop; 2 wrong usage or
settings; 74 the disk failed, start again to recover what was acknowledged.
There is no access control yet: listen on trusted networks only.";

const CONFIG: &str = "\
Examples:
  mezzo config                         every setting, its default and what it does
  mezzo config > mezzo.toml            a file to start from, for `mezzo serve --config mezzo.toml`
  mezzo config --config mezzo.toml --set store.ack=memory    what these make together, checked";

const DEMO: &str = "\
Examples:
  mezzo demo                           needs no broker, and leaves nothing behind
  mezzo demo > demo.txt                to read at leisure";

const COMPLETIONS: &str = "\
Examples:
  mezzo completions bash > ~/.local/share/bash-completion/completions/mezzo
  mezzo completions zsh > ~/.zfunc/_mezzo
  mezzo completions fish > ~/.config/fish/completions/mezzo.fish";

/// Mezzo, a transactional message broker that speaks RocketMQ's protocol. Without a command it serves.
#[derive(Debug, Parser)]
#[command(name = "mezzo", version, about, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Settings,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve: broker and name server in one process, until SIGTERM or ctrl-C.
    #[command(after_help = SERVE)]
    Serve(Settings),
    /// Print all settings with their documentation as TOML: the defaults, or what the given options make of them.
    #[command(after_help = CONFIG)]
    Config(Settings),
    /// See transactions at work: a commit, a rollback, a check-back, one that a person decides. Takes some ten seconds.
    #[command(after_help = DEMO)]
    Demo,
    /// Send messages to a topic.
    Send(send::Send),
    /// Print the messages of a topic as they come.
    Tail(tail::Tail),
    /// List, show, commit, roll back or resume transactions.
    Tx(transactions::Transactions),
    /// Check, show or repair the data folder of a broker that is stopped.
    Log(log::Log),
    /// Print a script that completes mezzo's commands and options in a shell.
    #[command(after_help = COMPLETIONS)]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the version.
    Version,
}

/// Where settings come from: defaults, then the file, then `--set`, then the other options.
#[derive(Debug, Args)]
pub(super) struct Settings {
    /// Read settings from this TOML file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Keep data in this folder (store.dir).
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Broker address (server.listen).
    #[arg(long, value_name = "ADDR", value_parser = address)]
    listen: Option<SocketAddr>,
    /// Name server address (server.name_server_listen).
    #[arg(long, value_name = "ADDR", value_parser = address)]
    name_server_listen: Option<SocketAddr>,
    /// Address that clients are told; a name is resolved at start (server.advertise).
    #[arg(long, value_name = "HOST[:PORT]")]
    advertise: Option<String>,
    /// Set any setting; may be repeated. `mezzo config` prints them all.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "expected an address and a port, such as 127.0.0.1:10911 or [::]:10911")
}

impl Settings {
    /// The settings that these options stand for, checked.
    pub(super) fn load(self) -> Result<Config, ConfigError> {
        let mut config = Config::default();
        if let Some(path) = &self.config {
            config.merge_file(path)?;
        }
        for assignment in &self.set {
            config.set(assignment)?;
        }
        if let Some(dir) = self.data_dir {
            config.store.dir = dir;
        }
        if let Some(listen) = self.listen {
            config.server.listen = listen;
        }
        if let Some(listen) = self.name_server_listen {
            config.server.name_server_listen = listen;
        }
        if self.advertise.is_some() {
            config.server.advertise = self.advertise;
        }
        config.check()?;
        Ok(config)
    }
}

/// Carries out a command line; the first argument is the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // help and version are "errors" that belong on the standard output, with exit code 0
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            let _ = error.print();
            return exit.into();
        }
    };
    let command = arguments.command.unwrap_or(Command::Serve(arguments.serve));
    let done = match command {
        Command::Version => {
            conclude(&format!("mezzo {}", env!("CARGO_PKG_VERSION")));
            Exit::Done
        }
        Command::Demo => cluster::run(demo::run()),
        Command::Send(arguments) => cluster::run(send::run(arguments)),
        Command::Tail(arguments) => cluster::run(tail::run(arguments)),
        Command::Tx(arguments) => cluster::run(transactions::run(arguments)),
        Command::Log(arguments) => log::run(arguments),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "mezzo", &mut script);
            conclude(String::from_utf8_lossy(&script).trim_end());
            Exit::Done
        }
        Command::Config(settings) => with_config(settings, |config| config::print(&config)),
        Command::Serve(settings) => with_config(settings, serve::run),
    };
    done.into()
}

fn with_config(settings: Settings, then: impl FnOnce(Config) -> Exit) -> Exit {
    match settings.load() {
        Ok(config) => then(config),
        Err(error) => {
            eprintln!("mezzo: {error}");
            Exit::Usage
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(arguments: &[&str]) -> Result<Config, String> {
        let all = std::iter::once("mezzo").chain(arguments.iter().copied());
        let parsed = Arguments::try_parse_from(all).map_err(|error| error.to_string())?;
        let settings = match parsed.command {
            Some(Command::Serve(settings) | Command::Config(settings)) => settings,
            _ => parsed.serve,
        };
        settings.load().map_err(|error| error.to_string())
    }

    #[test]
    fn the_declaration_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn without_arguments_the_defaults_are_served() {
        assert_eq!(load(&[]), Ok(Config::default()));
        assert_eq!(load(&["serve"]), Ok(Config::default()));
    }

    #[test]
    fn options_work_with_and_without_the_subcommand() {
        let options = ["--listen", "127.0.0.1:1", "--set", "store.ack=memory", "--data-dir", "/data"];
        let with: Vec<&str> = std::iter::once("serve").chain(options).collect();
        assert_eq!(load(&options), load(&with));
        let config = load(&options).unwrap();
        assert_eq!(config.server.listen.port(), 1);
        assert_eq!(config.store.dir, PathBuf::from("/data"));
    }

    #[test]
    fn an_option_wins_over_set_and_set_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mezzo.toml");
        std::fs::write(
            &file,
            "[store]\ndir = \"from-file\"\nack = \"memory\"\n[topic]\ndefault_queues = 2\n",
        )
        .unwrap();
        let file = file.to_str().unwrap();
        let config = load(&[
            "--config",
            file,
            "--set",
            "topic.default_queues=3",
            "--set",
            "store.dir=from-set",
            "--data-dir",
            "from-option",
        ])
        .unwrap();
        assert_eq!(config.topic.default_queues, 3);
        assert_eq!(config.store.dir, PathBuf::from("from-option"));
        assert_eq!(config.store.ack, crate::config::Ack::Memory);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load(&["--config", "/nowhere/mezzo.toml"]).unwrap_err();
        assert!(error.starts_with("cannot read the configuration file /nowhere/mezzo.toml: "), "{error}");
        assert!(!error.contains('\n'));
    }
}
