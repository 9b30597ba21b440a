//! The wall clock, which somebody may set back. Leader time, which the model has, goes on as if nobody had.

use mezzo_protocol::time::Timestamp;
use mezzo_storage::OpenFilter;

use super::run::Run;

/// While the wall clock is behind, leader time follows it only as far between two looks at it.
const LOOK_AT_LEAST_MS: u64 = 30_000;

impl Run {
    /// What the wall clock shows.
    pub(super) fn time(&self) -> Timestamp {
        self.wall(self.now)
    }

    /// What it shows at a leader time.
    pub(super) fn wall(&self, leader_ms: u64) -> Timestamp {
        Timestamp::from_ms(leader_ms - self.behind)
    }

    /// The store looks at the clock.
    fn show_clock(&self) {
        let _nothing = self.store().open_transactions_page(&OpenFilter::default(), self.time(), None, 0);
    }

    /// Somebody sets it back.
    pub(super) fn set_clock_back(&mut self, ms: u64) {
        self.show_clock();
        self.behind += ms;
        self.show_clock();
        self.count("clock set back");
    }

    pub(super) fn pass(&mut self, mut ms: u64) {
        while self.behind > 0 && ms > LOOK_AT_LEAST_MS {
            self.now += LOOK_AT_LEAST_MS;
            ms -= LOOK_AT_LEAST_MS;
            self.show_clock();
        }
        self.now += ms;
        if self.behind > 0 {
            self.show_clock();
        }
    }
}
