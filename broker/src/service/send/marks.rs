//! What the properties of a sent message say about its fate: half message, delay, keys. And which of them are stored.

use std::{borrow::Cow, net::IpAddr};

use mezzo_protocol::{
    delay_level,
    ids::GroupName,
    message::properties::{self, PropertiesWriter},
    time::Timestamp,
};

use super::{Send, SendError};
use crate::service::Services;

/// The longest delay of a message, in milliseconds: a year. Longer ones are taken for a mistake in the unit.
const DELAY_MAX_MS: u64 = 365 * 24 * 3_600_000;
/// Seconds that a message may keep itself from being asked about, at most: a day.
const IMMUNITY_MAX_S: u64 = 24 * 3_600;

/// What the properties say about the message's fate, found in one pass over them.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Marks<'a> {
    /// Nothing is visible before a decision.
    pub(super) half: bool,
    /// Whom to ask about a half message.
    pub(super) producer_group: Option<&'a str>,
    /// The id that the producer gave the message.
    pub(super) unique_key: Option<&'a str>,
    /// `DELAY`.
    pub(super) delay_level: Option<&'a str>,
    /// `TIMER_DELAY_SEC`.
    pub(super) delay_s: Option<&'a str>,
    /// `TIMER_DELAY_MS`.
    pub(super) delay_ms: Option<&'a str>,
    /// `TIMER_DELIVER_MS`.
    pub(super) deliver_ms: Option<&'a str>,
    /// `CHECK_IMMUNITY_TIME_IN_SECONDS`.
    pub(super) immunity_s: Option<&'a str>,
    /// `POP_CK` is there; brokers alone may set it.
    pub(super) pop_receipt: bool,
    /// The client that waits for a message in answer to this one.
    pub(super) reply_to: Option<&'a str>,
}

impl<'a> Marks<'a> {
    /// Reads them; of several with one name the last counts.
    pub(super) fn of(encoded: &'a str) -> Self {
        let mut marks = Self::default();
        for (name, value) in properties::iter(encoded) {
            match name {
                properties::TRANSACTION_PREPARED => marks.half = value.eq_ignore_ascii_case("true"),
                properties::PRODUCER_GROUP => marks.producer_group = Some(value),
                properties::UNIQUE_KEY => marks.unique_key = Some(value),
                properties::DELAY => marks.delay_level = Some(value),
                properties::TIMER_DELAY_SEC => marks.delay_s = Some(value),
                properties::TIMER_DELAY_MS => marks.delay_ms = Some(value),
                properties::TIMER_DELIVER_MS => marks.deliver_ms = Some(value),
                properties::CHECK_IMMUNITY_TIME_SECONDS => marks.immunity_s = Some(value),
                properties::POP_CK => marks.pop_receipt = true,
                properties::REPLY_TO_CLIENT => marks.reply_to = Some(value),
                _ => {}
            }
        }
        marks
    }

    /// Milliseconds from now until the message is to be visible; `None` for a message without delay. A delay level
    /// goes before the other three, as it does in RocketMQ.
    pub(super) fn delay(&self, now: Timestamp) -> Result<Option<u64>, SendError> {
        let number = |name, text: &str| {
            text.trim().parse::<i64>().map_err(|_| {
                SendError::Illegal(format!("property {name} is {text:?}, not a whole number").into())
            })
        };
        if let Some(text) = self.delay_level {
            let level = u32::try_from(number(properties::DELAY, text)?.min(i64::from(u32::MAX))).unwrap_or(0);
            if level > 0 {
                return Ok(delay_level::delay_ms(delay_level::clamp(level)));
            }
        }
        let wait_ms = if let Some(text) = self.delay_s {
            number(properties::TIMER_DELAY_SEC, text)?.saturating_mul(1000)
        } else if let Some(text) = self.delay_ms {
            number(properties::TIMER_DELAY_MS, text)?
        } else if let Some(text) = self.deliver_ms {
            number(properties::TIMER_DELIVER_MS, text)?.saturating_sub(now.as_wire_ms())
        } else {
            return Ok(None);
        };
        match u64::try_from(wait_ms) {
            Ok(wait_ms) if wait_ms > DELAY_MAX_MS => Err(SendError::Illegal(
                format!("a delay of {wait_ms} ms, at most {DELAY_MAX_MS} are allowed").into(),
            )),
            Ok(wait_ms) if wait_ms > 0 => Ok(Some(wait_ms)),
            // in the past: at once
            _ => Ok(None),
        }
    }

    /// Milliseconds for which a half message asks not to be asked about.
    pub(super) fn immunity_ms(&self) -> Option<u64> {
        let seconds = self.immunity_s?.trim().parse::<u64>().ok()?;
        Some(seconds.min(IMMUNITY_MAX_S) * 1000)
    }

    /// Whether the message is to be visible later, or says so.
    pub(super) fn is_delayed(&self) -> bool {
        self.delay_level.is_some()
            || self.delay_s.is_some()
            || self.delay_ms.is_some()
            || self.deliver_ms.is_some()
    }
}

