//! Check-back policies: when an undecided transaction is asked about, how often, and what happens when asking has not
//! helped. A broker has a default; a producer group may have its own; a message may ask for parts of another in its
//! property `MEZZO_CHECK`:
//!
//! ```text
//! first=6s,interval=30s,backoff=150,attempts=15,max_age=24h,then=park
//! ```
//!
//! Any of the six, in any order, each once. Times are whole numbers with `ms`, `s`, `m`, `h` or `d`.

use std::fmt;

/// Longest time between two asks, in milliseconds, however far the back-off has come; the maximum age if that is less.
pub const ASK_PAUSE_MS_MAX: u64 = 3_600_000;

/// Longest text of a wish, in bytes.
pub const CHECK_WISH_BYTES_MAX: usize = 256;

/// Shortest and longest time to the first ask, in milliseconds: none, and 30 days.
const FIRST_MS: (u64, u64) = (0, 30 * DAY_MS);
/// Shortest and longest plain time between asks: one second, and a day.
const INTERVAL_MS: (u64, u64) = (1_000, DAY_MS);
/// Percent of the pause before: as it was, up to ten times.
pub const BACKOFF_PERCENT: (u64, u64) = (100, 1_000);
/// Fewest and most asks that count.
const ATTEMPTS: (u64, u64) = (1, 1_000);
/// Shortest and longest time until asking ends: one second, and a year.
const MAX_AGE_MS: (u64, u64) = (1_000, 365 * DAY_MS);

const DAY_MS: u64 = 24 * 3_600_000;

/// Asks that follow each other at the plain interval where no back-off is set.
const PLAIN_ASKS: u32 = 5;
/// After those the interval doubles, to at most two to the power of this: 16 times.
const DOUBLINGS_MAX: u32 = 4;

/// What happens when asking has not helped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exhausted {
    /// The transaction is IN_DOUBT: a person decides, or its producer after all.
    Park,
    /// The broker rolls it back.
    RollBack,
}

/// A whole policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckPolicy {
    /// First ask, in milliseconds after the prepare.
    pub timeout_ms: u64,
    /// Between asks, in milliseconds.
    pub interval_ms: u64,
    /// Each pause in percent of the one before it. 0: five plain intervals, then doubling up to sixteen times.
    pub backoff_percent: u32,
    /// Asks that count before asking ends.
    pub check_max: u32,
    /// Age at which it ends even if fewer asks counted, in milliseconds.
    pub max_age_ms: u64,
    /// What happens then.
    pub exhausted: Exhausted,
}

impl Default for CheckPolicy {
    fn default() -> Self {
        Self {
            timeout_ms: 6_000,
            interval_ms: 30_000,
            backoff_percent: 0,
            check_max: 15,
            max_age_ms: DAY_MS,
            exhausted: Exhausted::Park,
        }
    }
}

impl CheckPolicy {
    /// Milliseconds from one ask to the next, when `asks` have counted so far.
    #[must_use]
    pub fn next_ask_after_ms(&self, asks: u32) -> u64 {
        if self.backoff_percent == 0 {
            let doublings = asks.saturating_sub(PLAIN_ASKS).min(DOUBLINGS_MAX);
            return self.interval_ms.saturating_mul(1 << doublings);
        }
        let longest = ASK_PAUSE_MS_MAX.min(self.max_age_ms).max(self.interval_ms);
        let mut pause = self.interval_ms;
        for _ in 1..asks {
            let longer = pause.saturating_mul(u64::from(self.backoff_percent)) / 100;
            if longer <= pause || longer >= longest {
                pause = longer.max(pause);
                break;
            }
            pause = longer;
        }
        pause.min(longest)
    }
}

/// Parts of a policy that take the place of another's; what is `None` stays as it is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct CheckWish {
    /// First ask, in milliseconds after the prepare.
    pub timeout_ms: Option<u64>,
    /// Between asks, in milliseconds.
    pub interval_ms: Option<u64>,
    /// Each pause in percent of the one before it.
    pub backoff_percent: Option<u32>,
    /// Asks that count before asking ends.
    pub check_max: Option<u32>,
    /// Age at which it ends, in milliseconds.
    pub max_age_ms: Option<u64>,
    /// What happens then.
    pub exhausted: Option<Exhausted>,
}

/// Why a text is no wish.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WishError {
    /// It is longer than [`CHECK_WISH_BYTES_MAX`].
    #[error("a check-back policy of {got} bytes, at most {CHECK_WISH_BYTES_MAX} are taken")]
    TooLong {
        /// Its bytes.
        got: usize,
    },
    /// A part is not `name=value` with a name of the six.
    #[error(
        "check-back policy: \"{part}\" is none of first=, interval=, backoff=, attempts=, max_age=, then=, separated by \
         commas"
    )]
    Unknown {
        /// The part.
        part: String,
    },
    /// A part comes twice.
    #[error("check-back policy: {name} is given twice")]
    Twice {
        /// Its name.
        name: &'static str,
    },
    /// A value cannot be.
    #[error("check-back policy: {name}={got} is not {expected}")]
    Value {
        /// Its name.
        name: &'static str,
        /// The value.
        got: String,
        /// What it may be.
        expected: &'static str,
    },
}

