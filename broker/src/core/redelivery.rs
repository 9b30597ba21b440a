//! Retry or dead letter: what becomes of a message that a consumer group could not consume.
//!
//! A retry goes to the group's `%RETRY%` topic and climbs the ladder of delays, from level 3 (10 s) on; after the
//! allowed attempts the message goes to the group's `%DLQ%` topic, at once. Either way it keeps its own topic in
//! `RETRY_TOPIC` and its first offset id in `ORIGIN_MESSAGE_ID`, and loses what would make it something else again:
//! with `TRAN_MSG` a retry would become a half message, with `DELAY` it would wait twice.

use mezzo_protocol::{
    EncodeError, delay_level,
    ids::{GroupName, TopicName},
    message::properties::{self, PropertiesWriter},
    system_topic,
};

/// Attempts before the dead-letter topic, where neither group nor request says otherwise.
const ATTEMPTS_MAX_DEFAULT: i32 = 16;

/// Queues of a dead-letter topic.
pub(crate) const DLQ_QUEUES: u32 = 1;

/// Properties that a redelivered message does not keep.
const DROPPED: [&str; 9] = [
    properties::TRANSACTION_PREPARED,
    properties::TRANSACTION_CHECK_TIMES,
    properties::DELAY,
    properties::TIMER_DELAY_SEC,
    properties::TIMER_DELAY_MS,
    properties::TIMER_DELIVER_MS,
    properties::REAL_TOPIC,
    properties::REAL_QUEUE_ID,
    properties::POP_CK,
];

/// A message as it was delivered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivered<'a> {
    /// The topic it was read from: its own, or the group's retry topic.
    pub(crate) topic: &'a str,
    /// Deliveries that failed before this one.
    pub(crate) reconsume_times: i32,
    /// Its encoded properties.
    pub(crate) properties: &'a str,
    /// Its offset id.
    pub(crate) offset_message_id: &'a str,
}

/// What the group sends back and how often it may.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SendBack<'a> {
    /// The consumer group.
    pub(crate) group: &'a GroupName,
    /// 0: the ladder decides; above: this level; below: dead letter at once.
    pub(crate) delay_level: i32,
    /// The consumer's own limit of attempts; negative counts as none.
    pub(crate) attempts_max: Option<i32>,
    /// The group's limit of attempts; negative means the default.
    pub(crate) group_attempts_max: i32,
    /// Queues of the group's retry topic; 0 switches retries off.
    pub(crate) retry_queues: u32,
}

/// Where the message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Redelivery {
    /// The group's retry or dead-letter topic.
    pub(crate) topic: TopicName,
    /// How many queues that topic has when it must be created.
    pub(crate) queues: u32,
    /// Milliseconds until it is delivered; 0 for a dead letter.
    pub(crate) delay_ms: u64,
    /// Failed deliveries, this one included.
    pub(crate) reconsume_times: i32,
    /// Its properties from now on.
    pub(crate) properties: String,
    /// True for the dead-letter topic.
    pub(crate) dead: bool,
}

/// The attempts that a group may make: the request's word, then the group's, then the default.
fn attempts_max(request: Option<i32>, group: i32) -> i32 {
    let or_default = |limit: i32| if limit < 0 { ATTEMPTS_MAX_DEFAULT } else { limit };
    request.filter(|limit| *limit >= 0).unwrap_or_else(|| or_default(group))
}

/// Decides where a message goes that was sent back (request 36). `None`: the group has no retries, the message is done.
///
/// # Errors
/// If the properties it must keep do not fit a message.
pub(crate) fn send_back(
    message: &Delivered<'_>,
    request: &SendBack<'_>,
) -> Result<Option<Redelivery>, EncodeError> {
    if request.retry_queues == 0 {
        return Ok(None);
    }
    let limit = attempts_max(request.attempts_max, request.group_attempts_max);
    let dead = request.delay_level < 0 || message.reconsume_times >= limit;
    let mut kept = PropertiesWriter::from_encoded(message.properties, &DROPPED);
    let first_topic = properties::find(message.properties, properties::RETRY_TOPIC);
    if first_topic.is_none() {
        kept.put(properties::RETRY_TOPIC, message.topic)?;
    }
    let first_id = properties::find(message.properties, properties::ORIGIN_MESSAGE_ID);
    if first_id.is_none() {
        kept.put(properties::ORIGIN_MESSAGE_ID, message.offset_message_id)?;
    }
    if dead {
        kept.put(properties::DLQ_ORIGIN_TOPIC, first_topic.unwrap_or(message.topic))?;
        kept.put(properties::DLQ_ORIGIN_MESSAGE_ID, first_id.unwrap_or(message.offset_message_id))?;
    }
    Ok(Some(Redelivery {
        topic: if dead {
            system_topic::dlq_topic(request.group)
        } else {
            system_topic::retry_topic(request.group)
        },
        queues: if dead { DLQ_QUEUES } else { request.retry_queues },
        delay_ms: if dead { 0 } else { retry_delay_ms(request.delay_level, message.reconsume_times) },
        reconsume_times: message.reconsume_times.saturating_add(1),
        properties: kept.finish(),
        dead,
    }))
}

/// A consumer that could not send a message back sends it to its retry topic itself. True if that message belongs in
/// the dead-letter topic: too many attempts, or a group that holds queue locks. A group that consumes in order retries
/// in place and only ever sends what it has given up.
pub(crate) fn resend_is_dead(
    reconsume_times: i32,
    request_max: Option<i32>,
    group_max: i32,
    group_holds_locks: bool,
) -> bool {
    group_holds_locks || reconsume_times > attempts_max(request_max, group_max)
}

