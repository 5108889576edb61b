// SPDX-License-Identifier: GPL-2.0-only
//! The items of a directory entry.
//!
//! An entry is three items: one found by the hash of the name, one by position, and one found from the inode that it
//! names. Names with the same hash lie next to each other, by position.

use scoutfs_format::Key;
use scoutfs_format::item::{BackrefItem, DirentHeader, MAX_NAME_LEN, ReaddirHeader, name_hash};
use scoutfs_format::key::KIND_READDIR;
use scoutfs_format::le::U64;
use scoutfs_item::Spot;
use zerocopy::{FromBytes, IntoBytes};

use crate::error::{Error, Result};
use crate::inode::change::{Change, INODE_CHANGE_ITEMS};
use crate::inode::kind::FileType;
use crate::inode::record::Inode;
use crate::inode::table::MAX_OP_INODES;
use crate::store::{Locks, Need};

/// Positions are file offsets to programs: signed.
const MAX_POS: u64 = i64::MAX as u64 - 1;

/// What an operation on names needs inside the transaction at most: two entries removed and two added, all its
/// inodes, an orphan and a link's target.
pub(crate) const NAMES_NEED: Need = Need {
    items: 4 * 3 + MAX_OP_INODES as u32 * INODE_CHANGE_ITEMS + 2,
    bytes: 8 * (MAX_NAME_LEN + 32) + MAX_OP_INODES * 256,
    privileged: false,
};

/// Where an entry is, and what it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub hash: u64,
    pub pos: u64,
    pub ino: u64,
    pub kind: FileType,
}

/// Checks a name that is to be looked up or made.
pub(crate) fn check_name(name: &[u8]) -> Result<()> {
    if name.len() > MAX_NAME_LEN {
        return Err(Error::NameTooLong);
    }
    if name.is_empty() || name.iter().any(|b| matches!(b, 0 | b'/')) {
        return Err(Error::Invalid("not a file name"));
    }
    Ok(())
}

/// Checks a name that an entry can have.
pub(crate) fn check_entry_name(name: &[u8]) -> Result<()> {
    if matches!(name, b"." | b"..") {
        return Err(Error::Invalid("the name stands for a directory itself"));
    }
    check_name(name)
}

/// The entry of a name. Notes where its item is, or would most likely be.
pub(crate) fn find(locks: &Locks<'_>, dir: u64, name: &[u8], spot: &mut Spot) -> Result<Option<Entry>> {
    let hash = name_hash(name);
    let last = Key::dirent(dir, hash, u64::MAX);
    let mut from = Key::dirent(dir, hash, 0);
    loop {
        let found = locks.next_near(from, last, spot, |key, value| {
            let Ok((header, entry_name)) = DirentHeader::ref_from_prefix(value) else {
                return Err(Error::Corrupt { ino: dir, what: "an entry item is too short" });
            };
            let Some(kind) = FileType::of_stored(header.file_type) else {
                return Err(Error::Corrupt { ino: dir, what: "an entry has an unknown file type" });
            };
            let entry = Entry { hash, pos: key.third, ino: header.ino.get(), kind };
            Ok((key, (entry_name == name).then_some(entry)))
        })?;
        let Some(found) = found else {
            return Ok(None);
        };
        let (key, entry) = found?;
        if entry.is_some_and(|entry| entry.ino == dir) {
            return Err(Error::Corrupt { ino: dir, what: "an entry names its own directory" });
        }
        if entry.is_some() || key >= last {
            return Ok(entry);
        }
        from = key.saturating_next();
    }
}

/// Whether a directory has no entries.
pub(crate) fn is_empty(locks: &Locks<'_>, dir: u64) -> Result<bool> {
    let first = Key::kind_first(dir, KIND_READDIR);
    Ok(locks.next(first, Key::kind_last(dir, KIND_READDIR), |_, _| ())?.is_none())
}

/// Adds an entry at the directory's next position. `spot` is where its name was not found.
pub(crate) fn add(
    change: &mut Change<'_, '_>,
    dir: &mut Inode,
    name: &[u8],
    inode: &Inode,
    mut spot: Spot,
) -> Result<()> {
    let (ino, kind) = (inode.ino, inode.kind());
    let pos = dir.item.next_dir_pos.get();
    if pos > MAX_POS {
        return Err(Error::NoSpace);
    }
    let hash = name_hash(name);
    let dirent = DirentHeader { ino: U64::new(ino), file_type: kind.stored(), pad: [0; 7] };
    change.create_near(Key::dirent(dir.ino, hash, pos), &mut spot, &[dirent.as_bytes(), name])?;
    let readdir = ReaddirHeader {
        ino: U64::new(ino),
        name_hash: U64::new(hash),
        file_type: kind.stored(),
        pad: [0; 7],
    };
    change.create(Key::readdir(dir.ino, pos), &[readdir.as_bytes(), name])?;
    let backref = BackrefItem { name_hash: U64::new(hash) };
    change.create_near(Key::backref(ino, dir.ino, pos), &mut inode.spot.clone(), &[backref.as_bytes()])?;
    let size = dir.size().checked_add(name.len() as u64);
    dir.item.size.set(size.ok_or_else(|| dir.corrupt("the size of a directory is too large"))?);
    dir.item.next_dir_pos.set(pos + 1);
    Ok(())
}

/// Removes the entry of an inode, whose name has `name_len` bytes and was found at `spot`.
pub(crate) fn remove(
    change: &mut Change<'_, '_>,
    dir: &mut Inode,
    entry: &Entry,
    inode: &Inode,
    name_len: usize,
    spot: Spot,
) -> Result<()> {
    change.delete_near(Key::dirent(dir.ino, entry.hash, entry.pos), spot)?;
    change.delete(Key::readdir(dir.ino, entry.pos))?;
    change.delete_near(Key::backref(entry.ino, dir.ino, entry.pos), inode.spot)?;
    let size = dir.size().checked_sub(name_len as u64);
    dir.item.size.set(size.ok_or_else(|| dir.corrupt("the size of a directory is too small"))?);
    Ok(())
}
