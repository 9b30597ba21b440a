//! How many files the operating system lets this process open. Connections and the log share that number, and a log that
//! cannot open its next segment ends the broker; so connections never get all of it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are kept for the store and the threads at least, if need be all there are.
const KEPT_MIN: u64 = 128;
/// Files that are kept for them where there are plenty.
const KEPT_MAX: u64 = 1_024;

/// Raises this process's soft limit to its hard limit: the usual soft limit is meant for programs that use `select`.
pub(crate) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) =
            setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// How many connections may be open: `wanted`, or less if the system's limit of open files says so.
pub(super) fn connections(wanted: usize) -> usize {
    let files = getrlimit(Resource::Nofile).current;
    let allowed = files.map_or(wanted, |files| wanted.min(beside_the_store(files)));
    if allowed < wanted {
        tracing::warn!(
            connections = allowed,
            "limits.connections is {wanted}, but this process may open only {} files: raise the limit (ulimit -n, \
             LimitNOFILE) to serve more",
            files.unwrap_or_default()
        );
    }
    allowed
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
}
