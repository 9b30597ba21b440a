//! The system's clock behind the seam that everything else reads time through.

use std::time::{SystemTime, UNIX_EPOCH};

use mezzo_protocol::time::{Clock, Timestamp};

/// Wall-clock time of this machine. The log makes it monotone; see the frame's leader time.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // a clock before 1970 reads as the epoch
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_ms(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}
