//! The task that keeps a client known: heartbeats to all brokers of its routes, fresh routes, and connections made
//! again after a loss, so that check-backs reach a producer that sends nothing.

use std::sync::{Arc, Weak};
use std::time::Duration;

use mezzo_protocol::remoting::{RemotingCommand, RequestCode};
use tokio::task::JoinSet;

use super::Shared;
use super::members::Members;
use crate::clock::random_seed;
use crate::core::backoff::Backoff;
use crate::error::RequestError;
use crate::net::{Greeter, Patience};

/// What new connections are greeted with: a heartbeat.
pub(super) struct HeartbeatGreeter {
    pub(super) members: Arc<Members>,
    pub(super) client_id: Arc<str>,
}

impl Greeter for HeartbeatGreeter {
    fn greeting(&self) -> Option<RemotingCommand> {
        let heartbeat = self.members.heartbeat(&self.client_id)?;
        Some(RemotingCommand::request(RequestCode::HEART_BEAT, Vec::new(), heartbeat.encode()))
    }
}

impl Shared {
    /// Sends a heartbeat to every broker in the routes, connecting where needed. Returns whether all were answered.
    pub(crate) async fn heartbeat_all(self: &Arc<Self>) -> bool {
        let Some(heartbeat) = self.members.heartbeat(&self.client_id) else { return true };
        let command = RemotingCommand::request(RequestCode::HEART_BEAT, Vec::new(), heartbeat.encode());
        let addresses = self.heartbeat_addresses();
        let mut beats = JoinSet::new();
        for address in addresses {
            let (shared, command) = (Arc::clone(self), command.clone());
            beats.spawn(async move { shared.heartbeat(&address, command).await });
        }
        let mut all_answered = true;
        while let Some(beat) = beats.join_next().await {
            all_answered &= beat.unwrap_or(false);
        }
        all_answered
    }

    async fn heartbeat(&self, address: &Arc<str>, command: RemotingCommand) -> bool {
        let deadline = self.request_deadline();
        let connection = match self.connection(address, Patience::FailFast, deadline).await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::debug!(%address, %error, "no heartbeat");
                return false;
            }
        };
        match connection.request(command, deadline).await.and_then(|reply| reply.success().map(|_| ())) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%address, %error, "the broker did not answer a heartbeat");
                if matches!(error, RequestError::TimedOut { .. }) {
                    // A connection that swallows heartbeats would swallow sends and check-backs too.
                    connection.close("no answer to a heartbeat");
                }
                false
            }
        }
    }
}

/// Runs until the client is stopped or dropped.
pub(super) async fn run(shared: Weak<Shared>) {
    let Some(strong) = shared.upgrade() else { return };
    let (stopped, upkeep_now) = (strong.stopped.clone(), Arc::clone(&strong.upkeep_now));
    let interval_ms = strong.config.heartbeat_interval_ms.min(strong.config.route_refresh_ms);
    let mut backoff = Backoff::new(strong.config.reconnect, random_seed());
    drop(strong);
    let mut delay_ms = interval_ms;
    loop {
        tokio::select! {
            () = stopped.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(delay_ms)) => {}
            () = upkeep_now.notified() => {}
        }
        let Some(shared) = shared.upgrade() else { return };
        let round = async {
            shared.refresh_due_routes().await & shared.learn_brokers().await & shared.heartbeat_all().await
        };
        let well = tokio::select! {
            () = stopped.cancelled() => return,
            well = round => well,
        };
        delay_ms = if well {
            backoff.reset();
            interval_ms
        } else {
            backoff.next_delay_ms()
        };
    }
}
