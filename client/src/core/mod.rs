//! What the client decides, without sockets, tasks or clocks: every function takes `now` (or a seed) as an argument and
//! returns what to do, so that each rule is tested as a table.
//!
//! ```text
//! route_cache + route     which brokers and queues a topic has, and when to ask again
//! queue_selector          which queue the next message goes to      broker_faults  which brokers to spare
//! backoff, retry_budget   when to try again, and whether at all
//! process_queue           which offset of a queue is safe to commit
//! rebalance               which queues to start and to stop
//! open_transactions       what this process knows about its own undecided transactions
//! ```

pub(crate) mod backoff;
pub(crate) mod broker_faults;
pub(crate) mod open_transactions;
pub(crate) mod process_queue;
pub(crate) mod queue_selector;
pub(crate) mod rebalance;
pub(crate) mod retry_budget;
pub(crate) mod route;
pub(crate) mod route_cache;
