//! The ledger as sections of a state file, and back. Base and checkpoint share everything but the consume queues'
//! pages, the segment summaries and the decisions of unclosed segments, which only a checkpoint holds.

mod members;
mod names;
mod queues;
mod rows;

use mezzo_protocol::ids::{GroupName, QueueId, QueueOffset, TopicName};
use mezzo_protocol::time::Timestamp;

use super::AfterLoss;
use super::admit::lease_record;
use super::groups::GroupConfig;
use super::ledger::Ledger;
use super::publish::Unseen;
use super::queues::PageId;
use super::topics::TopicConfig;
use super::transactions::history::History;
use crate::error::StorageError;
use crate::format::FormatError;
use crate::format::cursor::Cursor;
use crate::format::history_row::{HISTORY_ROW_BYTES, HistoryRow};
use crate::format::loss::Losses;
use crate::format::record::{Group, Lease, OffsetEntry, Offsets, Policy, Start, Topic};
use crate::format::state_file::{SectionKind, StateFile, StateFileBuilder, StateHeader};

/// What a state file could not be restored from.
fn invalid(what: &'static str, reason: impl std::fmt::Display) -> StorageError {
    super::corrupt_log(0, format!("state file, {what}: {reason}"))
}

fn format_error(what: &'static str) -> impl Fn(FormatError) -> StorageError {
    move |e| invalid(what, e)
}

/// Writes the sections that base and checkpoint share.
pub(crate) fn base_sections(ledger: &Ledger, file: &mut StateFileBuilder) {
    file.section(SectionKind::Topics, |out| {
        for topic in ledger.topics.values() {
            topic.config().to_record().encode(out);
            let queues = topic.queues();
            out.extend_from_slice(&(queues.len() as u32).to_le_bytes());
            for queue in queues {
                out.extend_from_slice(&queue.next().to_le_bytes());
            }
        }
    });
    file.section(SectionKind::Groups, |out| {
        for group in ledger.groups.values() {
            group.to_record().encode(out);
        }
    });
    file.section(SectionKind::Offsets, |out| {
        for (group, offsets) in ledger.offsets.all() {
            let start = out.len();
            out.extend_from_slice(&[0; 4]);
            let entries = offsets.iter().map(|((topic, queue), offset)| OffsetEntry {
                topic: topic.as_str(),
                queue: queue.0,
                offset: offset.0,
            });
            Offsets { group: group.as_str(), entries: entries.collect() }.encode(out);
            let length = (out.len() - start - 4) as u32;
            if let Some(place) = out.get_mut(start..start + 4) {
                place.copy_from_slice(&length.to_le_bytes());
            }
        }
    });
    file.section(SectionKind::OpenTransactions, |out| rows::encode_open(ledger, out));
    file.section(SectionKind::DueMessages, |out| rows::encode_due(ledger, out));
    file.section(SectionKind::TransactionMessages, |out| members::encode(ledger, out));
    file.section(SectionKind::Policies, |out| {
        for (group, policy) in ledger.open.policies().groups() {
            Policy { deleted: false, group: group.as_str(), policy: *policy }.encode(out);
        }
    });
    file.section(SectionKind::Leases, |out| {
        for (group, topic, queue, lease) in ledger.leases.iter() {
            let record = lease_record(group, topic, queue, lease);
            out.extend_from_slice(&record.flags().to_le_bytes());
            record.encode(out);
        }
    });
    file.section(SectionKind::Start, |out| {
        Start { ack: ledger.ack, clean: false, version: env!("CARGO_PKG_VERSION") }.encode(out);
    });
}

/// The whole base file.
pub(crate) fn base_file(ledger: &Ledger, header: StateHeader) -> Vec<u8> {
    let mut file = StateFileBuilder::new(header);
    base_sections(ledger, &mut file);
    losses_section(&ledger.lost.losses.from_position(header.position), &mut file);
    file.finish()
}

fn losses_section(losses: &Losses, file: &mut StateFileBuilder) {
    if losses.newest > 0 {
        file.section(SectionKind::Losses, |out| losses.encode(out));
    }
}

/// The losses that a state file knows of: a base all of them, a checkpoint the number of the newest.
pub(crate) fn losses_of(file: &StateFile<'_>) -> Result<Losses, StorageError> {
    Losses::decode(file.section(SectionKind::Losses)).map_err(format_error("losses"))
}

