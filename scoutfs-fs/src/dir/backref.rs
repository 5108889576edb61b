// SPDX-License-Identifier: GPL-2.0-only
//! From an inode to the entries that name it, and to its paths.
//!
//! Both go along the back references, in the order of directory and position, and take no lock for longer than one
//! entry. So names that come and go meanwhile may be found or not; those that stay are found exactly once.

use scoutfs_env::Vec;
use scoutfs_format::Key;
use scoutfs_format::item::ROOT_INO;
use scoutfs_format::key::KIND_BACKREF;

use crate::dir::readdir::parse_entry;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::kind::FileType;
use crate::store::LockMode;

/// An entry that names an inode.
#[derive(Debug)]
pub struct Referring {
    /// The directory.
    pub dir: u64,
    /// The position in it.
    pub pos: u64,
    /// The inode's type.
    pub kind: FileType,
    /// The name.
    pub name: Vec<u8>,
    /// No entry that names the inode follows.
    pub last: bool,
}

/// A path of an inode.
#[derive(Debug)]
pub struct InoPath {
    /// The directory of the entry with which it ends.
    pub dir: u64,
    /// That entry's position.
    pub pos: u64,
    /// The path from the root, with no slash at its beginning.
    pub path: Vec<u8>,
}

impl Referring {
    /// The directory and position to go on from after it; `None` after the last one that there can be.
    pub fn after(&self) -> Option<(u64, u64)> {
        match self.pos.checked_add(1) {
            Some(pos) => Some((self.dir, pos)),
            None => self.dir.checked_add(1).map(|dir| (dir, 0)),
        }
    }
}

impl Fs {
    /// The first entry that names `ino` at or after position `pos` of directory `dir`; directories are searched by their
    /// numbers. `None` when there is none, or no such inode.
    pub fn next_referring(&self, ino: u64, dir: u64, pos: u64) -> Result<Option<Referring>> {
        let from = Key::backref(ino, dir, pos);
        let last = Key::kind_last(ino, KIND_BACKREF);
        // Most often the next entry is in the directory of the one before.
        let mut want = dir;
        loop {
            // Goes after the locks. One that is being deleted has no entries any more.
            let pin = self.pin_live(want)?;
            let locks = self.store().lock(&[(ino, LockMode::Read), (want, LockMode::Read)])?;
            // The items of an entry change together under its directory's lock.
            let _state = pin.as_ref().map(|pin| pin.data.read());
            let Some(key) = locks.next(from, last, |key, _| key)? else {
                return Ok(None);
            };
            let (dir, pos) = (key.second, key.third);
            if dir != want || pin.is_none() {
                want = dir;
                continue;
            }
            let entry = locks.get(Key::readdir(dir, pos), |value| {
                let (target, kind, name) = parse_entry(dir, value)?;
                Ok::<_, Error>((target, kind, Vec::from_slice(name)?))
            })?;
            let (target, kind, name) =
                entry.ok_or(Error::Corrupt { ino, what: "a back reference names no entry" })??;
            if target != ino {
                return Err(Error::Corrupt { ino, what: "a back reference names another inode's entry" });
            }
            let more = locks.next(key.saturating_next(), last, |_, _| ())?.is_some();
            return Ok(Some(Referring { dir, pos, kind, name, last: !more }));
        }
    }

    /// The first path of `ino` that ends with an entry at or after position `pos` of directory `dir`. The root has none.
    ///
    /// # Errors
    ///
    /// [`Error::NameTooLong`] for a path of more than `max_len` bytes.
    pub fn ino_path(&self, ino: u64, dir: u64, pos: u64, max_len: usize) -> Result<Option<InoPath>> {
        let mut from = Some((dir, pos));
        while let Some((dir, pos)) = from {
            let Some(entry) = self.next_referring(ino, dir, pos)? else {
                return Ok(None);
            };
            let mut path = self.path_to(&entry, max_len)?;
            if path.is_none() {
                // A directory above was moved or removed meanwhile: look again while none can be moved.
                let _locks = self.store().lock_rename(&[])?;
                let _guard = self.rename.lock();
                path = self.path_to(&entry, max_len)?;
                if path.is_none() && self.still_names(&entry, ino)? {
                    return Err(Error::Corrupt {
                        ino,
                        what: "the directories above it do not end in the root",
                    });
                }
            }
            if let Some(path) = path {
                return Ok(Some(InoPath { dir: entry.dir, pos: entry.pos, path }));
            }
            from = entry.after();
        }
        Ok(None)
    }

    /// Whether an entry that was found still is there.
    fn still_names(&self, entry: &Referring, ino: u64) -> Result<bool> {
        let now = self.next_referring(ino, entry.dir, entry.pos)?;
        Ok(now.is_some_and(|now| (now.dir, now.pos) == (entry.dir, entry.pos)))
    }

    /// The path that ends with an entry; `None` when a directory on it has no entry of its own.
    fn path_to(&self, entry: &Referring, max_len: usize) -> Result<Option<Vec<u8>>> {
        // Backwards, for the names are found from the last one on.
        let mut path = Vec::new();
        let mut push = |name: &[u8]| {
            let slash = usize::from(!path.is_empty());
            if path.len() + slash + name.len() > max_len {
                return Err(Error::NameTooLong);
            }
            path.reserve(slash + name.len())?;
            if slash == 1 {
                path.push(b'/')?;
            }
            path.try_extend(name.iter().rev().copied())?;
            Ok(())
        };
        push(&entry.name)?;
        let mut at = entry.dir;
        // Each name makes the path longer, so it ends even if the directories form a circle.
        while at != ROOT_INO {
            let Some(up) = self.next_referring(at, 0, 0)? else {
                return Ok(None);
            };
            push(&up.name)?;
            at = up.dir;
        }
        path.reverse();
        Ok(Some(path))
    }
}

#[cfg(test)]
mod tests;
