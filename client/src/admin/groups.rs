//! Consumer groups, as an operator sees them.

use mezzo_protocol::remoting::{RemotingCommand, RequestCode};

use super::Admin;
use crate::client::group_name;
use crate::error::Error;

impl Admin {
    /// Deletes a consumer group's settings and offsets on `broker`.
    ///
    /// # Errors
    /// If the name is not allowed, or the broker does not do it.
    pub async fn delete_group(&self, broker: &str, group: &str) -> Result<(), Error> {
        let group = group_name(group)?;
        // Apache's brokers keep the offsets unless told otherwise, in the word of 5.x or that of 4.9.
        let and_offsets = ["cleanOffset", "removeOffset"].map(|name| (name.into(), "true".to_owned()));
        let ext = [("groupName".into(), group.to_string())].into_iter().chain(and_offsets).collect();
        let command = RemotingCommand::request(RequestCode::DELETE_SUBSCRIPTIONGROUP, ext, Vec::new());
        self.ask(broker, command).await?.success()?;
        Ok(())
    }
}
