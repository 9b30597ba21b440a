//! The system clock behind the protocol crate's [`Clock`] seam, and the client's one source of randomness.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::{SystemTime, UNIX_EPOCH};

use mezzo_protocol::time::{Clock, Timestamp};

/// The time of the operating system.
///
/// ```
/// use mezzo_client::{Clock, SystemClock, Timestamp};
///
/// assert!(SystemClock.now() > Timestamp::from_ms(1_700_000_000_000));
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_ms(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }
}

/// A seed that differs between processes and calls. The standard library seeds its hash tables from the operating
/// system, which is enough for spreading waits and telling clients apart; nothing here guards a secret.
pub(crate) fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}