/// The whole checkpoint file. Published and appended state must be the same when this is called.
pub(crate) fn checkpoint_file(ledger: &Ledger, header: StateHeader) -> Vec<u8> {
    let mut file = StateFileBuilder::new(header);
    base_sections(ledger, &mut file);
    let known = Losses { newest: ledger.lost.losses.newest, list: Vec::new() };
    losses_section(&known, &mut file);
    file.section(SectionKind::QueuePages, |out| queues::encode(ledger, out));
    file.section(SectionKind::Segments, |out| {
        for (number, summary) in ledger.segments.iter() {
            for field in [number, summary.open, summary.newest_visible_ms] {
                out.extend_from_slice(&field.to_le_bytes());
            }
        }
    });
    file.section(SectionKind::Decisions, |out| {
        for (segment, row) in ledger.history.iter().flat_map(|h| h.recent_rows()) {
            out.extend_from_slice(&segment.to_le_bytes());
            out.extend_from_slice(&row.to_bytes());
        }
    });
    file.section(SectionKind::HistoryFiles, |out| {
        for (segment, rows) in ledger.history.iter().flat_map(|h| h.closed_segments()) {
            out.extend_from_slice(&segment.to_le_bytes());
            out.extend_from_slice(&rows.to_le_bytes());
        }
    });
    file.finish()
}

/// Restores what base and checkpoint share into an empty ledger.
pub(crate) fn restore_base(ledger: &mut Ledger, file: &StateFile<'_>) -> Result<(), StorageError> {
    ledger.lost = AfterLoss::starting_at(losses_of(file)?, file.header.position);
    restore_topics(ledger, file.section(SectionKind::Topics))?;
    restore_groups(ledger, file.section(SectionKind::Groups))?;
    restore_offsets(ledger, file.section(SectionKind::Offsets))?;
    restore_policies(ledger, file.section(SectionKind::Policies))?;
    rows::restore_open(ledger, file.section(SectionKind::OpenTransactions))?;
    rows::restore_due(ledger, file.section(SectionKind::DueMessages))?;
    members::restore(ledger, file.section(SectionKind::TransactionMessages))?;
    let start = file.section(SectionKind::Start);
    if !start.is_empty() {
        ledger.ack = Start::decode(0, start).map_err(format_error("start"))?.ack;
    }
    let bad = format_error("leases");
    let mut leases = Cursor::new("leases", file.section(SectionKind::Leases));
    while !leases.is_empty() {
        let flags = leases.u16().map_err(&bad)?;
        let (record, rest) = Lease::decode_prefix(flags, leases.rest()).map_err(&bad)?;
        ledger.apply_lease(0, Timestamp::ZERO, &record, &mut Unseen)?;
        leases = Cursor::new("leases", rest);
    }
    Ok(())
}

/// Restores the rest of a checkpoint; returns the consume queue pages that are in use.
pub(crate) fn restore_checkpoint(
    ledger: &mut Ledger,
    file: &StateFile<'_>,
) -> Result<Vec<PageId>, StorageError> {
    restore_base(ledger, file)?;
    let bad = format_error("segments");
    let mut cursor = Cursor::new("segments", file.section(SectionKind::Segments));
    while !cursor.is_empty() {
        let number = cursor.u64().map_err(&bad)?;
        let open = cursor.u64().map_err(&bad)?;
        let newest_visible_ms = cursor.u64().map_err(&bad)?;
        if !ledger.segments.restore(number, open, newest_visible_ms) {
            let reason = format!("segment {number} is said to hold {open} open messages");
            return Err(invalid("segments", reason));
        }
    }
    for (segment, row) in decisions_of(file)? {
        if let Some(history) = &ledger.history {
            history.record(segment, row);
        }
    }
    // in the order of the log, as a fold would have met them
    let rows = ledger.history.iter().flat_map(|h| h.recent_rows()).map(|(_, row)| row);
    let decided: Vec<HistoryRow> = rows.filter(|row| row.named).collect();
    for row in decided {
        ledger.many.decided(row);
    }
    queues::restore(ledger, file.section(SectionKind::QueuePages))
}

