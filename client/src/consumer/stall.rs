//! Telling that one message stops its queue: it keeps the offset from being committed, and after some time the pulls too.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::member::GroupMember;

/// Warns at every interval about each queue whose lowest unfinished message is still the one of an interval ago.
pub(super) async fn run(member: Arc<GroupMember>) {
    let interval = Duration::from_millis(member.config.stall_warning_ms.max(1));
    loop {
        tokio::select! {
            () = member.stop.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        let now = Instant::now();
        for held in member.all_held() {
            if let Some((offset, since)) = held.stalled(now) {
                tracing::warn!(
                    group = %member.group, queue = %held.queue, %offset, unfinished = held.unfinished(),
                    for_s = now.saturating_duration_since(since).as_secs(),
                    "a message stops its queue: its handler does not end, or it is retried all the time"
                );
            }
        }
    }
}
