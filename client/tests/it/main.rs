//! The client against a scripted broker on the loopback: one module per promise to users.

mod connection;
mod consuming;
mod fake;
mod sending;
mod transactions;
