//! The transaction protocol, walked state by state: small models of what producers, databases, the network, the broker's
//! log and its disk may do in any order, and the properties of `docs/transactions.md` checked in every state that can be
//! reached. No code of the broker runs here; what is checked is that the *rules* leave no hole. Each model has a
//! variant without one of its rules, which must be found wanting, so that a model that checks nothing is noticed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod lease;
mod transaction;
