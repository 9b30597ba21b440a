//! Headers: the borrowed view that every request starts with, and the typed fields of each request and reply.
//!
//! [`HeaderView`] and [`ExtFields`] are what came over the wire; one file per request turns the extension fields into
//! numbers and names (`decode`, one pass over the fields) and back (`encode`). Reading is lenient, because clients
//! differ: numbers may come as JSON numbers or text, booleans as `true`, `false`, `1` or `0`, unknown fields are skipped,
//! and an empty text counts as absent, since the binary header cannot tell the two apart and C++ sends empty texts.
//!
//! Offsets are signed here, as on the wire: clients use -1 for "none", and what a negative number means is for the
//! service to say.

pub mod check_transaction_state;
pub mod client;
pub mod consumer_offset;
pub mod consumer_send_back;
pub mod end_transaction;
mod ext_fields;
pub mod lease;
pub mod pull_message;
pub mod send_message;
pub mod topic;
pub mod transaction_admin;
mod view;
pub mod view_message;
mod wire_field;

pub use ext_fields::{ExtField, ExtFields};
pub use view::{FLAG_ONEWAY, FLAG_RESPONSE, HeaderView};
