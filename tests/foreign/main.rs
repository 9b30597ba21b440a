//! The SDK against brokers of others: each behaviour is written once and held on Mezzo in this process, on the broker
//! that `MEZZO_FOREIGN_BROKER` launches (see [`foreign`]; without it those tests say `skipped: …` and pass), and on a
//! broker that speaks as Apache's two main releases do (see [`apache`]). What such a broker lacks or does otherwise stands
//! in [`deviations`] with its reason, and a deviation that is gone fails too.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

mod admin;
mod apache;
mod consuming;
mod deviations;
mod foreign;
mod inbox;
mod members;
mod place;
mod pulling;
mod sending;
mod starting;
mod transactions;
