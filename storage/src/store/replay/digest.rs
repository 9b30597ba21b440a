//! Everything that a ledger holds, as lines that do not depend on the order of its maps or on the numbers that names
//! have in memory.

use crate::format::history_row::HistoryRow;
use crate::state::ledger::Ledger;
use crate::state::transactions::OpenRow;

/// What every fold has to agree in.
pub(super) fn of(ledger: &Ledger) -> Vec<String> {
    let mut lines = vec![format!("ack {:?}, owes a jump: {}", ledger.ack, ledger.owes_jump)];
    for topic in ledger.topics.values() {
        lines.push(format!("topic {:?}, open {}", topic.config(), topic.open_messages()));
        lines.extend(
            topic
                .queues()
                .iter()
                .map(|queue| format!("queue {}/{} next {}", queue.topic(), queue.id().0, queue.next())),
        );
    }
    lines.extend(ledger.groups.values().map(|group| format!("{group:?}")));
    for (group, offsets) in ledger.offsets.all() {
        lines.extend(offsets.iter().map(|(of, offset)| format!("offset {group} {of:?} {offset:?}")));
    }
    lines.extend(ledger.open.iter().map(|row| open_row(ledger, row)));
    for (origin, many) in ledger.many.iter() {
        let group = ledger.open.groups().name(many.group);
        let found = many.group == ledger.open.get(origin).map_or(u32::MAX, |row| row.group)
            && ledger.many.find(many.group, &many.id) == Some(origin);
        let (id, first, bytes) = (&many.id, many.first, many.bytes);
        lines.push(format!("many {origin} {group:?} {id} {first:?} {bytes} found by id: {found}"));
        lines.extend(many.further.iter().enumerate().map(|(at, member)| {
            let queue = queue(ledger, member.queue);
            format!(
                "member {origin} {at} {queue} {:?}",
                crate::state::transactions::Member { queue: 0, ..member.clone() }
            )
        }));
    }
    lines.extend(ledger.delays.iter().map(|(origin, delay_ms)| format!("delay {origin} {delay_ms}")));
    for (due_ms, position, row) in ledger.due.iter() {
        let queue = queue(ledger, row.queue);
        lines.push(format!("due {due_ms} {position} {} {} {} {queue}", row.location, row.size, row.tag_hash));
    }
    lines.extend(ledger.leases.iter().map(|lease| format!("lease {lease:?}")));
    let policies = ledger.open.policies().groups();
    lines.extend(policies.iter().map(|(group, policy)| format!("policy {group} {policy:?}")));
    let (open, in_doubt) = (ledger.open_messages(), ledger.open.in_doubt_len());
    lines.push(format!("open {open}, in doubt {in_doubt}"));
    lines.sort();
    lines
}

/// What a checkpoint holds beyond a base.
pub(super) fn beyond_base(ledger: &Ledger) -> Vec<String> {
    let mut lines: Vec<String> =
        ledger.segments.iter().map(|(number, summary)| format!("segment {number} {summary:?}")).collect();
    lines.extend(
        ledger.history.iter().flat_map(|h| h.recent_rows()).map(|(at, row)| format!("decided {at} {row:?}")),
    );
    for queue in ledger.topics.values().flat_map(|topic| topic.queues()) {
        lines.push(format!("log of {}/{} {:?}", queue.topic(), queue.id().0, queue.log().parts()));
    }
    lines.sort();
    lines
}

/// What is found by id of the decisions that are in memory.
pub(super) fn decided_ids(ledger: &Ledger) -> Vec<String> {
    let rows = ledger.history.iter().flat_map(|history| history.recent_rows());
    let found = |row: HistoryRow| ledger.many.decided_as(row.group_hash, row.key_hash);
    rows.map(|(_, row)| format!("{} {:?}", row.origin, found(row).filter(|_| row.named))).collect()
}

/// Summaries of segments that say anything.
pub(super) fn segments(ledger: &Ledger) -> Vec<String> {
    ledger.segments.iter().map(|(number, summary)| format!("segment {number} {summary:?}")).collect()
}

fn queue(ledger: &Ledger, symbol: u32) -> String {
    ledger
        .registry
        .get(symbol)
        .map_or_else(|| "no queue".to_owned(), |q| format!("{}/{}", q.topic(), q.id().0))
}

fn open_row(ledger: &Ledger, row: &OpenRow) -> String {
    let group = ledger.open.groups().name(row.group);
    let wish = ledger.open.policies().wish(row.wish);
    // whether it was handed out is known to the running store alone
    let plain = OpenRow { queue: 0, group: 0, wish: 0, been_due: false, ..row.clone() };
    format!("open {} {group:?} {wish:?} {plain:?}", queue(ledger, row.queue))
}
