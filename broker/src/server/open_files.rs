//! How many files the operating system lets this process open. Connections and the log share that number, and a log that
//! cannot open its next segment ends the broker; so connections never get all of it. `mezzo serve` has raised the soft
//! limit to the hard one before; a broker inside another program leaves that to the program.

/// Files that are kept for the store and the threads at least, if need be all there are.
const KEPT_MIN: u64 = 128;
/// Files that are kept for them where there are plenty.
const KEPT_MAX: u64 = 1_024;

/// Where Linux says what this process may do; elsewhere there is no such file, and nothing is known.
const LIMITS_FILE: &str = "/proc/self/limits";

/// How many connections may be open: `wanted`, or less if the system's limit of open files says so.
pub(super) fn connections(wanted: usize) -> usize {
    let files = std::fs::read_to_string(LIMITS_FILE).ok().and_then(|limits| soft_limit(&limits));
    let allowed = files.map_or(wanted, |files| wanted.min(beside_the_store(files)));
    if allowed < wanted {
        tracing::warn!(
            connections = allowed,
            "limits.connections is {wanted}, but this process may open only {} files: raise the hard limit (ulimit -Hn, \
             LimitNOFILE) to serve more",
            files.unwrap_or_default()
        );
    }
    allowed
}

/// The soft limit of open files; `None` if there is none, or none that can be read.
fn soft_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What of `files` is left for connections.
fn beside_the_store(files: u64) -> usize {
    usize::try_from(files.saturating_sub((files / 2).clamp(KEPT_MIN, KEPT_MAX))).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_keeps_half_of_the_files_but_neither_few_nor_more_than_it_needs() {
        for (files, connections) in [(1_048_576, 1_047_552), (4_096, 3_072), (1_024, 512), (200, 72), (64, 0)]
        {
            assert_eq!(beside_the_store(files), connections, "{files}");
        }
    }
    #[test]
    fn the_soft_limit_is_the_first_of_its_line_and_may_be_none() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max processes             7                    8                    processes\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(soft_limit(limits), Some(1_024));
        assert_eq!(soft_limit("Max open files   unlimited   unlimited   files\n"), None);
        assert_eq!(soft_limit(""), None);
    }
}
