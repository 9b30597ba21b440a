//! Decisions about undecided transactions. The transactions themselves are a fold over the log and live in the storage
//! crate; what stands here is leader-local and may be lost at a restart without harm: whom to ask about them and when.
//!
//! ```text
//!   due ──► waiting (in due order) ──► asked ──► answered with an outcome: done
//!    ▲          ▲  no room, no member    │  └──► answered UNKNOWN: counts, due again later
//!    │          └────────────────────────┤ connection closed before anything was heard: not counted
//!    └───────────────────────────────────┘ no answer in time: counts if the connection was heard since
//! ```

pub(crate) mod check_back;
pub(crate) mod members;
pub(crate) mod waiting_room;
