//! One simulated file: what a process reads, what the platter holds, and which sectors lie between.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::CrashMode;
use super::prng::Prng;

/// Number of an inode; never used again on one disk.
pub(super) type InodeId = u64;

const PAGE_BYTES: u64 = 4096;
const SECTOR_BYTES: u64 = 512;

const PAGE_LEN: usize = PAGE_BYTES as usize;

type Page = [u8; PAGE_LEN];

/// Bytes of a file; pages that are missing are zeros, pages that disks have in common are shared.
#[derive(Debug, Clone, Default)]
struct Content {
    len: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

impl Content {
    fn read(&self, mut into: &mut [u8], mut offset: u64) {
        while !into.is_empty() {
            let (page, at, piece) = place(offset, into.len());
            let (now, rest) = into.split_at_mut(piece);
            match self.pages.get(&page) {
                Some(bytes) => now.copy_from_slice(&bytes[at..at + piece]),
                None => now.fill(0),
            }
            into = rest;
            offset += piece as u64;
        }
    }

    fn write(&mut self, mut bytes: &[u8], mut offset: u64) {
        while !bytes.is_empty() {
            let (page, at, piece) = place(offset, bytes.len());
            let (now, rest) = bytes.split_at(piece);
            if self.pages.contains_key(&page) || now.iter().any(|byte| *byte != 0) {
                let target = self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE_LEN]));
                Arc::make_mut(target)[at..at + piece].copy_from_slice(now);
            }
            bytes = rest;
            offset += piece as u64;
        }
    }

    /// Cuts or extends; what is cut off reads as zero if the file grows again.
    fn set_len(&mut self, len: u64) {
        self.len = len;
        self.pages.retain(|page, _| page * PAGE_BYTES < len);
        let (page, at, _) = place(len, 1);
        if let Some(bytes) = self.pages.get_mut(&page) {
            Arc::make_mut(bytes)[at..].fill(0);
        }
    }
}

/// Page, place in the page, and how many of `len` bytes fall into it.
fn place(offset: u64, len: usize) -> (u64, usize, usize) {
    let at = usize::try_from(offset % PAGE_BYTES).unwrap_or(0);
    (offset / PAGE_BYTES, at, len.min(PAGE_LEN - at))
}

/// One file.
#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    /// What a process reads.
    current: Content,
    /// What was made durable.
    durable: Content,
    /// Sectors that were written since.
    dirty: BTreeSet<u64>,
    /// Whether the length was changed since.
    len_pending: bool,
}

impl Inode {
    pub(super) fn len(&self) -> u64 {
        self.current.len
    }

    pub(super) fn read(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(into.len() as u64).is_none_or(|end| end > self.current.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.current.read(into, offset);
        Ok(())
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        let end = offset + bytes.len() as u64;
        if end > self.current.len {
            self.set_len(end);
        }
        self.current.write(bytes, offset);
        if !bytes.is_empty() {
            self.dirty.extend(offset / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES);
        }
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.current.len {
            // what is cut off is pending as zeros, should the file grow again before the cut is durable
            self.dirty.extend(len / SECTOR_BYTES..self.current.len.div_ceil(SECTOR_BYTES));
        }
        self.len_pending |= len != self.current.len;
        self.current.set_len(len);
    }

    /// Everything written becomes durable.
    pub(super) fn sync(&mut self) {
        for page in
            self.dirty.iter().map(|sector| sector * SECTOR_BYTES / PAGE_BYTES).collect::<BTreeSet<_>>()
        {
            match self.current.pages.get(&page) {
                Some(bytes) => self.durable.pages.insert(page, Arc::clone(bytes)),
                None => self.durable.pages.remove(&page),
            };
        }
        self.durable.set_len(self.current.len);
        self.forget_pending();
    }

    /// A failed sync: what was pending counts as written, and is not.
    pub(super) fn forget_pending(&mut self) {
        self.dirty.clear();
        self.len_pending = false;
    }

    pub(super) fn flip_bit(&mut self, offset: u64, bit: u8) -> io::Result<()> {
        if offset >= self.current.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for content in [&mut self.current, &mut self.durable] {
            let mut byte = [0];
            content.read(&mut byte, offset);
            content.write(&[byte[0] ^ (1 << (bit % 8))], offset);
        }
        Ok(())
    }

    /// The file as it is found after a crash.
    pub(super) fn crash(&self, mode: CrashMode, prng: &mut Prng) -> Self {
        let left = match mode {
            CrashMode::KeepAll => return self.clone(),
            CrashMode::LoseUnsynced => self.durable.clone(),
            CrashMode::Seeded(_) => self.draw(prng, false),
            CrashMode::SeededWithFlips(_) => self.draw(prng, true),
        };
        Self { current: left.clone(), durable: left, dirty: BTreeSet::new(), len_pending: false }
    }

    /// Flips a bit of a byte that was written since the last sync; what was durable before is not touched again.
    fn flip_one(&self, bytes: &mut [u8], sector: u64, prng: &mut Prng) {
        let mut before = vec![0; bytes.len()];
        self.durable.read(&mut before, sector * SECTOR_BYTES);
        let new: Vec<usize> = before
            .iter()
            .zip(&*bytes)
            .enumerate()
            .filter(|(_, (old, new))| old != new)
            .map(|(at, _)| at)
            .collect();
        let drawn = usize::try_from(prng.next()).unwrap_or(0);
        if let Some(at) = new.get(drawn % new.len().max(1)) {
            bytes[*at] ^= 1 << prng.below(8);
        }
    }

    fn draw(&self, prng: &mut Prng, flips: bool) -> Content {
        let mut left = self.durable.clone();
        let keep_len = self.len_pending && prng.below(2) == 0;
        let len = if keep_len { self.current.len } else { self.durable.len };
        // some disks keep most of what was pending, some almost nothing
        let kept_of_8 = prng.below(9);
        for sector in &self.dirty {
            let keep = match prng.below(8) {
                draw if draw < kept_of_8 => SECTOR_BYTES,
                _ if prng.below(4) == 0 => prng.below(SECTOR_BYTES),
                _ => 0,
            };
            let mut bytes = vec![0; usize::try_from(keep).unwrap_or(0)];
            self.current.read(&mut bytes, sector * SECTOR_BYTES);
            if flips && prng.below(8) == 0 {
                self.flip_one(&mut bytes, *sector, prng);
            }
            left.write(&bytes, sector * SECTOR_BYTES);
        }
        left.set_len(len);
        left
    }
}
