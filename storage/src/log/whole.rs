//! Whether a file is missing, or shorter than the log can have left it: what no checksum can tell.
//!
//! A segment has its full length on the disk before its name is, and its name before its first use; only recovery cuts
//! one, exactly where the valid bytes end. Prepared segments follow the one in use without a gap, and those that an
//! interrupted recovery leaves behind do so, too. So a gap, or a file that ends inside a frame, is no power cut's work.

use std::path::Path;
use std::sync::Arc;

use super::chain::Folder;
use super::layout::Layout;
use super::segment::segment_name;
use crate::error::StorageError;
use crate::file_system::FileSystem;
use crate::format::loss::Losses;

/// Fails if the log in `dir` no longer begins where the base at `base_position` ends, so that part of it is missing.
/// Changes nothing.
///
/// # Errors
/// [`StorageError::Corrupt`] then; read errors.
pub fn check_beginning(
    fs: &Arc<dyn FileSystem>,
    dir: &Path,
    layout: &Layout,
    base_position: u64,
    losses: &Losses,
) -> Result<(), StorageError> {
    if !fs.exists(dir).map_err(StorageError::io("look for", dir))? {
        return Ok(());
    }
    if losses.at(base_position).is_some() {
        return Ok(());
    }
    let folder = Folder::read(fs, dir, layout, losses)?;
    let linked = folder.files.iter().filter(|file| file.head.is_some());
    let (Some(first), false) = (linked.map(|file| file.base).min(), folder.reaches_back_to(base_position))
    else {
        return Ok(());
    };
    let reason = format!(
        "the log is kept from position {base_position} on, but its first readable segment begins at {first}; what \
         stood between is missing"
    );
    let headless = folder.files.iter().find(|file| file.head.is_none() && file.base < first);
    Err(StorageError::corrupt(headless.map_or(dir, |file| &file.path), 0, reason))
}

impl Folder {
    /// Fails if the log, whose last file is `last` and whose valid bytes end at `end`, must have gone on.
    pub(super) fn check_end(&self, last: Option<usize>, end: u64) -> Result<(), StorageError> {
        if self.losses.at(end).is_some_and(|loss| loss.to.is_none()) {
            return Ok(());
        }
        let segment_bytes = self.layout.segment_bytes;
        let (expected, above) = match last {
            Some(last) => (self.files[last].base + segment_bytes, last + 1),
            None => (0, 0),
        };
        if let Some(next) = self.files.get(above).filter(|next| next.base > expected) {
            let reason = format!(
                "the segment with position {expected} is missing, although the later one {} is there; nothing has \
                 been changed",
                next.base
            );
            return Err(StorageError::corrupt(&self.dir.join(segment_name(expected)), 0, reason));
        }
        let Some(found) = last.map(|last| &self.files[last]) else { return Ok(()) };
        if found.len < segment_bytes && found.len != end - found.base {
            let reason = format!(
                "the file ends inside a frame that begins at position {end}; a segment has its full length of \
                 {segment_bytes} bytes from the beginning; nothing has been changed"
            );
            return Err(StorageError::corrupt(&found.path, found.len, reason));
        }
        Ok(())
    }
}
