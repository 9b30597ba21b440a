//! How far a long check has come, for whoever waits for it.

/// Is told of every file and of the bytes read.
pub trait Progress {
    /// A file is being checked, which has so many bytes.
    fn file(&mut self, path: &std::path::Path, bytes: u64);
    /// So many bytes more have been checked.
    fn advance(&mut self, bytes: u64);
}

/// For those who do not wait.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn file(&mut self, _path: &std::path::Path, _bytes: u64) {}
    fn advance(&mut self, _bytes: u64) {}
}
