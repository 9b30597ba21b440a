//! State files on the disk: the base (primary: without it the log cannot be folded) and the checkpoints (derived: for
//! a fast start). Both are written whole to a temporary name, synced, renamed and made durable with their folder; the
//! newest few are kept.

use std::path::{Path, PathBuf};

use crate::error::StorageError;
use crate::file_system::{FileSystem, OpenMode};
use crate::format::state_file::StateFile;

/// Ending of a file that is being written; removed at the next start.
const UNFINISHED: &str = "unfinished";
/// A state file larger than this is refused instead of read into memory: 16 GiB, forty times the largest expected.
const STATE_BYTES_MAX: u64 = 16 << 30;

/// The number of a file that is called by one, in the twenty digits that it is written in. Others are not ours.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    (name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit())).then(|| name.parse().ok())?
}

/// The number of a file that is called by one and has this ending.
pub(crate) fn number_with(name: &str, ending: &str) -> Option<u64> {
    number_of(name.strip_suffix(ending)?.strip_suffix('.')?)
}

/// Whether a file of this name is one that was being written.
pub(crate) fn is_unfinished(name: &str) -> bool {
    number_with(name, UNFINISHED).is_some()
}

/// Writes a file so that it is there whole, or not at all.
pub(crate) fn write_durably(
    fs: &dyn FileSystem,
    dir: &Path,
    path: &Path,
    bytes: &[u8],
) -> Result<(), StorageError> {
    let unfinished = path.with_extension(UNFINISHED);
    if fs.exists(&unfinished).map_err(StorageError::io("look for", &unfinished))? {
        fs.remove(&unfinished).map_err(StorageError::io("remove", &unfinished))?;
    }
    let file = fs.open(&unfinished, OpenMode::Create).map_err(StorageError::io("create", &unfinished))?;
    file.write_all_at(bytes, 0).map_err(StorageError::io("write", &unfinished))?;
    file.sync_all().map_err(StorageError::io("sync", &unfinished))?;
    drop(file);
    fs.rename(&unfinished, path).map_err(StorageError::io("rename to", path))?;
    fs.sync_dir(dir).map_err(StorageError::io("sync folder", dir))
}

/// Creates the data folder, and sees to it that its name, and those of the folders it is made in, are on the disk.
pub(crate) fn create_data_folder(fs: &dyn FileSystem, dir: &Path) -> Result<(), StorageError> {
    let mut made = Vec::new();
    for folder in dir.ancestors().filter(|folder| !folder.as_os_str().is_empty()) {
        // the start that made it may have been stopped before the sync, as long as there is nothing in it
        let first = if folder == dir { &*dir.join("base") } else { folder };
        if fs.exists(first).map_err(StorageError::io("look for", first))? {
            break;
        }
        made.push(folder);
    }
    fs.create_dir_all(dir).map_err(StorageError::io("create folder", dir))?;
    for folder in made {
        if let Some(parent) = folder.parent() {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            fs.sync_dir(parent).map_err(StorageError::io("sync folder", parent))?;
        }
    }
    Ok(())
}

/// Removes every file of a folder, durably; one that does not exist is fine.
pub(crate) fn clear_folder(fs: &dyn FileSystem, dir: &Path) -> Result<(), StorageError> {
    if !fs.exists(dir).map_err(StorageError::io("look for", dir))? {
        return Ok(());
    }
    for name in fs.list(dir).map_err(StorageError::io("list", dir))? {
        let path = dir.join(name);
        fs.remove(&path).map_err(StorageError::io("remove", &path))?;
    }
    fs.sync_dir(dir).map_err(StorageError::io("sync folder", dir))
}

/// Reads a file into memory.
pub(crate) fn read_whole(fs: &dyn FileSystem, path: &Path) -> Result<Vec<u8>, StorageError> {
    let file = fs.open(path, OpenMode::Read).map_err(StorageError::io("open", path))?;
    let len = file.len().map_err(StorageError::io("measure", path))?;
    if len > STATE_BYTES_MAX {
        return Err(StorageError::corrupt(
            path,
            0,
            format!("{len} bytes, at most {STATE_BYTES_MAX} expected"),
        ));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, 0).map_err(StorageError::io("read", path))?;
    Ok(bytes)
}

/// One folder of numbered state files.
#[derive(Debug)]
pub(crate) struct StateFolder {
    dir: PathBuf,
    /// Generations kept.
    kept: usize,
}

impl StateFolder {
    /// Opens or creates the folder; unfinished files of a run before are removed.
    pub(crate) fn open(fs: &dyn FileSystem, dir: PathBuf, kept: usize) -> Result<Self, StorageError> {
        fs.create_dir_all(&dir).map_err(StorageError::io("create folder", &dir))?;
        for name in fs.list(&dir).map_err(StorageError::io("list", &dir))? {
            if is_unfinished(&name) {
                let path = dir.join(name);
                fs.remove(&path).map_err(StorageError::io("remove", &path))?;
            }
        }
        Ok(Self { dir, kept })
    }

    /// Numbers of the files there are, ascending.
    pub(crate) fn numbers(&self, fs: &dyn FileSystem) -> Result<Vec<u64>, StorageError> {
        let names = fs.list(&self.dir).map_err(StorageError::io("list", &self.dir))?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(name)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    pub(crate) fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:020}"))
    }

    /// Writes a file and removes those beyond the newest ones; the removal is durable, too.
    pub(crate) fn write(&self, fs: &dyn FileSystem, number: u64, bytes: &[u8]) -> Result<(), StorageError> {
        write_durably(fs, &self.dir, &self.path(number), bytes)?;
        let numbers = self.numbers(fs)?;
        self.remove(fs, numbers.into_iter().rev().filter(|n| *n <= number).skip(self.kept))
    }

    /// Removes all files but this one.
    pub(crate) fn keep_only(&self, fs: &dyn FileSystem, number: Option<u64>) -> Result<(), StorageError> {
        let numbers = self.numbers(fs)?;
        self.remove(fs, numbers.into_iter().filter(|n| Some(*n) != number))
    }

    fn remove(&self, fs: &dyn FileSystem, numbers: impl Iterator<Item = u64>) -> Result<(), StorageError> {
        let mut any = false;
        for number in numbers {
            let path = self.path(number);
            fs.remove(&path).map_err(StorageError::io("remove", &path))?;
            any = true;
        }
        if any { fs.sync_dir(&self.dir).map_err(StorageError::io("sync folder", &self.dir)) } else { Ok(()) }
    }

    /// The newest file that holds together and that `accept` takes, with how many were passed over.
    pub(crate) fn newest<T>(
        &self,
        fs: &dyn FileSystem,
        mut accept: impl FnMut(&StateFile<'_>) -> Result<Option<T>, StorageError>,
    ) -> Result<(Option<T>, Vec<PathBuf>), StorageError> {
        let mut damaged = Vec::new();
        for number in self.numbers(fs)?.into_iter().rev() {
            let path = self.path(number);
            let bytes = read_whole(fs, &path)?;
            match StateFile::parse(&bytes) {
                Ok(file) => match accept(&file)? {
                    Some(taken) => return Ok((Some(taken), damaged)),
                    None => continue,
                },
                Err(crate::format::FormatError::Newer { what, got, newest }) => {
                    return Err(StorageError::NewerVersion { what, got, newest });
                }
                Err(crate::format::FormatError::Development { what, got }) => {
                    return Err(StorageError::DevelopmentVersion { what, got });
                }
                Err(_) => damaged.push(path),
            }
        }
        Ok((None, damaged))
    }
}
