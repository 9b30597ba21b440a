//! Who is connected: producers by group (whom a check-back can ask) and consumers by group (who shares the queues).
//! Members are told when their group changes; every change happens under one lock, every notice outside of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mezzo_protocol::{ids::GroupName, time::Timestamp};

use super::{
    Services,
    client_channel::{ChannelId, ClientChannel},
    stop::Stop,
};
pub(crate) use crate::core::consumer_group::{ConsumptionModel, Subscription};
use crate::{
    config::Limits,
    core::consumer_group::{Bounds, Membership, OutOfBounds},
};

/// Time between two looks for silent clients.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(10);

/// What a heartbeat says about one consumer group of a client.
#[derive(Debug, Clone)]
pub(crate) struct ConsumerHeartbeat {
    /// The group.
    pub(crate) group: GroupName,
    /// Shared or broadcast.
    pub(crate) model: ConsumptionModel,
    /// Its topics, or `None` for "as before".
    pub(crate) subscriptions: Option<Vec<Subscription>>,
    /// Whether the group's configuration lets members hear of changes.
    pub(crate) notify: bool,
}

/// Why a client could not join a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JoinRefused {
    /// The connection is in as many groups as it may be.
    #[error("this connection is in {0} groups already (limits.groups_per_connection)")]
    TooManyGroups(usize),
    /// The group's subscriptions are too long.
    #[error("the subscriptions of this consumer group take more than limits.subscription_bytes_per_group")]
    TooLong,
    /// All groups together have as much as they may.
    #[error("no room for one more member or subscription (limits.membership_bytes); try again later")]
    NoRoom,
    /// The connection closed meanwhile.
    #[error("the connection is closed")]
    Closed,
}

/// The registry. Leader-local and lost at a restart: clients come back with their next heartbeat.
pub(crate) struct ClientRegistry {
    state: Mutex<State>,
    groups_max: usize,
    bounds: Bounds,
    /// Bytes that all consumer groups may take.
    bytes_max: usize,
}

#[derive(Default)]
struct State {
    channels: HashMap<ChannelId, Registration>,
    producers: HashMap<GroupName, BTreeSet<ChannelId>>,
    consumers: BTreeMap<GroupName, Membership<ChannelId>>,
    /// Bytes of all of these.
    consumer_bytes: usize,
    /// Producer groups with a connection that is new since they were last taken. At most one entry per group.
    joined: BTreeSet<GroupName>,
}

struct Registration {
    channel: Arc<dyn ClientChannel>,
    producer_groups: BTreeSet<GroupName>,
    consumer_groups: BTreeSet<GroupName>,
}

/// Members to be told, once the lock is released.
struct Notice {
    group: GroupName,
    members: Vec<Arc<dyn ClientChannel>>,
}

impl ClientRegistry {
    /// Nobody is connected.
    pub(crate) fn new(limits: &Limits) -> Self {
        let bytes = |size: bytesize::ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
        Self {
            state: Mutex::default(),
            groups_max: limits.groups_per_connection,
            bounds: Bounds {
                subscriptions: limits.subscriptions_per_group,
                subscription_bytes: bytes(limits.subscription_bytes_per_group),
            },
            bytes_max: bytes(limits.membership_bytes),
        }
    }

    /// `channel` speaks for the producer group from now on. Beyond `limits.groups_per_connection` it is not remembered:
    /// its transactions are then asked of the group's other members.
    pub(crate) fn producer_joined(&self, group: &GroupName, channel: Arc<dyn ClientChannel>) {
        let mut state = self.state();
        let id = channel.id();
        let Ok(registration) = state.registration(&channel) else { return };
        if registration.producer_groups.len() >= self.groups_max
            || !registration.producer_groups.insert(group.clone())
        {
            return;
        }
        state.producers.entry(group.clone()).or_default().insert(id);
        state.joined.insert(group.clone());
    }

    /// `channel` left a producer group.
    pub(crate) fn producer_left(&self, group: &GroupName, channel: ChannelId) {
        let mut state = self.state();
        if let Some(registration) = state.channels.get_mut(&channel) {
            registration.producer_groups.remove(group);
        }
        state.remove_producer(group, channel);
        state.drop_if_unused(channel);
    }

    /// The open connections of a producer group, in the order they came.
    pub(crate) fn producers_of(&self, group: &GroupName) -> Vec<Arc<dyn ClientChannel>> {
        let state = self.state();
        let ids = state.producers.get(group).into_iter().flatten();
        ids.filter_map(|id| state.channels.get(id))
            .filter(|registration| registration.channel.is_open())
            .map(|registration| Arc::clone(&registration.channel))
            .collect()
    }

