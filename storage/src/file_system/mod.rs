//! The one seam to the disk. Everything in this crate that touches a file goes through [`FileSystem`] and [`File`]:
//! [`RealFileSystem`] in production, [`SimulatedDisk`] in tests, which decides what a power cut leaves.
//!
//! What survives a power cut, and what the rest of the crate may rely on:
//! - bytes and length of a file: after [`File::sync_data`] or [`File::sync_all`];
//! - a name (creation, renaming, removal): after [`FileSystem::sync_dir`] of its folder;
//! - everything else: any part of it, in any order.

mod priority;
mod real;
mod seam;
mod sim;

pub(crate) use priority::step_back;
pub use real::RealFileSystem;
pub use seam::{File, FileSystem, LockGuard, MappedBytes, Mapping, OpenMode};
pub use sim::{CrashMode, DiskOperation, DiskOperationKind, SimulatedDisk};
