//! A transaction in words: what it is, and what happened to it when.

use std::time::{Duration, UNIX_EPOCH};

use mezzo_client::admin::{DecisionSource, TransactionInfo, TransactionOutcome, TransactionState};

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
    if let Some(at) = transaction.prepared_at_ms {
        events.push(format!("{}  prepared: stored, invisible", time(at)));
    }
    if let (Some(asks), Some(at)) = (transaction.asks.filter(|asks| *asks > 0), transaction.asked_at_ms) {
        let times = match asks {
            1 => "once".to_owned(),
            2 => "twice".to_owned(),
            more => format!("{more} times"),
        };
        events.push(format!("{}  its group was asked {times}, without a decision", time(at)));
    }
    match transaction.state {
        TransactionState::Prepared => {
            events.push(format!("{:24}  waits for its producer; is asked about on a timer", "now"));
        }
        TransactionState::InDoubt => events.push(format!(
            "{:24}  parked: `mezzo tx commit`, `rollback` or `resume`; its producer's END counts too",
            "now"
        )),
        TransactionState::Committed | TransactionState::RolledBack => {}
    }
    if let Some(decision) = &transaction.decision {
        let done = match decision.outcome {
            TransactionOutcome::Committed => "committed",
            TransactionOutcome::RolledBack => "rolled back",
        };
        let by = by(decision.source);
        events.push(format!("{}  {done} by {by}", time(decision.decided_at_ms)));
        match (decision.outcome, decision.queue_offset) {
            (TransactionOutcome::Committed, Some(offset)) => {
                events.push(format!("{:24}  visible at offset {offset} of its queue", ""));
            }
            (TransactionOutcome::Committed, None) => {
                events.push(format!("{:24}  visible when its delay is over", ""));
            }
            (TransactionOutcome::RolledBack, _) => events.push(format!("{:24}  never visible", "")),
        }
    }
    events
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
        }
    }

    #[test]
    fn a_parked_transaction_says_what_can_be_done() {
        let shown = text(&parked(), "b:1");
        for part in [
            "275 on b:1: IN_DOUBT",
            "orders, queue 2",
            "2023-11-14T22:13:20.000Z  prepared",
            "2023-11-14T22:14:20.000Z  its group was asked 3 times",
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
            ..parked()
        };
        let shown = text(&decided, "b:1");
        assert!(shown.contains("committed by an operator") && shown.contains("offset 5"), "{shown}");
        assert!(!shown.contains("mezzo tx"), "{shown}");
    }
}
