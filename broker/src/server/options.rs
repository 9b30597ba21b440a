//! From the broker's settings to the store's options.

use std::time::Duration;

use mezzo_storage::{AckLevel, AtMaxBytes, CheckPolicy, StoreOptions};

use crate::config::{Ack, AtMax, Config, check};

/// What the store is opened with.
pub(super) fn store_options(config: &Config) -> StoreOptions {
    let mut options = StoreOptions::new(config.store.dir.clone());
    options.ack = match config.store.ack {
        Ack::Durable => AckLevel::Durable,
        Ack::Memory => AckLevel::Memory,
    };
    options.segment_bytes = config.store.segment_size.as_u64();
    options.frame_bytes_max = u32::try_from(check::log_frame_bytes_max(config)).unwrap_or(u32::MAX);
    options.retention_ms = ms(config.store.retention);
    options.max_bytes = match config.store.max_bytes.as_u64() {
        0 => u64::MAX,
        bytes => bytes,
    };
    options.at_max_bytes = match config.store.at_max_bytes {
        AtMax::Reject => AtMaxBytes::Reject,
        AtMax::DeleteOldest => AtMaxBytes::DeleteOldest,
    };
    options.hot_bytes = config.store.hot_size.as_u64();
    options.open_messages_max = config.limits.open_messages;
    options.checkpoint_bytes = config.store.checkpoint_size.as_u64();
    options.history_horizon_ms = ms(config.history.horizon);
    options.history_bytes_max = config.history.max_bytes.as_u64();
    options.flush_interval_ms = ms(config.store.flush_interval);
    options.scrub_bytes_per_second = config.store.scrub_rate.as_u64();
    options.scrub_interval_ms = ms(config.store.scrub_interval);
    options.dedup_table_bytes = usize::try_from(config.dedup.table_bytes.as_u64()).unwrap_or(usize::MAX);
    options.dedup_window_ms = ms(config.dedup.window);
    options.check = CheckPolicy {
        timeout_ms: ms(config.transaction.timeout),
        interval_ms: ms(config.transaction.check_interval),
        backoff_percent: config.transaction.backoff,
        check_max: config.transaction.check_max,
        max_age_ms: ms(config.transaction.max_age),
        exhausted: config.transaction.then,
    };
    options
}

/// Whole milliseconds.
fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
