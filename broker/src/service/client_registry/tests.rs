//! The registry with channels that only remember what they were told.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
};

use super::*;
use crate::{
    config::Config,
    service::client_channel::{DecisionAsk, PushRefused},
};

struct Channel {
    id: ChannelId,
    open: AtomicBool,
    notices: Mutex<Vec<String>>,
}

impl ClientChannel for Channel {
    fn id(&self) -> ChannelId {
        self.id
    }
    fn remote(&self) -> SocketAddr {
        ([127, 0, 0, 1], 1).into()
    }
    fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }
    fn heard_after(&self) -> u64 {
        0
    }
    fn notify_members_changed(&self, group: &GroupName) -> Result<(), PushRefused> {
        self.notices.lock().unwrap().push(group.as_str().to_owned());
        Ok(())
    }
    fn ask_decision(&self, _: &DecisionAsk) -> Result<u64, PushRefused> {
        Ok(0)
    }
}

fn channel(id: u64) -> Arc<Channel> {
    Arc::new(Channel { id: ChannelId(id), open: AtomicBool::new(true), notices: Mutex::default() })
}

fn told(channel: &Channel) -> usize {
    std::mem::take(&mut *channel.notices.lock().unwrap()).len()
}

fn group(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

fn registry(groups_max: usize) -> ClientRegistry {
    let mut limits = Config::default().limits;
    limits.groups_per_connection = groups_max;
    ClientRegistry::new(&limits)
}

fn beat(
    registry: &ClientRegistry,
    now: u64,
    channel: &Arc<Channel>,
    client: &str,
    name: &str,
) -> Result<(), JoinRefused> {
    beat_as(registry, now, channel, client, name, ConsumptionModel::Clustering)
}

fn beat_as(
    registry: &ClientRegistry,
    now: u64,
    channel: &Arc<Channel>,
    client: &str,
    name: &str,
    model: ConsumptionModel,
) -> Result<(), JoinRefused> {
    let channel: Arc<dyn ClientChannel> = channel.clone();
    let heartbeat =
        ConsumerHeartbeat { group: group(name), model, subscriptions: Some(vec![]), notify: true };
    registry.consumer_seen(Timestamp::from_ms(now), &channel, client, heartbeat)
}

#[test]
fn members_hear_of_a_join_a_leave_and_a_closed_connection() {
    let registry = registry(8);
    let (a, b, c) = (channel(1), channel(2), channel(3));
    beat(&registry, 0, &a, "a", "g").unwrap();
    assert_eq!(told(&a), 1);
    beat(&registry, 1, &b, "b", "g").unwrap();
    beat(&registry, 2, &c, "c", "g").unwrap();
    assert_eq!((told(&a), told(&b), told(&c)), (2, 2, 1));
    beat(&registry, 3, &c, "c", "g").unwrap();
    assert_eq!(told(&a), 0, "a repeated heartbeat changes nothing");
    registry.consumer_left(&group("g"), b.id);
    assert_eq!((told(&a), told(&b), told(&c)), (1, 0, 1));
    registry.channel_closed(c.id);
    assert_eq!((told(&a), told(&c)), (1, 0));
    assert_eq!(registry.client_ids("g").unwrap(), ["a"]);
}

#[test]
fn broadcast_members_are_not_told() {
    let registry = registry(8);
    let (a, b) = (channel(1), channel(2));
    for (channel, client) in [(&a, "a"), (&b, "b")] {
        beat_as(&registry, 0, channel, client, "g", ConsumptionModel::Broadcasting).unwrap();
    }
    assert_eq!((told(&a), told(&b)), (0, 0));
    assert_eq!(registry.client_ids("g").unwrap(), ["a", "b"]);
}

#[test]
fn a_group_without_members_is_forgotten() {
    let registry = registry(8);
    let a = channel(1);
    beat(&registry, 0, &a, "a", "g").unwrap();
    registry.channel_closed(a.id);
    assert_eq!(registry.client_ids("g"), None);
    assert!(registry.state().channels.is_empty());
}

#[test]
fn a_silent_consumer_leaves_and_the_others_hear_of_it() {
    let registry = registry(8);
    let (a, b) = (channel(1), channel(2));
    beat(&registry, 0, &a, "a", "g").unwrap();
    beat(&registry, 100, &b, "b", "g").unwrap();
    told(&b);
    registry.expire(Timestamp::from_ms(150), 120);
    assert_eq!(registry.client_ids("g").unwrap(), ["b"]);
    assert_eq!(told(&b), 1);
}

#[test]
fn a_closed_connection_is_no_producer_and_cannot_join_again() {
    let registry = registry(8);
    let a = channel(1);
    registry.producer_joined(&group("p"), a.clone());
    assert_eq!(registry.producers_of(&group("p")).len(), 1);
    a.open.store(false, Ordering::Relaxed);
    assert!(registry.producers_of(&group("p")).is_empty());
    registry.channel_closed(a.id);
    registry.producer_joined(&group("p"), a.clone());
    assert_eq!(beat(&registry, 0, &a, "a", "g"), Err(JoinRefused::Closed));
    assert!(registry.state().channels.is_empty());
}

#[test]
fn a_producer_group_is_reported_once_per_new_connection() {
    let registry = registry(8);
    let (a, b) = (channel(1), channel(2));
    registry.producer_joined(&group("p"), a.clone());
    registry.producer_joined(&group("p"), a);
    assert_eq!(registry.take_joined(), [group("p")]);
    assert!(registry.take_joined().is_empty());
    registry.producer_joined(&group("p"), b);
    assert_eq!(registry.take_joined(), [group("p")]);
}

#[test]
fn groups_per_connection_are_bounded() {
    let registry = registry(1);
    let a = channel(1);
    beat(&registry, 0, &a, "a", "g").unwrap();
    assert_eq!(beat(&registry, 0, &a, "a", "h"), Err(JoinRefused::TooManyGroups(1)));
    registry.producer_joined(&group("p"), a.clone());
    registry.producer_joined(&group("q"), a);
    assert!(registry.producers_of(&group("q")).is_empty());
}

#[test]
fn members_and_subscriptions_of_all_groups_are_bounded_together_and_give_back_what_they_took() {
    let mut limits = Config::default().limits;
    limits.membership_bytes = bytesize::ByteSize::kb(100);
    let registry = ClientRegistry::new(&limits);
    let wide = |channel: &Arc<Channel>, name: &str, version: i64, topics: usize| {
        let subscription = |number| Subscription {
            topic: mezzo_protocol::ids::TopicName::new(&format!("t{number}")).unwrap(),
            expression: "a || b".repeat(100),
            expression_type: "TAG".to_owned(),
            version,
        };
        let subscriptions = Some((0..topics).map(subscription).collect());
        let model = ConsumptionModel::Clustering;
        let heartbeat = ConsumerHeartbeat { group: group(name), model, subscriptions, notify: false };
        let channel: Arc<dyn ClientChannel> = channel.clone();
        registry.consumer_seen(Timestamp::from_ms(1), &channel, "client", heartbeat)
    };
    let (known, hostile) = (channel(1), channel(2));
    wide(&known, "known", 1, 3).unwrap();
    let taken = (0..1_000).take_while(|n| wide(&hostile, &format!("made-up-{n}"), 1, 10).is_ok()).count();
    assert!((5..15).contains(&taken), "{taken}");
    assert_eq!(wide(&hostile, "one-more", 1, 10), Err(JoinRefused::NoRoom));
    assert_eq!(registry.client_ids("one-more"), None, "nothing of it stays");
    assert_eq!(wide(&known, "known", 2, 3), Ok(()), "who is known goes on");
    assert!(registry.state().consumer_bytes <= 100_000);
    registry.channel_closed(hostile.id());
    wide(&channel(3), "one-more", 1, 10).unwrap();
    registry.expire(Timestamp::from_ms(10_000_000), 1);
    assert_eq!(registry.state().consumer_bytes, 0);
}
