//! `mezzo log`: looks at the data folder of a stopped broker, and accepts what is lost of it.

use std::{path::PathBuf, sync::Arc};

use clap::{Args, Subcommand};
use mezzo_storage::{
    StorageError,
    file_system::{FileSystem, RealFileSystem},
    verify::{self, Damage, DamageKind, Lost, Repair, VerifyReport},
};
use serde_json::{Value, json};

use super::{
    exit::Exit,
    log_dump::{self, Dump},
    output::{Progress, conclude, say},
};
use crate::config::Config;

/// Origins printed of each damage as text; `--json` prints more.
const ORIGINS_SHOWN: usize = 20;
/// Bytes between two signs of life.
const PROGRESS_BYTES: u64 = 16 << 20;

const VERIFY: &str = "\
Examples:
  mezzo log verify                             the folder ./mezzo-data
  mezzo log verify --data-dir /var/lib/mezzo --json

Reads every file, changes none. The broker must be stopped.
Exit codes: 0 sound; 1 it could not be checked; 2 wrong usage; 3 damage that the next start mends by itself or can live
with; 4 damage of base or log: the broker does not start.";

const REPAIR: &str = "\
Examples:
  mezzo log verify --data-dir /var/lib/mezzo                 first: what would be lost
  mezzo log repair --accept-loss --data-dir /var/lib/mezzo

A backup is better. What is readable is kept, in front of the damage and behind it; what cannot stay is moved to the
folder `damaged`. Transactions that were open at the damage are then IN_DOUBT, because their decision may be lost: look
into their producers' databases before you decide them. Consumers get messages that stand behind the damage again, under
new queue offsets.
Exit codes: 0 done, or nothing to do; 1 it could not be done; 2 wrong usage; 4 there is rot and --accept-loss was not given.";

/// The data folder of a stopped broker.
#[derive(Debug, Args)]
pub(super) struct Log {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check every byte of the folder; tell what is damaged, what is lost with it, and what to do.
    #[command(after_help = VERIFY)]
    Verify(Folder),
    /// Accept the loss of what is damaged, so that the broker starts again.
    #[command(after_help = REPAIR)]
    Repair {
        #[command(flatten)]
        folder: Folder,
        /// Go on without what is lost.
        #[arg(long)]
        accept_loss: bool,
    },
    /// Print the records of the log.
    Dump(Dump),
}

/// Which folder, and how to print.
#[derive(Debug, Args)]
pub(super) struct Folder {
    /// The data folder (store.dir).
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print JSON, one object per line.
    #[arg(long)]
    pub(super) json: bool,
}

impl Folder {
    /// The folder that is meant.
    pub(super) fn dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| Config::default().store.dir)
    }
}

/// Carries out a subcommand.
pub(super) fn run(arguments: Log) -> Exit {
    let done = match arguments.command {
        Command::Verify(folder) => check(&folder),
        Command::Repair { folder, accept_loss: true } => accept(&folder),
        Command::Repair { folder, accept_loss: false } => check(&folder).inspect(|exit| {
            if *exit == Exit::Rot {
                eprintln!("mezzo: nothing was done: --accept-loss lets go what is listed above");
            }
        }),
        Command::Dump(dump) => log_dump::run(&dump),
    };
    done.unwrap_or_else(|error| {
        eprintln!("mezzo: {error}");
        Exit::Failed
    })
}

/// The real disk.
pub(super) fn disk() -> Arc<dyn FileSystem> {
    Arc::new(RealFileSystem)
}

fn check(folder: &Folder) -> Result<Exit, StorageError> {
    let report = verify::verify(&disk(), &folder.dir(), &mut Shown::new())?;
    print(&report, folder);
    Ok(match (report.has_rot(), report.has_other_damage()) {
        (true, _) => Exit::Rot,
        (false, true) => Exit::Damaged,
        (false, false) => Exit::Done,
    })
}

fn accept(folder: &Folder) -> Result<Exit, StorageError> {
    let done = verify::repair(&disk(), &folder.dir(), &mut Shown::new())?;
    print(&done.found, folder);
    if folder.json {
        conclude(&repaired_json(&done).to_string());
        return Ok(Exit::Done);
    }
    if done.accepted.is_empty() && !done.base_made {
        conclude("nothing is lost that was not accepted before: nothing to repair");
        return Ok(Exit::Done);
    }
    for loss in &done.accepted {
        let to = loss.to.map_or_else(|| "the end".to_owned(), |to| to.to_string());
        let _ = say(&format!("accepted: the log is lost from position {} to {to}", loss.from));
    }
    if done.base_made {
        let _ = say("made: a base that knows nothing but the log");
    }
    for path in &done.set_aside {
        let _ = say(&format!("set aside: {}", path.display()));
    }
    conclude(
        "the broker starts again; an acknowledged decision may be among what is lost: decide what is IN_DOUBT \
         (mezzo tx list --state in-doubt) by its producer's database, and expect messages behind the damage twice",
    );
    Ok(Exit::Done)
}

fn repaired_json(done: &Repair) -> Value {
    let loss = |loss: &mezzo_storage::format::loss::Loss| json!({ "from": loss.from, "to": loss.to });
    json!({
        "kind": "REPAIRED",
        "accepted": done.accepted.iter().map(loss).collect::<Vec<_>>(),
        "baseMade": done.base_made,
        "setAside": done.set_aside.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
    })
}

