//! The data path of a whole broker in this process, spoken to with raw remoting frames over its sockets: what goes in
//! by a send comes out by a pull, when it should and not before.

#![allow(clippy::unwrap_used, reason = "what is not as expected fails the test, also in what tests share")]

mod bounds;
mod delivery;
mod offsets;
mod sends;
mod transactions;
mod wire;
