//! Every byte layout that Mezzo writes to a disk, one file per stored thing. Pure: no files, no clock, no policy.
//! `docs/on-disk-format.md` is the binding description; the golden bytes in the tests pin it.
//!
//! Decoders take any bytes: they never panic, and never allocate by a length they have not checked against the
//! bytes at hand.

pub(crate) mod cursor;
mod error;
pub mod frame;
pub mod history_file;
pub mod history_row;
pub mod loss;
pub mod queue_entry;
pub mod record;
pub mod state_file;

pub use error::FormatError;
pub use history_row::key_hash;
