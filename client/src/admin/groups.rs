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
        let ext = vec![("groupName".into(), group.to_string())];
        let command = RemotingCommand::request(RequestCode::DELETE_SUBSCRIPTIONGROUP, ext, Vec::new());
        self.ask(broker, command).await?.success()?;
        Ok(())
    }
}
