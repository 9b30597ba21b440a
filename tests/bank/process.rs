//! Producers and consumers as processes of their own: this program, started again with a word that says which.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;

use mezzo_tests::chance::Chance;
use tokio::sync::watch;

use crate::{consumer, producer};

/// Tells this program that it is a process of the run, and all that such a process knows.
const POST: &str = "MEZZO_BANK_POST";
/// What a producer is told when no more transfers are wanted.
const REST: &str = "rest";

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Producer,
    /// Answers check-backs by a look instead of a fence: such a run must fail.
    CarelessProducer,
    /// Processes each message once.
    Consumer,
    /// Leaves the barrier out: such a run must fail.
    CarelessConsumer,
}

/// A place in the run, filled by one process after another.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub(crate) role: Role,
    pub(crate) number: u32,
    /// How many processes have filled it before.
    pub(crate) generation: u32,
    pub(crate) seed: u64,
    pub(crate) name_server: String,
    pub(crate) folder: PathBuf,
}

impl Post {
    /// A word of its own in file names and names of transfers.
    pub(crate) fn name(&self) -> String {
        let role = match self.role {
            Role::Producer | Role::CarelessProducer => "producer",
            Role::Consumer | Role::CarelessConsumer => "consumer",
        };
        format!("{role}{}", self.number)
    }

    fn word(&self) -> String {
        let role = match self.role {
            Role::Producer => "producer",
            Role::Consumer => "consumer",
            Role::CarelessProducer => "careless-producer",
            Role::CarelessConsumer => "careless-consumer",
        };
        let Self { number, generation, seed, name_server, folder, .. } = self;
        format!("{role}|{number}|{generation}|{seed}|{name_server}|{}", folder.display())
    }

    fn read(word: &str) -> Option<Self> {
        let mut parts = word.splitn(6, '|');
        Some(Self {
            role: match parts.next()? {
                "producer" => Role::Producer,
                "careless-producer" => Role::CarelessProducer,
                "consumer" => Role::Consumer,
                _ => Role::CarelessConsumer,
            },
            number: parts.next()?.parse().ok()?,
            generation: parts.next()?.parse().ok()?,
            seed: parts.next()?.parse().ok()?,
            name_server: parts.next()?.to_owned(),
            folder: parts.next()?.into(),
        })
    }
}

/// Not a test of its own: what the processes of a run do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn post() {
    let Ok(word) = std::env::var(POST) else { return };
    let post = Post::read(&word).expect("a post");
    let (rest, resting) = watch::channel(false);
    thread::spawn(move || {
        for line in BufReader::new(std::io::stdin()).lines() {
            if line.is_ok_and(|line| line == REST) {
                let _ = rest.send(true);
            }
        }
        // whoever started this process is done, or dead
        std::process::exit(0);
    });
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(post.folder.join(format!("{}.log", post.name())))
        .expect("the folder is there");
    tracing_subscriber::fmt().with_writer(log).with_ansi(false).with_env_filter("warn").init();
    let chance = Chance::new(post.seed);
    match post.role {
        Role::Producer | Role::CarelessProducer => producer::run(post, chance, resting).await,
        Role::Consumer | Role::CarelessConsumer => consumer::run(post, chance).await,
    }
}

/// A process that runs; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    orders: ChildStdin,
}

impl Process {
    pub(crate) fn start(post: &Post) -> Self {
        let program = std::env::current_exe().expect("this program has a file");
        let mut child = Command::new(program)
            .args(["--exact", "process::post", "--nocapture"])
            .env(POST, post.word())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it can be started again");
        let orders = child.stdin.take().expect("it is piped");
        Self { child, orders }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child has a state").is_some()
    }

    /// No more transfers, but answers.
    pub(crate) fn rest(&mut self) {
        // one that has just died is started again and told then
        let _ = writeln!(self.orders, "{REST}");
    }

    /// Ends it at once, as `kill -9` does.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // it may have ended already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal by name.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
    sent.expect("kill can be run");
}
