//! What operators do, as calls: look at transactions, decide those that nobody answers for, have parked ones asked about
//! again. Beyond RocketMQ: a broker of Apache's answers these with "not supported".

mod groups;
mod transactions;

pub use transactions::{Admin, Decided, TransactionFilter};

pub use mezzo_protocol::check_policy::{CheckPolicy, CheckWish, Exhausted, WishError};
pub use mezzo_protocol::remoting::body::transaction::{
    CheckPolicyInfo, DecisionInfo, DecisionSource, TransactionEvent, TransactionEventKind, TransactionInfo,
    TransactionOutcome, TransactionPage, TransactionState,
};
