//! Checking a data folder while no broker has it, and accepting what is lost.
//!
//! ```text
//!  verify: base files -> every frame of the log -> checkpoint -> queue pages -> history files      changes nothing
//!  repair: the same, then a base that knows what is lost                                           (repair.rs)
//! ```
//!
//! The base and the log are primary: damage there is rot, and stops the start. Everything else is derived and is made
//! anew by the next start, but for history files older than the log. What is lost is told from the checkpoint, if one
//! lies behind the damage: it knows where every message, open transaction and decision stood.

mod check;
mod derived;
mod dump;
mod folder;
mod lost;
mod progress;
mod repair;
mod report;

pub use check::verify;
pub(crate) use derived::check_history_file;
pub use dump::each_frame;
pub(crate) use folder::numbered;
pub use progress::{NoProgress, Progress};
pub use repair::{Repair, repair};
pub use report::{Damage, DamageKind, Lost, LostQueue, VerifyReport};
