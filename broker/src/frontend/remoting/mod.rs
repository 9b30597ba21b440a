//! RocketMQ's remoting protocol, for the broker and for the name server alike.
//!
//! ```text
//!  acceptor ──► reactor thread ──► connection task
//!                                   read ─► split frames ─► dispatch ─► handler ─► Turn { batch, replies }
//!                                                                                    │ all frames of the read done
//!                                   write ◄─ encode in request order ◄─ wait limit ◄─ store.append(batch)
//!                                     ▲
//!                                     └── outbound queue: held pulls that found something, codes 39 and 40
//! ```
//!
//! One file per request family; `dispatch` is the table of what is served, `response` the table of what a failure says.

pub(crate) mod check_transaction;
pub(crate) mod client_manage;
pub(crate) mod complaint;
pub(crate) mod connection;
pub(crate) mod consume_stats;
pub(crate) mod consumer_offset;
pub(crate) mod consumer_send_back;
pub(crate) mod dispatch;
pub(crate) mod end_transaction;
pub(crate) mod group_admin;
pub(crate) mod lease;
pub(crate) mod name_server;
pub(crate) mod outbound;
pub(crate) mod outcome;
pub(crate) mod overload;
pub(crate) mod parting;
pub(crate) mod pull_message;
pub(crate) mod queue_lock;
pub(crate) mod reactor;
pub(crate) mod response;
pub(crate) mod send_message;
pub(crate) mod topic_admin;
pub(crate) mod transaction_admin;
pub(crate) mod transport;
pub(crate) mod turn;
pub(crate) mod view_message;
