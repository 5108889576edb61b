// SPDX-License-Identifier: GPL-2.0-only
//! From names to inodes.

use scoutfs_env::Vec;
use scoutfs_format::Key;
use scoutfs_format::item::{MAX_SYMLINK_LEN, ROOT_INO};
use scoutfs_item::Spot;

use crate::counters::Counter;
use crate::dir::entry::{self, check_name};
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::kind::FileType;
use crate::inode::record::{Attr, Inode};
use crate::store::{LockMode, Locks};

/// The directory above.
pub(crate) fn parent_of(dir: &Inode) -> u64 {
    if dir.ino == ROOT_INO { ROOT_INO } else { dir.item.parent.get() }
}

impl Fs {
    /// Reads a directory's inode.
    #[inline(never)]
    pub(crate) fn load_dir(&self, locks: &Locks<'_>, ino: u64) -> Result<Inode> {
        let inode = self.load(locks, ino)?;
        if inode.is_dir() { Ok(inode) } else { Err(Error::NotDirectory) }
    }

    /// Reads a directory's inode to add entries; none are added to one that was removed.
    pub(crate) fn load_live_dir(&self, locks: &Locks<'_>, ino: u64) -> Result<Inode> {
        let dir = self.load_dir(locks, ino)?;
        if dir.nlink() == 0 { Err(Error::NotFound) } else { Ok(dir) }
    }

    /// The inode that a name in a directory stands for, with a reference. `.` and `..` are understood.
    pub fn lookup(&self, dir: u64, name: &[u8]) -> Result<Attr> {
        check_name(name)?;
        if name == b"." {
            // Asked for file handles, of inodes of any type.
            return self.lookup_ino(dir);
        }
        self.count(Counter::Lookup);
        let dir_pin = self.pin(dir)?;
        let mut want = dir;
        loop {
            // Goes after the locks.
            let child_pin;
            // What is looked up next in a directory that is not here.
            let guess = || match want == dir {
                true => dir_pin.likely_child(),
                false => self.table.get(want).and_then(|inode| inode.likely_child()),
            };
            let inos = [(dir, LockMode::Read), (want, LockMode::Read)];
            let locks = self.store().lock_and_guess(&inos, &guess)?;
            let _state = dir_pin.data.read();
            let parent = self.load_dir(&locks, dir)?;
            let ino = match name {
                b".." => parent_of(&parent),
                _ => {
                    let found = entry::find(&locks, dir, name, &mut Spot::default())?.map(|entry| entry.ino);
                    dir_pin.note_child(found);
                    found.ok_or(Error::NotFound)?
                }
            };
            if !locks.covers(ino, LockMode::Read) {
                want = ino;
                continue;
            }
            child_pin = self.pin(ino)?;
            let attr = self.show_delayed(&child_pin, &|| self.entry_inode(&locks, dir, ino))?;
            child_pin.note_looked_up();
            return Ok(attr);
        }
    }

    /// Reads the inode that an entry of `dir` names: it must be there.
    #[inline(never)]
    pub(crate) fn entry_inode(&self, locks: &Locks<'_>, dir: u64, ino: u64) -> Result<Inode> {
        Inode::load(locks, ino)?
            .ok_or(Error::Corrupt { ino: dir, what: "an entry names an inode that is not there" })
    }

    /// The target of a symbolic link.
    pub fn readlink(&self, ino: u64) -> Result<Vec<u8>> {
        let locks = self.store().lock(&[(ino, LockMode::Read)])?;
        let inode = self.load(&locks, ino)?;
        if inode.kind() != FileType::Symlink {
            return Err(Error::Invalid("not a symbolic link"));
        }
        let target = locks.get(Key::symlink(ino), Vec::from_slice)?;
        let target = target.ok_or_else(|| inode.corrupt("a symbolic link without a target"))??;
        if target.is_empty() || target.len() > MAX_SYMLINK_LEN || target.len() as u64 != inode.size() {
            return Err(inode.corrupt("a symbolic link's target has a wrong size"));
        }
        Ok(target)
    }
}
