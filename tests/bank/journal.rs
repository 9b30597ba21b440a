//! What each process saw, one line for each thing, appended at once: it outlives a kill, up to the line that was not
//! written any more.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

const PREFIX: &str = "journal-";

/// The journal of one process of a role; the next process of that role goes on in it.
pub(crate) struct Journal {
    file: Mutex<File>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What happened: one of the words in the modules of the roles.
    pub(crate) what: String,
    /// To which transfer.
    pub(crate) transfer: String,
    /// More about it, for people.
    pub(crate) detail: String,
}

impl Journal {
    pub(crate) fn open(folder: &Path, role: &str) -> Self {
        let path = folder.join(format!("{PREFIX}{role}.txt"));
        let file = File::options().create(true).append(true).open(path);
        Self { file: Mutex::new(file.expect("the folder is there")) }
    }

    pub(crate) fn note(&self, what: &str, transfer: &str, detail: &str) {
        let line = format!("{what} {transfer} {}\n", detail.replace('\n', " "));
        // one write: a kill leaves all of it or nothing
        self.file.lock().expect("no writer panics").write_all(line.as_bytes()).expect("the disk has room");
    }
}

/// All lines of all journals in `folder`.
pub(crate) fn entries(folder: &Path) -> Vec<Entry> {
    let files = fs::read_dir(folder).expect("the folder is there").flatten();
    let journals = files.filter(|file| file.file_name().to_string_lossy().starts_with(PREFIX));
    let mut found = Vec::new();
    for journal in journals {
        let text = fs::read_to_string(journal.path()).expect("a journal is text");
        found.extend(text.lines().filter_map(|line| {
            let mut words = line.splitn(3, ' ');
            let mut word = || words.next().map(str::to_owned);
            Some(Entry { what: word()?, transfer: word()?, detail: word().unwrap_or_default() })
        }));
    }
    found
}

/// How many entries say `what`.
pub(crate) fn count(entries: &[Entry], what: &str) -> usize {
    entries.iter().filter(|entry| entry.what == what).count()
}
