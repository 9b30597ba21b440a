//! Which consumer of a group reads which queue.
//!
//! There is no coordinator: every member computes the whole division from the same two sorted lists and takes its part.
//! So all members must compute alike, whatever they are written in, and these strategies are exactly those of RocketMQ's
//! Java client. Both lists must be sorted: queues in the order of [`crate::ids::MessageQueue`], clients as text.

mod averagely;
mod circle;
mod consistent_hash;
mod strategy;
#[cfg(test)]
mod tests;

pub use averagely::Averagely;
pub use circle::Circle;
pub use consistent_hash::ConsistentHash;
pub use strategy::AssignmentStrategy;
