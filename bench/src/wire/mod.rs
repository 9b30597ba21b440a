//! Just enough of the remoting protocol to load a broker: frames that are built once and patched, and answers of
//! which only four fields are looked at. The protocol crate is not used for this on purpose: a generator that parsed
//! whole headers would take the CPU that it is there to measure.

mod number;
mod reply;
mod request;

pub use reply::{Reply, ReplyScanner};
pub use request::{EndTemplate, SendTemplate, UNIQUE_KEY_BYTES, unique_key};

/// Opaques of sends are `OPAQUE_SEND + n`. All opaques have ten digits, so that patching never moves a byte.
pub const OPAQUE_SEND: u32 = 1_000_000_000;
/// Opaques of END requests are `OPAQUE_END + n`.
pub const OPAQUE_END: u32 = 1_600_000_000;
/// First opaque that is not ours.
pub const OPAQUE_LIMIT: u32 = 2_147_483_647;
const _: () = assert!(OPAQUE_SEND < OPAQUE_END && OPAQUE_END < OPAQUE_LIMIT);
