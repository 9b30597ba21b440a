//! A name server and broker in one, on one port, that answers as scripted and remembers what it was asked.

mod answers;
mod broker;
mod messages;
mod mezzo;

pub(crate) use broker::{Action, FakeBroker, Memory, Seen, settings};
pub(crate) use messages::{check_back, check_back_with};
pub(crate) use mezzo::{Leases, says};
