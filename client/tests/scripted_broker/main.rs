//! The client against a scripted broker on the loopback: one module per promise to users.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

mod broadcasting;
mod connection;
mod consuming;
mod fake;
mod inflating;
mod ordered;
mod pipelining;
mod pulling;
mod sending;
mod steering;
mod transactions;
