//! Transactions, as an operator sees them.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use mezzo_protocol::check_policy::CheckWish;
use mezzo_protocol::ids::PhysicalOffset;
use mezzo_protocol::remoting::body::transaction::{
    CheckPolicyInfo, DecideResult, TransactionInfo, TransactionOutcome, TransactionPage, TransactionState,
};
use mezzo_protocol::remoting::header::transaction_admin::{
    DecideTransactionHeader, GetCheckPolicyHeader, ListTransactionsHeader, ResumeTransactionHeader,
    SetCheckPolicyHeader, ShowTransactionHeader,
};
use mezzo_protocol::remoting::{RemotingCommand, RequestCode, ResponseCode};

use crate::client::Client;
use crate::error::{Error, RequestError};
use crate::net::{Patience, Reply};

/// The extension field in which the broker says what became of a decision.
const RESULT: &str = "mezzoResult";

/// An operator's way into a cluster. A transaction is named by the broker that holds it and by its origin, the
/// `commitLogOffset` of its half message: [`TransactionIds::offset_message_id`](crate::TransactionIds) has both.
///
/// ```no_run
/// # async fn example(client: mezzo_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use mezzo_client::admin::{Admin, TransactionFilter, TransactionOutcome, TransactionState};
///
/// let admin = Admin::new(&client);
/// let parked = TransactionFilter { state: Some(TransactionState::InDoubt), ..TransactionFilter::default() };
/// for broker in admin.brokers().await? {
///     for transaction in admin.transactions(&broker, &parked, None).await?.transactions {
///         println!("{} of {:?} waits on {broker}", transaction.origin, transaction.group);
///         let origin = transaction.origin.into();
///         admin.decide(&broker, origin, TransactionOutcome::RolledBack, Some("ticket 7"), false).await?;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Admin {
    client: Client,
}

/// Which open transactions are wanted; what is `None` does not matter.
///
/// ```
/// use mezzo_client::admin::TransactionFilter;
///
/// let old = TransactionFilter {
///     group: Some("payments".to_owned()),
///     older_than_ms: Some(300_000),
///     ..TransactionFilter::default()
/// };
/// assert_eq!(old.state, None);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransactionFilter {
    /// PREPARED or IN_DOUBT; decided ones are not listed.
    pub state: Option<TransactionState>,
    /// Of this producer group.
    pub group: Option<String>,
    /// Whose message goes to this topic.
    pub topic: Option<String>,
    /// Whose message has this unique key.
    pub unique_key: Option<String>,
    /// Prepared at least this many milliseconds ago.
    pub older_than_ms: Option<u64>,
    /// Transactions in one page; brokers give at most 500. `None`: 100.
    pub limit: Option<u32>,
}

/// What became of an operator's decision. Each holds what stands now.
///
/// ```
/// use mezzo_client::admin::Decided;
///
/// fn report(decided: &Decided) -> String {
///     match decided {
///         Decided::Now(it) | Decided::Already(it) => format!("{} is decided: {:?}", it.origin, it.state),
///         Decided::Conflict(it) => format!("{} was decided otherwise before: {:?}", it.origin, it.state),
///         Decided::StillPrepared(it) => format!("{} still has a producer that may decide", it.origin),
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "the decision may not have been taken"]
pub enum Decided {
    /// Decided now.
    Now(TransactionInfo),
    /// Decided so before, by whomever.
    Already(TransactionInfo),
    /// Decided otherwise before; that stands.
    Conflict(TransactionInfo),
    /// Still PREPARED, and `force` was not given: nothing was decided.
    StillPrepared(TransactionInfo),
}

impl Admin {
    /// Administers through the connections of `client`.
    #[must_use]
    pub fn new(client: &Client) -> Self {
        Self { client: client.clone() }
    }

    /// Addresses of all brokers that the name servers know, masters only, in order.
    ///
    /// # Errors
    /// If no name server answers.
    pub async fn brokers(&self) -> Result<Vec<Arc<str>>, Error> {
        self.client.shared().master_addresses().await
    }

