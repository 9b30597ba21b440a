//! What the network can do to a broker: connections that break, fall silent or stall around each arrow of the transaction
//! protocol; peers that do not read, do not finish what they began, or speak something else; far too many of them; and
//! brokers that stop or come back. Only the loopback is used.
//!
//! | variable | default | what it sets |
//! |---|---|---|
//! | `MEZZO_IDLE_CONNECTIONS` | 10000 | idle connections; fewer, and a sentence, where the system's limit of open files forbids |
//! | `MEZZO_NETWORK_TRANSACTIONS` | 60 | transactions over a network that fails again and again |
//! | `MEZZO_SEED` | the time | repeats a run's choices (not the machine's timing) |
//! | `MEZZO_BINARY` | built from here | the program under test, where it is a process of its own |

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

mod arrows;
mod bad_peers;
mod idle;
mod late_ends;
mod overload;
mod stop;
mod storm;
