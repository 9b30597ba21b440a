//! Decisions as pure state: given `now` and an event, change state and return effects. No runtime, no I/O, no clock,
//! no randomness, so every rule is tested by feeding events and comparing what comes back.

pub(crate) mod consumer_group;
pub(crate) mod long_poll;
pub(crate) mod queue_lock;
pub(crate) mod redelivery;
pub(crate) mod transaction;
