//! Every metric, once: its name, what kind it is, its label, and what it tells. `/metrics` and `docs/metrics.md` are made
//! of this table.

use std::fmt::Write as _;

/// How a number behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only grows; starts from 0 with the broker.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts in buckets.
    Histogram,
}

/// One metric.
#[derive(Debug)]
pub(crate) struct Family {
    /// As written in the table; a counter's samples end in `_total` besides.
    pub(crate) name: &'static str,
    /// How it behaves.
    pub(crate) kind: Kind,
    /// Its label, and which values it has.
    pub(crate) label: Option<(&'static str, &'static str)>,
    /// What it tells.
    pub(crate) help: &'static str,
}

macro_rules! families {
    ($($id:ident: $kind:ident $name:literal $({ $label:literal: $values:literal })? $help:literal;)+) => {
        $(
            #[doc = $help]
            pub(crate) const $id: Family = Family {
                name: $name,
                kind: Kind::$kind,
                label: families!(@label $($label $values)?),
                help: $help,
            };
        )+

        /// All of them, in the order in which they are told.
        pub(crate) const ALL: &[&Family] = &[$(&$id),+];
    };
    (@label) => { None };
    (@label $label:literal $values:literal) => { Some(($label, $values)) };
}

families! {
    INFO: Gauge "mezzo_build_info" { "version": "the program's version" }
        "Always 1";
    MESSAGES_IN: Counter "mezzo_messages_in" { "kind": "plain, half, delayed" }
        "Messages stored; half: of transactions; delayed: with a delay, outside of transactions";
    MESSAGE_BYTES_IN: Counter "mezzo_message_bytes_in" { "kind": "plain, half, delayed" }
        "Their bytes as stored: body, properties, fixed fields";
    MESSAGES_REFUSED: Counter "mezzo_messages_refused" { "reason": "no_room, max_bytes, open_messages, open_bytes" }
        "Messages refused as busy; no_room: the disk is full or slow; max_bytes: store.max_bytes; open_messages: limits.open_messages; open_bytes: half of store.max_bytes is undecided or delayed";
    MESSAGES_OUT: Counter "mezzo_messages_out"
        "Messages that answers to pulls carried";
    MESSAGE_BYTES_OUT: Counter "mezzo_message_bytes_out"
        "Their bytes";
    NETWORK_IN: Counter "mezzo_network_bytes_in"
        "Bytes read from clients";
    NETWORK_OUT: Counter "mezzo_network_bytes_out"
        "Bytes written to clients";
    TX_PREPARED: Counter "mezzo_transactions_prepared"
        "Transactions opened by a half message";
    TX_COMMITTED: Counter "mezzo_transactions_committed" { "by": "producer, check_back, operator, policy" }
        "Transactions committed, by who decided";
    TX_ROLLED_BACK: Counter "mezzo_transactions_rolled_back" { "by": "producer, check_back, operator, policy, fenced" }
        "Transactions rolled back, by who decided; fenced: another client had taken the queues whose offsets it moves";
    TX_REPEATED: Counter "mezzo_transactions_repeated_ends"
        "ENDs that repeated the decision that stands";
    TX_CONFLICTS: Counter "mezzo_transactions_conflicts"
        "ENDs that contradicted the decision that stands";
    TX_PARKED: Counter "mezzo_transactions_parked"
        "Transactions that became IN_DOUBT";
    TX_RESUMED: Counter "mezzo_transactions_resumed"
        "IN_DOUBT transactions that an operator has had asked about again";
    TX_OPEN: Gauge "mezzo_transactions_open"
        "Transactions that are PREPARED or IN_DOUBT now";
    TX_IN_DOUBT: Gauge "mezzo_transactions_in_doubt"
        "Transactions that are IN_DOUBT now: alert on this one";
    TX_OPEN_OF_GROUP: Gauge "mezzo_transactions_group_open" { "group": "a producer group, or (others)" }
        "As mezzo_transactions_open, of one producer group; the 50 with the most";
    TX_IN_DOUBT_OF_GROUP: Gauge "mezzo_transactions_group_in_doubt" { "group": "a producer group, or (others)" }
        "As mezzo_transactions_in_doubt, of one producer group; the 50 with the most";
    TX_OLDEST: Gauge "mezzo_transactions_oldest_open_seconds"
        "Age of the oldest transaction that is open; 0 if none is";
    OPEN_MESSAGES: Gauge "mezzo_open_messages"
        "Half and delayed messages that are not visible yet";
    OPEN_MESSAGES_MAX: Gauge "mezzo_open_messages_max"
        "The setting limits.open_messages: beyond it new ones are refused as busy";
    ASKS: Counter "mezzo_check_back_asks"
        "Asks about transactions that were handed to a producer's connection";
    ANSWERS: Counter "mezzo_check_back_answers" { "answer": "decided, unknown" }
        "Answers to asks";
    SILENCES: Counter "mezzo_check_back_unanswered"
        "Asks that counted as an attempt though nobody answered: the connection lives and said other things";
    ASKS_PENDING: Gauge "mezzo_check_back_pending" { "state": "waiting, asked" }
        "Transactions that wait to be asked about (for a producer of their group, or their turn), or for the answer";
    DEDUP_HITS: Counter "mezzo_dedup_repeats"
        "Sends that were told to be repeats, and not stored again";
    DEDUP_WINDOW: Gauge "mezzo_dedup_window_seconds"
        "How far back repeats are told at this moment, at most dedup.window; 0 while no topic asks for it";
    SYNC: Histogram "mezzo_log_sync_seconds"
        "Time that a sync of the log took";
    LOG_BYTES: Gauge "mezzo_log_bytes"
        "Bytes of the log between its beginning and its end";
    LOG_APPENDED: Counter "mezzo_log_appended_bytes"
        "Bytes appended to the log since the broker started";
    DISK_FREE: Gauge "mezzo_disk_free_bytes"
        "Bytes that this process may still write to the disk of the data folder";
    RETENTION_SEGMENTS: Counter "mezzo_retention_segments" { "reason": "age, max_bytes" }
        "Log segments deleted: because of store.retention, or before their time because store.max_bytes was reached";
    RETENTION_FREED: Counter "mezzo_retention_freed_bytes"
        "Bytes of their files";
    RETENTION_CARRIED: Counter "mezzo_retention_carried_bytes"
        "Bytes written to carry undecided and delayed messages out of them";
    RETENTION_UNREAD: Counter "mezzo_retention_unread_messages" { "group": "a consumer group, or (others)" }
        "Messages deleted before their time that the group had not read; by name the first 50 groups that lose some";
    SCRUB_ROUNDS: Counter "mezzo_scrub_rounds"
        "Rounds of reading everything again (store.scrub_rate) that came to their end";
    SCRUB_BYTES: Counter "mezzo_scrub_bytes"
        "Bytes read by them";
    DAMAGES: Counter "mezzo_damage_met" { "by": "scrub, read" }
        "Damaged places met on the disk, again each time: by the scrub, or by a read, which was answered with an error. The log names file and offset once";
    PAGES_DAMAGED: Counter "mezzo_queue_pages_damaged"
        "Pages of consume queues found damaged while the broker ran; pulls from them are refused as busy until they are made anew from the log";
    PAGES_MENDED: Counter "mezzo_queue_pages_mended"
        "Those that were made anew";
    CONNECTIONS: Gauge "mezzo_connections"
        "Connections open now, to broker and name server";
    CONNECTIONS_ACCEPTED: Counter "mezzo_connections_accepted"
        "Connections accepted";
    CONNECTIONS_REFUSED: Counter "mezzo_connections_refused"
        "Connections closed at once because limits.connections were open";
    CONNECTIONS_CLOSED: Counter "mezzo_connections_closed_by_broker" { "reason": "slow, slow_request, malformed" }
        "Connections closed because the client did not read its answers, began a request and did not end it, or sent what is no remoting frame";
    IN_FLIGHT: Gauge "mezzo_in_flight_bytes"
        "Bytes of requests and answers that are under way; what limits.in_flight_bytes bounds";
    SHED: Counter "mezzo_requests_shed"
        "Requests refused as busy because limits.in_flight_bytes were under way; in mezzo_requests_refused, too";
    PUSHES_DROPPED: Counter "mezzo_pushes_dropped"
        "Requests to clients (asks, notices) dropped because the client did not read";
    HELD_PULLS: Gauge "mezzo_held_pulls"
        "Pulls that wait for messages";
    NOT_HELD: Counter "mezzo_requests_not_held" { "bound": "connection, broker" }
        "Requests that found no place to wait, for limits.held_pulls_per_connection or limits.held_pulls: pulls were answered as empty, others as busy";
    REFUSED: Counter "mezzo_requests_refused" { "code": "RocketMQ's name of the response code, or OTHER" }
        "Requests answered with a code other than success; not counted: a pull that brings no message";
    TOPICS: Gauge "mezzo_topics"
        "Topics, those for retries and dead letters included";
    GROUPS: Gauge "mezzo_consumer_groups"
        "Consumer groups";
}

impl Family {
    /// The name as Prometheus shows it.
    fn shown(&self) -> String {
        match self.kind {
            Kind::Counter => format!("{}_total", self.name),
            Kind::Gauge | Kind::Histogram => self.name.to_owned(),
        }
    }
}

/// The table of `docs/metrics.md`: each metric that `/metrics` tells, as Markdown.
#[must_use]
pub fn documentation() -> String {
    let mut page = String::from("| metric | kind | label | tells |\n|---|---|---|---|\n");
    for family in ALL {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let label = family.label.map(|(name, values)| format!("`{name}`: {values}")).unwrap_or_default();
        // writing to a string cannot fail
        let _ = writeln!(page, "| `{}` | {kind} | {label} | {} |", family.shown(), family.help);
    }
    page
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_as_prometheus_wants_them() {
        let names: BTreeSet<_> = ALL.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), ALL.len());
        for name in names {
            assert!(name.starts_with("mezzo_") && !name.ends_with("_total"), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        }
    }

    #[test]
    fn help_stands_on_one_line() {
        assert!(ALL.iter().all(|family| !family.help.contains(['\n', '\\', '|'])));
    }
}
