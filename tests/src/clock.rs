//! A clock that tests move. It starts at the system's time, because records carry it and clients compare.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mezzo_protocol::time::{Clock, Timestamp};

/// Stands still until told to move. The broker's drivers look at the clock at least every half second.
#[derive(Debug)]
pub struct ManualClock {
    now_ms: AtomicU64,
}

impl Default for ManualClock {
    fn default() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the system's clock is past 1970");
        Self { now_ms: AtomicU64::new(u64::try_from(since.as_millis()).expect("milliseconds fit")) }
    }
}

impl ManualClock {
    /// Moves time on.
    pub fn advance(&self, by: Duration) {
        self.now_ms.fetch_add(u64::try_from(by.as_millis()).expect("a test's step fits"), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.now_ms.load(Ordering::SeqCst))
    }
}
