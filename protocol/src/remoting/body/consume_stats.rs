//! The reply to GET_CONSUME_STATS (208): how far a group is behind, queue by queue. Administration tools show it as the
//! group's progress.

use std::fmt::Write;

use crate::ids::{QueueId, QueueOffset, TopicName};
use crate::remoting::json_text::push_json_string;
use crate::time::Timestamp;

/// One queue of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueProgress {
    /// The topic.
    pub topic: TopicName,
    /// The queue.
    pub queue: QueueId,
    /// The position behind the last message.
    pub broker_offset: QueueOffset,
    /// The position that the group reads next.
    pub consumer_offset: QueueOffset,
    /// When the message became visible that the group read last; `None` if it read none or it is gone.
    pub last_read_at: Option<Timestamp>,
}

/// The body: queues of the broker `broker_name`. A queue is the *name* of its member, an object, which is no JSON but
/// what fastjson writes and reads. The rate of reading is not measured and said to be 0.
#[must_use]
pub fn encode_consume_stats(broker_name: &str, queues: &[QueueProgress]) -> Vec<u8> {
    let mut out = String::from("{\"consumeTps\":0.0,\"offsetTable\":{");
    for (index, progress) in queues.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str("{\"brokerName\":");
        push_json_string(&mut out, broker_name);
        let _ = write!(out, ",\"queueId\":{},\"topic\":", progress.queue.as_wire());
        push_json_string(&mut out, progress.topic.as_str());
        // writing to a `String` cannot fail
        let _ = write!(
            out,
            "}}:{{\"brokerOffset\":{},\"consumerOffset\":{},\"lastTimestamp\":{}}}",
            progress.broker_offset.as_wire(),
            progress.consumer_offset.as_wire(),
            progress.last_read_at.map_or(0, Timestamp::as_wire_ms)
        );
    }
    out.push_str("}}");
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_names_of_members_as_fastjson_writes_them() {
        let progress = |queue, last_read_at| QueueProgress {
            topic: TopicName::new("orders").unwrap(),
            queue: QueueId(queue),
            broker_offset: QueueOffset(7),
            consumer_offset: QueueOffset(5),
            last_read_at,
        };
        let queues = [progress(0, None), progress(1, Some(Timestamp::from_ms(9)))];
        assert_eq!(
            String::from_utf8(encode_consume_stats("b", &queues)).unwrap(),
            concat!(
                r#"{"consumeTps":0.0,"offsetTable":{"#,
                r#"{"brokerName":"b","queueId":0,"topic":"orders"}:"#,
                r#"{"brokerOffset":7,"consumerOffset":5,"lastTimestamp":0},"#,
                r#"{"brokerName":"b","queueId":1,"topic":"orders"}:"#,
                r#"{"brokerOffset":7,"consumerOffset":5,"lastTimestamp":9}}}"#
            )
        );
        assert_eq!(encode_consume_stats("b", &[]), br#"{"consumeTps":0.0,"offsetTable":{}}"#);
    }
}
