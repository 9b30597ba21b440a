//! When a peer that owes answers counts as gone. A half-open connection (the other machine lost its power, or something
//! between drops every packet) takes what is written and never says anything again; the operating system notices after a
//! quarter of an hour. Times are microseconds of one connection's life.

/// Requests that time out in one silence before the connection is given up: one may be the peer's own fault.
const TIMEOUTS_MIN: u32 = 2;

/// Timeouts since the peer was last heard.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// When the first of them was sent.
    since_us: u64,
    timeouts: u32,
}

impl Silence {
    /// A request that was sent at `sent_us` has timed out at `now_us`; the peer was last heard at `heard_us`. Returns
    /// whether it counts as gone: it was silent for `max_us` while it owed several answers.
    pub(super) const fn timed_out(
        &mut self,
        sent_us: u64,
        heard_us: Option<u64>,
        now_us: u64,
        max_us: u64,
    ) -> bool {
        if let Some(heard_us) = heard_us {
            if heard_us >= sent_us {
                self.timeouts = 0;
                return false;
            }
            if heard_us >= self.since_us {
                self.timeouts = 0;
            }
        }
        if self.timeouts == 0 || sent_us < self.since_us {
            self.since_us = sent_us;
        }
        self.timeouts = self.timeouts.saturating_add(1);
        self.timeouts >= TIMEOUTS_MIN && now_us.saturating_sub(self.since_us) >= max_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_gone_after_several_timeouts_in_a_long_silence() {
        let mut silence = Silence::default();
        assert!(!silence.timed_out(100, Some(90), 3_200, 3_000), "one request may be the peer's fault");
        assert!(silence.timed_out(200, Some(90), 3_300, 3_000));
    }

    #[test]
    fn short_timeouts_alone_say_nothing() {
        let mut silence = Silence::default();
        for sent in (1_000..3_900).step_by(10) {
            assert!(!silence.timed_out(sent, None, sent + 10, 3_000), "{sent}");
        }
        assert!(silence.timed_out(3_990, None, 4_000, 3_000));
    }

    #[test]
    fn whoever_is_heard_meanwhile_is_there() {
        let mut silence = Silence::default();
        assert!(!silence.timed_out(0, None, 3_000, 3_000));
        assert!(!silence.timed_out(10, Some(10), 3_010, 3_000), "heard after it was sent");
        assert!(!silence.timed_out(4_000, Some(3_500), 8_000, 3_000), "the silence before is over");
        assert!(silence.timed_out(4_001, Some(3_500), 8_001, 3_000));
    }
}
