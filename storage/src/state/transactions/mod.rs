//! Open transactions, and what was decided about the others.
//!
//! ```text
//! PREPARED --END--> COMMITTED | ROLLED_BACK              (out of `table.rs`, into `history.rs`)
//!     \--asked check_max times, or older than max_age--> IN_DOUBT --END--> COMMITTED | ROLLED_BACK
//! ```
//!
//! `table.rs` holds one row per open half message, `wheel.rs` the time at which each is asked about next. Both are
//! sized for ten million rows; `by_key.rs` finds a row by what its producer calls it. `many.rs` holds what transactions of many messages have beyond their first message's row,
//! `decided_ids.rs` which ids must not begin one again.
//! `history.rs` answers for decided ones: from memory what stands in the segment that is being
//! written (`recent_decisions.rs`), the rest from sorted files (`history_search.rs`), without memory per decision.

mod by_key;
mod decided_ids;
mod groups;
pub mod history;
mod history_search;
mod many;
mod policies;
mod recent_decisions;
mod table;
mod wheel;

pub(crate) use by_key::OpenOfKey;
pub(crate) use many::{ManyMessages, ManyTable, Member};
pub use table::{DueCheck, OpenState, OpenTransaction};
pub(crate) use table::{OpenRow, Table};
