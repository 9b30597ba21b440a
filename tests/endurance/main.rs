//! The real program under steady load for as long as it is told: ordinary messages and transactions at a fixed rate,
//! consumers that follow, clients that are killed and come back, groups that come and go, segments that fill and go. In
//! the end nothing is lost or doubled, and nothing has grown: memory, files, threads and maps of the last third of the
//! time are those of the second third. How fast anything was decides nothing.
//!
//! | variable | default | what it sets |
//! |---|---|---|
//! | `MEZZO_ENDURANCE_SECONDS` | 30 | how long the load lasts; 0 skips it |
//! | `MEZZO_ENDURANCE_RATE` | 400 | messages and transactions per second, all producers together |
//! | `MEZZO_SEED` | the time | repeats a run's choices (not the machine's timing) |
//! | `MEZZO_BINARY` | built from here | the broker |

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

mod books;
mod consumers;
mod producers;
mod run;
mod samples;
