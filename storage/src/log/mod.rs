//! The log: one endless run of positions, cut into segment files, written frame by frame.
//!
//! ```text
//!            Writer (append lock of the caller)           Log::prepare_segments (driver thread)
//!               | begin, push …, commit: one pwrite           | create, allocate, zero-fill
//!               v                                             v
//!   first segment … closed segments … | active segment | spare | reserve
//!               ^                          ^
//!               | Log::read, record, scan  | Log::sync: appended -> synced
//! ```
//!
//! Three rules carry everything else:
//! - **A position is given out once.** After a stop that was not in order, the log goes on behind every segment file
//!   that exists, even behind prepared ones that look unused: a power cut may have emptied them.
//! - **What is below `synced_to` of any frame was on the disk.** A hole there is damage and stops the start; a hole
//!   above it is a torn tail and is cut.
//! - **The first failed write or sync ends it.** The log is fenced; only a new start, reading the disk, goes on.

mod behind_hole;
mod budget;
mod chain;
mod layout;
mod locate;
mod prepare;
mod reader;
mod recover;
mod reopen;
mod replay;
mod retain;
mod segment;
mod shared;
mod survey;
mod sync;
mod walk;
mod whole;
mod writer;

#[cfg(test)]
mod tests;

pub use layout::{Class, Layout, LogOptions};
pub use prepare::PrepareStep;
pub use reader::Record;
pub use recover::{Cut, Opening, RecoveryReport, ResumePoint, reaches_back_to, recover};
pub use replay::FrameVisitor;
pub use retain::SegmentInfo;
pub use shared::Log;
pub(crate) use survey::{Hole, Survey, survey};
pub use whole::check_beginning;
pub use writer::{FrameEnd, Writer};
