//! Showing what stands in the log, frame by frame, also behind damage.

use std::path::Path;
use std::sync::Arc;

use super::check::choose_base;
use super::folder::{lock, read_bases};
use crate::error::StorageError;
use crate::file_system::FileSystem;
use crate::format::frame::Frame;
use crate::log::{FrameVisitor, Layout, ResumePoint, survey};

/// Shows every frame that holds of the log in `dir` to `visit`, in order, from the base on. No broker may have the folder
/// open; nothing is changed.
///
/// # Errors
/// As [`super::verify`], and whatever `visit` says; [`StorageError::Corrupt`] if neither base nor log says how to read the
/// folder.
pub fn each_frame(
    fs: &Arc<dyn FileSystem>,
    dir: &Path,
    visit: &mut FrameVisitor<'_>,
) -> Result<(), StorageError> {
    let _guard = lock(&**fs, dir)?;
    let bases = read_bases(&**fs, dir)?;
    let (Some(base), losses) = choose_base(fs, dir, &bases)? else {
        let reason = "no base holds, and no segment of the log says how to read it";
        return Err(StorageError::corrupt(&dir.join("base"), 0, reason));
    };
    let layout = Layout {
        nonce: base.nonce,
        segment_bytes: base.segment_bytes,
        frame_bytes_max: base.frame_bytes_max,
    };
    let resume = ResumePoint {
        position: base.position,
        index: base.index,
        term: base.term,
        time_ms: base.time_ms,
        synced_to: base.synced_to,
        clean: false,
    };
    let mut visit = |frame: &Frame<'_>| visit(frame);
    survey(fs, &dir.join("log"), &layout, &resume, &losses, &mut visit)?;
    Ok(())
}
