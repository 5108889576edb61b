// SPDX-License-Identifier: GPL-2.0-only
//! An inode as its item says it is, and the attributes that front ends see.

use scoutfs_env::time::Timespec;
use scoutfs_format::Key;
use scoutfs_format::item::{INODE_RETENTION, INODE_TRUNCATE, InodeItem, MAX_FILE_BYTES, Time};
use scoutfs_format::le::{I64, U32};
use scoutfs_item::Spot;
use zerocopy::FromBytes;

use crate::error::{Error, Result};
use crate::inode::kind::FileType;
use crate::store::Locks;

/// Bytes of the unit in which [`Attr::blocks`] counts.
pub(crate) const STAT_BLOCK_BYTES: u64 = 512;
/// Bytes of a data block.
pub const DATA_BLOCK_BYTES: u64 = 4096;

/// Id of an inode's first extended attribute.
pub const FIRST_XATTR_ID: u64 = 1;

/// What `stat` and its relatives tell about an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub ino: u64,
    /// Bytes; for a directory the sum of its entries' name lengths.
    pub size: u64,
    /// Units of 512 bytes that the data occupy, here or in the archive.
    pub blocks: u64,
    /// Type and permissions.
    pub mode: u32,
    /// Links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of special files: major in the high half, minor in the low half.
    pub rdev: u64,
    /// Last access.
    pub atime: Timespec,
    /// Last change of the contents.
    pub mtime: Timespec,
    /// Last change of the inode.
    pub ctime: Timespec,
    /// Creation.
    pub crtime: Timespec,
    /// Version of the write that last changed the inode.
    pub meta_seq: u64,
    /// Version of the write that last changed a regular file's data; 0 never.
    pub data_seq: u64,
    /// Counts changes of contents or size.
    pub data_version: u64,
    /// Data blocks on this volume.
    pub online_blocks: u64,
    /// Data blocks in the archive.
    pub offline_blocks: u64,
    /// Counts changes, for NFS.
    pub version: u64,
}

/// An inode's number and item, known to be sound.
#[derive(Clone, Debug)]
pub(crate) struct Inode {
    pub ino: u64,
    pub item: InodeItem,
    kind: FileType,
    /// Where its item is.
    pub spot: Spot,
}

/// A time as it is stored.
pub(crate) fn to_time(t: Timespec) -> Time {
    Time { sec: I64::new(t.sec), nsec: U32::new(t.nsec), pad: U32::ZERO }
}

pub(crate) fn from_time(t: &Time) -> Timespec {
    Timespec { sec: t.sec.get(), nsec: t.nsec.get() }
}

impl Inode {
    /// An inode from its number and item.
    pub fn new(ino: u64, item: InodeItem) -> Result<Inode> {
        let corrupt = |what| Err(Error::Corrupt { ino, what });
        let Some(kind) = FileType::of_mode(item.mode.get()) else {
            return corrupt("the mode has no known file type");
        };
        if item.size.get() > MAX_FILE_BYTES {
            return corrupt("the size is above that of the largest file");
        }
        if [&item.atime, &item.mtime, &item.ctime, &item.crtime].iter().any(|t| t.nsec.get() >= 1_000_000_000)
        {
            return corrupt("a time has a second or more of nanoseconds");
        }
        Ok(Inode { ino, item, kind, spot: Spot::default() })
    }

    /// Reads an inode. `None` if there is none of this number.
    #[inline(never)]
    pub fn load(locks: &Locks<'_>, ino: u64) -> Result<Option<Inode>> {
        let mut spot = Spot::default();
        let item =
            locks.get_near(Key::inode(ino), &mut spot, |value| InodeItem::read_from_bytes(value).ok())?;
        match item {
            None => Ok(None),
            Some(None) => Err(Error::Corrupt { ino, what: "the inode item has a wrong size" }),
            Some(Some(item)) => Ok(Some(Inode { spot, ..Inode::new(ino, item)? })),
        }
    }

    /// The type of file.
    pub fn kind(&self) -> FileType {
        self.kind
    }

