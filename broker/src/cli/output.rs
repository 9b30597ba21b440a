//! Where a subcommand says what it found: results on the standard output, remarks for a person on the standard error.

use std::{
    borrow::Cow,
    io::{IsTerminal as _, Write as _},
};

/// Prints one line of a result, with what could steer a terminal made visible. False if nobody reads any more (`mezzo tx list | head`): no failure, but no reason to go
/// on either.
#[must_use = "nobody may read any more"]
pub(super) fn say(line: &str) -> bool {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{}", visible(line)).is_ok()
}

/// Bodies, keys and reasons are anybody's: a control character that reaches a terminal can move its cursor, change its
/// title or hide what was printed before. All but tabs and line ends are shown as Rust writes them, `\u{1b}`.
fn visible(text: &str) -> Cow<'_, str> {
    let steers = |character: char| character.is_control() && !['\t', '\n'].contains(&character);
    if !text.contains(steers) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if steers(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown.into()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_shown_and_not_obeyed() {
        assert_eq!(visible("tab\tand\nline, café"), "tab\tand\nline, café");
        assert_eq!(visible("\u{1b}[2Jgone\r\u{9b}1m\u{7f}"), r"\u{1b}[2Jgone\u{d}\u{9b}1m\u{7f}");
    }
}
