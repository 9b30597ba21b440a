//! Where a subcommand says what it found: results on the standard output, remarks for a person on the standard error.

use std::io::{IsTerminal as _, Write as _};

/// Prints one line of a result. False if nobody reads any more (`mezzo tx list | head`): no failure, but no reason to go
/// on either.
#[must_use = "nobody may read any more"]
pub(super) fn say(line: &str) -> bool {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}").is_ok()
}

/// Prints the last line of a result: whether somebody reads it changes nothing any more.
pub(super) fn conclude(line: &str) {
    let _ = say(line);
}

/// Tells a person at a terminal what is going on; a script hears nothing.
pub(super) fn remark(line: &str) {
    let mut output = std::io::stderr();
    if output.is_terminal() {
        // the result counts, not the remark
        let _ = writeln!(output, "{line}");
    }
}

/// One line on a terminal that is written anew as work goes on, and gone at the end.
pub(super) struct Progress {
    shown: bool,
}

impl Progress {
    /// Nothing is shown yet.
    pub(super) const fn new() -> Self {
        Self { shown: false }
    }

    /// Shows `line` in place of the last one.
    pub(super) fn show(&mut self, line: &str) {
        let mut output = std::io::stderr();
        if output.is_terminal() {
            self.shown = true;
            let _ = write!(output, "\r\x1b[K{line}").and_then(|()| output.flush());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let mut output = std::io::stderr();
            let _ = write!(output, "\r\x1b[K").and_then(|()| output.flush());
        }
    }
}
