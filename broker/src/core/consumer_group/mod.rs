//! One consumer group: who its members are and what they subscribe to. Members join and refresh by heartbeat, and leave
//! by saying so, by closing their connection, or by silence.

mod membership;
mod subscription;

pub(crate) use membership::{Bounds, ConsumptionModel, Membership, OutOfBounds};
pub(crate) use subscription::Subscription;
