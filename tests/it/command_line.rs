//! The subcommands that talk to a running broker: send, tail, tx, completions. What works is printed and exits with 0;
//! what does not is one line that says what to do.

use std::process::Output;

use mezzo_tests::binary::{Binary, run};
use mezzo_tests::producer::{Producer, SUCCESS, Verdict};
use serde_json::Value;
use tempfile::TempDir;

/// Small segments: the folder is made anew for each test.
const SMALL: [&str; 2] = ["limits.message_size=128KiB", "store.segment_size=1MiB"];

struct Shell {
    binary: Binary,
    _dir: TempDir,
}

impl Shell {
    fn start() -> Self {
        let dir = TempDir::new().expect("a temporary folder can be made");
        let binary = Binary::serve(&dir.path().join("data"), &dir.path().join("log"), &SMALL);
        Self { binary, _dir: dir }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let name_server = self.binary.name_server.to_string();
        run(&[arguments, &["--name-server", &name_server]].concat())
    }

    /// What a command printed that must work.
    fn printed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).expect("what is printed is text")
    }

    fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let printed = self.printed(&[arguments, &["--json"]].concat());
        printed.lines().map(|line| serde_json::from_str(line).expect("a JSON object per line")).collect()
    }

    /// The one line that a command said which must not work.
    fn refused(&self, arguments: &[&str]) -> String {
        one_line(&self.run(arguments))
    }
}

fn one_line(output: &Output) -> String {
    assert!(!output.status.success() && output.status.code().is_some());
    let said = String::from_utf8(output.stderr.clone()).expect("errors are text");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    said
}

#[test]
fn what_send_sends_tail_prints() {
    let shell = Shell::start();
    let sent = shell.printed(&[
        "send",
        "orders",
        "one coffee",
        "--tag",
        "paid",
        "--key",
        "order-17",
        "--property",
        "shop=north",
    ]);
    assert!(sent.starts_with("sent ") && sent.contains("to orders queue "), "{sent}");
    assert_eq!(
        shell.printed(&["send", "orders", "x", "--count", "300"]).trim_end(),
        "sent 300 messages to orders"
    );
    let tailed = shell.json(&["tail", "orders", "--from", "first", "--count", "301"]);
    assert_eq!(tailed.len(), 301);
    let coffee = tailed.iter().find(|message| message["body"] == "one coffee").expect("it is there");
    assert_eq!((&coffee["tag"], &coffee["keys"][0]), (&"paid".into(), &"order-17".into()));
    assert_eq!(coffee["properties"]["shop"], "north");
    let text = shell.printed(&["tail", "orders", "--from", "first", "--tags", "paid", "--count", "1"]);
    assert!(text.contains("[paid] order-17\tone coffee"), "{text}");
    let said = shell.refused(&["send", "orders", "x", "--property", "shop"]);
    assert!(said.contains("NAME=VALUE"), "{said}");
}

#[test]
fn tx_lists_shows_and_decides_and_says_what_to_do_when_it_does_not() {
    let shell = Shell::start();
    let mut producer = Producer::connect(shell.binary.broker, "PG_cli");
    let (first, second) = (producer.half("orders", b"by hand"), producer.half("orders", b"never"));
    let [origin, other] = [&first, &second].map(|half| half.log_offset.to_string());
    let listed = shell.json(&["tx", "list", "--group", "PG_cli", "--limit", "1"]);
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0]["origin"], &listed[0]["state"]), (&first.log_offset.into(), &"PREPARED".into()));
    assert_eq!(listed[0]["broker"], shell.binary.broker.to_string());
    let table = shell.printed(&["tx", "list"]);
    assert!(table.contains("TRANSACTION") && table.contains(&origin) && table.contains(&other), "{table}");
    let none = shell.printed(&["tx", "list", "--state", "in-doubt"]);
    assert_eq!(none.trim_end(), "no open transaction matches");
    let shown = shell.printed(&["tx", "show", &origin]);
    assert!(
        shown.contains("PREPARED") && shown.contains("timeline") && shown.contains(&first.key),
        "{shown}"
    );

    let said = shell.refused(&["tx", "commit", &origin]);
    assert!(said.contains("--force") && said.contains("IN_DOUBT"), "{said}");
    let done = shell.json(&["tx", "commit", &origin, "--force", "--reason", "ticket 7"]);
    assert_eq!(
        (&done[0]["state"], &done[0]["decision"]["source"]),
        (&"COMMITTED".into(), &"OPERATOR".into())
    );
    let shown = shell.printed(&["tx", "rollback", &other, "--force"]);
    assert!(shown.contains("rolled back by an operator") && shown.contains("never visible"), "{shown}");
    let said = shell.refused(&["tx", "rollback", &origin, "--force"]);
    assert!(said.contains("COMMITTED") && said.contains("first decision stands"), "{said}");
    let said = shell.refused(&["tx", "resume", &origin]);
    assert!(said.contains("committed"), "{said}");
    let said = shell.refused(&["tx", "show", "1"]);
    assert!(said.contains("mezzo tx list"), "{said}");
    assert_eq!(producer.end(&first, Verdict::Commit).code, SUCCESS, "the producer hears of it");
    let tailed = shell.json(&["tail", "orders", "--from", "first", "--count", "1"]);
    assert_eq!(tailed[0]["body"], "by hand");
    assert!(shell.json(&["tx", "list"]).is_empty());
}

#[test]
fn when_nobody_is_there_it_says_how_to_start_a_broker() {
    for arguments in [&["send", "orders", "x"][..], &["tail", "orders"], &["tx", "list"]] {
        let said = one_line(&run(&[arguments, &["--name-server", "127.0.0.1:1"]].concat()));
        assert!(said.contains("127.0.0.1:1"), "{said}");
    }
    let said = one_line(&run(&["tx", "list", "--name-server", "127.0.0.1:1"]));
    assert!(said.contains("mezzo serve") && said.contains("--name-server"), "{said}");
    let said = one_line(&run(&["tx", "list", "--name-server", "nowhere"]));
    assert!(said.contains("--name-server") && said.contains("127.0.0.1:9876"), "{said}");
}

#[test]
fn shells_complete_the_subcommands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && script.contains("rollback") && script.contains("older-than"),
            "{shell}"
        );
    }
}

#[test]
fn the_demonstration_plays_its_four_acts() {
    let output = run(&["demo"]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    let mut rest = told.as_str();
    for part in [
        "1. A commit",
        "receives \"one espresso\"",
        "committed by its producer",
        "2. A rollback",
        "rolled back by its producer",
        "3. A producer dies",
        "asks: what became of \"two croissants\"?",
        "receives \"two croissants\"",
        "committed by an answer to the check-back",
        "4. Nobody knows",
        "asks: what became of \"a cake\"?",
        "IN_DOUBT",
        "its group was asked twice",
        "receives \"a cake\"",
        "committed by an operator",
        "What to try next",
    ] {
        let at =
            rest.find(part).unwrap_or_else(|| panic!("{part:?} is missing, or comes too early:\n{told}"));
        rest = &rest[at + part.len()..];
    }
    assert!(!told.contains("receives \"ten thousand espressi\""), "{told}");
}
