//! The library between the program under test and the C library: a disk that fails on demand, a wall clock that jumps.
//! It is one file of C (`tests/crash/faulty_disk.c`), compiled here where there is a compiler.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::source::workspace;
use crate::wait;

/// A compiled shim and the files that steer it.
#[derive(Debug)]
pub struct Shim {
    library: PathBuf,
    faults: PathBuf,
    clock: PathBuf,
}

impl Shim {
    /// Compiles it into `folder`.
    ///
    /// # Errors
    /// Why this machine cannot do it: no Linux, no C compiler.
    pub fn build(folder: &Path) -> Result<Self, String> {
        if !cfg!(target_os = "linux") {
            return Err("LD_PRELOAD as it is used here is Linux's".to_owned());
        }
        let library = folder.join("faulty_disk.so");
        let source = workspace().join("tests/crash/faulty_disk.c");
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-O1", "-pthread", "-o"]).arg(&library).arg(&source).arg("-ldl");
        let output = compile.output().map_err(|error| format!("there is no C compiler: {error}"))?;
        if !output.status.success() {
            return Err(format!("cc: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        let shim = Self { library, faults: folder.join("fault"), clock: folder.join("clock") };
        fs::write(&shim.clock, [0; 8]).expect("a temporary folder can be written");
        Ok(shim)
    }

    /// What the program under test finds in its environment. Only the log's own files can fail.
    pub fn environment(&self) -> Vec<(String, String)> {
        self.environment_for("/log/")
    }

    /// The same; only files and folders whose path holds `part` can fail (a folder's path ends in a slash here).
    pub fn environment_for(&self, part: &str) -> Vec<(String, String)> {
        let text = |path: &Path| path.to_str().expect("temporary folders have plain names").to_owned();
        vec![
            ("LD_PRELOAD".to_owned(), text(&self.library)),
            ("MEZZO_FAULT_FILE".to_owned(), text(&self.faults)),
            ("MEZZO_FAULT_PATH".to_owned(), part.to_owned()),
            ("MEZZO_CLOCK_FILE".to_owned(), text(&self.clock)),
        ]
    }

    /// Says what is to fail from now on, in the words of the C file.
    pub fn fail(&self, what: &str) {
        let taken = self.faults.with_extension("taken");
        if taken.exists() {
            fs::remove_file(taken).expect("a file of ours can be removed");
        }
        // by renaming: the other side must not read half of it
        let written = self.faults.with_extension("next");
        fs::write(&written, what).expect("a temporary folder can be written");
        fs::rename(written, &self.faults).expect("a temporary folder can be written");
    }

    /// Nothing fails any more.
    pub fn be_well(&self) {
        // it may have struck and be gone
        let _ = fs::remove_file(&self.faults);
    }

    /// Whether the fault has happened.
    pub fn has_struck(&self) -> bool {
        self.faults.with_extension("taken").exists()
    }

    /// Waits until the fault has happened.
    pub fn wait_until_struck(&self) {
        wait::until("the disk fails", || self.has_struck().then_some(()));
    }

    /// Sets the wall clock of the program under test so many seconds off.
    pub fn set_clock(&self, seconds: i64) {
        let file = File::options().write(true).open(&self.clock).expect("it is there");
        file.write_all_at(&seconds.to_ne_bytes(), 0).expect("eight bytes can be written");
    }
}
