//! How long to wait between two asks about the same transaction: the interval, for the first few; then twice as long
//! each time, because a producer that has not known for minutes will hardly know in the next half minute.

/// Asks that follow each other at the plain interval.
const PLAIN_ASKS: u32 = 5;

/// The interval grows to at most two to the power of this: 16 times.
const DOUBLINGS_MAX: u32 = 4;

/// Milliseconds from one ask to the next, when `asks` have counted so far.
#[must_use]
pub(crate) fn next_ask_after_ms(interval_ms: u64, asks: u32) -> u64 {
    let doublings = asks.saturating_sub(PLAIN_ASKS).min(DOUBLINGS_MAX);
    interval_ms.saturating_mul(1 << doublings)
}

#[cfg(test)]
mod tests {
    use super::next_ask_after_ms;

    #[test]
    fn five_asks_are_plain_then_the_interval_doubles_up_to_sixteen_times() {
        let factors: Vec<u64> = (0..12).map(|asks| next_ask_after_ms(1_000, asks) / 1_000).collect();
        assert_eq!(factors, [1, 1, 1, 1, 1, 1, 2, 4, 8, 16, 16, 16]);
    }

    #[test]
    fn an_absurd_interval_does_not_overflow() {
        assert_eq!(next_ask_after_ms(u64::MAX, 99), u64::MAX);
    }
}
