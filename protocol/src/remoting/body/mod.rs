//! Bodies that are JSON: routes, clusters, heartbeats, queue locks, members, progress and settings of a group.
//!
//! Read leniently ([`relaxed_json`]: names without quotes, numbers in quotes, enums by name or number, `null` for an
//! empty list), written strictly, except where clients need fastjson's own ways: number keys without quotes
//! ([`route::KeyStyle`]) and keys that are objects ([`consume_stats`]).

pub mod cluster;
pub mod consume_stats;
pub mod consumer_list;
pub mod group;
pub mod heartbeat;
mod lenient;
pub mod lock;
pub mod relaxed_json;
pub mod route;
pub mod transaction;
pub mod transaction_offsets;