    /// Producer groups with a new connection since the last call, in order of name.
    pub(crate) fn take_joined(&self) -> Vec<GroupName> {
        std::mem::take(&mut self.state().joined).into_iter().collect()
    }

    /// A heartbeat for one consumer group; tells the members if the group changed by it.
    ///
    /// # Errors
    /// [`JoinRefused`].
    pub(crate) fn consumer_seen(
        &self,
        now: Timestamp,
        channel: &Arc<dyn ClientChannel>,
        client_id: &str,
        heartbeat: ConsumerHeartbeat,
    ) -> Result<(), JoinRefused> {
        let notice = {
            let mut state = self.state();
            let registration = state.registration(channel)?;
            let is_new = !registration.consumer_groups.contains(&heartbeat.group);
            if is_new && registration.consumer_groups.len() >= self.groups_max {
                return Err(JoinRefused::TooManyGroups(self.groups_max));
            }
            let room = self.bytes_max.saturating_sub(state.consumer_bytes);
            let membership = state
                .consumers
                .entry(heartbeat.group.clone())
                .or_insert_with(|| Membership::new(self.bounds));
            let before = membership.bytes();
            let heard = membership.handle_heartbeat(
                now,
                channel.id(),
                client_id,
                heartbeat.model,
                heartbeat.subscriptions,
                room,
            );
            let after = membership.bytes();
            state.consumer_bytes = state.consumer_bytes - before + after;
            let changes = match heard {
                Ok(changes) => changes,
                Err(refused) => {
                    // made for this heartbeat alone
                    state.forget_if_empty(&heartbeat.group);
                    state.drop_if_unused(channel.id());
                    return Err(match refused {
                        OutOfBounds::Group => JoinRefused::TooLong,
                        OutOfBounds::AllGroups => JoinRefused::NoRoom,
                    });
                }
            };
            if is_new && let Some(registration) = state.channels.get_mut(&channel.id()) {
                registration.consumer_groups.insert(heartbeat.group.clone());
            }
            ((changes.members || changes.subscriptions) && heartbeat.notify)
                .then(|| state.notice(&heartbeat.group))
        };
        if let Some(notice) = notice {
            notice.send();
        }
        Ok(())
    }

    /// A client left a consumer group; tells the members that stay.
    pub(crate) fn consumer_left(&self, group: &GroupName, channel: ChannelId) {
        let notice = {
            let mut state = self.state();
            if let Some(registration) = state.channels.get_mut(&channel) {
                registration.consumer_groups.remove(group);
            }
            let notice = state.remove_consumer(group, channel);
            state.drop_if_unused(channel);
            notice
        };
        if let Some(notice) = notice {
            notice.send();
        }
    }

    /// A connection closed: it leaves all its groups.
    pub(crate) fn channel_closed(&self, channel: ChannelId) {
        let notices: Vec<Notice> = {
            let mut state = self.state();
            let Some(registration) = state.channels.remove(&channel) else { return };
            for group in &registration.producer_groups {
                state.remove_producer(group, channel);
            }
            registration
                .consumer_groups
                .iter()
                .filter_map(|group| state.remove_consumer(group, channel))
                .collect()
        };
        for notice in notices {
            notice.send();
        }
    }

    /// Removes consumers whose last heartbeat is more than `timeout_ms` old. Producers stay as long as their connection:
    /// a connection without any traffic is closed by `limits.idle_timeout`.
    pub(crate) fn expire(&self, now: Timestamp, timeout_ms: u64) {
        let mut notices = Vec::new();
        let mut state = self.state();
        let mut freed = 0;
        let silent: Vec<(GroupName, Vec<ChannelId>)> = state
            .consumers
            .iter_mut()
            .map(|(group, membership)| {
                let before = membership.bytes();
                let silent = membership.handle_timeout(now, timeout_ms);
                freed += before - membership.bytes();
                (group.clone(), silent)
            })
            .filter(|(_, silent)| !silent.is_empty())
            .collect();
        state.consumer_bytes -= freed;
        for (group, channels) in silent {
            for channel in channels {
                tracing::info!(
                    group = group.as_str(),
                    channel = channel.0,
                    "a consumer's heartbeats ended: it left"
                );
                if let Some(registration) = state.channels.get_mut(&channel) {
                    registration.consumer_groups.remove(&group);
                }
                state.drop_if_unused(channel);
            }
            notices.extend(state.notice_or_forget(&group));
        }
        drop(state);
        for notice in notices {
            notice.send();
        }
    }

