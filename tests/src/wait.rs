//! Waiting for something to become true, with a bound. Nothing in these tests sleeps for a fixed time in the hope that
//! the rest of the machine is done by then.

use std::thread;
use std::time::{Duration, Instant};

/// The bound of most waits: far above what a healthy broker needs, so that a busy machine does not fail a test.
pub const PATIENCE: Duration = Duration::from_secs(20);
const STEP: Duration = Duration::from_millis(10);

/// Asks `what` until it gives something.
///
/// # Panics
/// When it has given nothing for [`PATIENCE`]; `name` says what was waited for.
pub fn until<T>(name: &str, mut what: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = what() {
            return found;
        }
        assert!(Instant::now() < end, "not within {} s: {name}", PATIENCE.as_secs());
        thread::sleep(STEP);
    }
}
