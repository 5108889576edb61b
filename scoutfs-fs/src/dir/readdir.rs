// SPDX-License-Identifier: GPL-2.0-only
//! Reading directories.
//!
//! Entries are gathered a batch at a time under the locks and handed on without them, because whoever gets them may touch
//! user memory. So a directory that changes meanwhile is seen as it was for each batch; an entry that
//! stays is seen exactly once, for positions are never reused.

use scoutfs_env::Vec;
use scoutfs_format::Key;
use scoutfs_format::item::{FIRST_DIR_POS, MAX_NAME_LEN, ReaddirHeader};
use scoutfs_format::key::KIND_READDIR;
use zerocopy::FromBytes;

use crate::counters::Counter;
use crate::dir::lookup::parent_of;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::kind::FileType;
use crate::inode::record::{Attr, Inode};
use crate::inode::table::Pin;
use crate::store::{LockMode, Locks};

/// Entries that are gathered under the locks at once.
const BATCH: usize = 64;

/// An entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// Its position.
    pub pos: u64,
    /// The position to go on from after it.
    pub next_pos: u64,
    /// The inode that it names.
    pub ino: u64,
    /// The inode's type.
    pub kind: FileType,
    /// The name.
    pub name: &'a [u8],
}

/// An entry in a batch.
struct Found {
    pos: u64,
    ino: u64,
    kind: FileType,
    /// Where its name ends among the batch's; it begins where the one before ends.
    name_end: usize,
}

/// Entries that were gathered under the locks.
struct Batch {
    found: Vec<Found>,
    names: Vec<u8>,
}

impl Batch {
    fn new() -> Self {
        Batch { found: Vec::new(), names: Vec::new() }
    }

    fn push(&mut self, pos: u64, ino: u64, kind: FileType, name: &[u8]) -> Result<()> {
        self.names.extend_from_slice(name)?;
        self.found.push(Found { pos, ino, kind, name_end: self.names.len() })?;
        Ok(())
    }

    fn entries(&self) -> impl Iterator<Item = DirEntry<'_>> {
        let mut start = 0;
        self.found.iter().map(move |f| {
            let name = &self.names[start..f.name_end];
            start = f.name_end;
            DirEntry { pos: f.pos, next_pos: f.pos + 1, ino: f.ino, kind: f.kind, name }
        })
    }
}

impl Fs {
    /// Calls `f` with the entries of a directory from position `pos` on, `.` and `..` included, until it returns false
    /// or there are no more. No lock is held while it runs.
    pub fn readdir(&self, dir: u64, pos: u64, f: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<()> {
        self.count(Counter::Readdir);
        let pin = self.pin(dir)?;
        let mut pos = pos;
        loop {
            let batch = {
                let locks = self.store().lock(&[(dir, LockMode::Read)])?;
                let _state = pin.data.read();
                let inode = self.load_dir(&locks, dir)?;
                self.gather(&locks, &inode, pos)?
            };
            for entry in batch.entries() {
                if !f(&entry) {
                    return Ok(());
                }
                pos = entry.next_pos;
            }
            if batch.found.is_empty() {
                return Ok(());
            }
        }
    }

    /// As [`Fs::readdir`], with the attributes of each entry's inode and a reference to it, except for `.` and `..`. The
    /// entry for which `f` returns false was not taken, and gets no reference.
    pub fn readdir_plus(
        &self,
        dir: u64,
        pos: u64,
        f: &mut dyn FnMut(&DirEntry<'_>, Option<&Attr>) -> bool,
    ) -> Result<()> {
        self.count(Counter::Readdir);
        let pin = self.pin(dir)?;
        let mut pos = pos;
        loop {
            // Go after the locks.
            let mut children: Vec<Option<(Pin<'_>, Attr)>> = Vec::with_capacity(BATCH)?;
            let mut batch = Batch::new();
            let mut other = dir;
            while batch.found.is_empty() {
                // One other lock reaches far: inodes that were made together share it.
                let locks = self.store().lock(&[(dir, LockMode::Read), (other, LockMode::Read)])?;
                let _state = pin.data.read();
                let inode = self.load_dir(&locks, dir)?;
                let gathered = self.gather(&locks, &inode, pos)?;
                if gathered.found.is_empty() {
                    return Ok(());
                }
                for entry in gathered.entries() {
                    if entry.pos < FIRST_DIR_POS {
                        children.push(None)?;
                    } else if locks.covers(entry.ino, LockMode::Read) {
                        let child = self.pin(entry.ino)?;
                        let attr = self.show_delayed(&child, &|| self.entry_inode(&locks, dir, entry.ino))?;
                        children.push(Some((child, attr)))?;
                    } else {
                        other = entry.ino;
                        break;
                    }
                    batch.push(entry.pos, entry.ino, entry.kind, entry.name)?;
                }
            }
            for (entry, child) in batch.entries().zip(&children) {
                if let Some((pin, _)) = child {
                    pin.add_lookup();
                }
                let taken = f(&entry, child.as_ref().map(|(_, attr)| attr));
                if !taken {
                    if child.is_some() {
                        self.forget(entry.ino, 1);
                    }
                    return Ok(());
                }
                pos = entry.next_pos;
            }
        }
    }

    /// The entries of a directory from `pos` on, up to [`BATCH`].
    #[inline(never)]
    fn gather(&self, locks: &Locks<'_>, dir: &Inode, pos: u64) -> Result<Batch> {
        let mut batch = Batch::new();
        if pos == 0 {
            batch.push(0, dir.ino, FileType::Directory, b".")?;
        }
        if pos <= 1 {
            batch.push(1, parent_of(dir), FileType::Directory, b"..")?;
        }
        let last = Key::kind_last(dir.ino, KIND_READDIR);
        let mut from = Key::readdir(dir.ino, pos.max(FIRST_DIR_POS));
        while batch.found.len() < BATCH {
            let key = locks.next(from, last, |key, value| {
                let (ino, kind, name) = parse_entry(dir.ino, value)?;
                batch.push(key.second, ino, kind, name)?;
                Ok::<_, Error>(key)
            })?;
            let Some(key) = key.transpose()? else {
                break;
            };
            if key.second == u64::MAX {
                return Err(dir.corrupt("an entry's position is too high"));
            }
            from = key.saturating_next();
        }
        Ok(batch)
    }
}

/// What a readdir item of `dir` says: inode number, type and name.
pub(crate) fn parse_entry(dir: u64, value: &[u8]) -> Result<(u64, FileType, &[u8])> {
    let corrupt = |what| Err(Error::Corrupt { ino: dir, what });
    let Ok((header, name)) = ReaddirHeader::ref_from_prefix(value) else {
        return corrupt("an entry item is too short");
    };
    if name.is_empty() || name.len() > MAX_NAME_LEN {
        return corrupt("an entry's name has a wrong length");
    }
    match FileType::of_stored(header.file_type) {
        Some(kind) => Ok((header.ino.get(), kind, name)),
        None => corrupt("an entry has an unknown file type"),
    }
}
