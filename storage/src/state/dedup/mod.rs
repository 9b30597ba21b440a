//! Which sends are repeats of an earlier one, for topics that ask for it with the attribute `dedup`.
//!
//! ```text
//!  send --key--> FirstSends --nothing there--> append, guarded by the key      (guard.rs)
//!                    |
//!                    +--a first one--> may its answer have been lost? is it what the log holds there?
//!                                          yes: answered with the first one's ids, nothing is stored
//! ```
//!
//! A unique key alone proves nothing: Java's producer keeps the key of a message object that is sent twice. So a
//! [`SendKey`] is made of all that a client's own retry keeps (`key.rs`), and who decides whether the first answer may
//! be lost is whoever knows the connections; here it is only known which connection sent what (`table.rs`,
//! `first_sends.rs`). Topics that do not ask pay nothing.

mod first_sends;
mod guard;
mod key;
mod rule;
mod table;

pub use first_sends::{FirstSend, FirstSends, Part, SenderId};
pub(crate) use guard::Guarded;
pub use guard::SendGuard;
pub use key::{SendFacts, SendKey};
pub use rule::DedupRule;