    pub fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.item.size.get()
    }

    pub fn nlink(&self) -> u32 {
        self.item.nlink.get()
    }

    /// Whether it may have extended attributes: false when it never had one.
    pub fn had_xattrs(&self) -> bool {
        self.item.next_xattr_id.get() > FIRST_XATTR_ID
    }

    /// Whether extents past the size may still have to be freed.
    pub fn truncate_pending(&self) -> bool {
        self.item.flags.get() & INODE_TRUNCATE != 0
    }

    /// Notes whether extents past the size may still have to be freed.
    pub fn set_truncate_pending(&mut self, pending: bool) {
        let flags = self.item.flags.get() & !INODE_TRUNCATE;
        self.item.flags.set(if pending { flags | INODE_TRUNCATE } else { flags });
    }

    /// Whether nothing of the file may change but attributes outside `user.`.
    pub fn is_retained(&self) -> bool {
        self.item.flags.get() & INODE_RETENTION != 0
    }

    /// Retains the file, or ends that.
    pub fn set_retained(&mut self, retained: bool) {
        let flags = self.item.flags.get() & !INODE_RETENTION;
        self.item.flags.set(if retained { flags | INODE_RETENTION } else { flags });
    }

    /// Every change but those that retention allows asks this first. [`Error::NotPermitted`].
    pub fn check_changeable(&self) -> Result<()> {
        if self.is_retained() { Err(Error::NotPermitted) } else { Ok(()) }
    }

    /// The inode itself changes at `now`.
    pub fn touch_ctime(&mut self, now: Timespec) {
        self.item.ctime = to_time(now);
    }

    /// Its contents (of a file or directory) change at `now`.
    pub fn touch_mtime(&mut self, now: Timespec) {
        self.item.mtime = to_time(now);
        self.item.ctime = to_time(now);
    }

    /// Changes the number of links.
    pub fn add_links(&mut self, delta: i64) -> Result<()> {
        let links = u32::try_from(i64::from(self.nlink()) + delta);
        let Ok(links) = links else {
            return Err(self.corrupt("fewer links than entries"));
        };
        self.item.nlink.set(links);
        Ok(())
    }

    /// Changes the number of online blocks.
    pub fn add_online(&mut self, delta: i64) -> Result<()> {
        let Some(blocks) = self.item.online_blocks.get().checked_add_signed(delta) else {
            return Err(self.corrupt("fewer online blocks than its extents hold"));
        };
        self.item.online_blocks.set(blocks);
        Ok(())
    }

    /// Changes the number of offline blocks.
    pub fn add_offline(&mut self, delta: i64) -> Result<()> {
        let Some(blocks) = self.item.offline_blocks.get().checked_add_signed(delta) else {
            return Err(self.corrupt("fewer offline blocks than its extents hold"));
        };
        self.item.offline_blocks.set(blocks);
        Ok(())
    }

    /// An error about this inode's items.
    pub fn corrupt(&self, what: &'static str) -> Error {
        Error::Corrupt { ino: self.ino, what }
    }

    /// What front ends see.
    pub fn attr(&self) -> Attr {
        let item = &self.item;
        let blocks = item.online_blocks.get().saturating_add(item.offline_blocks.get());
        Attr {
            ino: self.ino,
            size: item.size.get(),
            blocks: blocks.saturating_mul(DATA_BLOCK_BYTES / STAT_BLOCK_BYTES),
            mode: item.mode.get(),
            nlink: item.nlink.get(),
            uid: item.uid.get(),
            gid: item.gid.get(),
            rdev: item.rdev.get(),
            atime: from_time(&item.atime),
            mtime: from_time(&item.mtime),
            ctime: from_time(&item.ctime),
            crtime: from_time(&item.crtime),
            meta_seq: item.meta_seq.get(),
            data_seq: item.data_seq.get(),
            data_version: item.data_version.get(),
            online_blocks: item.online_blocks.get(),
            offline_blocks: item.offline_blocks.get(),
            version: item.version.get(),
        }
    }
}
