//! What a process on this machine has used so far, read from `/proc`.

use std::fs;
use std::io;

/// Clock ticks per second in `/proc/<pid>/stat`. Linux fixes the unit that it shows to programs at 100 on every
/// architecture that Mezzo runs on, whatever the kernel's own tick is.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time and written bytes of one process since it started.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// User and system time, seconds.
    pub cpu_seconds: f64,
    /// Bytes that the process caused to be sent to the storage layer; 0 where `/proc/<pid>/io` is not readable.
    pub written_bytes: u64,
}

impl Usage {
    /// Reads the usage of `pid`.
    ///
    /// # Errors
    /// When there is no such process, or `/proc` is not what Linux shows.
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let ticks = ticks(&stat).ok_or_else(|| {
            io::Error::other(format!("/proc/{pid}/stat is not readable as Linux writes it"))
        })?;
        let written_bytes =
            fs::read_to_string(format!("/proc/{pid}/io")).ok().and_then(|io| written(&io)).unwrap_or(0);
        Ok(Self { cpu_seconds: ticks as f64 / TICKS_PER_SECOND, written_bytes })
    }

    /// What was used between `earlier` and this.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds - earlier.cpu_seconds,
            written_bytes: self.written_bytes.saturating_sub(earlier.written_bytes),
        }
    }
}

/// utime + stime: fields 14 and 15, counted behind the command name, which may itself hold spaces and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn written(io: &str) -> Option<u64> {
    io.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_a_name_with_brackets_and_spaces() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 5 0 100 1 1";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("42 (x) S 1"), None);
    }

    #[test]
    fn written_bytes_are_not_the_cancelled_ones() {
        assert_eq!(written("rchar: 1\nwrite_bytes: 4096\ncancelled_write_bytes: 7\n"), Some(4096));
    }

    #[test]
    fn this_process_has_a_usage() {
        let before = Usage::of(std::process::id()).unwrap();
        assert!(before.cpu_seconds >= 0.0);
        assert!(Usage::of(std::process::id()).unwrap().since(before).cpu_seconds >= 0.0);
    }
}
