// SPDX-License-Identifier: GPL-2.0-only
//! Reading and setting attributes.

use scoutfs_env::time::Timespec;
use scoutfs_format::ioctl::StatMore;
use scoutfs_format::le::{U32, U64};

use crate::counters::Counter;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::change::{Change, INODE_CHANGE_ITEMS, Touch};
use crate::inode::kind::{FileType, MODE_BITS, S_IFMT};
use crate::inode::record::{Attr, Inode, to_time};
use crate::store::{LockMode, Locks, Need};
use crate::xattr::Replace;

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// This mount's clock.
    Now,
    /// A given time; its nanoseconds are below 1e9.
    At(Timespec),
}

/// Which attributes to set. The caller has checked permissions and cleared set-ID bits where Linux does (the kernel
/// asks for that by a mode of its own).
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// Permissions; a type in it is not looked at.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size of a regular file, in bytes.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of the contents.
    pub mtime: Option<SetTime>,
    /// Last change of the inode; else now.
    pub ctime: Option<Timespec>,
}

/// What one change of an inode needs inside the transaction.
pub(crate) const INODE_NEED: Need = Need { items: INODE_CHANGE_ITEMS, bytes: 256, privileged: false };

impl SetAttr {
    fn check(&self) -> Result<()> {
        let given = |t: Option<SetTime>| match t {
            Some(SetTime::At(t)) => t.nsec,
            _ => 0,
        };
        let nsecs = [given(self.atime), given(self.mtime), self.ctime.map_or(0, |t| t.nsec)];
        if nsecs.iter().any(|nsec| *nsec >= 1_000_000_000) {
            return Err(Error::Invalid("nanoseconds of a second or more"));
        }
        Ok(())
    }

    /// Sets all but the size.
    pub(crate) fn apply(&self, inode: &mut Inode, now: Timespec) {
        let item = &mut inode.item;
        if let Some(mode) = self.mode {
            item.mode.set(item.mode.get() & S_IFMT | mode & MODE_BITS);
        }
        if let Some(uid) = self.uid {
            item.uid.set(uid);
        }
        if let Some(gid) = self.gid {
            item.gid.set(gid);
        }
        let time = |t: SetTime| match t {
            SetTime::Now => to_time(now),
            SetTime::At(t) => to_time(t),
        };
        if let Some(t) = self.atime {
            item.atime = time(t);
        }
        if let Some(t) = self.mtime {
            item.mtime = time(t);
        }
        item.ctime = to_time(self.ctime.unwrap_or(now));
    }
}

impl Fs {
    /// Reads an inode that the caller holds a reference of.
    pub(crate) fn load(&self, locks: &Locks<'_>, ino: u64) -> Result<Inode> {
        Inode::load(locks, ino)?.ok_or(Error::StaleHandle)
    }

    /// Reads a regular file's inode.
    pub(crate) fn load_file(&self, locks: &Locks<'_>, ino: u64) -> Result<Inode> {
        let inode = self.load(locks, ino)?;
        match inode.kind() {
            FileType::Regular => Ok(inode),
            FileType::Directory => Err(Error::IsDirectory),
            _ => Err(Error::Invalid("not a regular file")),
        }
    }

    /// An inode's attributes.
    pub fn getattr(&self, ino: u64) -> Result<Attr> {
        self.count(Counter::Getattr);
        let locks = self.store().lock(&[(ino, LockMode::Read)])?;
        let load = || self.load(&locks, ino);
        match self.table.get(ino) {
            Some(inode) => self.show_delayed(&inode, &load),
            None => Ok(load()?.attr()),
        }
    }

    /// The attributes of an inode that a file handle names, with a reference as from a look-up.
    ///
    /// # Errors
    ///
    /// [`Error::StaleHandle`] when it is gone or has no links: a handle does not revive an unlinked inode.
    pub fn lookup_ino(&self, ino: u64) -> Result<Attr> {
        self.count(Counter::Lookup);
        let pin = self.pin(ino)?;
        let locks = self.store().lock(&[(ino, LockMode::Read)])?;
        let attr = self.show_delayed(&pin, &|| self.load(&locks, ino))?;
        if attr.nlink == 0 {
            return Err(Error::StaleHandle);
        }
        pin.add_lookup();
        Ok(attr)
    }

    /// What the ioctl of this name tells.
    pub fn stat_more(&self, ino: u64) -> Result<StatMore> {
        self.write_delayed_of(ino)?;
        self.take_over_changes(ino, true)?;
        let attr = self.getattr(ino)?;
        Ok(StatMore {
            meta_seq: U64::new(attr.meta_seq),
            data_seq: U64::new(attr.data_seq),
            data_version: U64::new(attr.data_version),
            online_blocks: U64::new(attr.online_blocks),
            offline_blocks: U64::new(attr.offline_blocks),
            crtime_sec: U64::new(attr.crtime.sec.cast_unsigned()),
            crtime_nsec: U32::new(attr.crtime.nsec),
            pad: [0; 4],
        })
    }

    /// Sets attributes and returns them. A size frees or zeros what lies past it. An access control list follows the mode.
    pub fn setattr(&self, ino: u64, set: &SetAttr) -> Result<Attr> {
        self.writable()?;
        set.check()?;
        self.count(Counter::Setattr);
        let pin = self.pin(ino)?;
        let locks = match set.size {
            // While it waits for a truncation, a kernel may keep pages from being written.
            Some(_) => self.store().lock_bytes(ino, 0, u64::MAX)?,
            None => self.store().lock(&[(ino, LockMode::Write)])?,
        };
        let mut state = pin.data.write();
        if set.size.is_some() {
            self.write_gathered(&locks, &mut state, &pin)?;
        }
        let mut inode = match set.size {
            Some(_) => self.load_file(&locks, ino)?,
            None => self.load(&locks, ino)?,
        };
        inode.check_changeable()?;
        let follows = match set.mode {
            Some(mode) => self.follow_mode(&locks, &inode, mode)?,
            None => None,
        };
        // A new size is set in a transaction of its own, which knows nothing of access control lists.
        if set.size.is_none() || follows.is_some() {
            let now = self.store().now();
            let hold = locks.hold(follows.as_ref().map_or(INODE_NEED, Replace::need))?;
            let mut change = Change::new(&hold);
            let mut new = inode.clone();
            set.apply(&mut new, now);
            change.inode(&mut new, Touch::Meta)?;
            if let Some(list) = &follows {
                list.write(&mut change)?;
            }
            change.finish(&[&new]);
            inode = new;
            self.note_set(&mut state, &pin, set);
        }
        if let Some(size) = set.size {
            self.set_size(&locks, &mut state, &mut inode, size, set)?;
            pin.changed.forget_mtime();
        }
        Ok(pin.changed.show(pin.delayed.show(inode.attr())))
    }
}
