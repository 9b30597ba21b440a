//! Database servers of the tests' own: a fresh data folder, a socket in the file system and no port, an unprivileged user,
//! gone when the test's process is gone, however that ends.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// `nobody` on every Linux: servers refuse to run as root.
const NOBODY: u32 = 65_534;
/// Longest time for a server to be made and started, on a machine that is busy building other things.
const START_LIMIT: Duration = Duration::from_secs(120);

/// Runs the server, waits until the pipe to the test's process is closed, ends the server and removes its folder.
const WATCH: &str = r#"
folder=$1; signal=$2; shift 2
"$@" > "$folder/log" 2>&1 &
server=$!
cat > /dev/null
kill -"$signal" "$server" 2> /dev/null
wait "$server"
rm -rf "$folder"
"#;

/// A running server.
pub(crate) struct Server {
    folder: PathBuf,
    /// Holds the pipe open.
    _alive: ChildStdin,
    _watch: Child,
}

impl Server {
    /// The folder of its socket.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// PostgreSQL with the user `mezzo`, if it is installed.
pub(crate) fn postgres() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    let start = || {
        let programs = newest_folder("/usr/lib/postgresql").map(|version| version.join("bin"));
        let initdb = find("initdb", programs.as_deref())?;
        let postgres = find("postgres", programs.as_deref())?;
        let folder = folder();
        let data = folder.join("data");
        run(Command::new(initdb).arg("-D").arg(&data).args([
            "-A",
            "trust",
            "-U",
            "mezzo",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ]));
        let mut arguments = vec![postgres.into_os_string(), "-D".into(), data.into(), "-k".into()];
        arguments.push(folder.clone().into());
        // what is tested is what processes see of each other, not what a power cut leaves
        arguments.extend(["-c", "listen_addresses=", "-c", "fsync=off"].map(Into::into));
        Some(serve(folder, "QUIT", arguments, "ready to accept connections"))
    };
    SERVER.get_or_init(start).as_ref()
}

/// MariaDB with the user `root` without a password, if it is installed.
pub(crate) fn mariadb() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    let start = || {
        let install = find("mariadb-install-db", None)?;
        let mariadbd = find("mariadbd", None)?;
        let folder = folder();
        let option = |name: &str, value: &Path| format!("--{name}={}", value.display());
        let data = option("datadir", &folder.join("data"));
        run(Command::new(install).args([
            "--no-defaults",
            &data,
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ]));
        let arguments = vec![
            mariadbd.into_os_string(),
            "--no-defaults".into(),
            data.into(),
            option("socket", &folder.join("socket")).into(),
            option("pid-file", &folder.join("pid")).into(),
            "--skip-networking".into(),
            "--innodb-flush-log-at-trx-commit=0".into(),
            "--innodb-buffer-pool-size=32M".into(),
        ];
        Some(serve(folder, "TERM", arguments, "ready for connections"))
    };
    SERVER.get_or_init(start).as_ref()
}

fn find(program: &str, first: Option<&Path>) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = first.map(Path::to_owned).into_iter().chain(std::env::split_paths(&path));
    let candidates = folders.chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    candidates.map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn newest_folder(parent: &str) -> Option<PathBuf> {
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    fs::read_dir(parent)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| number(path).is_some())
        .max_by_key(number)
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn folder() -> PathBuf {
    let folder = tempfile::Builder::new().prefix("mezzo-db-").tempdir().expect("a temporary folder").keep();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("it is ours");
    if is_root() {
        chown(&folder, Some(NOBODY), Some(NOBODY)).expect("root may give it away");
    }
    folder
}

fn unprivileged(command: &mut Command) -> &mut Command {
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    // a folder that this user can enter
    command.current_dir("/")
}

fn run(command: &mut Command) {
    let output = unprivileged(command).stdin(Stdio::null()).output().expect("it is installed");
    assert!(
        output.status.success(),
        "{command:?} failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn serve(folder: PathBuf, signal: &str, arguments: Vec<std::ffi::OsString>, ready: &str) -> Server {
    let log = folder.join("log");
    let mut command = Command::new("sh");
    command.args(["-c", WATCH, "watch"]).arg(&folder).arg(signal).args(arguments);
    let own = File::create("/dev/null").expect("there is always that");
    let mut watch = unprivileged(&mut command)
        .stdin(Stdio::piped())
        .stdout(own)
        .stderr(Stdio::null())
        .spawn()
        .expect("there is a shell");
    let alive = watch.stdin.take().expect("it is piped");
    let end = Instant::now() + START_LIMIT;
    while !fs::read_to_string(&log).is_ok_and(|logged| logged.contains(ready)) {
        assert!(
            Instant::now() < end,
            "the server does not start; it logged:\n{}",
            fs::read_to_string(&log).unwrap_or_default()
        );
        thread::sleep(Duration::from_millis(20));
    }
    Server { folder, _alive: alive, _watch: watch }
}
