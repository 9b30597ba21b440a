//! `mezzo log dump`: the records of a log, one line each.

use clap::Args;
use mezzo_protocol::message::{properties, record::MessageView};
use mezzo_storage::{
    StorageError,
    format::{
        frame::{Frame, FrameRecord},
        record::{Decision, MessagePayload, MessagePrefix},
    },
    verify,
};
use serde_json::{Map, Value, json};

use super::{
    exit::Exit,
    log::{Folder, disk},
    output::say,
};

const DUMP: &str = "\
Examples:
  mezzo log dump --from 32768 --to 65536
  mezzo log dump --json | jq 'select(.kind == \"Decision\")'

Reads the log from its first byte on, passes over damage, and changes nothing. The broker must be stopped.";

/// Which part of the log, and how to print it.
#[derive(Debug, Args)]
#[command(after_help = DUMP)]
pub(super) struct Dump {
    #[command(flatten)]
    folder: Folder,
    /// First position wanted.
    #[arg(long, value_name = "POSITION", default_value_t = 0)]
    from: u64,
    /// Position behind the last one wanted.
    #[arg(long, value_name = "POSITION")]
    to: Option<u64>,
}

/// Prints the records.
pub(super) fn run(dump: &Dump) -> Result<Exit, StorageError> {
    let to = dump.to.unwrap_or(u64::MAX);
    let mut read_on = true;
    verify::each_frame(&disk(), &dump.folder.dir(), &mut |frame| {
        for record in frame.records().filter(|record| (dump.from..to).contains(&record.position)) {
            let fields = describe(frame, &record);
            read_on = read_on
                && say(&if dump.folder.json { Value::Object(fields).to_string() } else { line(&fields) });
        }
        Ok(())
    })?;
    Ok(Exit::Done)
}

fn describe(frame: &Frame<'_>, record: &FrameRecord<'_>) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| {
        fields.insert(name.to_owned(), value);
    };
    put("position", json!(record.position));
    put("kind", json!(format!("{:?}", record.kind)));
    put("bytes", json!(record.size()));
    put("timeMs", json!(frame.header.time_ms));
    put("term", json!(frame.header.term));
    put("index", json!(frame.header.index));
    if let Ok(payload) = MessagePayload::decode(record.kind, record.flags, record.payload) {
        match payload.prefix {
            MessagePrefix::Prepared { joins: Some(origin), .. } => put("origin", json!(origin)),
            MessagePrefix::Due { due_ms } => put("dueMs", json!(due_ms)),
            _ => {}
        }
        if let Ok(message) = MessageView::parse(payload.message) {
            put("topic", json!(message.topic()));
            put("queue", json!(message.queue_id().0));
            put("bodyBytes", json!(message.body().len()));
            if let Some(key) = properties::find(message.properties(), "UNIQ_KEY") {
                put("uniqueKey", json!(key));
            }
        }
    } else if record.kind == mezzo_storage::format::record::RecordKind::Decision
        && let Ok(decision) = Decision::decode(record.flags, record.payload)
    {
        put("origin", json!(decision.origin));
        put("outcome", json!(format!("{:?}", decision.outcome)));
        put("messages", json!(decision.count));
    }
    fields
}

fn line(fields: &Map<String, Value>) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let words = fields.iter().map(|(name, value)| format!("{name}={}", text(value)));
    words.collect::<Vec<_>>().join(" ")
}