fn print(report: &VerifyReport, folder: &Folder) {
    for damage in &report.damages {
        let going_on =
            if folder.json { say(&damage_json(damage).to_string()) } else { say(&damage_text(damage)) };
        if !going_on {
            return;
        }
    }
    if folder.json {
        conclude(&summary_json(report).to_string());
        return;
    }
    let verdict = match (report.has_rot(), report.has_other_damage()) {
        (true, _) => "damaged: the broker does not start",
        (false, true) => "the broker starts, and mends or lives with what is listed",
        (false, false) => "sound",
    };
    conclude(&format!(
        "{}: {verdict}; log from position {} to {}, {} segments, {} frames, {} records: {} messages, {} decisions",
        folder.dir().display(),
        report.first,
        report.end,
        report.segments,
        report.frames,
        report.records,
        report.messages,
        report.decisions,
    ));
}

fn damage_text(damage: &Damage) -> String {
    let mut text = format!(
        "{} {} at offset {}: {}",
        damage.kind.as_str(),
        damage.file.display(),
        damage.offset,
        damage.reason
    );
    for line in damage.lost.iter().flat_map(lost_lines) {
        text.push_str("\n  lost: ");
        text.push_str(&line);
    }
    if damage.kind != DamageKind::Accepted {
        text.push_str("\n  next: ");
        text.push_str(damage.kind.next_step());
    }
    text
}

fn lost_lines(lost: &Lost) -> Vec<String> {
    let mut lines: Vec<String> = lost
        .positions
        .iter()
        .map(|(from, to)| format!("positions {from} to {to}, {} bytes", to - from))
        .collect();
    if let Some(frames) = lost.frames.filter(|frames| *frames > 0) {
        lines.push(format!("{frames} frames"));
    }
    for queue in &lost.queues {
        lines.push(format!(
            "{} visible messages of {}/{}, at queue offsets {} to {}",
            queue.messages, queue.topic, queue.queue, queue.first, queue.last
        ));
    }
    if lost.delayed > 0 {
        lines.push(format!("{} delayed messages", lost.delayed));
    }
    let shown = |origins: Vec<u64>| {
        let more = origins.len().saturating_sub(ORIGINS_SHOWN);
        let first: Vec<String> = origins.iter().take(ORIGINS_SHOWN).map(u64::to_string).collect();
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{rest}", first.join(", "))
    };
    if !lost.open.is_empty() {
        lines.push(format!(
            "messages of {} undecided transactions: {}",
            lost.open.len(),
            shown(lost.open.clone())
        ));
    }
    if !lost.decisions.is_empty() {
        let origins = lost.decisions.iter().map(|(origin, _)| *origin).collect();
        lines.push(format!("the records of {} decisions, about: {}", lost.decisions.len(), shown(origins)));
    }
    if !lost.told {
        lines.push(
            "no checkpoint tells more: messages, decisions, offsets or settings may be among it".to_owned(),
        );
    }
    lines
}

fn damage_json(damage: &Damage) -> Value {
    let queue = |queue: &verify::LostQueue| {
        json!({
            "topic": queue.topic, "queue": queue.queue, "messages": queue.messages,
            "firstOffset": queue.first, "lastOffset": queue.last,
        })
    };
    let decision = |(origin, outcome): &(u64, mezzo_storage::Outcome)| {
        let outcome = match outcome {
            mezzo_storage::Outcome::Committed => "COMMITTED",
            mezzo_storage::Outcome::RolledBack => "ROLLED_BACK",
        };
        json!({ "origin": origin, "outcome": outcome })
    };
    let lost = damage.lost.as_ref().map(|lost| {
        json!({
            "positions": lost.positions,
            "frames": lost.frames,
            "queues": lost.queues.iter().map(queue).collect::<Vec<_>>(),
            "delayed": lost.delayed,
            "openTransactions": lost.open,
            "decisions": lost.decisions.iter().map(decision).collect::<Vec<_>>(),
            "told": lost.told,
        })
    });
    json!({
        "kind": damage.kind.as_str(),
        "file": damage.file.display().to_string(),
        "offset": damage.offset,
        "reason": damage.reason,
        "lost": lost,
        "next": damage.kind.next_step(),
    })
}

fn summary_json(report: &VerifyReport) -> Value {
    json!({
        "kind": "SUMMARY",
        "sound": report.damages.iter().all(|damage| damage.kind == DamageKind::Accepted),
        "starts": !report.has_rot(),
        "firstPosition": report.first,
        "endPosition": report.end,
        "syncedTo": report.synced_to,
        "segments": report.segments,
        "frames": report.frames,
        "records": report.records,
        "messages": report.messages,
        "decisions": report.decisions,
    })
}

/// Signs of life on a terminal.
struct Shown {
    line: Progress,
    file: String,
    read: u64,
    shown: u64,
}

impl Shown {
    const fn new() -> Self {
        Self { line: Progress::new(), file: String::new(), read: 0, shown: 0 }
    }
}

impl verify::Progress for Shown {
    fn file(&mut self, path: &std::path::Path, _bytes: u64) {
        self.file = path.display().to_string();
    }

    fn advance(&mut self, bytes: u64) {
        self.read += bytes;
        if self.read >= self.shown + PROGRESS_BYTES {
            self.shown = self.read;
            self.line.show(&format!("{} MiB checked, now {}", self.read >> 20, self.file));
        }
    }
}
