//! Transactions with real databases: SQLite in this process, PostgreSQL and MariaDB started for these tests where they are
//! installed. Whatever crashes when, what the database holds and what consumers get is the same.

mod cutting_proxy;
mod dead_processes;
mod dead_producers;
mod lost_commits;
mod once;
mod outcomes;
mod races;
mod server;
mod shop;
mod stage;
mod upkeep;
