//! What all producers and consumers of a program share: connections, routes, heartbeats, and the requests that brokers
//! send to us.
//!
//! ```text
//!   Client ── Shared ─┬─ name_servers   a list with fail-over; routes are asked for here
//!                     ├─ routes         the cache and its refreshing
//!                     ├─ cluster        all brokers there are, for those that may have to ask us
//!                     ├─ brokers        net::Pool, one connection per broker
//!                     ├─ members        the groups of this client: what heartbeats say, whom inbound requests concern
//!                     ├─ upkeep task    heartbeats, route refresh, reconnecting after a loss
//!                     └─ inbound task   39 check-back -> transaction producer, 40 group changed -> consumer
//! ```

mod cluster;
mod handle;
mod inbound;
mod members;
mod name_servers;
mod routes;
mod shared;
mod upkeep;

pub(crate) use handle::group_name;
pub use handle::{Client, ClientBuilder};
pub(crate) use inbound::CheckBackRequest;
pub(crate) use members::{ConsumerMember, Membership};
pub(crate) use shared::Shared;
