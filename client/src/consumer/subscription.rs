//! What a group wants of a topic.

use std::collections::BTreeMap;

use mezzo_protocol::ids::{GroupName, TopicName};
use mezzo_protocol::message::tag::{EXPRESSION_TYPE_TAG, TagFilter};
use mezzo_protocol::remoting::body::heartbeat::SubscriptionData;
use mezzo_protocol::system_topic::retry_topic;
use mezzo_protocol::time::Timestamp;

use crate::error::Error;

/// The wish for one topic.
#[derive(Debug, Clone)]
pub(super) struct Subscription {
    pub(super) filter: TagFilter,
    pub(super) expression: String,
    /// Brokers keep the newest subscription of a group; its time tells which.
    pub(super) version: i64,
}

/// All wishes of a group, by topic.
pub(super) type Subscriptions = BTreeMap<TopicName, Subscription>;

impl Subscription {
    fn parse(expression: &str, now: Timestamp) -> Result<Self, Error> {
        let filter = TagFilter::parse(expression).map_err(|error| Error::Config {
            setting: "subscription",
            reason: format!("{error}; a tag expression is \"*\" or tags joined by \"||\""),
        })?;
        let expression = filter.expression().into_owned();
        Ok(Self { filter, expression, version: now.as_wire_ms() })
    }

    /// As heartbeats say it.
    pub(super) fn data(&self, topic: &TopicName) -> SubscriptionData {
        let (tags, hashes) = match &self.filter {
            TagFilter::All => (Vec::new(), Vec::new()),
            TagFilter::Any(set) => (
                set.tags().map(str::to_owned).collect(),
                set.hashes().iter().map(|hash| i64::from(*hash)).collect(),
            ),
        };
        SubscriptionData {
            topic: topic.to_string(),
            sub_string: self.expression.clone(),
            tags_set: tags,
            code_set: hashes,
            sub_version: self.version,
            expression_type: EXPRESSION_TYPE_TAG.to_owned(),
            class_filter_mode: false,
        }
    }
}

/// Checks what the builder collected and adds the group's retry topic, if messages can be given back to it.
pub(super) fn subscriptions(
    group: &GroupName,
    retries: bool,
    wishes: &[(String, String)],
    now: Timestamp,
) -> Result<Subscriptions, Error> {
    if wishes.is_empty() {
        let reason = "a consumer needs at least one topic".to_owned();
        return Err(Error::Config { setting: "subscription", reason });
    }
    let mut subscriptions = Subscriptions::new();
    for (topic, expression) in wishes {
        let topic = TopicName::new(topic)
            .map_err(|error| Error::Config { setting: "subscription", reason: error.to_string() })?;
        subscriptions.insert(topic, Subscription::parse(expression, now)?);
    }
    if retries {
        subscriptions.insert(retry_topic(group), Subscription::parse("*", now)?);
    }
    Ok(subscriptions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(wishes: &[(&str, &str)]) -> Result<Subscriptions, Error> {
        let wishes: Vec<_> = wishes.iter().map(|(t, e)| ((*t).to_owned(), (*e).to_owned())).collect();
        subscriptions(&GroupName::new("g").unwrap(), true, &wishes, Timestamp::from_ms(7))
    }

    #[test]
    fn the_retry_topic_is_subscribed_to_as_well() {
        let subscriptions = parse(&[("orders", "paid || sent")]).unwrap();
        let topics: Vec<_> = subscriptions.keys().map(TopicName::as_str).collect();
        assert_eq!(topics, ["%RETRY%g", "orders"]);
        let data = subscriptions["orders"].data(&TopicName::new("orders").unwrap());
        assert_eq!((data.tags_set.len(), data.code_set.len(), data.sub_version), (2, 2, 7));
    }

    #[test]
    fn a_consumer_of_nothing_and_bad_expressions_are_refused() {
        assert!(parse(&[]).is_err());
        assert!(parse(&[("orders", "||")]).is_err());
        assert!(parse(&[("no topic", "*")]).is_err());
    }
}
