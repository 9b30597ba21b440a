//! The real program under transactional load, stopped the hard way again and again: killed, or with the power of its
//! disk cut. After each crash it must come back, and everything that any producer was ever told must hold.
//!
//! | variable | default | what it sets |
//! |---|---|---|
//! | `MEZZO_KILL_ROUNDS` | 4 | rounds of kill -9 |
//! | `MEZZO_STOP_ROUNDS` | 3 | rounds of SIGTERM |
//! | `MEZZO_PAUSE_ROUNDS` | 3 | rounds of SIGSTOP and SIGCONT |
//! | `MEZZO_DISK_FAILURES` | 3 | failures of each kind of the disk; they need a C compiler and say so when they are skipped |
//! | `MEZZO_FULL_DISKS` | 1 | disks that are filled; 0 skips them; they need what power cuts need |
//! | `MEZZO_POWER_CUTS` | 2 | power cuts; 0 skips them; they need root and loop devices and say so when they are skipped |
//! | `MEZZO_SEED` | the time | repeats a run's choices (not the machine's timing) |
//! | `MEZZO_CRASH_SET` | none | one more `section.key=value`: `store.ack=memory` shows that a power cut is noticed |
//! | `MEZZO_BINARY` | built from here | the program to crash |

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

mod clock;
mod cut_segment;
mod disk_fails;
mod disk_full;
mod kill;
mod memory;
mod offsets;
mod pause;
mod power_cut;
mod retention;
mod rounds;
mod state_files;
mod stop;
