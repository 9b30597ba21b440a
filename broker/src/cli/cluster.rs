//! What the subcommands that talk to a running broker share: where it is, and how a failure is said in one line.

use std::fmt;

use clap::Args;
use mezzo_client::{Client, Error, RequestError, ResponseCode, SendError};

use super::exit::Exit;

/// Where the cluster is.
#[derive(Debug, Args)]
pub(super) struct Cluster {
    /// Name servers of the cluster; several are separated by ';'.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9876", env = "MEZZO_NAME_SERVER")]
    name_server: String,
}

impl Cluster {
    /// A client of the cluster. Nothing is sent yet.
    pub(super) async fn client(&self) -> Result<Client, Failure> {
        Ok(Client::connect(self.name_server.clone()).await?)
    }
}

/// Why a subcommand did not do what it was asked: one line that says what to do.
#[derive(Debug)]
pub(super) struct Failure {
    reason: String,
    exit: Exit,
}

impl Failure {
    /// Something went wrong.
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), exit: Exit::Failed }
    }

    /// Something was asked for that cannot be.
    pub(super) fn usage(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), exit: Exit::Usage }
    }

    /// The same failure, with what was done before it.
    pub(super) fn after(self, done: &str) -> Self {
        Self { reason: format!("{done}{}", self.reason), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match &error {
            Error::Config { setting: "name_servers", reason } => {
                Self::usage(format!("--name-server: {reason}"))
            }
            Error::Config { .. } => Self::usage(error.to_string()),
            Error::NameServers { last: RequestError::Refused { address, code, .. } }
                if *code == ResponseCode::REQUEST_CODE_NOT_SUPPORTED =>
            {
                Self::new(format!(
                    "{address} is no name server: a broker itself, perhaps? Its banner shows the address for --name-server"
                ))
            }
            Error::NameServers { last } => Self::new(format!(
                "{last}: start a broker with `mezzo serve`, or name another with --name-server"
            )),
            Error::NoRoute { topic } => Self::new(format!(
                "no broker takes messages of topic {topic}: it does not exist and sending does not create it \
                 (topic.auto_create), or no broker is registered there: check --name-server"
            )),
            Error::Request(refused) => Self::new(advice(refused)),
            _ => Self::new(error.to_string()),
        }
    }
}

/// What went wrong with a request to a broker, and what to do.
fn advice(error: &RequestError) -> String {
    match error {
        RequestError::Refused { code, .. } if *code == ResponseCode::REQUEST_CODE_NOT_SUPPORTED => {
            "this broker does not know Mezzo's requests for operators: is it Apache RocketMQ, an older Mezzo, or a \
             name server?"
                .to_owned()
        }
        RequestError::Refused { remark, .. } if !remark.is_empty() => remark.clone(),
        RequestError::Unreachable { .. } => format!(
            "{error}: is the broker up, and can this address be reached from here? `mezzo serve --advertise` sets what \
             clients are told"
        ),
        RequestError::TimedOut { .. }
        | RequestError::ConnectionLost { .. }
        | RequestError::Congested { .. } => {
            format!(
                "{error}: the broker is busy, stopping or gone; its log says more, and trying again does no harm"
            )
        }
        _ => error.to_string(),
    }
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Route(error) => error.into(),
            SendError::Message(error) => Self::usage(error.to_string()),
            SendError::NotSent { last, .. } => Self::new(format!("not sent: {}", advice(&last))),
            SendError::Unknown { unique_key, last, .. } => Self::new(format!(
                "{last}: message {unique_key} may be stored or not; look for it with `mezzo tail TOPIC --from first \
                 --json` before it is sent again"
            )),
            error => Self::new(error.to_string()),
        }
    }
}

/// Runs a subcommand on a runtime of its own and says in one line why it failed, if it did.
pub(super) fn run(work: impl Future<Output = Result<(), Failure>>) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("mezzo: cannot start a runtime: {error}");
            return Exit::Failed;
        }
    };
    match runtime.block_on(work) {
        Ok(()) => Exit::Done,
        Err(failure) => {
            eprintln!("mezzo: {}", failure.reason.replace('\n', " "));
            failure.exit
        }
    }
}
