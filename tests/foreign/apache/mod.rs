//! Apache's own broker cannot be had where these tests run, so its words are: a broker in memory that answers byte for
//! byte as Apache's Java source says its releases 4.9.8 and 5.3.3 do. It promises nothing but the wire:
//!
//! - replies are written in the encoding that the *server* is set to, whatever the request came in ([`words`]);
//! - fastjson's habits: fields in alphabetical order, nulls left out, numbers as unquoted keys of maps in the list of
//!   brokers and in the routes of old name servers; extension fields in the order of Java's hash tables;
//! - replies carry what nobody asked for (`MSG_REGION`, `TRACE_ON`, sys flags of pulls, support of heartbeats);
//! - stored properties come back in another order, without their last separator, with the broker's own beside them, and
//!   those of a batch's request behind those of each of its messages ([`messages`]);
//! - a half message's `queueOffset` is its place among halves; the broker asks back with a message written anew;
//! - pulls get at most 32 messages, are told "again at once" when a filter leaves none, and after each answer of the
//!   master to ask the slave, which sends them back when it has nothing new.

mod broker;
mod deliveries;
mod groups;
mod messages;
mod sends;
mod words;

pub(crate) use broker::ApacheLike;
pub(crate) use words::Release;
