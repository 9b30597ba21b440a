//! The keys that producers give their messages: 32 hex digits in the layout of RocketMQ's Java client, so that its tools
//! can read sender and time out of them.
//!
//! ```text
//! IPv4 address (4 bytes) | process id (2) | random, per client (4) | ms since the month began (4) | counter (2)
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU16, Ordering};

use mezzo_protocol::time::Timestamp;

/// Makes keys. Two makers differ in their random part; one maker repeats itself after 49 days at the earliest, and only
/// if it made more than 65,536 keys within one millisecond does it do so before.
#[derive(Debug)]
pub(crate) struct UniqueKeys {
    prefix: String,
    month_start_ms: u64,
    counter: AtomicU16,
}

impl UniqueKeys {
    /// A maker for this process. `random` tells clients of one process and reused process ids apart.
    pub(crate) fn new(address: IpAddr, process_id: u32, random: u64, now: Timestamp) -> Self {
        let ip = match address {
            IpAddr::V4(ip) => ip,
            IpAddr::V6(ip) => ip.to_ipv4().unwrap_or(Ipv4Addr::UNSPECIFIED),
        };
        let prefix = format!("{:08X}{:04X}{:08X}", ip.to_bits(), process_id & 0xFFFF, random & 0xFFFF_FFFF);
        Self { prefix, month_start_ms: month_start_ms(now.as_ms()), counter: AtomicU16::new(0) }
    }

    /// The next key.
    pub(crate) fn next(&self, now: Timestamp) -> String {
        let age_ms = now.as_ms().saturating_sub(self.month_start_ms) & 0xFFFF_FFFF;
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        let mut key = String::with_capacity(32);
        key.push_str(&self.prefix);
        push_hex(&mut key, age_ms, 8);
        push_hex(&mut key, u64::from(count), 4);
        key
    }
}

/// The lowest `digits` hex digits of `value`: `format!` costs several times as much on the send path.
fn push_hex(out: &mut String, value: u64, digits: u32) {
    for index in (0..digits).rev() {
        let nibble = u32::try_from((value >> (4 * index)) & 0xF).unwrap_or(0);
        out.push(char::from_digit(nibble, 16).map_or('0', |digit| digit.to_ascii_uppercase()));
    }
}

/// Midnight UTC of the first day of the month that holds `ms`, by counting Gregorian months (days from civil).
fn month_start_ms(ms: u64) -> u64 {
    const DAY_MS: u64 = 86_400_000;
    let days = ms / DAY_MS;
    // Days since 0000-03-01 put the leap day at the end of each year.
    let shifted = days + 719_468;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5;
    days.saturating_sub(day_of_month) * DAY_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    // 2026-02-28T12:00:00Z and the start of its month.
    const NOW: Timestamp = Timestamp::from_ms(1_772_280_000_000);
    const MONTH_MS: u64 = 1_769_904_000_000;

    #[test]
    fn a_key_holds_address_process_time_and_counter() {
        let keys = UniqueKeys::new(Ipv4Addr::LOCALHOST.into(), 0x1_2345, 0xAABB_CCDD, NOW);
        let age = NOW.as_ms() - MONTH_MS;
        assert_eq!(keys.next(NOW), format!("7F0000012345AABBCCDD{age:08X}0000"));
        assert_eq!(keys.next(NOW), format!("7F0000012345AABBCCDD{age:08X}0001"));
    }

    #[test]
    fn months_begin_at_midnight_of_their_first_day() {
        for (inside, start) in [
            (1_772_280_000_000, 1_769_904_000_000), // 2026-02-28
            (1_709_164_800_000, 1_706_745_600_000), // 2024-02-29, a leap day
            (1_767_225_600_000, 1_767_225_600_000), // 2026-01-01T00:00:00Z
            (0, 0),
        ] {
            assert_eq!(month_start_ms(inside), start);
        }
    }

    #[test]
    fn keys_within_one_millisecond_differ() {
        let keys = UniqueKeys::new(Ipv4Addr::LOCALHOST.into(), 1, 1, NOW);
        let made: std::collections::BTreeSet<String> = (0..10_000).map(|_| keys.next(NOW)).collect();
        assert_eq!(made.len(), 10_000);
    }
}
