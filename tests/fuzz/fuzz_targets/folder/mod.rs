//! A small data folder with everything in it, what happens to it, and a life afterwards.

mod damage;
mod life;
mod make;

pub use damage::damage;
pub use life::live_on;
pub use make::made;

use mezzo_storage::{AckLevel, StoreOptions};

/// The log's secret, known here so that checksums can be put right.
pub const NONCE: [u8; 16] = [7; 16];
/// When the folder's life begins, milliseconds since 1970.
pub const BEGIN_MS: u64 = 1_700_000_000_000;

/// Small segments, so that a few messages make many files.
pub fn options() -> StoreOptions {
    StoreOptions {
        segment_bytes: 32 << 10,
        frame_bytes_max: 8 << 10,
        ack: AckLevel::Durable,
        retention_ms: 1000,
        checkpoint_bytes: 1 << 10,
        dedup_table_bytes: 1 << 16,
        nonce: Some(NONCE),
        ..StoreOptions::new("/data")
    }
}