/// Properties of a message that a consumer sent to its retry topic and that goes to the dead-letter topic instead.
pub(crate) fn dead_properties(encoded: &str) -> String {
    properties::without(encoded, &DROPPED)
}

fn retry_delay_ms(wanted_level: i32, reconsume_times: i32) -> u64 {
    let level = match u32::try_from(wanted_level) {
        Ok(0) | Err(_) => {
            delay_level::RETRY_LEVEL_BASE.saturating_add(u32::try_from(reconsume_times).unwrap_or(0))
        }
        Ok(level) => level,
    };
    delay_level::delay_ms(delay_level::clamp(level)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "7F00000100002A9F0000000000000001";

    fn decide(topic: &str, times: i32, props: &[(&str, &str)], request: &SendBack<'_>) -> Option<Redelivery> {
        let properties = properties::encode(props.iter().copied()).unwrap();
        let message =
            Delivered { topic, reconsume_times: times, properties: &properties, offset_message_id: ID };
        send_back(&message, request).unwrap()
    }

    fn request(group: &GroupName) -> SendBack<'_> {
        SendBack { group, delay_level: 0, attempts_max: None, group_attempts_max: 16, retry_queues: 1 }
    }

    fn entries(redelivery: &Redelivery) -> Vec<(&str, &str)> {
        properties::iter(&redelivery.properties).collect()
    }

    #[test]
    fn retries_climb_the_ladder_from_level_three_and_end_in_the_dead_letter_topic() {
        let group = GroupName::new("g").unwrap();
        // failed deliveries before, seconds until the next; -1 is the dead-letter topic
        let table = [(0, 10), (1, 30), (2, 60), (6, 300), (15, 7_200), (16, -1), (17, -1), (i32::MAX, -1)];
        for (times, seconds) in table {
            let got = decide("T", times, &[], &request(&group)).unwrap();
            assert_eq!(got.reconsume_times, times.saturating_add(1));
            if seconds < 0 {
                assert_eq!((got.topic.as_str(), got.delay_ms, got.dead), ("%DLQ%g", 0, true));
            } else {
                let delay_ms = u64::try_from(seconds * 1_000).unwrap();
                assert_eq!((got.topic.as_str(), got.delay_ms, got.dead), ("%RETRY%g", delay_ms, false));
            }
        }
    }

    #[test]
    fn the_request_limits_attempts_before_the_group_and_negative_numbers_mean_the_default() {
        // request's limit, group's limit, attempts at which the message is dead
        for (own, of_group, dead_at) in
            [(None, 3, 3), (Some(2), 3, 2), (Some(-1), 3, 3), (None, -1, 16), (Some(0), 9, 0)]
        {
            let group = GroupName::new("g").unwrap();
            let request = SendBack { attempts_max: own, group_attempts_max: of_group, ..request(&group) };
            assert!(decide("T", dead_at, &[], &request).unwrap().dead, "{own:?} {of_group}");
            if dead_at > 0 {
                assert!(!decide("T", dead_at - 1, &[], &request).unwrap().dead, "{own:?} {of_group}");
            }
        }
    }

    #[test]
    fn a_level_in_the_request_goes_before_the_ladder() {
        let group = GroupName::new("g").unwrap();
        for (level, delay_ms) in [(1, 1_000), (18, 7_200_000), (99, 7_200_000)] {
            let got = decide("T", 5, &[], &SendBack { delay_level: level, ..request(&group) }).unwrap();
            assert_eq!((got.delay_ms, got.dead), (delay_ms, false));
        }
        assert!(decide("T", 0, &[], &SendBack { delay_level: -1, ..request(&group) }).unwrap().dead);
    }

    #[test]
    fn a_first_retry_remembers_topic_and_id_and_drops_what_would_change_its_nature() {
        let group = GroupName::new("g").unwrap();
        let props = [("UNIQ_KEY", "K"), ("TRAN_MSG", "true"), ("DELAY", "3"), ("TAGS", "A")];
        let got = decide("T", 0, &props, &request(&group)).unwrap();
        assert_eq!(
            entries(&got),
            [("UNIQ_KEY", "K"), ("TAGS", "A"), ("RETRY_TOPIC", "T"), ("ORIGIN_MESSAGE_ID", ID)]
        );
    }

    #[test]
    fn later_retries_and_the_dead_letter_keep_the_first_topic_and_id() {
        let group = GroupName::new("g").unwrap();
        let props = [("RETRY_TOPIC", "T"), ("ORIGIN_MESSAGE_ID", "FIRST")];
        assert_eq!(entries(&decide("%RETRY%g", 1, &props, &request(&group)).unwrap()), props);
        assert_eq!(
            entries(&decide("%RETRY%g", 16, &props, &request(&group)).unwrap())[2..],
            [("DLQ_ORIGIN_TOPIC", "T"), ("DLQ_ORIGIN_MESSAGE_ID", "FIRST")]
        );
    }

    #[test]
    fn a_group_without_retry_queues_gets_nothing_back() {
        let group = GroupName::new("g").unwrap();
        assert_eq!(decide("T", 0, &[], &SendBack { retry_queues: 0, ..request(&group) }), None);
    }

    #[test]
    fn a_message_sent_to_the_retry_topic_is_dead_beyond_the_limit_or_from_an_ordered_group() {
        assert!(!resend_is_dead(16, None, -1, false));
        assert!(resend_is_dead(17, None, -1, false));
        assert!(resend_is_dead(3, Some(2), 16, false));
        assert!(resend_is_dead(0, None, 16, true));
    }
}
