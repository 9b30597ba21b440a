//! Consistent hashing: when a client comes or goes, few queues change hands.
//!
//! Each client stands at several places of a ring (the hash of `client-0`, `client-1`, …); a queue belongs to the first
//! client at or behind the hash of its text. The hash is the first four bytes of MD5, which is no matter of security:
//! all clients of a group must compute the same.

use std::collections::BTreeMap;

use md5::{Digest, Md5};

use super::strategy::{AssignmentStrategy, index_of};
use crate::ids::MessageQueue;

/// Places of each client on the ring, unless told otherwise.
const PLACES_PER_CLIENT: u32 = 10;

/// The strategy `CONSISTENT_HASH`.
#[derive(Debug, Clone, Copy)]
pub struct ConsistentHash {
    places_per_client: u32,
}

impl ConsistentHash {
    /// Each client stands at this many places of the ring; all clients of a group must use the same number.
    #[must_use]
    pub const fn new(places_per_client: u32) -> Self {
        Self { places_per_client }
    }
}

impl Default for ConsistentHash {
    fn default() -> Self {
        Self::new(PLACES_PER_CLIENT)
    }
}

impl AssignmentStrategy for ConsistentHash {
    fn name(&self) -> &'static str {
        "CONSISTENT_HASH"
    }

    fn assign(&self, client_id: &str, queues: &[MessageQueue], clients: &[String]) -> Vec<MessageQueue> {
        if index_of(client_id, clients).is_none() {
            return Vec::new();
        }
        let mut ring = BTreeMap::new();
        for client in clients {
            for place in 0..self.places_per_client {
                // A later client takes the place of an earlier one with the same hash, as in Java.
                ring.insert(ring_hash(&format!("{client}-{place}")), client.as_str());
            }
        }
        let owner = |queue: &MessageQueue| {
            let hash = ring_hash(&queue.to_string());
            ring.range(hash..).next().or_else(|| ring.first_key_value()).map(|(_, client)| *client)
        };
        queues.iter().filter(|queue| owner(queue) == Some(client_id)).cloned().collect()
    }
}

/// The first four bytes of MD5, big endian.
fn ring_hash(text: &str) -> u32 {
    let digest: [u8; 16] = Md5::digest(text).into();
    let [a, b, c, d, ..] = digest;
    u32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_start_of_md5() {
        // RFC 1321: MD5("abc") = 900150983cd24fb0…
        assert_eq!(ring_hash("abc"), 0x9001_5098);
    }
}
