//! A transaction in words: what it is, and what happened to it when.

use std::time::{Duration, UNIX_EPOCH};

use mezzo_client::admin::{
    DecisionSource, TransactionEvent, TransactionEventKind, TransactionInfo, TransactionOutcome,
    TransactionState,
};

/// What is known about it, several lines without a trailing line feed.
pub(super) fn text(transaction: &TransactionInfo, broker: &str) -> String {
    let mut lines =
        vec![format!("transaction {} on {broker}: {}", transaction.origin, transaction.state.name())];
    let mut fact = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            lines.push(format!("  {name:<10} {value}"));
        }
    };
    fact("group", transaction.group.clone());
    fact("topic", place(transaction));
    fact("unique key", transaction.unique_key.clone());
    fact("keys", transaction.keys.clone());
    fact("tag", transaction.tag.clone());
    fact("body", transaction.body_bytes.map(|bytes| format!("{bytes} bytes")));
    lines.push("  timeline".to_owned());
    lines.extend(events(transaction).into_iter().map(|event| format!("    {event}")));
    lines.join("\n")
}

fn place(transaction: &TransactionInfo) -> Option<String> {
    let topic = transaction.topic.as_ref()?;
    Some(transaction.queue.map_or_else(|| topic.clone(), |queue| format!("{topic}, queue {queue}")))
}

/// One line each, in order of time.
fn events(transaction: &TransactionInfo) -> Vec<String> {
    let mut events = Vec::new();
    if transaction.older_events_missing {
        events.push(format!("{:24}  older events are no longer in the log", ""));
    }
    for event in &transaction.events {
        events.push(format!("{}  {}", time(event.at_ms), happened(event)));
    }
    match transaction.state {
        TransactionState::Prepared => {
            events.push(format!("{:24}  waits for its producer; is asked about on a timer", "now"));
        }
        TransactionState::InDoubt => events.push(format!(
            "{:24}  in doubt: `mezzo tx commit`, `rollback` or `resume`; its producer's END counts too",
            "now"
        )),
        TransactionState::Committed | TransactionState::RolledBack => {}
    }
    if let Some(decision) = &transaction.decision {
        events.push(match (decision.outcome, decision.queue_offset) {
            (TransactionOutcome::Committed, Some(offset)) => {
                format!("{:24}  visible at offset {offset} of its queue", "")
            }
            (TransactionOutcome::Committed, None) => format!("{:24}  visible when its delay is over", ""),
            (TransactionOutcome::RolledBack, _) => format!("{:24}  never visible", ""),
        });
    }
    events
}

fn happened(event: &TransactionEvent) -> String {
    let asks = event.asks.unwrap_or(0);
    let peer = |before: &str| event.peer.as_ref().map_or_else(String::new, |peer| format!("{before}{peer}"));
    let done = |done: &str| {
        let messages = match event.messages {
            Some(count) if count > 1 => format!(", {count} messages,"),
            _ => String::new(),
        };
        let by = event.source.map_or("", by);
        let why = event.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        format!("{done}{messages} by {by}{}{why}", peer(" at "))
    };
    match event.what {
        TransactionEventKind::Prepared => "prepared: stored, invisible".to_owned(),
        TransactionEventKind::Asked => {
            let answer = if event.answered == Some(true) { "answered UNKNOWN" } else { "no answer" };
            format!("asked for the {} time{}: {answer}", ordinal(asks), peer(", "))
        }
        TransactionEventKind::Parked => {
            let why = match event.reason.as_deref() {
                Some("MAX_AGE") => "too old",
                _ => "asked often enough",
            };
            format!("parked: {why} ({asks} asks)")
        }
        TransactionEventKind::Resumed => format!("resumed{}: asked again, from zero", peer(" by ")),
        TransactionEventKind::Committed => done("committed"),
        TransactionEventKind::RolledBack => done("rolled back"),
    }
}

fn ordinal(number: u32) -> String {
    let ending = match (number % 10, number % 100) {
        (1, n) if n != 11 => "st",
        (2, n) if n != 12 => "nd",
        (3, n) if n != 13 => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

const fn by(source: DecisionSource) -> &'static str {
    match source {
        DecisionSource::Producer => "its producer",
        DecisionSource::CheckBack => "an answer to the check-back",
        DecisionSource::Operator => "an operator",
        DecisionSource::Policy => "the policy of its group",
        DecisionSource::Fenced => "a newer incarnation of its producer",
    }
}

fn time(ms: u64) -> String {
    // a time beyond the calendar's is shown as its number
    UNIX_EPOCH
        .checked_add(Duration::from_millis(ms))
        .filter(|_| ms < 253_402_300_800_000)
        .map_or_else(|| format!("{ms} ms"), |at| humantime::format_rfc3339_millis(at).to_string())
}

#[cfg(test)]
mod tests {
    use mezzo_client::admin::DecisionInfo;

    use super::*;

    fn parked() -> TransactionInfo {
        TransactionInfo {
            origin: 275,
            state: TransactionState::InDoubt,
            group: Some("order-service".to_owned()),
            topic: Some("orders".to_owned()),
            queue: Some(2),
            unique_key: None,
            keys: None,
            tag: None,
            body_bytes: Some(9),
            prepared_at_ms: Some(1_700_000_000_000),
            asks: Some(3),
            asked_at_ms: Some(1_700_000_060_000),
            decision: None,
            events: vec![
                TransactionEvent::new(TransactionEventKind::Prepared, 1_700_000_000_000),
                TransactionEvent {
                    asks: Some(3),
                    peer: Some("10.0.0.1:7".to_owned()),
                    answered: Some(true),
                    ..TransactionEvent::new(TransactionEventKind::Asked, 1_700_000_060_000)
                },
            ],
            older_events_missing: false,
        }
    }

    #[test]
    fn a_parked_transaction_says_what_can_be_done() {
        let shown = text(&parked(), "b:1");
        for part in [
            "275 on b:1: IN_DOUBT",
            "orders, queue 2",
            "2023-11-14T22:13:20.000Z  prepared",
            "2023-11-14T22:14:20.000Z  asked for the 3rd time, 10.0.0.1:7: answered UNKNOWN",
            "`mezzo tx commit`",
        ] {
            assert!(shown.contains(part), "{part} in\n{shown}");
        }
    }

    #[test]
    fn a_decided_one_says_by_whom_and_where_it_is() {
        let decision = DecisionInfo {
            outcome: TransactionOutcome::Committed,
            source: DecisionSource::Operator,
            decided_at_ms: u64::MAX,
            queue_offset: Some(5),
        };
        let decided = TransactionInfo {
            state: TransactionState::Committed,
            asks: None,
            decision: Some(decision),
            events: vec![TransactionEvent {
                peer: Some("10.0.0.2:9".to_owned()),
                reason: Some("ticket 7".to_owned()),
                source: Some(DecisionSource::Operator),
                messages: Some(2),
                ..TransactionEvent::new(TransactionEventKind::Committed, u64::MAX)
            }],
            older_events_missing: true,
            ..parked()
        };
        let shown = text(&decided, "b:1");
        for part in [
            "older events are no longer in the log",
            "committed, 2 messages, by an operator at 10.0.0.2:9: ticket 7",
            "offset 5",
        ] {
            assert!(shown.contains(part), "{part} in\n{shown}");
        }
        assert!(!shown.contains("mezzo tx"), "{shown}");
    }
}
