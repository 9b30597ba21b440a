//! The parts of a data folder, read without changing any: its lock, its base, its checkpoint.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::read_whole;
use crate::error::StorageError;
use crate::file_system::{FileSystem, LockGuard, OpenMode};
use crate::format::FormatError;
use crate::format::frame::{FRAME_HEADER_BYTES, Frame};
use crate::format::loss::Losses;
use crate::format::record::{LAYOUT_BYTES, LayoutRecord, RECORD_HEADER_BYTES, RecordKind};
use crate::format::state_file::{StateFile, StateHeader, StateRole};
use crate::log::Layout;
use crate::state::snapshot;

/// A state file that does not hold together.
#[derive(Debug)]
pub(super) struct BadState {
    pub(super) path: PathBuf,
    pub(super) offset: u64,
    pub(super) reason: String,
}

/// What `base/` holds.
#[derive(Debug, Default)]
pub(super) struct Bases {
    /// The newest one that holds, with what it knows of losses.
    pub(super) newest: Option<(StateHeader, Losses)>,
    pub(super) damaged: Vec<BadState>,
    /// The greatest number of any file.
    pub(super) greatest: u64,
}

/// Takes the folder's lock: nobody serves from it meanwhile.
///
/// # Errors
/// [`StorageError::Locked`]; the folder is not there.
pub(super) fn lock(fs: &dyn FileSystem, dir: &Path) -> Result<Option<Box<dyn LockGuard>>, StorageError> {
    let base = dir.join("base");
    if !fs.exists(&base).map_err(StorageError::io("look for", &base))? {
        let source = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(StorageError::Io { path: base, op: "find a data folder with", source });
    }
    let path = dir.join("lock");
    match fs.lock(&path) {
        Ok(guard) => Ok(Some(guard)),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            let owner = read_whole(fs, &path).unwrap_or_default();
            Err(StorageError::Locked { path, owner: String::from_utf8_lossy(&owner).trim().to_owned() })
        }
        // nobody can serve from what nobody can write to
        Err(error) if error.kind() == std::io::ErrorKind::ReadOnlyFilesystem => Ok(None),
        Err(source) => Err(StorageError::Io { path, op: "lock", source }),
    }
}

/// Paths of the files in `dir` whose name is a number, by rising number.
pub(crate) fn numbered(fs: &dyn FileSystem, dir: &Path) -> Result<Vec<(u64, PathBuf)>, StorageError> {
    if !fs.exists(dir).map_err(StorageError::io("look for", dir))? {
        return Ok(Vec::new());
    }
    let names = fs.list(dir).map_err(StorageError::io("list", dir))?;
    let mut files: Vec<_> =
        names.iter().filter_map(|n| Some((crate::base::number_of(n)?, dir.join(n)))).collect();
    files.sort_unstable();
    Ok(files)
}

/// Says why a state file does not hold; `None` if it was written by another version, which is no damage.
pub(super) fn bad_state(path: &Path, bytes: &[u8], error: &FormatError) -> Result<BadState, StorageError> {
    match *error {
        FormatError::Newer { what, got, newest } => Err(StorageError::NewerVersion { what, got, newest }),
        FormatError::Development { what, got } => Err(StorageError::DevelopmentVersion { what, got }),
        ref other => Ok(BadState {
            path: path.to_path_buf(),
            offset: StateFile::damage_offset(bytes),
            reason: other.to_string(),
        }),
    }
}

/// Reads every base.
pub(super) fn read_bases(fs: &dyn FileSystem, dir: &Path) -> Result<Bases, StorageError> {
    let mut bases = Bases::default();
    for (number, path) in numbered(fs, &dir.join("base"))? {
        bases.greatest = number;
        let bytes = read_whole(fs, &path)?;
        match StateFile::parse(&bytes) {
            Ok(file) if file.header.role == StateRole::Base => {
                bases.newest = Some((file.header, snapshot::losses_of(&file)?));
            }
            Ok(_) => {
                let reason = "a checkpoint stands where a base belongs".to_owned();
                bases.damaged.push(BadState { path, offset: 8, reason });
            }
            Err(error) => bases.damaged.push(bad_state(&path, &bytes, &error)?),
        }
    }
    Ok(bases)
}

/// The layout of a log without a base, as the head of any of its segments says; the head vouches for its own secret.
pub(super) fn layout_of_segments(
    fs: &Arc<dyn FileSystem>,
    log_dir: &Path,
) -> Result<Option<Layout>, StorageError> {
    for (base, path) in numbered(&**fs, log_dir)? {
        let file = fs.open(&path, OpenMode::Read).map_err(StorageError::io("open", &path))?;
        let mut bytes = vec![0; FRAME_HEADER_BYTES + RECORD_HEADER_BYTES + LAYOUT_BYTES];
        if file.read_exact_at(&mut bytes, 0).is_err() {
            continue;
        }
        let payload = bytes.get(FRAME_HEADER_BYTES + RECORD_HEADER_BYTES..).unwrap_or_default();
        let Ok(record) = LayoutRecord::decode(0, payload) else { continue };
        let layout = Layout {
            nonce: record.nonce,
            segment_bytes: record.segment_bytes,
            frame_bytes_max: record.frame_bytes_max,
        };
        let holds = Frame::parse(layout.seed(), base, &bytes)
            .is_ok_and(|frame| frame.records().any(|record| record.kind == RecordKind::Layout));
        if holds && layout.validate().is_ok() {
            return Ok(Some(layout));
        }
    }
    Ok(None)
}