impl CheckWish {
    /// Reads a text, strictly: no blanks, no unknown names, nothing twice, at least one part.
    ///
    /// # Errors
    /// [`WishError`] says which part is wrong.
    pub fn parse(text: &str) -> Result<Self, WishError> {
        if text.len() > CHECK_WISH_BYTES_MAX {
            return Err(WishError::TooLong { got: text.len() });
        }
        let mut wish = Self::default();
        for part in text.split(',') {
            let unknown = || WishError::Unknown { part: part.to_owned() };
            let (name, value) = part.split_once('=').ok_or_else(unknown)?;
            let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
            match name {
                "first" => {
                    let expected = "a time of 0s to 30d";
                    put(
                        &mut wish.timeout_ms,
                        "first",
                        bounded("first", value, time_ms, FIRST_MS, expected)?,
                    )?;
                }
                "interval" => {
                    let expected = "a time of 1s to 1d";
                    let ms = bounded("interval", value, time_ms, INTERVAL_MS, expected)?;
                    put(&mut wish.interval_ms, "interval", ms)?;
                }
                "backoff" => {
                    let expected = "a percentage of 100 to 1000";
                    let percent = bounded("backoff", value, number, BACKOFF_PERCENT, expected)?;
                    put(&mut wish.backoff_percent, "backoff", small(percent))?;
                }
                "attempts" => {
                    let asks = bounded("attempts", value, number, ATTEMPTS, "a number of 1 to 1000")?;
                    put(&mut wish.check_max, "attempts", small(asks))?;
                }
                "max_age" => {
                    let ms = bounded("max_age", value, time_ms, MAX_AGE_MS, "a time of 1s to 365d")?;
                    put(&mut wish.max_age_ms, "max_age", ms)?;
                }
                "then" => {
                    let then = match value {
                        "park" => Exhausted::Park,
                        "rollback" => Exhausted::RollBack,
                        other => {
                            let (got, expected) = (other.to_owned(), "park or rollback");
                            return Err(WishError::Value { name: "then", got, expected });
                        }
                    };
                    put(&mut wish.exhausted, "then", then)?;
                }
                _ => return Err(unknown()),
            }
        }
        Ok(wish)
    }

    /// The policy that holds where this is wished for and `policy` would hold otherwise.
    #[must_use]
    pub fn over(&self, policy: &CheckPolicy) -> CheckPolicy {
        CheckPolicy {
            timeout_ms: self.timeout_ms.unwrap_or(policy.timeout_ms),
            interval_ms: self.interval_ms.unwrap_or(policy.interval_ms),
            backoff_percent: self.backoff_percent.unwrap_or(policy.backoff_percent),
            check_max: self.check_max.unwrap_or(policy.check_max),
            max_age_ms: self.max_age_ms.unwrap_or(policy.max_age_ms),
            exhausted: self.exhausted.unwrap_or(policy.exhausted),
        }
    }
}

impl From<&CheckPolicy> for CheckWish {
    /// Every part of a policy; a back-off of 0 is left out.
    fn from(policy: &CheckPolicy) -> Self {
        Self {
            timeout_ms: Some(policy.timeout_ms),
            interval_ms: Some(policy.interval_ms),
            backoff_percent: Some(policy.backoff_percent).filter(|percent| *percent > 0),
            check_max: Some(policy.check_max),
            max_age_ms: Some(policy.max_age_ms),
            exhausted: Some(policy.exhausted),
        }
    }
}

impl fmt::Display for CheckWish {
    /// The text that [`CheckWish::parse`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            self.timeout_ms.map(|ms| format!("first={}", Time(ms))),
            self.interval_ms.map(|ms| format!("interval={}", Time(ms))),
            self.backoff_percent.map(|percent| format!("backoff={percent}")),
            self.check_max.map(|asks| format!("attempts={asks}")),
            self.max_age_ms.map(|ms| format!("max_age={}", Time(ms))),
            self.exhausted.map(|then| match then {
                Exhausted::Park => "then=park".to_owned(),
                Exhausted::RollBack => "then=rollback".to_owned(),
            }),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(","))
    }
}

/// Milliseconds in the largest unit that shows them exactly.
struct Time(u64);

const UNITS: [(&str, u64); 5] = [("d", DAY_MS), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = UNITS.iter().find(|(_, ms)| self.0 > 0 && self.0.is_multiple_of(*ms));
        match exact {
            Some((unit, ms)) => write!(f, "{}{unit}", self.0 / ms),
            None => f.write_str("0s"),
        }
    }
}

