//! All brokers there are: a broker that holds an undecided half of a process that died must be able to ask any other
//! member of the group, whatever topics that member has used so far.

use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard, PoisonError};

use mezzo_protocol::remoting::body::cluster::ClusterInfo;
use mezzo_protocol::remoting::{RemotingCommand, RequestCode};

use super::Shared;
use crate::core::route::MASTER_ID;
use crate::error::{Error, RequestError};

/// Most brokers of a cluster that heartbeats go to beside those of the routes.
const CLUSTER_BROKERS_MAX: usize = 1_024;

impl Shared {
    /// Makes this client known to every broker there is, as far as they answer: after that they can ask it.
    pub(crate) async fn introduce(self: &Arc<Self>) {
        let known = self.learn_brokers().await & self.heartbeat_all().await;
        if !known {
            tracing::warn!("not all brokers know this client yet; it goes on trying");
            self.upkeep_now.notify_one();
            self.routes_now.notify_one();
        }
    }

    /// Addresses of all brokers that the name servers know, masters only.
    pub(crate) async fn master_addresses(&self) -> Result<Vec<Arc<str>>, Error> {
        let command = RemotingCommand::request(RequestCode::GET_BROKER_CLUSTER_INFO, Vec::new(), Vec::new());
        let reply = self.name_servers.request(&command, self.request_deadline()).await?;
        reply.success()?;
        let info = ClusterInfo::decode(reply.body())?;
        let masters =
            info.broker_addr_table.values().filter_map(|broker| broker.broker_addrs.get(&MASTER_ID));
        let mut addresses: Vec<Arc<str>> =
            masters.take(CLUSTER_BROKERS_MAX).map(|address| address.as_str().into()).collect();
        addresses.sort();
        Ok(addresses)
    }

    /// Where the master named `broker` is: by a route in use, or as the name servers say.
    pub(crate) async fn find_master(&self, broker: &str) -> Result<Arc<str>, Error> {
        if let Some(address) = self.master_of(broker) {
            return Ok(address);
        }
        let command = RemotingCommand::request(RequestCode::GET_BROKER_CLUSTER_INFO, Vec::new(), Vec::new());
        let reply = self.name_servers.request(&command, self.request_deadline()).await?;
        reply.success()?;
        let info = ClusterInfo::decode(reply.body())?;
        let found = info.broker_addr_table.get(broker).and_then(|found| found.broker_addrs.get(&MASTER_ID));
        found.map(|address| address.as_str().into()).ok_or_else(|| {
            let reason = "the name servers know no master of this name".to_owned();
            RequestError::Unreachable { address: broker.into(), reason }.into()
        })
    }

    /// Learns the addresses of all brokers, if there are transaction producers. Returns whether the name servers
    /// answered.
    pub(super) async fn learn_brokers(&self) -> bool {
        if !self.members.has_transaction_producers() {
            return true;
        }
        let command = RemotingCommand::request(RequestCode::GET_BROKER_CLUSTER_INFO, Vec::new(), Vec::new());
        let reply = match self.name_servers.request(&command, self.request_deadline()).await {
            Ok(reply) => reply,
            Err(error) => {
                tracing::debug!(%error, "the brokers could not be asked for");
                return false;
            }
        };
        if let Err(error) = reply.success() {
            // Some proxies do not tell; the routes of the topics in use have to do then.
            tracing::debug!(%error, "the name server does not tell its brokers");
            return true;
        }
        match ClusterInfo::decode(reply.body()) {
            Ok(info) => {
                let masters =
                    info.broker_addr_table.values().filter_map(|broker| broker.broker_addrs.get(&MASTER_ID));
                let masters = masters.take(CLUSTER_BROKERS_MAX).map(|address| address.as_str().into());
                let brokers: BTreeSet<Arc<str>> = masters.collect();
                if std::mem::replace(&mut *self.cluster(), brokers.clone()) != brokers {
                    // New brokers must know us before they can ask us.
                    self.upkeep_now.notify_one();
                }
            }
            Err(error) => tracing::warn!(%error, "the list of brokers cannot be read"),
        }
        true
    }

    /// Where heartbeats go: every broker of a route in use, and every broker there is if one may have to ask us.
    pub(super) fn heartbeat_addresses(&self) -> BTreeSet<Arc<str>> {
        let mut addresses = self.routes().addresses(self.members.has_consumers());
        if self.members.has_transaction_producers() {
            addresses.extend(self.cluster().iter().cloned());
        }
        addresses
    }

    fn cluster(&self) -> MutexGuard<'_, BTreeSet<Arc<str>>> {
        // The set is replaced as a whole, so a panic elsewhere leaves it whole.
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
