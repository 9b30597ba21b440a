//! Retention: how open messages are carried out of the oldest segments, what the disk budget and a full disk refuse, and
//! that nothing undecided is lost on the way, whatever stops it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod amplification;
mod budget;
mod carried;
mod crashes;
mod fixture;
mod full_disk;
