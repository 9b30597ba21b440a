//! `mezzo log` on the folder of a real broker: sound after an ordinary stop and after a kill, refused while it serves, and
//! what it says and does when a byte is wrong.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what is not as expected fails the test, also in what tests share"
)]

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

fn mezzo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mezzo")).args(arguments).output().unwrap()
}

fn log(command: &str, dir: &Path, more: &[&str]) -> (i32, String, String) {
    let output = mezzo(&[&["log", command, "--data-dir", dir.to_str().unwrap()], more].concat());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A serving process; ends with the test.
struct Serving {
    child: Child,
    name_server: String,
}

impl Serving {
    fn start(dir: &Path) -> Self {
        let settings = ["--set", "limits.message_size=128KiB", "--set", "store.segment_size=1MiB"];
        let mut child = Command::new(env!("CARGO_BIN_EXE_mezzo"))
            .args(["serve", "--listen", "127.0.0.1:0", "--name-server-listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir)
            .args(settings)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut banner = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        while !banner.contains("stop ") && lines.read_line(&mut banner).unwrap() > 0 {}
        let line =
            banner.lines().find(|line| line.contains("name server")).unwrap_or_else(|| panic!("{banner}"));
        let name_server =
            line.split_whitespace().find(|word| word.starts_with("127.0.0.1:")).unwrap().to_owned();
        Self { child, name_server }
    }

    fn send(&self, count: &str) {
        let sent =
            mezzo(&["send", "orders", "one coffee", "--count", count, "--name-server", &self.name_server]);
        assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn first_segment(dir: &Path) -> PathBuf {
    dir.join("log").join(format!("{:020}", 0))
}

#[test]
fn a_killed_broker_leaves_a_sound_folder_and_a_served_one_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("data");
    let serving = Serving::start(&dir);
    serving.send("5");
    let (code, _, said) = log("verify", &dir, &[]);
    assert_eq!((code, said.contains("is held by another process")), (1, true), "{said}");
    serving.kill();
    let (code, printed, said) = log("verify", &dir, &[]);
    assert_eq!(code, 0, "{printed}{said}");
    assert!(printed.contains("sound"), "{printed}");
    let (code, printed, _) = log("repair", &dir, &["--accept-loss"]);
    assert_eq!((code, printed.contains("nothing to repair")), (0, true), "{printed}");
    let (code, printed, _) = log("dump", &dir, &["--json"]);
    let messages: Vec<_> = printed.lines().filter(|line| line.contains("\"topic\":\"orders\"")).collect();
    assert_eq!((code, messages.len()), (0, 5), "{printed}");
}

#[test]
fn rot_is_told_with_what_is_lost_and_let_go_only_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("data");
    let serving = Serving::start(&dir);
    serving.send("20");
    serving.kill();
    let (_, printed, _) = log("dump", &dir, &["--json"]);
    let line = printed.lines().find(|line| line.contains("\"topic\":\"orders\"")).unwrap();
    let record: serde_json::Value = serde_json::from_str(line).unwrap();
    let position = record["position"].as_u64().unwrap() as usize;
    let mut bytes = std::fs::read(first_segment(&dir)).unwrap();
    bytes[position + 40] ^= 1;
    std::fs::write(first_segment(&dir), &bytes).unwrap();

    let folder = dir.to_str().unwrap();
    let free = ["--listen", "127.0.0.1:0", "--name-server-listen", "127.0.0.1:0"];
    let small = ["--set", "limits.message_size=128KiB", "--set", "store.segment_size=1MiB"];
    let refused = mezzo(&[&["serve", "--data-dir", folder], &free[..], &small[..]].concat());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("00000000000000000000 is damaged at offset"), "{said}");
    assert!(said.contains("mezzo log verify"), "{said}");

    let (code, printed, _) = log("verify", &dir, &[]);
    assert_eq!((code, printed.contains("ROT ")), (4, true), "{printed}");
    let (code, printed, _) = log("verify", &dir, &["--json"]);
    let damage: serde_json::Value = serde_json::from_str(printed.lines().next().unwrap()).unwrap();
    assert_eq!((code, damage["kind"].as_str()), (4, Some("ROT")), "{printed}");
    assert!(damage["lost"]["positions"][0][0].as_u64().unwrap() as usize == position, "{printed}");
    let (code, _, said) = log("repair", &dir, &[]);
    assert_eq!((code, said.contains("--accept-loss")), (4, true), "{said}");
    let (code, printed, said) = log("repair", &dir, &["--accept-loss"]);
    assert_eq!(
        (code, printed.contains("accepted: the log is lost from position")),
        (0, true),
        "{printed}{said}"
    );
    assert_eq!(std::fs::read(first_segment(&dir)).unwrap(), bytes, "the log itself is not written");

    let serving = Serving::start(&dir);
    serving.send("1");
    serving.kill();
    let (code, printed, _) = log("verify", &dir, &[]);
    assert_eq!((code, printed.contains("ACCEPTED ")), (0, true), "{printed}");
}
