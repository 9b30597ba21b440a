//! What Mezzo tells operators about transactions (requests 7,700,001 to 7,700,003). Strict JSON; names are stable, and
//! what is not known is left out.

use serde::{Deserialize, Serialize};

use super::relaxed_json;
use crate::error::DecodeError;

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $text)] $variant,)*
        }

        impl $name {
            /// The name on the wire.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            /// The value with this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($text => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

named! {
    /// State of a transaction.
    TransactionState {
        /// Stored, invisible, asked about on a timer.
        Prepared = "PREPARED",
        /// Parked: asked no more on a timer, waits for a decision.
        InDoubt = "IN_DOUBT",
        /// Visible for good.
        Committed = "COMMITTED",
        /// Dead for good.
        RolledBack = "ROLLED_BACK",
    }
}

named! {
    /// How a transaction ends.
    TransactionOutcome {
        /// The message becomes visible.
        Committed = "COMMITTED",
        /// The message never becomes visible.
        RolledBack = "ROLLED_BACK",
    }
}

named! {
    /// On whose word a transaction was decided.
    DecisionSource {
        /// The producer's own.
        Producer = "PRODUCER",
        /// A producer's answer to a check-back.
        CheckBack = "CHECK_BACK",
        /// A person's.
        Operator = "OPERATOR",
        /// That of the policy of the group.
        Policy = "POLICY",
        /// A newer incarnation of the producer fenced it off.
        Fenced = "FENCED",
    }
}

named! {
    /// What became of a person's decision; the ext field `mezzoResult` of the answer.
    DecideResult {
        /// Decided now.
        Decided = "DECIDED",
        /// Decided so before.
        Already = "ALREADY",
        /// Decided otherwise before; that stands.
        Conflict = "CONFLICT",
        /// Still PREPARED, and `force` was not given: nothing was decided.
        StillPrepared = "STILL_PREPARED",
    }
}

named! {
    /// What happened to a transaction.
    TransactionEventKind {
        /// Its (first) message was stored, invisible.
        Prepared = "PREPARED",
        /// Its producer group was asked about it, and the ask counted.
        Asked = "ASKED",
        /// It became IN_DOUBT.
        Parked = "PARKED",
        /// It became PREPARED again.
        Resumed = "RESUMED",
        /// It was committed.
        Committed = "COMMITTED",
        /// It was rolled back.
        RolledBack = "ROLLED_BACK",
    }
}

/// One thing that happened to a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransactionEvent {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What.
    pub what: TransactionEventKind,
    /// Address and port of who was asked, who resumed, who decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// ASKED: the number of this ask. PARKED: asks counted until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asks: Option<u32>,
    /// ASKED: whether an answer came; it was UNKNOWN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<bool>,
    /// PARKED: CHECK_MAX or MAX_AGE. A decision: what the operator said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// A decision: on whose word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<DecisionSource>,
    /// A decision: how many messages it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<u16>,
    /// A decision: where the first message became visible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_offset: Option<u64>,
}

impl TransactionEvent {
    /// An event of which no more is known than when it was.
    #[must_use]
    pub const fn new(what: TransactionEventKind, at_ms: u64) -> Self {
        Self {
            at_ms,
            what,
            peer: None,
            asks: None,
            answered: None,
            reason: None,
            source: None,
            messages: None,
            queue_offset: None,
        }
    }
}

/// A recorded decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DecisionInfo {
    /// How it ended.
    pub outcome: TransactionOutcome,
    /// On whose word.
    pub source: DecisionSource,
    /// When, in milliseconds since 1970.
    pub decided_at_ms: u64,
    /// Where the message became visible; absent after a rollback, and while its delay runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_offset: Option<u64>,
}

/// One transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransactionInfo {
    /// Position of the half message in the log: its identity on its broker.
    pub origin: u64,
    /// Its state.
    pub state: TransactionState,
    /// Who may decide it by END.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The topic that the message is meant for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The queue of that topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<u32>,
    /// The message's unique key; not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique_key: Option<String>,
    /// The keys that the application gave the message, separated by blanks; not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<String>,
    /// The message's tag; not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Bytes of the message's body; not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<u64>,
    /// When it was prepared, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared_at_ms: Option<u64>,
    /// Asks counted so far; known while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asks: Option<u32>,
    /// When the latest ask was counted, in milliseconds since 1970; known while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_at_ms: Option<u64>,
    /// How it ended, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionInfo>,
    /// What happened to it, oldest first, at most the newest 256; not in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<TransactionEvent>,
    /// There were older events, which the log no longer holds, or which are too many.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub older_events_missing: bool,
}

impl TransactionInfo {
    /// Reads the body.
    ///
    /// # Errors
    /// If it is above its bound or not such JSON.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        relaxed_json::parse("transaction", body)
    }

    /// The body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        relaxed_json::write(self)
    }
}

/// How a producer group's transactions are asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckPolicyInfo {
    /// The producer group.
    pub group: String,
    /// Whether it has a policy of its own; false: this is the broker's.
    pub own: bool,
    /// The policy, as [`CheckWish`](crate::check_policy::CheckWish) reads it.
    pub policy: String,
}

impl CheckPolicyInfo {
    /// Reads the body.
    ///
    /// # Errors
    /// If it is above its bound or not such JSON.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        relaxed_json::parse("check-back policy", body)
    }

    /// The body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        relaxed_json::write(self)
    }
}

/// Some open transactions, in order of origin.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TransactionPage {
    /// The transactions.
    pub transactions: Vec<TransactionInfo>,
    /// There may be more behind this origin; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

impl TransactionPage {
    /// Reads the body.
    ///
    /// # Errors
    /// If it is above its bound or not such JSON.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        relaxed_json::parse("list of transactions", body)
    }

    /// The body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        relaxed_json::write(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_left_out_and_names_are_stable() {
        let page = TransactionPage {
            transactions: vec![TransactionInfo {
                origin: 7,
                state: TransactionState::RolledBack,
                group: Some("g".to_owned()),
                topic: None,
                queue: None,
                unique_key: None,
                keys: None,
                tag: None,
                body_bytes: None,
                prepared_at_ms: Some(5),
                asks: None,
                asked_at_ms: None,
                decision: Some(DecisionInfo {
                    outcome: TransactionOutcome::RolledBack,
                    source: DecisionSource::CheckBack,
                    decided_at_ms: 9,
                    queue_offset: None,
                }),
                events: vec![TransactionEvent::new(TransactionEventKind::Prepared, 5)],
                older_events_missing: false,
            }],
            next: Some(7),
        };
        assert_eq!(
            String::from_utf8(page.encode()).unwrap(),
            concat!(
                r#"{"transactions":[{"origin":7,"state":"ROLLED_BACK","group":"g","preparedAtMs":5,"#,
                r#""decision":{"outcome":"ROLLED_BACK","source":"CHECK_BACK","decidedAtMs":9},"events":[{"atMs":5,"what":"PREPARED"}]}],"next":7}"#
            )
        );
        assert_eq!(TransactionPage::decode(&page.encode()).unwrap(), page);
        assert!(TransactionInfo::decode(b"{}").is_err());
    }
}
