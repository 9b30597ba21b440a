//! End to end: what a user of Mezzo can rely on, one module per promise, each test named for the sentence it holds.

mod check_back;
mod check_policy;
mod command_line;
mod decisions;
mod dedup;
mod delay;
mod delivery;
mod golden;
mod in_process;
mod java_client;
mod log_bytes;
mod many_messages;
mod operators;
mod program;
mod restart;
mod retry;
mod sdk;
mod sdk_connections;
mod sdk_consumers;
mod sdk_many;
mod sdk_producer;
mod sdk_pull;
mod sdk_push;
mod sdk_transactions;
mod visibility;
mod wire_bounds;
