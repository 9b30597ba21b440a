//! The subcommands that talk to a running broker: send, tail, tx, completions. What works is printed and exits with 0;
//! what does not is one line that says what to do.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};

use mezzo_tests::binary::{Binary, mezzo, run};
use mezzo_tests::producer::{Producer, SUCCESS, Verdict};
use mezzo_tests::source::workspace;
use mezzo_tests::wire::Wire;
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
        Self::with(&[])
    }

    fn with(settings: &[&str]) -> Self {
        let dir = TempDir::new().expect("a temporary folder can be made");
        let settings = [&SMALL, settings].concat();
        let binary = Binary::serve(&dir.path().join("data"), &dir.path().join("log"), &settings);
        Self { binary, _dir: dir }
    }

    /// A command that does not end by itself, or that reads.
    fn spawn(&self, arguments: &[&str]) -> std::process::Child {
        let mut command = Command::new(mezzo());
        command.args(arguments).args(["--name-server", &self.binary.name_server.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the binary can be run")
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
    shell.printed(&["send", "orders", "\u{1b}[2Jnothing", "--tag", "evil"]);
    let text = shell.printed(&["tail", "orders", "--from", "first", "--tags", "evil", "--count", "1"]);
    assert!(
        text.contains(r"\u{1b}[2Jnothing") && !text.contains('\u{1b}'),
        "a terminal would obey: {text:?}"
    );
    let exact = shell.json(&["tail", "orders", "--from", "first", "--tags", "evil", "--count", "1"]);
    assert_eq!(exact[0]["body"], "\u{1b}[2Jnothing", "JSON loses nothing");
    let mut names = Wire::connect(shell.binary.name_server);
    let topics: Value = serde_json::from_slice(&names.call(206, &[], b"").body).expect("the topics");
    assert_eq!(topics["topicList"], serde_json::json!(["orders"]), "tail leaves nothing behind");
    let said = shell.refused(&["send", "orders", "x", "--property", "shop"]);
    assert!(said.contains("NAME=VALUE"), "{said}");
}

#[test]
fn tx_policy_sets_shows_and_clears_how_a_group_is_asked() {
    let shell = Shell::start();
    let set = shell.json(&["tx", "policy", "set", "PG_cli", "attempts=3,then=rollback"]);
    assert_eq!((set.len(), &set[0]["own"], &set[0]["group"]), (1, &true.into(), &"PG_cli".into()));
    let shown = shell.printed(&["tx", "policy", "show", "PG_cli"]);
    assert!(shown.contains("attempts=3") && shown.contains("(its own)"), "{shown}");
    let cleared = shell.printed(&["tx", "policy", "clear", "PG_cli"]);
    assert!(cleared.contains("attempts=15") && cleared.contains("(the broker's)"), "{cleared}");
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
    for arguments in
        [&["send", "orders", "x"][..], &["tail", "orders"], &["tx", "list"], &["tx", "show", "1"]]
    {
        let output = run(&[arguments, &["--name-server", "127.0.0.1:1"]].concat());
        let said = one_line(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        for part in ["127.0.0.1:1", "mezzo serve", "--name-server"] {
            assert!(said.contains(part), "{part} in {said}");
        }
        let output = run(&[arguments, &["--name-server", "nowhere"]].concat());
        let said = one_line(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("--name-server") && said.contains("127.0.0.1:9876"), "{said}");
    }
}

/// The names of the fields of an object, those of objects within it behind theirs.
fn fields(value: &Value) -> Vec<String> {
    let object = value.as_object().expect("an object");
    let mut names: Vec<String> = object.keys().cloned().collect();
    let events = object.get("events").and_then(Value::as_array).into_iter().flatten();
    names.extend(object.get("decision").into_iter().chain(events).flat_map(fields));
    names.sort_unstable();
    names
}

#[test]
fn json_has_the_fields_that_the_documentation_lists() {
    let shell = Shell::start();
    let sent = shell.json(&["send", "orders", "one coffee", "--tag", "paid", "--key", "order-17"]);
    assert_eq!(fields(&sent[0]), ["messageId", "offsetMessageId", "queue", "queueOffset", "sent", "topic"]);
    let many = shell.json(&["send", "load", "x", "--count", "3"]);
    assert_eq!((many.len(), fields(&many[0])), (1, vec!["sent".to_owned(), "topic".to_owned()]));
    assert_eq!(many[0]["sent"], 3);
    let tailed = shell.json(&["tail", "orders", "--from", "first", "--count", "1"]);
    assert_eq!(
        fields(&tailed[0]),
        ["body", "keys", "messageId", "properties", "queue", "queueOffset", "tag", "topic"]
    );
    assert_eq!(
        (&tailed[0]["messageId"], &tailed[0]["queue"], &tailed[0]["queueOffset"]),
        (&sent[0]["messageId"], &sent[0]["queue"], &sent[0]["queueOffset"])
    );

    let mut producer = Producer::connect(shell.binary.broker, "PG_cli");
    let half = producer.half("orders", b"one tea");
    let origin = half.log_offset.to_string();
    let mut printed = shell.json(&["tx", "list"]);
    for name in ["broker", "group", "origin", "preparedAtMs", "queue", "state", "topic"] {
        assert!(!printed[0][name].is_null(), "{name} in {}", printed[0]);
    }
    printed.extend(shell.json(&["tx", "show", &origin]));
    printed.extend(shell.json(&["tx", "commit", &origin, "--force"]));
    let page = std::fs::read_to_string(workspace().join("docs/command-line.md")).unwrap();
    for name in printed.iter().chain(&sent).chain(&tailed).flat_map(fields) {
        assert!(page.contains(&format!("`{name}`")), "docs/command-line.md does not explain {name}");
    }
}

#[test]
fn a_body_can_be_piped_in_and_bytes_come_out_as_they_went_in() {
    let shell = Shell::start();
    let mut sending = shell.spawn(&["send", "orders", "-"]);
    sending.stdin.take().unwrap().write_all(b"\xff\x00\n").unwrap();
    let output = sending.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tailed = shell.json(&["tail", "orders", "--from", "first", "--count", "1"]);
    assert_eq!(tailed[0]["body"], serde_json::json!([255, 0, 10]));
}

#[test]
fn a_delayed_message_is_not_there_before_its_time() {
    let shell = Shell::start();
    let begin = std::time::Instant::now();
    shell.printed(&["send", "reminders", "tea", "--delay", "1500ms"]);
    let tailed = shell.json(&["tail", "reminders", "--from", "first", "--count", "1"]);
    assert_eq!(tailed[0]["body"], "tea");
    assert!(begin.elapsed().as_millis() >= 1500, "it came after {:?}", begin.elapsed());
    let both = shell.run(&["send", "reminders", "tea", "--delay", "1s", "--delay-level", "2"]);
    assert_eq!(both.status.code(), Some(2));
}

#[test]
fn a_topic_that_does_not_exist_and_is_not_created_is_said_so() {
    let shell = Shell::with(&["topic.auto_create=false"]);
    for count in ["1", "300"] {
        let output = shell.run(&["send", "orders", "x", "--count", count]);
        let said = one_line(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("orders") && said.contains("topic.auto_create"), "{said}");
        assert_eq!(said.contains("0 of 300 messages are sent"), count == "300", "{said}");
    }
}

#[test]
fn wrong_usage_says_what_would_be_right_and_ends_with_code_2() {
    for (arguments, right) in [
        (&["send", "orders"][..], "pipe it in"),
        (&["send", "orders", "x", "--property", "shop"], "NAME=VALUE"),
        (&["send", "orders", "x", "--delay", "5"], "5sec"),
        (&["send", "or ders", "x"], "letters, digits"),
        (&["tx", "show", "first"], "`mezzo tx list`"),
        (&["tx", "policy", "set", "g", "attempts=0"], "a number of 1 to 1000"),
        (&["tx", "list", "--older-than", "5"], "5sec"),
        (&["serve", "--listen", "8080"], "127.0.0.1:10911"),
        (&["serve", "--set", "store.ack"], "--set store.ack=memory"),
    ] {
        let output = Command::new(mezzo()).args(arguments).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(right), "{arguments:?}: {said}");
    }
}

#[test]
fn an_address_of_the_wrong_kind_is_recognised() {
    let shell = Shell::start();
    let (broker, name_server) = (shell.binary.broker.to_string(), shell.binary.name_server.to_string());
    let said = one_line(&run(&["send", "orders", "x", "--name-server", &broker]));
    assert!(said.contains("no name server") && said.contains(&broker), "{said}");
    let said = shell.refused(&["tx", "list", "--broker", &name_server]);
    assert!(said.contains("name server"), "{said}");
}

#[test]
fn a_tail_that_is_told_to_stop_ends_in_order() {
    let shell = Shell::start();
    shell.printed(&["send", "orders", "one coffee"]);
    let mut tail = shell.spawn(&["tail", "orders", "--from", "first"]);
    let mut first = String::new();
    BufReader::new(tail.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.contains("one coffee"), "{first}");
    assert!(Command::new("kill").args(["-TERM", &tail.id().to_string()]).status().unwrap().success());
    assert_eq!(tail.wait().unwrap().code(), Some(0));
}

#[test]
fn a_reader_that_closes_early_is_no_failure() {
    let shell = Shell::start();
    shell.printed(&["send", "orders", "one coffee"]);
    let name_server = shell.binary.name_server.to_string();
    for arguments in [
        &["--help"][..],
        &["version"],
        &["config"],
        &["completions", "bash"],
        &["tail", "orders", "--from", "first", "--name-server", &name_server],
        &["tx", "list", "--name-server", &name_server],
        &["send", "orders", "x", "--name-server", &name_server],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output =
            Command::new(mezzo()).args(arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{arguments:?}: {}: {said}", output.status);
    }
}

#[test]
fn every_level_of_help_has_examples() {
    for command in [
        "",
        "serve",
        "config",
        "demo",
        "send",
        "tail",
        "tx",
        "tx list",
        "tx show",
        "tx commit",
        "tx rollback",
        "tx resume",
        "completions",
    ] {
        let arguments: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let output = run(&arguments);
        let help = String::from_utf8(output.stdout).unwrap();
        let example = format!("  mezzo {command}");
        let examples =
            help.split_once("Examples:\n").map(|(_, examples)| examples.contains(example.trim_end()));
        assert!(output.status.success() && examples == Some(true), "mezzo {command} --help:\n{help}");
    }
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
        "asked for the 1st time",
        "asked for the 2nd time",
        "parked: asked often enough",
        "receives \"a cake\"",
        "committed by an operator",
        "What to try next",
    ] {
        let at =
            rest.find(part).unwrap_or_else(|| panic!("{part:?} is missing, or comes too early:\n{told}"));
        rest = &rest[at + part.len()..];
    }
    assert!(!told.contains("receives \"ten thousand espressi\""), "{told}");
    assert!(
        told.matches("timeline\n").count() >= 5,
        "each act shows what happened to its transaction:\n{told}"
    );
}