fn put<T>(place: &mut Option<T>, name: &'static str, value: T) -> Result<(), WishError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(WishError::Twice { name }),
    }
}

fn bounded(
    name: &'static str,
    value: &str,
    read: fn(&str) -> Option<u64>,
    (least, most): (u64, u64),
    expected: &'static str,
) -> Result<u64, WishError> {
    let read = read(value).filter(|number| (least..=most).contains(number));
    read.ok_or_else(|| WishError::Value { name, got: value.to_owned(), expected })
}

fn number(text: &str) -> Option<u64> {
    // `parse` would take a sign
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn time_ms(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, ms) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number(digits)?.checked_mul(*ms)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn any_part_is_read_and_written_back() {
        let text = "first=6s,interval=90s,backoff=150,attempts=15,max_age=36h,then=rollback";
        let wish = CheckWish::parse(text).unwrap();
        assert_eq!((wish.timeout_ms, wish.interval_ms), (Some(6_000), Some(90_000)));
        assert_eq!((wish.backoff_percent, wish.check_max), (Some(150), Some(15)));
        assert_eq!((wish.max_age_ms, wish.exhausted), (Some(36 * 3_600_000), Some(Exhausted::RollBack)));
        assert_eq!(CheckWish::parse(&wish.to_string()), Ok(wish));
        let one = CheckWish::parse("then=park").unwrap();
        assert_eq!(one, CheckWish { exhausted: Some(Exhausted::Park), ..CheckWish::default() });
        assert_eq!(one.over(&CheckPolicy::default()), CheckPolicy::default());
        assert_eq!(CheckWish::parse("first=0s").unwrap().to_string(), "first=0s");
    }

    #[test]
    fn whatever_is_not_exactly_a_wish_is_refused_with_the_part_that_is_wrong() {
        for (text, part) in [
            ("", "\"\""),
            ("first", "\"first\""),
            ("first=6s,", "\"\""),
            (" first=6s", "\" first=6s\""),
            ("retry=5", "\"retry=5\""),
            ("first=6s,first=7s", "first is given twice"),
            ("first=6", "first=6 is not a time"),
            ("first=-6s", "first=-6s"),
            ("first=31d", "first=31d is not a time of 0s to 30d"),
            ("interval=500ms", "interval=500ms is not a time of 1s to 1d"),
            ("backoff=99", "a percentage"),
            ("backoff=+150", "a percentage"),
            ("attempts=0", "a number of 1 to 1000"),
            ("max_age=99999999999999999999d", "max_age="),
            ("then=commit", "park or rollback"),
        ] {
            let error = CheckWish::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let long = format!("first=6s,{}", "x".repeat(CHECK_WISH_BYTES_MAX));
        assert!(matches!(CheckWish::parse(&long), Err(WishError::TooLong { .. })));
    }

    #[test]
    fn without_a_back_off_five_asks_are_plain_then_the_interval_doubles_up_to_sixteen_times() {
        let policy = CheckPolicy { interval_ms: 1_000, ..CheckPolicy::default() };
        let factors: Vec<u64> = (0..12).map(|asks| policy.next_ask_after_ms(asks) / 1_000).collect();
        assert_eq!(factors, [1, 1, 1, 1, 1, 1, 2, 4, 8, 16, 16, 16]);
    }

    #[test]
    fn a_back_off_multiplies_from_the_second_ask_on_up_to_an_hour_or_the_maximum_age() {
        let policy = CheckPolicy { interval_ms: 10_000, backoff_percent: 150, ..CheckPolicy::default() };
        let pauses: Vec<u64> = (0..5).map(|asks| policy.next_ask_after_ms(asks)).collect();
        assert_eq!(pauses, [10_000, 10_000, 15_000, 22_500, 33_750]);
        assert_eq!(policy.next_ask_after_ms(u32::MAX), ASK_PAUSE_MS_MAX);
        let short = CheckPolicy { max_age_ms: 20_000, ..policy };
        assert_eq!(short.next_ask_after_ms(9), 20_000);
        let plain = CheckPolicy { backoff_percent: 100, ..policy };
        assert_eq!(plain.next_ask_after_ms(u32::MAX), 10_000);
        let absurd = CheckPolicy { interval_ms: u64::MAX, backoff_percent: 1_000, ..policy };
        assert_eq!(absurd.next_ask_after_ms(9), u64::MAX);
    }

    proptest! {
        #[test]
        fn any_text_never_panics_and_what_is_accepted_round_trips(text in "[a-z_=,0-9]{0,40}") {
            if let Ok(wish) = CheckWish::parse(&text) {
                prop_assert_eq!(CheckWish::parse(&wish.to_string()), Ok(wish));
            }
        }
    }
}
