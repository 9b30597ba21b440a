//! The tasks that keep a client known: one for heartbeats to all brokers of its routes, over connections made again after
//! a loss, so that check-backs reach a producer that sends nothing; one for fresh routes. They are apart because brokers
//! forget a client after two minutes without a heartbeat, and name servers that do not answer can take that long.

use std::sync::{Arc, Weak};
use std::time::Duration;

use mezzo_protocol::remoting::{RemotingCommand, RequestCode};
use tokio::sync::Notify;
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
        let addresses = self.heartbeat_addresses();
        let mut beats = JoinSet::new();
        for address in addresses {
            let shared = Arc::clone(self);
            beats.spawn(async move { shared.heartbeat(&address).await });
        }
        let mut all_answered = true;
        while let Some(beat) = beats.join_next().await {
            all_answered &= beat.unwrap_or(false);
        }
        all_answered
    }

    async fn heartbeat(&self, address: &Arc<str>) -> bool {
        if self.members.heartbeat(&self.client_id).is_none() {
            return true;
        }
        let deadline = self.request_deadline();
        let connection = match self.connection(address, Patience::FailFast, deadline).await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::debug!(%address, %error, "no heartbeat");
                return false;
            }
        };
        // Put together only now: a group that was left while the connection was made must not be joined again.
        let Some(heartbeat) = self.members.heartbeat(&self.client_id) else { return true };
        let command = RemotingCommand::request(RequestCode::HEART_BEAT, Vec::new(), heartbeat.encode());
        let answer = connection.request(command, deadline).await;
        match answer.and_then(|answer| answer.success().map(|header| connection.learn(&header))) {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(%address, %error, "the broker did not answer a heartbeat");
                if matches!(error, RequestError::TimedOut { .. }) {
                    connection.note_missed_heartbeat(deadline);
                }
                false
            }
        }
    }
}

/// Sends heartbeats until the client is stopped or dropped.
pub(super) async fn run_heartbeats(shared: Weak<Shared>) {
    let Some(strong) = shared.upgrade() else { return };
    let (now, interval_ms) = (Arc::clone(&strong.upkeep_now), strong.config.heartbeat_interval_ms);
    drop(strong);
    repeat(shared, now, interval_ms, async |shared: &Arc<Shared>| shared.heartbeat_all().await).await;
}

/// Keeps routes and the list of brokers fresh until the client is stopped or dropped.
pub(super) async fn run_routes(shared: Weak<Shared>) {
    let Some(strong) = shared.upgrade() else { return };
    let (now, interval_ms) = (Arc::clone(&strong.routes_now), strong.config.route_refresh_ms);
    drop(strong);
    repeat(shared, now, interval_ms, async |shared: &Arc<Shared>| {
        shared.learn_brokers().await & shared.refresh_due_routes().await
    })
    .await;
}

/// Does `round` at every interval and whenever `now` says so, and after a round that did not go well again with
/// back-off.
async fn repeat(
    shared: Weak<Shared>,
    now: Arc<Notify>,
    interval_ms: u64,
    round: impl AsyncFn(&Arc<Shared>) -> bool,
) {
    let Some(strong) = shared.upgrade() else { return };
    let stopped = strong.stopped.clone();
    let mut backoff = Backoff::new(strong.config.reconnect, random_seed());
    drop(strong);
    let mut delay_ms = interval_ms;
    loop {
        tokio::select! {
            () = stopped.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(delay_ms.max(1))) => {}
            () = now.notified() => {}
        }
        let Some(shared) = shared.upgrade() else { return };
        let well = tokio::select! {
            () = stopped.cancelled() => return,
            well = round(&shared) => well,
        };
        delay_ms = if well {
            backoff.reset();
            interval_ms
        } else {
            backoff.next_delay_ms()
        };
    }
}
