//! What foreign brokers lack or do otherwise: each entry names the behaviour, how its failure shows, and the reason as it
//! stands in that broker's source. A behaviour that is not here must hold.

/// One behaviour that a foreign broker is known not to have.
#[derive(Debug)]
pub(crate) struct Deviation {
    implementation: &'static str,
    behaviour: &'static str,
    /// What the failure's words hold; any other failure is not the known one.
    pub(crate) shows: &'static str,
    /// Why, as found in the broker's source.
    pub(crate) reason: &'static str,
}

/// 4.9 knows no `setZeroIfNotFound`: `ConsumerManageProcessor.queryConsumerOffset` answers 0 for a group that has no
/// offset while the queue's first message is in memory, so its clients read young queues from their begin.
const YOUNG_QUEUES_BEGIN_AT_0: &str = "a broker of 4.9 answers offset 0 for new groups on young queues";

const KNOWN: &[Deviation] = &[
    Deviation {
        implementation: "rocketmq-rust",
        behaviour: "a_member_hears_of_another_from_the_broker",
        shows: "one hears that it is alone",
        reason: "1.0.0 tells a group of those who come and not of those who go: heart_beat notifies its members, \
                 unregister_client (client_manage_processor.rs) only the broker's own listeners",
    },
    Deviation {
        implementation: "apache-4.9.8",
        behaviour: "a_group_that_starts_with_the_last_message_gets_what_is_new",
        shows: "\"old 0\"",
        reason: YOUNG_QUEUES_BEGIN_AT_0,
    },
    Deviation {
        implementation: "apache-4.9.8",
        behaviour: "a_group_that_starts_at_a_time_gets_what_came_later",
        shows: "\"old ",
        reason: YOUNG_QUEUES_BEGIN_AT_0,
    },
    Deviation {
        implementation: "apache-4.9.8",
        behaviour: "a_seek_goes_to_the_begin_the_end_an_offset_and_a_time",
        shows: "Time(Timestamp(",
        reason: "4.9 answers a search by time with the message stored nearest to it (ConsumeQueue.getOffsetInQueueByTime), \
                 which may be the last one before: one message too many is read, none is missed",
    },
    Deviation {
        implementation: "apache-4.9.8",
        behaviour: "a_message_is_delivered_at_its_time",
        shows: "right: \"at once\"",
        reason: "4.9 has no timer: TIMER_DELIVER_MS and TIMER_DELAY_MS are properties like others, delivered at once",
    },
];

/// What is known about a behaviour of an implementation.
pub(crate) fn expected(implementation: &str, behaviour: &str) -> Option<&'static Deviation> {
    KNOWN.iter().find(|known| known.implementation == implementation && known.behaviour == behaviour)
}