    /// Open transactions of `broker` that `filter` wants, in order of origin, behind `after`: the `next` of the page
    /// before.
    ///
    /// # Errors
    /// If the broker does not answer, does not know the request, or finds the filter wrong.
    pub async fn transactions(
        &self,
        broker: &str,
        filter: &TransactionFilter,
        after: Option<PhysicalOffset>,
    ) -> Result<TransactionPage, Error> {
        let header = ListTransactionsHeader {
            state: filter.state,
            group: filter.group.as_deref().map(Cow::Borrowed),
            topic: filter.topic.as_deref().map(Cow::Borrowed),
            unique_key: filter.unique_key.as_deref().map(Cow::Borrowed),
            older_than_ms: filter.older_than_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX)),
            after: after.map(PhysicalOffset::as_wire),
            limit: filter.limit.map(|limit| i32::try_from(limit).unwrap_or(i32::MAX)),
        };
        let reply = self.request(broker, RequestCode::MEZZO_LIST_TRANSACTIONS, header.encode()).await?;
        reply.success()?;
        Ok(TransactionPage::decode(reply.body())?)
    }

    /// Everything that `broker` knows about a transaction; `None` if nobody remembers it.
    ///
    /// # Errors
    /// As [`Admin::transactions`].
    pub async fn transaction(
        &self,
        broker: &str,
        origin: PhysicalOffset,
    ) -> Result<Option<TransactionInfo>, Error> {
        let header = ShowTransactionHeader { origin: origin.as_wire() };
        let reply = self.request(broker, RequestCode::MEZZO_SHOW_TRANSACTION, header.encode()).await?;
        if reply.header()?.response_code() == ResponseCode::QUERY_NOT_FOUND {
            return Ok(None);
        }
        reply.success()?;
        Ok(Some(TransactionInfo::decode(reply.body())?))
    }

    /// Decides a transaction in place of its producer; the first decision stands. One that is still PREPARED is decided
    /// only by `force`: its producer may be about to. The `reason` (at most 512 bytes) stands in the broker's log.
    ///
    /// # Errors
    /// As [`Admin::transactions`], and if the broker knows no such transaction.
    pub async fn decide(
        &self,
        broker: &str,
        origin: PhysicalOffset,
        outcome: TransactionOutcome,
        reason: Option<&str>,
        force: bool,
    ) -> Result<Decided, Error> {
        let reason = reason.map(Cow::Borrowed);
        let header = DecideTransactionHeader { origin: origin.as_wire(), outcome, reason, force };
        let reply = self.request(broker, RequestCode::MEZZO_DECIDE_TRANSACTION, header.encode()).await?;
        let result = reply.header()?.ext.get(RESULT).and_then(|result| DecideResult::from_name(&result));
        let Some(result) = result else {
            // without a result it can only be a refusal
            return Err(reply.refusal(&reply.header()?).into());
        };
        let stands = TransactionInfo::decode(reply.body())?;
        Ok(match result {
            DecideResult::Decided => Decided::Now(stands),
            DecideResult::Already => Decided::Already(stands),
            DecideResult::Conflict => Decided::Conflict(stands),
            DecideResult::StillPrepared => Decided::StillPrepared(stands),
        })
    }

    /// Has a parked transaction asked about again, from zero and at once. Harmless for one that is asked about anyway.
    ///
    /// # Errors
    /// As [`Admin::transactions`], and if the transaction is decided or nobody knows it.
    pub async fn resume(&self, broker: &str, origin: PhysicalOffset) -> Result<(), Error> {
        let header = ResumeTransactionHeader { origin: origin.as_wire() };
        let reply = self.request(broker, RequestCode::MEZZO_RESUME_TRANSACTION, header.encode()).await?;
        reply.success()?;
        Ok(())
    }

    /// How `broker` asks about the transactions of a producer group.
    ///
    /// # Errors
    /// As [`Admin::transactions`].
    pub async fn check_policy(&self, broker: &str, group: &str) -> Result<CheckPolicyInfo, Error> {
        let header = GetCheckPolicyHeader { group: Cow::Borrowed(group) };
        let reply = self.request(broker, RequestCode::MEZZO_GET_CHECK_POLICY, header.encode()).await?;
        reply.success()?;
        Ok(CheckPolicyInfo::decode(reply.body())?)
    }

    /// Gives a producer group the policy of `broker` with these parts changed; `None` takes its own away. It holds from
    /// each transaction's next deadline on. Answers with what holds now.
    ///
    /// # Errors
    /// As [`Admin::transactions`], and if too many groups have a policy of their own.
    pub async fn set_check_policy(
        &self,
        broker: &str,
        group: &str,
        policy: Option<&CheckWish>,
    ) -> Result<CheckPolicyInfo, Error> {
        let policy = policy.map(|policy| Cow::Owned(policy.to_string()));
        let header = SetCheckPolicyHeader { group: Cow::Borrowed(group), policy };
        let reply = self.request(broker, RequestCode::MEZZO_SET_CHECK_POLICY, header.encode()).await?;
        reply.success()?;
        Ok(CheckPolicyInfo::decode(reply.body())?)
    }

    async fn request(
        &self,
        broker: &str,
        code: RequestCode,
        ext: mezzo_protocol::remoting::command::ExtPairs,
    ) -> Result<Reply, RequestError> {
        self.ask(broker, RemotingCommand::request(code, ext, Vec::new())).await
    }

    /// One request to `broker`, whatever it answers.
    pub(super) async fn ask(&self, broker: &str, command: RemotingCommand) -> Result<Reply, RequestError> {
        let shared = self.client.shared();
        shared.request(&broker.into(), Patience::Wait, command, shared.request_deadline()).await
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("client", &self.client).finish()
    }
}
