//! The unanswered requests of a run, as the one who waits for them holds them.

use std::sync::Arc;

use super::connection::Connection;
use super::deadline::Deadline;
use super::measured::MeasuredRun;
use super::pending::RunPlaces;
use crate::metrics::RequestOutcome;

/// Holds the places of a run's requests until it is dropped: those that are not answered then are given up.
#[derive(Debug)]
pub(crate) struct RunWaiter {
    connection: Arc<Connection>,
    places: RunPlaces,
    measured: Option<Arc<MeasuredRun>>,
    deadline: Deadline,
}

impl RunWaiter {
    /// The run with these places, to be answered by the deadline.
    pub(super) const fn new(
        connection: Arc<Connection>,
        places: RunPlaces,
        measured: Option<Arc<MeasuredRun>>,
        deadline: Deadline,
    ) -> Self {
        Self { connection, places, measured, deadline }
    }
}

impl Drop for RunWaiter {
    fn drop(&mut self) {
        let in_time = !self.deadline.is_over();
        if self.places.give_up() > 0 && !in_time {
            self.connection.note_timeout(self.deadline);
        }
        if let Some(measured) = &self.measured {
            measured.end_rest(if in_time { RequestOutcome::GivenUp } else { RequestOutcome::TimedOut });
        }
    }
}
