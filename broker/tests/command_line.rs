//! The binary as scripts see it: one-line errors that say what to do, exit codes, and an orderly stop.

#![allow(clippy::unwrap_used, reason = "what is not as expected fails the test, also in what tests share")]

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(10);

fn mezzo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mezzo"));
    command.args(arguments);
    command
}

/// Arguments that serve on free ports in `dir`.
fn in_folder(dir: &Path) -> Vec<String> {
    let dir = dir.to_str().unwrap();
    ["serve", "--listen", "127.0.0.1:0", "--name-server-listen", "127.0.0.1:0", "--data-dir", dir]
        .map(str::to_owned)
        .to_vec()
}

/// A serving process; ends with the test.
struct Serving {
    child: Child,
    banner: String,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(dir: &Path) -> Serving {
    let arguments = in_folder(dir);
    let child = mezzo(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    banner_of(child)
}

/// Waits until the process serves.
fn banner_of(mut child: Child) -> Serving {
    let mut banner = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    while !banner.contains("stop ") && lines.read_line(&mut banner).unwrap() > 0 {}
    Serving { child, banner }
}

/// The one line that a failing start writes to the standard error, and its exit code.
fn failure(arguments: &[&str]) -> (i32, String) {
    let Output { status, stderr, .. } = mezzo(arguments).output().unwrap();
    let text = String::from_utf8(stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "one line: {text}");
    assert!(text.starts_with("mezzo: "), "{text}");
    (status.code().unwrap(), text)
}

fn failure_in(dir: &Path, more: &[&str]) -> (i32, String) {
    let arguments = in_folder(dir);
    let all: Vec<&str> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
    failure(&all)
}

#[test]
fn settings_that_cannot_be_end_with_code_2() {
    let dir = tempfile::tempdir().unwrap();
    for (setting, told) in [
        ("store.akc=memory", "did you mean \"store.ack\"?"),
        ("store.ack=sometimes", "expected \"durable\" or \"memory\""),
        ("store.segment_size=1MiB", "store.segment_size 1MiB cannot hold the largest message"),
        ("server.advertise=no such host", "cannot be resolved"),
    ] {
        let (code, text) = failure_in(dir.path(), &["--set", setting]);
        assert_eq!(code, 2, "{setting}");
        assert!(text.contains(told), "{text}");
    }
}

#[test]
fn a_port_in_use_ends_with_code_1_and_names_the_setting() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let arguments = [
        "serve",
        "--listen",
        &address,
        "--name-server-listen",
        "127.0.0.1:0",
        "--data-dir",
        dir.path().to_str().unwrap(),
    ];
    let (code, text) = failure(&arguments);
    assert_eq!(code, 1);
    assert!(text.contains(&address) && text.contains("server.listen"), "{text}");
}

#[test]
fn a_folder_that_another_broker_owns_ends_with_code_1() {
    let dir = tempfile::tempdir().unwrap();
    let _owner = serve(dir.path());
    let (code, text) = failure_in(dir.path(), &[]);
    assert_eq!(code, 1);
    assert!(text.contains("another process"), "{text}");
}

#[test]
fn a_serving_broker_says_where_and_stops_in_order_on_signals() {
    for signal in ["-TERM", "-INT"] {
        let dir = tempfile::tempdir().unwrap();
        let mut serving = serve(dir.path());
        for part in ["broker", "name server", "data", "durable"] {
            assert!(serving.banner.contains(part), "{part} in {}", serving.banner);
        }
        let pid = serving.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        assert_eq!(serving.child.wait().unwrap().code(), Some(0), "{signal}");
    }
}

/// Whether the process has a handler of its own for SIGTERM.
fn catches_sigterm(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask >> 14 & 1 == 1
}

#[test]
fn a_start_that_takes_long_says_so_and_is_ended_by_a_signal() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base");
    std::fs::create_dir(&base).unwrap();
    // a state file that is never read to its end
    let pipe = base.join("00000000000000000000");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let arguments = in_folder(dir.path());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut child = mezzo(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let begin = Instant::now();
    while !(catches_sigterm(child.id()) && dir.path().join("lock").exists()) {
        assert!(begin.elapsed() < PATIENCE, "it does not start");
        std::thread::yield_now();
    }
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(log.any(|line| line.unwrap().contains("still recovering")), "it ended without a sign of life");
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let ended = loop {
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        if begin.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it does not end");
        }
        std::thread::yield_now();
    };
    assert_eq!(ended.code(), Some(0));
}

#[test]
fn idle_connections_leave_the_log_the_files_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = in_folder(dir.path()).join(" ");
    // of 256 files half are kept for the log
    let script = format!("ulimit -n 256; exec {} {arguments}", env!("CARGO_BIN_EXE_mezzo"));
    let child = Command::new("sh")
        .args(["-c", &script])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let serving = banner_of(child);
    let address = serving.banner.split_whitespace().skip_while(|word| *word != "broker").nth(1).unwrap();
    let idle: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(address).unwrap()).collect();
    // accepted in order, and closed at once what is too much: when the last is closed, all were looked at
    idle[199].set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!((&idle[199]).read(&mut [0]).unwrap(), 0);
    let open = std::fs::read_dir(format!("/proc/{}/fd", serving.child.id())).unwrap().count();
    assert!(open < 200, "{open} files are open");
}

#[test]
fn printed_settings_can_be_served_from() {
    let dir = tempfile::tempdir().unwrap();
    let printed = mezzo(&["config", "--set", "store.ack=memory"]).output().unwrap();
    assert!(printed.status.success());
    let file = dir.path().join("mezzo.toml");
    std::fs::write(&file, &printed.stdout).unwrap();
    let again = mezzo(&["config", "--config", file.to_str().unwrap()]).output().unwrap();
    assert_eq!(again.stdout, printed.stdout);
}

#[test]
fn help_and_version_are_not_errors() {
    for arguments in [&["--help"][..], &["--version"], &["version"], &["serve", "--help"]] {
        let output = mezzo(arguments).output().unwrap();
        assert!(output.status.success() && !output.stdout.is_empty(), "{arguments:?}");
    }
    assert_eq!(mezzo(&["--no-such-option"]).output().unwrap().status.code(), Some(2));
}
