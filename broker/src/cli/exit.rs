//! How the process ends, for scripts and service managers to tell apart.

use std::process::ExitCode;

/// The ways to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// Done, or stopped in order.
    Done,
    /// The broker could not start, or could not stop in order.
    Failed,
    /// Arguments or settings that cannot be.
    Usage,
    /// `mezzo log`: there is damage that the next start mends by itself, or has to live with.
    Damaged,
    /// `mezzo log`: there is damage that stops the start.
    Rot,
    /// The disk failed while the broker served; what was acknowledged is recovered at the next start.
    DiskFailed,
}

impl Exit {
    /// The number the process ends with.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Damaged => 3,
            Self::Rot => 4,
            // EX_IOERR of sysexits.h
            Self::DiskFailed => 74,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
