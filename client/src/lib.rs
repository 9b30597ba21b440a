//! Producers, transactions and consumers for Mezzo, in Rust. Everything here speaks plain RocketMQ remoting, so it works
//! against Apache RocketMQ too.
//!
//! Start with a [`Client`]; make from it a [`Producer`], a [`TransactionProducer`], a [`PushConsumer`] (which calls
//! your handler) or a [`PullConsumer`] (which you ask). All of them are async and run on tokio.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use mezzo_client::{Client, Message, ReceivedMessage, Verdict};
//!
//! let client = Client::connect("127.0.0.1:9876").await?;
//!
//! let producer = client.producer("greeters").start().await?;
//! producer.send(Message::new("greetings", "hello")?).await?;
//!
//! let consumer = client
//!     .push_consumer("readers")
//!     .subscribe("greetings", "*")
//!     .handler(|message: ReceivedMessage| async move {
//!         println!("{}", String::from_utf8_lossy(message.body()));
//!         Verdict::Done
//!     })
//!     .start()
//!     .await?;
//!
//! consumer.shutdown().await;
//! producer.shutdown().await;
//! client.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! - **Every outcome is honest.** A send that fails says whether the message may be stored ([`SendError::Unknown`]); a
//!   transaction that is not confirmed is [`Outcome::Unknown`], never "failed".
//! - **Everything is bounded.** Each queue, buffer and wait has a name and a default in [`config`].
//! - **Both or neither.** A message and a transaction of your own database, without code that answers check-backs: the
//!   module `database`, with one of the features `sqlite`, `postgres` and `mysql`.
//! - **Once, from topic to topic.** What is consumed and what is produced from it, in one transaction:
//!   [`TransactionalConsumer`] and [`Transaction::ack`].
//! - **At least once.** A message comes again after a crash, a rebalance or a retry: process it so that this does no
//!   harm, or by `database::process_once`.
//!
//! # Layout
//!
//! ```text
//! client     Client: what producers and consumers share     net    connections, without knowing what they carry
//! producer   Producer, TransactionProducer                  core   decisions, without sockets, tasks or clocks
//! consumer   PushConsumer, PullConsumer                     message, error, config, clock
//! database   transactions and processing with a database; behind features
//! transport  how bytes travel: TCP, or what you give it     metrics   what happens, for your counters
//! ```

pub mod admin;
mod client;
mod clock;
pub mod config;
mod consumer;
mod core;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
pub mod database;
mod error;
mod message;
pub mod metrics;
mod net;
mod producer;
mod transport;
mod unique_key;

pub use client::{Client, ClientBuilder};
pub use clock::SystemClock;
pub use consumer::{Handler, Lag, LeasedBatch, MessageStream, PullConsumer, PullConsumerBuilder};
pub use consumer::{PushConsumer, PushConsumerBuilder, QueueLag, SeekTo, Verdict};
pub use consumer::{TransactionalConsumer, TransactionalConsumerBuilder};
pub use error::{AckError, Error, RequestError, SendError};
pub use message::{BatchFault, Message, MessageBuilder, MessageError, ReceivedMessage};
pub use mezzo_protocol::assignment;
pub use mezzo_protocol::ids::{
    GroupName, MessageQueue, OffsetMessageId, PhysicalOffset, QueueId, QueueOffset, TopicName,
};
pub use mezzo_protocol::remoting::{RequestCode, ResponseCode};
pub use mezzo_protocol::time::{Clock, Timestamp};
pub use producer::{
    CheckBack, LocalError, LocalOutcome, ManyError, Outcome, Prepared, Producer, ProducerBuilder,
    RollbackReason, RolledBackBecause, SendReceipt, Stored, Transaction, TransactionContext,
    TransactionError, TransactionIds, TransactionName, TransactionOutcome, TransactionProducer,
    TransactionProducerBuilder, UnknownReason,
};
pub use transport::{ByteStreams, TcpTransport, Transport};
