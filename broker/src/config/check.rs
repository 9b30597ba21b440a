//! Settings that must fit each other. Each rule answers with one sentence that says what to change.

use bytesize::ByteSize;
use mezzo_protocol::check_policy::BACKOFF_PERCENT;
use mezzo_protocol::limits::{BODY_BYTES_MAX, FRAME_BYTES_MAX, PULL_MESSAGES_MAX, QUEUES_PER_TOPIC_MAX};

use super::{sections::Config, value::Value as _};

/// Most bytes of one log frame; the on-disk format's own bound.
const LOG_FRAME_BYTES_MAX: u64 = 8 << 20;

/// A segment holds at least this many of the largest frame.
const FRAMES_PER_SEGMENT_MIN: u64 = 4;

/// Segments that a bounded data folder has room for at least: the one that is written, two prepared ones, and some to
/// carry open messages through.
const SEGMENTS_AT_LEAST: u64 = 8;

/// Room for consume queue pages and state in a bounded data folder.
const DERIVED_BYTES_AT_LEAST: u64 = 32 << 20;

/// What a message can need beyond its body: properties, topic, fixed fields, record and frame headers.
const MESSAGE_OVERHEAD_BYTES_MAX: u64 = 64 << 10;

/// Requests of the largest size that may be in flight at least: with fewer, one alone would be refused for ever.
const REQUESTS_IN_FLIGHT_MIN: u64 = 2;

/// Bytes of the largest log frame that these settings call for: a quarter of a segment, at most the format's bound.
pub(crate) fn log_frame_bytes_max(config: &Config) -> u64 {
    (config.store.segment_size.as_u64() / FRAMES_PER_SEGMENT_MIN).min(LOG_FRAME_BYTES_MAX)
}

/// The first rule that is broken, as a sentence.
pub(super) fn check(config: &Config) -> Result<(), String> {
    wire_bounds_hold(config)?;
    message_fits(config)?;
    numbers_are_positive(config)?;
    names_are_valid(config)?;
    if config.history.horizon < config.store.retention {
        return Err(format!(
            "history.horizon ({}) is shorter than store.retention ({}): make it at least as long",
            config.history.horizon.show(),
            config.store.retention.show()
        ));
    }
    max_bytes_leave_room(config)?;
    if config.transaction.max_age <= config.transaction.timeout {
        return Err(format!(
            "transaction.max_age ({}) is not above transaction.timeout ({}): every transaction would be parked unasked",
            config.transaction.max_age.show(),
            config.transaction.timeout.show()
        ));
    }
    let (least, most) = BACKOFF_PERCENT;
    let backoff = u64::from(config.transaction.backoff);
    if backoff != 0 && !(least..=most).contains(&backoff) {
        return Err(format!(
            "transaction.backoff is {backoff}: set it to {least} to {most} percent, or to 0"
        ));
    }
    if config.topic.default_queues > config.limits.queues_per_topic {
        return Err(format!(
            "topic.default_queues ({}) is above limits.queues_per_topic ({}): lower the one or raise the other",
            config.topic.default_queues, config.limits.queues_per_topic
        ));
    }
    Ok(())
}

/// What the wire itself bounds can only be bounded further.
fn wire_bounds_hold(config: &Config) -> Result<(), String> {
    let limits = &config.limits;
    let size = |bytes: usize| ByteSize(bytes as u64);
    for (key, set, max) in [
        ("limits.message_size", limits.message_size, size(BODY_BYTES_MAX)),
        ("limits.frame_size", limits.frame_size, size(FRAME_BYTES_MAX)),
    ] {
        if set > max {
            return Err(format!(
                "{key} is {}, but the protocol ends at {}: set it to that or less",
                set.show(),
                max.show()
            ));
        }
    }
    let pull_messages_max = u32::try_from(PULL_MESSAGES_MAX).unwrap_or(u32::MAX);
    for (key, set, max) in [
        ("limits.queues_per_topic", limits.queues_per_topic, QUEUES_PER_TOPIC_MAX),
        ("limits.pull_messages", limits.pull_messages, pull_messages_max),
    ] {
        if set > max {
            return Err(format!("{key} is {set}, but the protocol ends at {max}: set it to that or less"));
        }
    }
    Ok(())
}

