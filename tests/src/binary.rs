//! The real program as a child process: what a user starts, and what a crash test kills.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::thread;

use crate::source::workspace;
use crate::wait;

/// The binary under test: `MEZZO_BINARY` if set, else built from this workspace (a no-op when it is built already).
pub fn mezzo() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        if let Some(given) = std::env::var_os("MEZZO_BINARY") {
            return given.into();
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build
            .args(["build", "--workspace", "--bin", "mezzo", "--message-format=json"])
            .current_dir(workspace());
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let output = build.output().expect("cargo can be run");
        assert!(
            output.status.success(),
            "the binary does not build:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let messages = String::from_utf8(output.stdout).expect("cargo prints text");
        let executable =
            messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let executable = executable
            .filter(|message| message["target"]["name"] == "mezzo")
            .find_map(|message| message["executable"].as_str().map(PathBuf::from));
        executable.expect("cargo names the binary that it built")
    })
}

/// The word that the last line of the banner begins with.
const BANNER_END: &str = "stop";

/// Runs the program to its end.
pub fn run(arguments: &[&str]) -> Output {
    Command::new(mezzo()).args(arguments).output().expect("the binary can be run")
}

/// A serving child.
#[derive(Debug)]
pub struct Binary {
    child: Child,
    log: PathBuf,
    /// Where the broker listens.
    pub broker: SocketAddr,
    /// Where the name server listens.
    pub name_server: SocketAddr,
    /// Where metrics are served, if they are.
    pub metrics: Option<SocketAddr>,
}

impl Binary {
    /// Serves `data_dir` on free ports of the loopback, and returns once the banner is out. What the program logs is
    /// appended to `log`.
    pub fn serve(data_dir: &Path, log: &Path, settings: &[&str]) -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::serve_at(free, free, data_dir, log, settings)
    }

    /// As [`Binary::serve`], at the addresses of the broker and of the name server that clients know from before.
    pub fn serve_at(
        broker: SocketAddr,
        name_server: SocketAddr,
        data_dir: &Path,
        log: &Path,
        settings: &[&str],
    ) -> Self {
        let started = Self::start(broker, name_server, data_dir, log, settings, &[]);
        started.unwrap_or_else(|why| panic!("{why}"))
    }

    /// As [`Binary::serve`], with more in its environment.
    pub fn serve_with(
        data_dir: &Path,
        log: &Path,
        settings: &[&str],
        environment: &[(String, String)],
    ) -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let started = Self::start(free, free, data_dir, log, settings, environment);
        started.unwrap_or_else(|why| panic!("{why}"))
    }

    /// As [`Binary::serve`], of a program that may not be able to.
    ///
    /// # Errors
    /// What it printed and logged before it ended.
    pub fn try_serve(data_dir: &Path, log: &Path, settings: &[&str]) -> Result<Self, String> {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start(free, free, data_dir, log, settings, &[])
    }

    fn start(
        broker: SocketAddr,
        name_server: SocketAddr,
        data_dir: &Path,
        log: &Path,
        settings: &[&str],
        environment: &[(String, String)],
    ) -> Result<Self, String> {
        let command = Command::new(mezzo());
        Self::start_as(command, broker, name_server, data_dir, log, settings, environment)
    }

    /// As [`Binary::serve`], by a shell that does `before` and then becomes the program: to lower a limit.
    pub fn serve_under(before: &str, data_dir: &Path, log: &Path, settings: &[&str]) -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{before}; exec \"$0\" \"$@\"")]).arg(mezzo());
        let started = Self::start_as(shell, free, free, data_dir, log, settings, &[]);
        started.unwrap_or_else(|why| panic!("{why}"))
    }

    fn start_as(
        mut command: Command,
        broker: SocketAddr,
        name_server: SocketAddr,
        data_dir: &Path,
        log: &Path,
        settings: &[&str],
        environment: &[(String, String)],
    ) -> Result<Self, String> {
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command.arg("serve").arg("--data-dir").arg(data_dir);
        command.arg("--listen").arg(broker.to_string());
        command.arg("--name-server-listen").arg(name_server.to_string());
        for setting in settings {
            command.args(["--set", setting]);
        }
        let stderr =
            File::options().create(true).append(true).open(log).expect("the log file can be written");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("the binary can be run");
        let mut lines = BufReader::new(child.stdout.take().expect("standard output is piped")).lines();
        let mut banner = Vec::new();
        let (mut broker, mut name_server, mut metrics) = (None, None, None);
        while !banner.last().is_some_and(|line: &String| line.trim_start().starts_with(BANNER_END)) {
            let Some(Ok(line)) = lines.next() else {
                let _ = child.wait();
                let logged = fs::read_to_string(log).unwrap_or_default();
                return Err(format!("no banner; printed {banner:?}, logged:\n{logged}"));
            };
            broker = broker.or_else(|| address_behind(&line, "broker"));
            name_server = name_server.or_else(|| address_behind(&line, "name server"));
            metrics = metrics.or_else(|| address_behind(&line, "metrics"));
            banner.push(line);
        }
        thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let (broker, name_server) = broker.zip(name_server).expect("both are there");
        Ok(Self { child, log: log.to_owned(), broker, name_server, metrics })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, as `kill -9` does.
    pub fn kill(mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a killed child ends");
    }

    /// Asks it to stop and waits until it has.
    pub fn terminate(mut self) -> ExitStatus {
        self.signal("TERM");
        wait::until("the program stops on SIGTERM", || self.child.try_wait().expect("a child has a state"))
    }

    /// Waits until it has ended by itself; how it did, and what it has logged.
    pub fn ends_by_itself(mut self) -> (ExitStatus, String) {
        let status =
            wait::until("the program ends by itself", || self.child.try_wait().expect("a child has a state"));
        (status, self.logged())
    }

    /// Lets it go on after [`Binary::freeze`].
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Freezes it, and returns once no thread of it runs any more: system calls that were under way are over then.
    pub fn freeze(&self) {
        self.signal("STOP");
        let tasks = PathBuf::from(format!("/proc/{}/task", self.pid()));
        wait::until("all threads stand still", || {
            let mut states = fs::read_dir(&tasks).ok()?.flatten().filter_map(|task| {
                let stat = fs::read_to_string(task.path().join("stat")).ok()?;
                let (_, behind_name) = stat.rsplit_once(") ")?;
                behind_name.chars().next()
            });
            states.all(|state| state == 'T').then_some(())
        });
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status();
        assert!(sent.expect("kill can be run").success(), "the program is there to be signalled");
    }

    /// What it has logged.
    pub fn logged(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        // it may have ended already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address in a banner line such as `  name server  127.0.0.1:9876  <- …`.
fn address_behind(line: &str, name: &str) -> Option<SocketAddr> {
    let rest = line.trim_start().strip_prefix(name)?;
    let word = rest.split_whitespace().next()?.trim_end_matches(',');
    word.trim_start_matches("http://").trim_end_matches("/metrics").parse().ok()
}
