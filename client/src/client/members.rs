//! The groups that this client takes part in: what its heartbeats say, and whom a broker's request concerns.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use mezzo_protocol::ids::GroupName;
use mezzo_protocol::remoting::body::heartbeat::{ConsumerData, HeartbeatData, ProducerData};
use tokio::sync::{Notify, mpsc};

use super::Shared;
use super::inbound::CheckBackRequest;
use crate::error::Error;

/// A consumer as heartbeats describe it.
#[derive(Debug, Clone)]
pub(crate) struct ConsumerMember {
    /// What brokers learn.
    pub(crate) data: ConsumerData,
    /// Notified when a broker says that the group has changed.
    pub(crate) changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct ProducerMember {
    /// Producers of this client in the group.
    count: usize,
    /// Where check-backs go, if one of them is transactional.
    check_backs: Option<mpsc::Sender<CheckBackRequest>>,
}

impl ProducerMember {
    /// Whether plain producers are beside the one of transactions. They stay in the group when it leaves, and the broker
    /// goes on asking them.
    const fn is_mixed(&self) -> bool {
        self.count > 1 && self.check_backs.is_some()
    }
}

/// Says once, where it can still be changed, what goes wrong much later.
fn warn_of_mixed_group(group: &GroupName) {
    tracing::warn!(
        %group,
        "a plain producer shares its group with a transaction producer: once the latter is gone, brokers ask the former, \
         which cannot answer check-backs; give plain producers a group of their own"
    );
}

#[derive(Debug, Default)]
struct State {
    producers: HashMap<GroupName, ProducerMember>,
    consumers: HashMap<GroupName, ConsumerMember>,
}

/// All members of this client.
#[derive(Debug, Default)]
pub(crate) struct Members {
    state: Mutex<State>,
}

/// Which role a [`Membership`] stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Producer,
    TransactionProducer,
    Consumer,
}

/// A place in a group. Given up when dropped; [`Shared::leave`] does the same and waits for the brokers to know.
#[derive(Debug)]
pub(crate) struct Membership {
    members: Arc<Members>,
    group: GroupName,
    role: Role,
    /// Whom to ask to tell the brokers.
    farewell: Weak<Shared>,
    given_up: bool,
}

impl Members {
    /// Joins as a producer. Any number of producers may share a group, but not one of transactions: brokers ask whoever
    /// is in the group.
    pub(crate) fn join_producer(self: &Arc<Self>, group: &GroupName) -> Membership {
        let mut state = self.lock();
        let member = state.producers.entry(group.clone()).or_default();
        member.count += 1;
        let mixed = member.is_mixed();
        drop(state);
        if mixed {
            warn_of_mixed_group(group);
        }
        self.membership(group, Role::Producer)
    }

    /// Joins as the producer that answers the group's check-backs, of which a client has one per group.
    pub(crate) fn join_transaction_producer(
        self: &Arc<Self>,
        group: &GroupName,
        check_backs: mpsc::Sender<CheckBackRequest>,
    ) -> Result<Membership, Error> {
        let mut state = self.lock();
        let member = state.producers.entry(group.clone()).or_default();
        if member.check_backs.is_some() {
            return Err(Error::DuplicateGroup { group: group.clone() });
        }
        member.count += 1;
        member.check_backs = Some(check_backs);
        let mixed = member.is_mixed();
        drop(state);
        if mixed {
            warn_of_mixed_group(group);
        }
        Ok(self.membership(group, Role::TransactionProducer))
    }

    /// Joins as the consumer of a group, of which a client has one.
    pub(crate) fn join_consumer(
        self: &Arc<Self>,
        group: &GroupName,
        member: ConsumerMember,
    ) -> Result<Membership, Error> {
        match self.lock().consumers.entry(group.clone()) {
            Entry::Occupied(_) => return Err(Error::DuplicateGroup { group: group.clone() }),
            Entry::Vacant(place) => place.insert(member),
        };
        Ok(self.membership(group, Role::Consumer))
    }

    /// Who answers check-backs for `group`.
    pub(crate) fn check_backs(&self, group: &str) -> Option<mpsc::Sender<CheckBackRequest>> {
        self.lock().producers.get(group)?.check_backs.clone()
    }