/// A bounded data folder must have room to work in when the history of decisions has grown to its own bound.
fn max_bytes_leave_room(config: &Config) -> Result<(), String> {
    let bound = config.store.max_bytes.as_u64();
    let segments = config.store.segment_size.as_u64().saturating_mul(SEGMENTS_AT_LEAST);
    let history = config.history.max_bytes.as_u64();
    let needed = segments.saturating_add(history).saturating_add(DERIVED_BYTES_AT_LEAST);
    if bound > 0 && bound < needed {
        return Err(format!(
            "store.max_bytes ({}) is too small: eight segments (store.segment_size {}), the history of decisions \
             (history.max_bytes {}) and 32MiB for queues and state need {}; raise it, or lower those",
            config.store.max_bytes.show(),
            config.store.segment_size.show(),
            config.history.max_bytes.show(),
            ByteSize(needed).show()
        ));
    }
    Ok(())
}

fn message_fits(config: &Config) -> Result<(), String> {
    let message = config.limits.message_size.as_u64();
    let limits_frame = config.limits.frame_size;
    let needed = message.saturating_add(MESSAGE_OVERHEAD_BYTES_MAX);
    if needed > log_frame_bytes_max(config) {
        return Err(format!(
            "store.segment_size {} cannot hold the largest message: a segment holds four, and limits.message_size is {}; \
             set store.segment_size to at least {} or lower limits.message_size",
            config.store.segment_size.show(),
            config.limits.message_size.show(),
            ByteSize((needed * FRAMES_PER_SEGMENT_MIN).next_multiple_of(1 << 20)).show()
        ));
    }
    if needed > config.limits.frame_size.as_u64() {
        return Err(format!(
            "limits.frame_size {} cannot carry the largest message (limits.message_size {}): set it to at least {}",
            config.limits.frame_size.show(),
            config.limits.message_size.show(),
            ByteSize(needed.next_multiple_of(1 << 20)).show()
        ));
    }
    let in_flight_min = limits_frame.as_u64().saturating_mul(REQUESTS_IN_FLIGHT_MIN);
    if config.limits.in_flight_bytes.as_u64() < in_flight_min {
        return Err(format!(
            "limits.in_flight_bytes {} is not enough for two of the largest requests (limits.frame_size {}): set it to at \
             least {}, or lower limits.frame_size",
            config.limits.in_flight_bytes.show(),
            limits_frame.show(),
            ByteSize(in_flight_min).show()
        ));
    }
    Ok(())
}

fn numbers_are_positive(config: &Config) -> Result<(), String> {
    let limits = &config.limits;
    let zero = [
        ("limits.message_size", limits.message_size.as_u64() == 0),
        ("limits.connections", limits.connections == 0),
        ("limits.open_messages", limits.open_messages == 0),
        ("limits.outbound_frames", limits.outbound_frames == 0),
        ("limits.outbound_bytes", limits.outbound_bytes.as_u64() == 0),
        ("limits.subscriptions_per_group", limits.subscriptions_per_group == 0),
        ("limits.subscription_bytes_per_group", limits.subscription_bytes_per_group.as_u64() == 0),
        ("limits.membership_bytes", limits.membership_bytes.as_u64() == 0),
        ("limits.held_pulls_per_connection", limits.held_pulls_per_connection == 0),
        ("limits.pull_messages", limits.pull_messages == 0),
        ("limits.unanswered_checks", limits.unanswered_checks == 0),
        ("limits.topics", limits.topics == 0),
        ("limits.groups", limits.groups == 0),
        ("limits.queues_per_topic", limits.queues_per_topic == 0),
        ("limits.groups_per_connection", limits.groups_per_connection == 0),
        ("limits.write_timeout", limits.write_timeout.is_zero()),
        ("limits.idle_timeout", limits.idle_timeout.is_zero()),
        ("limits.frame_timeout", limits.frame_timeout.is_zero()),
        ("limits.heartbeat_timeout", limits.heartbeat_timeout.is_zero()),
        ("topic.default_queues", config.topic.default_queues == 0),
        ("transaction.timeout", config.transaction.timeout.is_zero()),
        ("transaction.check_interval", config.transaction.check_interval.is_zero()),
        ("transaction.check_rate", config.transaction.check_rate == 0),
        ("dedup.table_bytes", config.dedup.table_bytes.as_u64() == 0),
        ("dedup.window", config.dedup.window.is_zero()),
        ("store.flush_interval", config.store.flush_interval.is_zero()),
        ("store.checkpoint_size", config.store.checkpoint_size.as_u64() == 0),
    ];
    match zero.iter().find(|(_, is_zero)| *is_zero) {
        Some((name, _)) => Err(format!("{name} is 0: set it to at least 1")),
        None => Ok(()),
    }
}

