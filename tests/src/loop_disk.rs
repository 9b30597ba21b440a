//! A disk whose power can be cut: an ext4 file system inside a file, mounted through a loop device.
//!
//! The pages that the inner file system has not written yet live in the kernel, not in the file. So a copy of the file
//! is what a power cut would have left: what was synced is in it, what was not may be missing, and mounting the copy
//! replays ext4's journal as after a real cut. The writer has to stand still while the copy is made.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes of the disk. The file is sparse: it takes the room that its contents take.
const DISK_BYTES: u64 = 512 * 1024 * 1024;
/// Seconds between ext4's own commits: far apart, so that none happens while the file is copied.
const COMMIT_SECONDS: u32 = 600;

/// A mounted disk.
#[derive(Debug)]
pub struct LoopDisk {
    folder: PathBuf,
    image: PathBuf,
    cuts: u32,
    mounted: bool,
}

impl LoopDisk {
    /// Why this machine cannot do it, if it cannot: root and loop devices are needed.
    pub fn unavailable(scratch: &Path) -> Option<String> {
        let uid = Command::new("id").arg("-u").output().ok()?;
        if uid.stdout.trim_ascii() != b"0" {
            return Some("it needs root, to mount a disk image".to_owned());
        }
        for program in ["mkfs.ext4", "mount", "umount", "losetup", "cp"] {
            if let Err(error) = Command::new(program).arg("--version").output() {
                return Some(format!("{program} cannot be run: {error}"));
            }
        }
        let probe = scratch.join("probe");
        fs::create_dir_all(&probe).expect("a temporary folder can be made");
        Self::create(&probe).err().map(|why| format!("a disk image cannot be mounted here: {why}"))
    }

    /// Makes and mounts an empty disk below `folder`.
    ///
    /// # Errors
    /// What the failing program said.
    pub fn create(folder: &Path) -> Result<Self, String> {
        Self::create_of(folder, DISK_BYTES)
    }

    /// As [`LoopDisk::create`], of this size.
    ///
    /// # Errors
    /// What the failing program said.
    pub fn create_of(folder: &Path, bytes: u64) -> Result<Self, String> {
        let image = folder.join("disk-0.img");
        let file = fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(bytes).map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q", "-F", "-m", "0", &shown(&image)])?;
        let mut disk = Self { folder: folder.to_owned(), image, cuts: 0, mounted: false };
        disk.mount()?;
        Ok(disk)
    }

    /// Where the disk's files are.
    pub fn path(&self) -> PathBuf {
        self.folder.join("mount")
    }

    /// Bytes that can still be written.
    pub fn free_bytes(&self) -> u64 {
        let output = Command::new("df").args(["--output=avail", "-B1"]).arg(self.path()).output();
        let said = String::from_utf8(output.expect("df can be run").stdout).expect("df prints text");
        said.lines().nth(1).and_then(|line| line.trim().parse().ok()).expect("df prints a number")
    }

    fn mount(&mut self) -> Result<(), String> {
        fs::create_dir_all(self.path()).map_err(|error| error.to_string())?;
        let options = format!("loop,commit={COMMIT_SECONDS}");
        run("mount", &["-o", &options, &shown(&self.image), &shown(&self.path())])?;
        self.mounted = true;
        Ok(())
    }

    /// Copies what the disk itself holds at this moment. Nobody may be writing: freeze them first.
    pub fn copy_as_after_a_power_cut(&mut self) {
        self.cuts += 1;
        run("cp", &["--sparse=always", &shown(&self.image), &shown(&self.next_image())])
            .expect("the image is copied");
    }

    fn next_image(&self) -> PathBuf {
        self.folder.join(format!("disk-{}.img", self.cuts))
    }

    /// Takes the disk away and puts the copy in its place. All processes that used it must be gone.
    pub fn turn_on_the_copy(&mut self) {
        self.unmount();
        fs::remove_file(&self.image).expect("the old image can be removed");
        self.image = self.next_image();
        self.mount().expect("a disk that lost its power can be mounted");
    }

    /// Makes the file system fail as after an error of its disk: whatever is written or synced from now on is refused,
    /// and what was not synced by now is lost.
    ///
    /// # Errors
    /// What the failing program said.
    pub fn abort(&self) -> Result<(), String> {
        run("mount", &["-o", "remount,abort", &shown(&self.path())])
    }

    /// Takes the disk away and turns it on again, as after [`LoopDisk::abort`]. All processes that used it must be gone.
    pub fn turn_on_again(&mut self) {
        self.unmount();
        self.mount().expect("a disk that had failed can be mounted");
    }

    fn unmount(&mut self) {
        if std::mem::take(&mut self.mounted) {
            run("umount", &[&shown(&self.path())]).expect("nobody uses the disk any more");
        }
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        if self.mounted {
            // lazily: a test that failed may have left a process behind, and a second panic would hide the first
            let _ = run("umount", &["-l", &shown(&self.path())]);
        }
    }
}

fn shown(path: &Path) -> String {
    path.to_str().expect("temporary folders have plain names").to_owned()
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output =
        Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
