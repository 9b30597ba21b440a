//! Records: what the log says, one file per payload. The header is drawn in `header.rs`.
//!
//! A payload struct borrows what it can from the frame it was read from. `encode` appends the payload alone; the
//! record's header and CRC come from [`RecordHead`].

mod asks;
mod carried;
mod decision;
mod group;
mod header;
mod jump;
mod kind;
mod layout;
mod lease;
mod message;
mod offsets;
mod parked;
mod policy;
mod resumed;
mod start;
mod tick;
mod topic;

pub(crate) use asks::ASK_ROW_BYTES;
pub use asks::{AskAnswer, AskedCount, Asks};
pub use carried::{Carried, CarriedTiming, NO_TRANSACTION};
pub use decision::{Decision, ORIGIN_IS_HERE, Outcome, Source};
pub use group::Group;
pub use header::{LogSeed, RECORD_HEADER_BYTES, RecordHead, RecordHeader, record_crc};
pub use jump::Jump;
pub use kind::{RECORD_VERSION, RecordKind};
pub use layout::{LAYOUT_BYTES, LayoutRecord};
pub use lease::Lease;
pub use message::{MessagePayload, MessagePrefix};
pub use offsets::{OffsetEntry, Offsets};
pub use parked::{ParkReason, Parked};
pub use policy::Policy;
pub use resumed::Resumed;
pub use start::{AckLevel, Start};
pub use tick::Tick;
pub use topic::{MessageType, Topic};