fn names_are_valid(config: &Config) -> Result<(), String> {
    for (key, name) in [("broker.name", &config.broker.name), ("broker.cluster", &config.broker.cluster)] {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.len() > 127 || !name.chars().all(plain) {
            return Err(format!("{key} \"{name}\": use up to 127 letters, digits, '-', '_' and '.'"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(assignments: &[&str]) -> String {
        let mut config = Config::default();
        for assignment in assignments {
            config.set(assignment).unwrap();
        }
        check(&config).unwrap_err()
    }

    #[test]
    fn the_defaults_fit_each_other() {
        check(&Config::default()).unwrap();
    }

    #[test]
    fn a_segment_too_small_for_the_largest_message_names_a_size_that_works() {
        let text = refusal(&["store.segment_size=8MiB"]);
        assert!(text.contains("at least 17MiB"), "{text}");
        let mut config = Config::default();
        config.set("store.segment_size=17MiB").unwrap();
        check(&config).unwrap();
    }

    #[test]
    fn a_bound_beyond_the_protocols_own_is_refused() {
        let text = refusal(&["limits.message_size=8MiB"]);
        assert_eq!(
            text,
            "limits.message_size is 8MiB, but the protocol ends at 4MiB: set it to that or less"
        );
        assert!(refusal(&["limits.queues_per_topic=5000"]).contains("limits.queues_per_topic is 5000"));
    }

    #[test]
    fn fewer_bytes_in_flight_than_two_requests_name_a_number_that_works() {
        let text = refusal(&["limits.in_flight_bytes=16MiB"]);
        assert!(text.contains("at least 32MiB"), "{text}");
    }

    #[test]
    fn a_bound_of_zero_is_refused_by_name() {
        assert_eq!(refusal(&["limits.connections=0"]), "limits.connections is 0: set it to at least 1");
    }

    #[test]
    fn a_data_folder_too_small_to_work_in_is_refused_with_a_size_that_works() {
        let text = refusal(&["store.max_bytes=1GiB"]);
        assert!(text.contains("need 2080MiB"), "{text}");
        let mut config = Config::default();
        config.set("store.max_bytes=2080MiB").unwrap();
        check(&config).unwrap();
    }

    #[test]
    fn an_age_at_which_nothing_was_asked_yet_is_refused() {
        assert!(refusal(&["transaction.max_age=6s"]).starts_with("transaction.max_age (6s) is not above"));
    }

    #[test]
    fn a_back_off_that_shortens_pauses_is_refused() {
        assert!(refusal(&["transaction.backoff=99"]).contains("100 to 1000 percent, or to 0"));
        assert!(refusal(&["transaction.backoff=1001"]).starts_with("transaction.backoff is 1001"));
    }

    #[test]
    fn a_name_that_would_break_route_json_is_refused() {
        assert!(refusal(&["broker.name=a\"b"]).contains("broker.name"));
    }
}