    /// Tells the consumer of `group` that its group has changed; `false` if there is none.
    pub(crate) fn group_changed(&self, group: &str) -> bool {
        let changed = self.lock().consumers.get(group).map(|member| Arc::clone(&member.changed));
        changed.inspect(|changed| changed.notify_one()).is_some()
    }

    /// What a heartbeat says now; `None` without members.
    pub(crate) fn heartbeat(&self, client_id: &str) -> Option<HeartbeatData> {
        let state = self.lock();
        if state.producers.is_empty() && state.consumers.is_empty() {
            return None;
        }
        let mut producers: Vec<_> = state
            .producers
            .keys()
            .map(|group| ProducerData { group_name: group.as_str().to_owned() })
            .collect();
        producers.sort_by(|a, b| a.group_name.cmp(&b.group_name));
        let mut consumers: Vec<_> = state.consumers.values().map(|member| member.data.clone()).collect();
        consumers.sort_by(|a, b| a.group_name.cmp(&b.group_name));
        Some(HeartbeatData {
            client_id: client_id.to_owned(),
            producer_data_set: producers,
            consumer_data_set: consumers,
            ..HeartbeatData::default()
        })
    }

    /// Whether brokers may have questions about transactions of the past.
    pub(crate) fn has_transaction_producers(&self) -> bool {
        self.lock().producers.values().any(|member| member.check_backs.is_some())
    }

    /// Whether there is a consumer: replicas need heartbeats then too.
    pub(crate) fn has_consumers(&self) -> bool {
        !self.lock().consumers.is_empty()
    }

    fn membership(self: &Arc<Self>, group: &GroupName, role: Role) -> Membership {
        Membership {
            members: Arc::clone(self),
            group: group.clone(),
            role,
            farewell: Weak::new(),
            given_up: false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Membership {
    /// Lets `shared` tell the brokers when this place is given up.
    pub(crate) fn with_farewell(mut self, shared: &Arc<Shared>) -> Self {
        self.farewell = Arc::downgrade(shared);
        self
    }

    /// Gives the place up without telling the brokers. Returns what to tell them: group and role, unless others of this
    /// client are still in the group.
    pub(crate) fn give_up(mut self) -> Option<(GroupName, Role)> {
        self.given_up = true;
        self.leave_table().then(|| (self.group.clone(), self.role))
    }

    /// Takes the place out of the table, once. Returns whether the group has no member of this client in this role now.
    fn leave_table(&self) -> bool {
        let mut state = self.members.lock();
        if self.role == Role::Consumer {
            return state.consumers.remove(&self.group).is_some();
        }
        let Some(member) = state.producers.get_mut(&self.group) else { return false };
        member.count -= 1;
        if self.role == Role::TransactionProducer {
            member.check_backs = None;
        }
        let is_last = member.count == 0;
        if is_last {
            state.producers.remove(&self.group);
        }
        is_last
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if self.given_up {
            return;
        }
        if self.leave_table()
            && let Some(shared) = self.farewell.upgrade()
        {
            shared.say_farewell(&self.group, self.role);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> GroupName {
        GroupName::new("g").unwrap()
    }

    #[test]
    fn producers_share_a_group_and_the_last_one_leaves_it() {
        let members = Arc::new(Members::default());
        let (first, second) = (members.join_producer(&group()), members.join_producer(&group()));
        assert_eq!(first.give_up(), None);
        assert_eq!(members.heartbeat("c").unwrap().producer_data_set.len(), 1);
        assert_eq!(second.give_up(), Some((group(), Role::Producer)));
        assert!(members.heartbeat("c").is_none());
    }

    #[test]
    fn a_group_has_one_answerer_of_check_backs_at_a_time() {
        let members = Arc::new(Members::default());
        let (sender, _receiver) = mpsc::channel(1);
        let _plain = members.join_producer(&group());
        assert!(!members.lock().producers[&group()].is_mixed());
        let first = members.join_transaction_producer(&group(), sender.clone()).unwrap();
        assert!(members.lock().producers[&group()].is_mixed(), "this is warned about");
        assert!(matches!(
            members.join_transaction_producer(&group(), sender.clone()),
            Err(Error::DuplicateGroup { .. })
        ));
        assert!(members.check_backs("g").is_some());
        drop(first);
        assert!(members.check_backs("g").is_none());
        assert!(members.join_transaction_producer(&group(), sender).is_ok());
    }
}
