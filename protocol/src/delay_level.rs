//! RocketMQ's ladder of delays: property `DELAY` of a message names a level, and a retry climbs it.

/// Delay of each level in milliseconds; the first entry is level 1.
const LADDER_MS: [u64; LEVEL_MAX as usize] = [
    1_000, 5_000, 10_000, 30_000, 60_000, 120_000, 180_000, 240_000, 300_000, 360_000, 420_000, 480_000,
    540_000, 600_000, 1_200_000, 1_800_000, 3_600_000, 7_200_000,
];

/// The highest level: two hours.
pub const LEVEL_MAX: u32 = 18;

/// The level of a first retry is this plus the number of attempts so far: attempt 0 waits 10 s.
pub const RETRY_LEVEL_BASE: u32 = 3;

/// How long a message of `level` waits, in milliseconds. Level 0 (no delay) and levels above [`LEVEL_MAX`] have none;
/// RocketMQ treats the latter as the highest level, for which see [`clamp`].
#[must_use]
pub fn delay_ms(level: u32) -> Option<u64> {
    let index = usize::try_from(level.checked_sub(1)?).ok()?;
    LADDER_MS.get(index).copied()
}

/// `level` limited to the ladder: higher levels become the highest.
#[must_use]
pub const fn clamp(level: u32) -> u32 {
    if level > LEVEL_MAX { LEVEL_MAX } else { level }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder_is_that_of_rocketmq() {
        let text = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h";
        for (index, rung) in text.split(' ').enumerate() {
            let (number, unit) = rung.split_at(rung.len() - 1);
            let unit_ms = match unit {
                "s" => 1_000,
                "m" => 60_000,
                _ => 3_600_000,
            };
            let expected = number.parse::<u64>().unwrap() * unit_ms;
            assert_eq!(delay_ms(u32::try_from(index).unwrap() + 1), Some(expected), "{rung}");
        }
    }

    #[test]
    fn levels_outside_the_ladder_have_no_delay() {
        assert_eq!(delay_ms(0), None);
        assert_eq!(delay_ms(LEVEL_MAX + 1), None);
        assert_eq!(delay_ms(u32::MAX), None);
        assert_eq!(clamp(99), LEVEL_MAX);
    }
}