    /// The client ids of a consumer group's members, sorted; `None` if the group has none.
    pub(crate) fn client_ids(&self, group: &str) -> Option<Vec<String>> {
        self.state().consumers.get(group).map(Membership::client_ids)
    }

    /// What a consumer group wants of a topic, as its heartbeats said.
    pub(crate) fn subscription(&self, group: &str, topic: &str) -> Option<Subscription> {
        self.state().consumers.get(group).and_then(|membership| membership.subscription(topic)).cloned()
    }

    /// How a consumer group consumes; `None` if it has no members.
    pub(crate) fn consumption_model(&self, group: &str) -> Option<ConsumptionModel> {
        self.state().consumers.get(group).map(Membership::model)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The channel's registration, made if it is new. A channel that is closing is not let in: its end was, or will be,
    /// announced by `channel_closed`, and nobody would remove it afterwards.
    fn registration(&mut self, channel: &Arc<dyn ClientChannel>) -> Result<&mut Registration, JoinRefused> {
        if !channel.is_open() {
            return Err(JoinRefused::Closed);
        }
        Ok(self.channels.entry(channel.id()).or_insert_with(|| Registration {
            channel: Arc::clone(channel),
            producer_groups: BTreeSet::new(),
            consumer_groups: BTreeSet::new(),
        }))
    }

    fn remove_producer(&mut self, group: &GroupName, channel: ChannelId) {
        if let Some(members) = self.producers.get_mut(group) {
            members.remove(&channel);
            if members.is_empty() {
                self.producers.remove(group);
                self.joined.remove(group);
            }
        }
    }

    /// Takes a member out; the notice for those that stay, if there are any.
    fn remove_consumer(&mut self, group: &GroupName, channel: ChannelId) -> Option<Notice> {
        let membership = self.consumers.get_mut(group)?;
        let before = membership.bytes();
        membership.handle_leave(channel);
        let freed = before - membership.bytes();
        self.consumer_bytes -= freed;
        self.notice_or_forget(group)
    }

    /// The notice for a group that lost members; a group that lost its last one is forgotten.
    fn notice_or_forget(&mut self, group: &GroupName) -> Option<Notice> {
        self.forget_if_empty(group);
        self.consumers.contains_key(group).then(|| self.notice(group))
    }

    fn forget_if_empty(&mut self, group: &GroupName) {
        if self.consumers.get(group).is_some_and(Membership::is_empty)
            && let Some(forgotten) = self.consumers.remove(group)
        {
            self.consumer_bytes -= forgotten.bytes();
        }
    }

    fn drop_if_unused(&mut self, channel: ChannelId) {
        let unused = |registration: &Registration| {
            registration.producer_groups.is_empty() && registration.consumer_groups.is_empty()
        };
        if self.channels.get(&channel).is_some_and(unused) {
            self.channels.remove(&channel);
        }
    }

    /// Whom to tell about `group`: nobody in broadcast mode, where members do not share anything.
    fn notice(&self, group: &GroupName) -> Notice {
        let members = self.consumers.get(group).filter(|group| group.model() == ConsumptionModel::Clustering);
        let members = members.into_iter().flat_map(Membership::members);
        let members = members.filter_map(|id| self.channels.get(&id)).map(|known| Arc::clone(&known.channel));
        Notice { group: group.clone(), members: members.collect() }
    }
}

impl Notice {
    fn send(self) {
        for member in self.members {
            // a full queue is counted there; the client's own rebalance timer finds out later
            let _ = member.notify_members_changed(&self.group);
        }
    }
}

/// Looks for silent consumers and forgotten queue locks until the stop.
pub(crate) async fn drive(services: Arc<Services>, mut stop: Stop) {
    let timeout_ms = u64::try_from(services.config.limits.heartbeat_timeout.as_millis()).unwrap_or(u64::MAX);
    let mut tick = tokio::time::interval(EXPIRY_INTERVAL);
    loop {
        tokio::select! {
            biased;
            () = stop.stopped() => return,
            _ = tick.tick() => {
                let now = services.now();
                services.clients.expire(now, timeout_ms);
                services.locks.expire(now);
            }
        }
    }
}

#[cfg(test)]
mod tests;
