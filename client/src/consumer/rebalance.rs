//! Dividing the queues: every member computes the same division from the same two lists and takes its part.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use mezzo_protocol::ids::{MessageQueue, TopicName};
use mezzo_protocol::remoting::body::consumer_list::ConsumerList;
use mezzo_protocol::remoting::header::client::ConsumerListHeader;
use mezzo_protocol::remoting::{RemotingCommand, RequestCode};
use tokio::task::JoinSet;

use super::held_queue::HeldQueue;
use super::member::{Commits, GroupMember};
use super::pull_loop;
use crate::clock::random_seed;
use crate::core::backoff::Backoff;
use crate::core::rebalance::diff;
use crate::core::route::TopicRoute;
use crate::error::{Error, RequestError};
use crate::net::Patience;

/// Rebalances when a broker says so, at every interval, and after a failure until it succeeds.
pub(super) async fn run(member: Arc<GroupMember>) {
    let mut backoff = Backoff::new(member.config.rebalance_backoff, random_seed());
    loop {
        let well = tokio::select! {
            () = member.stop.cancelled() => return,
            well = member.rebalance() => well,
        };
        let delay_ms = if well {
            backoff.reset();
            member.config.rebalance_interval_ms
        } else {
            backoff.next_delay_ms().min(member.config.rebalance_interval_ms)
        };
        tokio::select! {
            () = member.stop.cancelled() => return,
            () = member.changed.notified() => {}
            () = tokio::time::sleep(Duration::from_millis(delay_ms.max(1))) => {}
        }
    }
}

impl GroupMember {
    /// Divides the queues of all topics anew. Returns whether that worked for all of them; a topic for which it did not
    /// keeps its queues.
    async fn rebalance(self: &Arc<Self>) -> bool {
        let mut well = true;
        for topic in self.subscriptions.keys() {
            if let Err(error) = self.rebalance_topic(topic).await {
                if matches!(error, Error::Config { .. }) {
                    tracing::error!(group = %self.group, %topic, %error, "the queues could not be divided");
                } else {
                    tracing::debug!(group = %self.group, %topic, %error, "the queues could not be divided");
                }
                well = false;
            }
        }
        well
    }

    async fn rebalance_topic(self: &Arc<Self>, topic: &TopicName) -> Result<(), Error> {
        let shared = self.shared();
        let route = shared.subscribe_route(topic, shared.request_deadline()).await?;
        self.see(topic, route.subscribe_queues());
        let assigned = if self.is_broadcast() {
            // Everybody gets everything.
            route.subscribe_queues().to_vec()
        } else {
            self.share_of(&route).await?
        };
        let change = diff(&self.held_queues(Some(topic)), assigned);
        if change.start.is_empty() && change.stop.is_empty() {
            return Ok(());
        }
        tracing::info!(
            group = %self.group, %topic, started = change.start.len(), stopped = change.stop.len(),
            "queues divided"
        );
        let given_up: Vec<_> = change.stop.iter().filter_map(|queue| self.release(queue)).collect();
        for queue in change.start {
            let held = self.hold(queue);
            tokio::spawn(pull_loop::run(Arc::clone(self), held));
        }
        self.part_with(given_up).await;
        Ok(())
    }

    /// This member's part of the route's queues.
    async fn share_of(self: &Arc<Self>, route: &TopicRoute) -> Result<Vec<MessageQueue>, Error> {
        let shared = self.shared();
        let mut clients = self.clients(route).await?;
        if !clients.iter().any(|client| **client == *shared.client_id) {
            // The broker has not heard of us or has forgotten us. It tells the others when it does.
            shared.heartbeat_all().await;
            clients = self.clients(route).await?;
        }
        if !clients.iter().any(|client| **client == *shared.client_id) {
            let reason = "the broker does not list this client in the group yet".to_owned();
            return Err(RequestError::Unreachable { address: "".into(), reason }.into());
        }
        clients.sort_unstable();
        clients.dedup();
        let assign = || self.strategy.assign(&shared.client_id, route.subscribe_queues(), &clients);
        // Code of the application: its failure must not end the task that would ask it again.
        catch_unwind(AssertUnwindSafe(assign)).map_err(|_| Error::Config {
            setting: "assignment",
            reason: format!("the strategy {} panicked", self.strategy.name()),
        })
    }

    /// Tells the brokers how far queues came that were taken away, for their next holders.
    async fn part_with(self: &Arc<Self>, given_up: Vec<Arc<HeldQueue>>) {
        let mut commits = JoinSet::new();
        for held in given_up {
            if self.ordered {
                self.retire(held);
                continue;
            }
            if self.leases() {
                self.retire_lease(held);
                continue;
            }
            let member = Arc::clone(self);
            commits.spawn(async move {
                if !matches!(member.commits, Commits::WhenTold) {
                    member.commit(&held).await;
                }
                member.forget_leaving(&held);
            });
        }
        while commits.join_next().await.is_some() {}
    }

    /// The members of the group, asked of the first broker of the route that answers: all know the same.
    async fn clients(&self, route: &TopicRoute) -> Result<Vec<String>, Error> {
        let header = ConsumerListHeader { consumer_group: self.group.as_str().into() };
        let command =
            RemotingCommand::request(RequestCode::GET_CONSUMER_LIST_BY_GROUP, header.encode(), Vec::new());
        let mut last = None;
        for (name, _) in route.brokers() {
            let Some(address) = route.master(name) else { continue };
            let deadline = self.shared().request_deadline();
            let asked = self.shared().request(address, Patience::FailFast, command.clone(), deadline).await;
            match asked.and_then(|reply| reply.success().map(|_| ()).map(|()| reply)) {
                Ok(reply) => return Ok(ConsumerList::decode(reply.body())?.client_ids),
                Err(error) => last = Some(error),
            }
        }
        let nobody =
            || RequestError::Unreachable { address: "".into(), reason: "the route has no master".to_owned() };
        Err(last.unwrap_or_else(nobody).into())
    }
}