/// The properties that are stored: nearly always those that were sent. A half message gets the group and the key that
/// END is matched by where it lacks them; another message `group`, if there is one and it names none; delay and receipts
/// are dropped, because they are not part of the message.
pub(super) fn stored_properties<'a>(
    services: &Services,
    now: Timestamp,
    send: &Send<'a>,
    marks: &Marks<'a>,
    half: bool,
    group: Option<&str>,
) -> Result<Cow<'a, str>, SendError> {
    let mut dropped: Vec<&str> = Vec::new();
    if marks.delay_level.is_some() {
        dropped.push(properties::DELAY);
    }
    if marks.pop_receipt {
        dropped.push(properties::POP_CK);
    }
    if marks.half && !half {
        dropped.push(properties::TRANSACTION_PREPARED);
    }
    let no_group = half && marks.producer_group.is_none();
    let no_key = half && marks.unique_key.is_none();
    let group = group.filter(|_| !half && marks.producer_group.is_none());
    if dropped.is_empty() && !no_group && !no_key && group.is_none() {
        return Ok(Cow::Borrowed(send.properties));
    }
    let mut writer = PropertiesWriter::from_encoded(send.properties, &dropped);
    if no_group {
        GroupName::new(send.producer_group).map_err(|error| {
            SendError::Illegal(format!("a transactional message needs a producer group: {error}").into())
        })?;
        writer.put(properties::PRODUCER_GROUP, send.producer_group)?;
    }
    if let Some(group) = group {
        writer.put(properties::PRODUCER_GROUP, group)?;
    }
    if no_key {
        writer.put(properties::UNIQUE_KEY, &made_up_key(services, now))?;
    }
    Ok(Cow::Owned(writer.finish()))
}

/// A unique key for a message whose client gave it none: 32 hex digits of address, port, time and a counter.
fn made_up_key(services: &Services, now: Timestamp) -> String {
    let address = match services.advertised.ip().to_canonical() {
        IpAddr::V4(ip) => ip.to_bits(),
        IpAddr::V6(ip) => {
            let [.., a, b, c, d] = ip.octets();
            u32::from_be_bytes([a, b, c, d])
        }
    };
    let (port, ms) = (services.advertised.port(), now.as_ms() & 0xFFFF_FFFF_FFFF);
    format!("{address:08X}{port:04X}{ms:012X}{:08X}", services.transactions.next_number())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delay(entries: &[(&str, &str)]) -> Result<Option<u64>, SendError> {
        let encoded = properties::encode(entries.iter().copied()).unwrap();
        Marks::of(&encoded).delay(Timestamp::from_ms(1_000_000))
    }

    #[test]
    fn a_delay_is_a_level_or_a_time_and_the_level_goes_first() {
        let year_s = (DELAY_MAX_MS / 1000).to_string();
        for (entries, expected) in [
            (vec![], None),
            (vec![("DELAY", "1")], Some(1_000)),
            (vec![("DELAY", "18")], Some(7_200_000)),
            (vec![("DELAY", "99999999999")], Some(7_200_000)),
            (vec![("DELAY", "0")], None),
            (vec![("DELAY", "-1")], None),
            (vec![("TIMER_DELAY_SEC", "3")], Some(3_000)),
            (vec![("TIMER_DELAY_MS", "3")], Some(3)),
            (vec![("TIMER_DELIVER_MS", "1000700")], Some(700)),
            (vec![("TIMER_DELIVER_MS", "999999")], None),
            (vec![("TIMER_DELAY_SEC", "-3")], None),
            (vec![("TIMER_DELAY_SEC", &year_s)], Some(DELAY_MAX_MS)),
            (vec![("TIMER_DELAY_SEC", "3"), ("DELAY", "2")], Some(5_000)),
            (vec![("DELAY", "0"), ("TIMER_DELAY_SEC", "3")], Some(3_000)),
        ] {
            assert_eq!(delay(&entries).unwrap(), expected, "{entries:?}");
        }
    }

    #[test]
    fn a_delay_that_cannot_be_meant_is_refused() {
        for entry in [
            ("DELAY", "soon"),
            ("TIMER_DELAY_MS", "1.5"),
            ("TIMER_DELAY_SEC", "31536001"),
            ("TIMER_DELIVER_MS", "9223372036854775807"),
        ] {
            assert!(delay(&[entry]).is_err(), "{entry:?}");
        }
    }

    #[test]
    fn the_time_without_asks_is_bounded_and_nonsense_is_none() {
        for (text, expected) in
            [("60", Some(60_000)), ("999999999999", Some(86_400_000)), ("x", None), ("-1", None)]
        {
            let encoded = properties::encode([("CHECK_IMMUNITY_TIME_IN_SECONDS", text)]).unwrap();
            assert_eq!(Marks::of(&encoded).immunity_ms(), expected, "{text}");
        }
    }
}
