//! Whether the consume queue pages that a checkpoint names are what was written. All of them are looked at when a folder
//! is opened: they are derived, so a damaged one is a reason to fold the log again, not one to fail a consumer later.

use std::io;
use std::path::{Path, PathBuf};

use super::pages::{PAGE_BYTES, PAGES_PER_FILE, PageId, file_path, parse_page};
use crate::error::StorageError;
use crate::file_system::{File, FileSystem, OpenMode};

/// Pages read at a time: 1 MiB.
const READ_PAGES: usize = 256;

/// A page that a queue owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OwnedPage {
    pub(crate) page: PageId,
    /// Seed of its checksum: says which queue it belongs to.
    pub(crate) seed: u32,
    /// Queue offset of its first entry.
    pub(crate) first: u64,
}

/// A place in a page file that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DamagedPage {
    pub(crate) file: PathBuf,
    /// Byte offset in the file.
    pub(crate) offset: u64,
    pub(crate) reason: &'static str,
}

/// Reads every page of `owned` below `dir` and shows those that do not hold to `damaged`, which says whether to go on.
///
/// # Errors
/// Read errors other than a missing or short file.
pub(crate) fn check_pages(
    fs: &dyn FileSystem,
    dir: &Path,
    mut owned: Vec<OwnedPage>,
    damaged: &mut dyn FnMut(DamagedPage) -> bool,
) -> Result<(), StorageError> {
    owned.sort_unstable();
    for pages in owned.chunk_by(|a, b| a.page / PAGES_PER_FILE == b.page / PAGES_PER_FILE) {
        let Some(first) = pages.first() else { continue };
        let path = file_path(dir, (first.page / PAGES_PER_FILE) as usize);
        let file = match fs.open(&path, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !damaged(DamagedPage { file: path, offset: 0, reason: "the file is missing" }) {
                    return Ok(());
                }
                continue;
            }
            Err(error) => return Err(StorageError::io("open", &path)(error)),
        };
        if !check_file(&*file, &path, pages, damaged)? {
            return Ok(());
        }
    }
    Ok(())
}

/// Checks pages of one file; false when `damaged` wants no more.
fn check_file(
    file: &dyn File,
    path: &Path,
    pages: &[OwnedPage],
    damaged: &mut dyn FnMut(DamagedPage) -> bool,
) -> Result<bool, StorageError> {
    let len = file.len().map_err(StorageError::io("measure", path))?;
    let mut report = |offset, reason| damaged(DamagedPage { file: path.to_path_buf(), offset, reason });
    let mut bytes = Vec::new();
    // runs of neighbours, so that a read brings many
    for run in pages.chunk_by(|a, b| a.page + 1 == b.page).flat_map(|run| run.chunks(READ_PAGES)) {
        let Some(first) = run.first() else { continue };
        let start = u64::from(first.page % PAGES_PER_FILE) * PAGE_BYTES as u64;
        if start + (run.len() * PAGE_BYTES) as u64 > len {
            if !report(len, "the file ends before a page that is in use") {
                return Ok(false);
            }
            continue;
        }
        bytes.resize(run.len() * PAGE_BYTES, 0);
        file.read_exact_at(&mut bytes, start).map_err(StorageError::io("read", path))?;
        for ((owned, page), offset) in
            run.iter().zip(bytes.chunks_exact(PAGE_BYTES)).zip((start..).step_by(PAGE_BYTES))
        {
            let Some(page) = page.first_chunk::<PAGE_BYTES>() else { continue };
            if let Err(reason) = parse_page(page, owned.seed, owned.first)
                && !report(offset, reason)
            {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
