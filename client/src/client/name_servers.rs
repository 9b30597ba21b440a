//! The name servers: asked one after the other, beginning with the one that answered last.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mezzo_protocol::remoting::RemotingCommand;

use crate::error::{Error, RequestError};
use crate::net::{Deadline, Patience, Pool, Reply};

/// Pause after a round in which no name server could be reached, in milliseconds.
const ROUND_PAUSE_MS: u64 = 50;

/// Longest wait for what another name server says about something that the first one does not know, in milliseconds.
const SECOND_OPINION_MS: u64 = 500;

/// The configured name servers and their connections.
pub(crate) struct NameServers {
    addresses: Vec<Arc<str>>,
    favourite: AtomicUsize,
    pool: Pool,
}

impl NameServers {
    /// Uses `addresses`, `host:port` each, of which there is at least one.
    pub(crate) const fn new(addresses: Vec<Arc<str>>, pool: Pool) -> Self {
        Self { addresses, favourite: AtomicUsize::new(0), pool }
    }

    /// Asks until one name server answers, whatever its answer is. Requests to name servers only read, so asking
    /// several is harmless.
    pub(crate) async fn request(
        &self,
        command: &RemotingCommand,
        deadline: Deadline,
    ) -> Result<Reply, Error> {
        loop {
            let mut last = None;
            for left in (1..=self.addresses.len()).rev() {
                let index = self.favourite.load(Ordering::Relaxed);
                let Some(address) = self.addresses.get(index) else { break };
                // One that takes the question and never answers leaves time for the others.
                match self.request_one(address, command, deadline.share(left)).await {
                    Ok(reply) => return Ok(reply),
                    Err(RequestError::ShutDown) => return Err(RequestError::ShutDown.into()),
                    Err(error) => {
                        let next = (index + 1) % self.addresses.len();
                        // Another task may have moved on already; then its choice stands.
                        let _ = self.favourite.compare_exchange(
                            index,
                            next,
                            Ordering::Relaxed,
                            Ordering::Relaxed,
                        );
                        tracing::debug!(%address, %error, "name server did not answer");
                        last = Some(error);
                    }
                }
            }
            let pause = tokio::time::sleep(Duration::from_millis(ROUND_PAUSE_MS));
            if tokio::time::timeout_at(deadline.at(), pause).await.is_err() || deadline.is_over() {
                return Err(Error::NameServers { last: last.unwrap_or(RequestError::ShutDown) });
            }
        }
    }

    /// As [`NameServers::request`], but an answer that does not know what was asked for is checked against the others: a
    /// name server that was just restarted knows nothing until the brokers have registered again. Whoever knows is asked
    /// first from now on; if nobody does, the first answer counts.
    pub(crate) async fn request_known(
        &self,
        command: &RemotingCommand,
        knows: impl Fn(&Reply) -> bool,
        deadline: Deadline,
    ) -> Result<Reply, Error> {
        let first = self.request(command, deadline).await?;
        if knows(&first) {
            return Ok(first);
        }
        let (asked, count) = (self.favourite.load(Ordering::Relaxed), self.addresses.len());
        for index in (1..count).map(|step| (asked + step) % count) {
            let Some(address) = self.addresses.get(index) else { break };
            let limit = deadline.but_at_most_ms(SECOND_OPINION_MS);
            if let Ok(reply) = self.request_one(address, command, limit).await
                && knows(&reply)
            {
                tracing::info!(%address, "another name server knows what the first did not");
                self.favourite.store(index, Ordering::Relaxed);
                return Ok(reply);
            }
        }
        Ok(first)
    }

    /// What the name server says leads to a broker that is not there: the next question goes to another one, which may
    /// know better.
    pub(crate) fn doubt(&self) {
        let next = |favourite: usize| Some((favourite + 1) % self.addresses.len().max(1));
        let _ = self.favourite.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// Closes all connections.
    pub(crate) fn close(&self, reason: &str) {
        self.pool.close_all(reason);
    }

    async fn request_one(
        &self,
        address: &Arc<str>,
        command: &RemotingCommand,
        deadline: Deadline,
    ) -> Result<Reply, RequestError> {
        let connection = self.pool.connection(address, Patience::FailFast, deadline).await?;
        connection.request(command.clone(), deadline).await
    }
}

/// Splits and checks a list of addresses: `host:port`, separated by `;` or `,`.
pub(crate) fn parse_addresses(lists: &[String]) -> Result<Vec<Arc<str>>, Error> {
    let invalid = |reason: String| Error::Config { setting: "name_servers", reason };
    let mut addresses: Vec<Arc<str>> = Vec::new();
    for address in
        lists.iter().flat_map(|list| list.split([';', ','])).map(str::trim).filter(|text| !text.is_empty())
    {
        let address = address.strip_prefix("http://").unwrap_or(address);
        let port = address.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port));
        if port.and_then(|port| port.parse::<u16>().ok()).is_none_or(|port| port == 0) {
            return Err(invalid(format!("{address:?} is not host:port, for example 127.0.0.1:9876")));
        }
        if !addresses.iter().any(|known| &**known == address) {
            addresses.push(address.into());
        }
    }
    if addresses.is_empty() {
        return Err(invalid(
            "the list is empty; give at least one host:port, for example 127.0.0.1:9876".to_owned(),
        ));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_split_and_duplicates_dropped() {
        let lists = ["http://a:1; b:2".to_owned(), "b:2,[::1]:3;a:1".to_owned()];
        let addresses = parse_addresses(&lists).unwrap();
        assert_eq!(addresses.iter().map(|a| &**a).collect::<Vec<_>>(), ["a:1", "b:2", "[::1]:3"]);
    }

    #[test]
    fn what_is_no_address_is_refused_with_an_example() {
        for bad in ["", " ; ", "host", "host:", ":9876", "host:0", "host:99999"] {
            let error = parse_addresses(&[bad.to_owned()]).unwrap_err();
            assert!(error.to_string().contains("127.0.0.1:9876"), "{bad:?}: {error}");
        }
    }
}
