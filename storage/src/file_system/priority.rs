//! Who comes last: the one thing besides files that the store asks of the operating system.

/// Gives this thread a processor, and with most schedulers the disk, only when nobody else wants it much. Best effort: the
/// rate bounds the scrub anyway.
pub(crate) fn step_back() {
    // on Linux a thread has a priority of its own; elsewhere this would be the whole process's
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 19) {
        tracing::debug!(%error, "the scrub runs with the priority of the others");
    }
}
