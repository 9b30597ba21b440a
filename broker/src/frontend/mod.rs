//! Translators between a wire and the services: a request becomes a service call or a storage operation, a result
//! becomes a reply. Nothing here decides anything that outlives the connection.

pub(crate) mod http;
pub(crate) mod remoting;
