//! The Mezzo broker and its embedded name server, as a library that the binary `mezzo` and in-process tests share.
//!
//! ```text
//!   sockets          frontend/            service/              core/            mezzo-storage
//!  bytes  ──────►  translates wire  ──►  carries out   ──►   decides (pure)        the log
//!         ◄──────  to calls, back        (async, wire-free)       │                   ▲
//!                        └────────────── one Batch per read ──────┴───────────────────┘
//! ```
//!
//! # A broker inside another program
//!
//! [`Broker::start`] runs a whole broker, name server included, on threads of its own: for a test, or for a deployment of
//! one process. [`Config::temporary`] takes free ports and a folder that goes with the broker; [`Config::embedded`] keeps
//! its data in a folder of yours.
//!
//! ```
//! use mezzo_broker::{Broker, Config};
//! use mezzo_client::{Client, Message, ReceivedMessage};
//! use tokio::sync::mpsc;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let broker = Broker::start(Config::temporary()).await?;
//! let client = Client::connect(broker.name_server()).await?;
//!
//! let producer = client.producer("till").start().await?;
//! producer.send(Message::new("orders", "one coffee")?).await?;
//!
//! let (seen, mut orders) = mpsc::channel(1);
//! let consumer = client
//!     .push_consumer("kitchen")
//!     .subscribe("orders", "*")
//!     .handler(move |order: ReceivedMessage| {
//!         let seen = seen.clone();
//!         async move { seen.send(order.body().to_vec()).await }
//!     })
//!     .start()
//!     .await?;
//! assert_eq!(orders.recv().await.as_deref(), Some(&b"one coffee"[..]));
//!
//! consumer.shutdown().await;
//! producer.shutdown().await;
//! client.shutdown().await;
//! broker.shutdown().await?; // the folder is gone
//! # Ok(())
//! # }
//! ```
//!
//! `broker/examples/test_your_application.rs` tests a whole application this way: what it sends, what it does with what
//! it receives, and what becomes of a transaction when it crashes.
//!
//! # Layout
//!
//! - [`server`] is the composition root: [`Broker::start`] opens the store, binds both listeners and starts one reactor
//!   thread per core; [`Broker::shutdown`] undoes it in order.
//! - `frontend::remoting` speaks RocketMQ's remoting protocol. One task per connection reads what has arrived, turns
//!   every complete frame into storage operations or direct calls, appends them as one batch and answers with one write.
//! - `service` holds one file per operation; it knows no request codes and no wire headers.
//! - `core` holds the decisions as plain state machines: no runtime, no files, no clock.
//! - [`config`] documents every setting once; the same table parses the file, `--set` and prints the defaults.

pub mod cli;
pub mod clock;
pub mod config;
mod core;
mod frontend;
pub mod metrics;
pub mod server;
mod service;

pub use config::Config;
pub use server::{Broker, StartError};