/// Decisions of segments that were not closed, each with its segment's position.
pub(crate) fn decisions_of(file: &StateFile<'_>) -> Result<Vec<(u64, HistoryRow)>, StorageError> {
    let bad = format_error("decisions");
    let mut cursor = Cursor::new("decisions", file.section(SectionKind::Decisions));
    let mut rows = Vec::new();
    while !cursor.is_empty() {
        let segment = cursor.u64().map_err(&bad)?;
        let row = HistoryRow::decode(cursor.take(HISTORY_ROW_BYTES).map_err(&bad)?).map_err(&bad)?;
        rows.push((segment, row));
    }
    Ok(rows)
}

/// Whether every history file that a fold from the base could rebuild is there. Those that it could not rebuild, and
/// that did not expire, are noted as lost.
pub(crate) fn history_is_whole(
    history: &History,
    file: &StateFile<'_>,
    base_position: u64,
) -> Result<bool, StorageError> {
    let bad = format_error("history files");
    let there = history.closed_segments();
    let mut cursor = Cursor::new("history files", file.section(SectionKind::HistoryFiles));
    while !cursor.is_empty() {
        let named = (cursor.u64().map_err(&bad)?, cursor.u64().map_err(&bad)?);
        let in_the_log = named.0 >= base_position / file.header.segment_bytes.max(1);
        if in_the_log && there.binary_search(&named).is_err() {
            return Ok(false);
        }
        if !in_the_log && history.note_if_lost(named.0) {
            tracing::error!(
                segment = named.0,
                "a history file is missing: what was decided in its segment cannot be told"
            );
        }
    }
    Ok(true)
}

fn restore_topics(ledger: &mut Ledger, mut bytes: &[u8]) -> Result<(), StorageError> {
    let bad = format_error("topics");
    while !bytes.is_empty() {
        let (record, rest) = Topic::decode_prefix(0, bytes).map_err(&bad)?;
        let config = TopicConfig::from_record(&record, 0)?;
        let name = config.name.clone();
        ledger.put_topic(0, config, &mut Unseen);
        let mut cursor = Cursor::new("topics", rest);
        let count = cursor.u32().map_err(&bad)?;
        let Some(topic) = ledger.topics.get(&name).cloned() else { continue };
        if count > TopicConfig::QUEUES_MAX {
            return Err(invalid("topics", format!("{name} with {count} queues")));
        }
        // a topic that was shrunk keeps the queues it had
        topic.grow_to(count, &mut ledger.registry);
        for id in 0..count {
            let next = cursor.u64().map_err(&bad)?;
            if let Some(queue) = topic.queue(QueueId(id)) {
                queue.set_next(next);
                let mut log = queue.log();
                log.restore(next, Vec::new(), next, Vec::new());
                queue.publish_ends(&log);
            }
        }
        bytes = cursor.rest();
    }
    Ok(())
}

fn restore_groups(ledger: &mut Ledger, mut bytes: &[u8]) -> Result<(), StorageError> {
    while !bytes.is_empty() {
        let (record, rest) = Group::decode_prefix(0, bytes).map_err(format_error("groups"))?;
        ledger.put_group(0, GroupConfig::from_record(&record, 0)?, &mut Unseen);
        bytes = rest;
    }
    Ok(())
}

fn restore_policies(ledger: &mut Ledger, mut bytes: &[u8]) -> Result<(), StorageError> {
    while !bytes.is_empty() {
        let (record, rest) = Policy::decode_prefix(0, bytes).map_err(format_error("policies"))?;
        let group = GroupName::new(record.group).map_err(|e| invalid("policies", e))?;
        ledger.open.policies_mut().put(group, record.policy);
        bytes = rest;
    }
    Ok(())
}

fn restore_offsets(ledger: &mut Ledger, bytes: &[u8]) -> Result<(), StorageError> {
    let bad = format_error("offsets");
    let mut cursor = Cursor::new("offsets", bytes);
    while !cursor.is_empty() {
        let length = cursor.u32().map_err(&bad)? as usize;
        let record = Offsets::decode(0, cursor.take(length).map_err(&bad)?).map_err(&bad)?;
        let group = GroupName::new(record.group).map_err(|e| invalid("offsets", e))?;
        for entry in &record.entries {
            let topic = TopicName::new(entry.topic).map_err(|e| invalid("offsets", e))?;
            ledger.offsets.restore(&group, &topic, QueueId(entry.queue), QueueOffset(entry.offset));
        }
    }
    Ok(())
}
