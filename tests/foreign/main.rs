//! The SDK against brokers that nobody here wrote: each behaviour is written once and held twice, on Mezzo in this
//! process and on the broker that `MEZZO_FOREIGN_BROKER` launches (see [`foreign`]). What such a broker lacks or does
//! otherwise stands in [`deviations`] with its reason, and a deviation that is gone fails too. Without the variable the
//! foreign half says `skipped: …` and passes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

mod admin;
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
