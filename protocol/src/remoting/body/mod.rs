//! Bodies that are JSON: routes, clusters, heartbeats, queue locks, members of a group, group settings.
//!
//! Read leniently ([`relaxed_json`]: names without quotes, numbers in quotes, enums by name or number, `null` for an
//! empty list), written strictly, except for the one place where old clients need number keys without quotes
//! ([`route::KeyStyle`]).

pub mod cluster;
pub mod consumer_list;
pub mod group;
pub mod heartbeat;
mod lenient;
pub mod lock;
pub mod relaxed_json;
pub mod route;
