// SPDX-License-Identifier: GPL-2.0-only
//! Reading and setting chosen attributes, as archive agents do: project, retention, and what a file that is restored
//! without its data had before.

use scoutfs_env::time::Timespec;
use scoutfs_format::ioctl::{
    ATTR_ALL, ATTR_BIT_RETENTION, ATTR_CRTIME, ATTR_CTIME, ATTR_DATA_SEQ, ATTR_DATA_VERSION,
    ATTR_FLAG_SIZE_OFFLINE, ATTR_META_SEQ, ATTR_OFFLINE_BLOCKS, ATTR_ONLINE_BLOCKS, ATTR_PROJECT_ID,
    ATTR_RETENTION, ATTR_SIZE, AttrX,
};
use scoutfs_format::item::{EXTENT_OFFLINE, MAX_FILE_BYTES};
use scoutfs_format::le::{U32, U64};

use crate::counters::Counter;
use crate::data::extent::{Extent, remap_need};
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::INODE_NEED;
use crate::inode::change::{Change, Touch};
use crate::inode::kind::FileType;
use crate::inode::record::{DATA_BLOCK_BYTES, Inode, to_time};
use crate::store::{LockMode, Locks};

/// The attributes that are asked for, or to be set.
fn parse(x: &AttrX) -> Result<impl Fn(u64) -> bool + use<>> {
    let mask = x.x_mask.get();
    if mask & !ATTR_ALL != 0 || x.x_flags.get() & !ATTR_FLAG_SIZE_OFFLINE != 0 {
        return Err(Error::Invalid("an unknown attribute or flag"));
    }
    Ok(move |attribute| mask & attribute != 0)
}

/// A time as the caller gives it.
fn given_time(sec: U64, nsec: U32) -> Result<Timespec> {
    match nsec.get() {
        nsec @ ..1_000_000_000 => Ok(Timespec { sec: sec.get().cast_signed(), nsec }),
        _ => Err(Error::Invalid("nanoseconds of a second or more")),
    }
}

impl Fs {
    /// Fills in the attributes that `x.x_mask` asks for; the others stay as they are. Returns how many bytes of
    /// the structure matter to the caller: up to the last attribute that he asked for.
    pub fn get_attr_x(&self, ino: u64, x: &mut AttrX) -> Result<usize> {
        if x.x_mask.get() == 0 {
            return Ok(0);
        }
        let wants = parse(x)?;
        self.write_delayed_of(ino)?;
        self.take_over_changes(ino, true)?;
        let item = {
            let locks = self.store().lock(&[(ino, LockMode::Read)])?;
            self.settle(ino);
            self.load(&locks, ino)?
        };
        if let Some(inode) = self.table.get(ino) {
            inode.changed.ask();
        }
        let retained = item.is_retained();
        let item = item.item;
        let mut len = 0;
        macro_rules! fill {
            ($($attribute:ident: $($field:ident = $value:expr),*;)*) => {$(
                if wants($attribute) {
                    $(
                        x.$field = $value;
                        len = len.max(core::mem::offset_of!(AttrX, $field) + size_of_val(&x.$field));
                    )*
                }
            )*};
        }
        let seconds = |time: scoutfs_format::item::Time| U64::new(time.sec.get().cast_unsigned());
        fill! {
            ATTR_META_SEQ: meta_seq = item.meta_seq;
            ATTR_DATA_SEQ: data_seq = item.data_seq;
            ATTR_DATA_VERSION: data_version = item.data_version;
            ATTR_ONLINE_BLOCKS: online_blocks = item.online_blocks;
            ATTR_OFFLINE_BLOCKS: offline_blocks = item.offline_blocks;
            ATTR_CTIME: ctime_sec = seconds(item.ctime), ctime_nsec = item.ctime.nsec;
            ATTR_CRTIME: crtime_sec = seconds(item.crtime), crtime_nsec = item.crtime.nsec;
            ATTR_SIZE: size = item.size;
            ATTR_RETENTION: bits = U64::new(if retained { ATTR_BIT_RETENTION } else { 0 });
            ATTR_PROJECT_ID: project_id = item.project;
        }
        Ok(len)
    }

    /// Sets the attributes of `x.x_mask`, all or none; those that cannot be set are passed over. Nothing else of the
    /// inode changes, its times among it. The caller has checked that his user may do so (CAP_SYS_ADMIN).
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for what makes no sense: a size or data version of what is not a new regular file (one with data
    /// version 0), a size without a data version, an offline size of 0 or of a file that has extents, retention of what
    /// is not a regular file. [`Error::NotPermitted`] for a retained file, unless the same call ends its retention.
    pub fn set_attr_x(&self, ino: u64, x: &AttrX) -> Result<()> {
        self.writable()?;
        if x.x_mask.get() == 0 {
            return Ok(());
        }
        let sets = parse(x)?;
        self.count(Counter::Setattr);
        let pin = self.pin(ino)?;
        let locks = self.store().lock(&[(ino, LockMode::Write)])?;
        let mut state = pin.data.write();
        self.write_gathered(&locks, &mut state, &pin)?;
        let inode = self.load(&locks, ino)?;
        let retain = x.bits.get() & ATTR_BIT_RETENTION != 0;
        check(&inode, x, &sets)?;
        let ends_retention = sets(ATTR_RETENTION) && !retain;
        if !ends_retention {
            inode.check_changeable()?;
        }
        let mut new = inode;
        if sets(ATTR_CTIME) {
            new.item.ctime = to_time(given_time(x.ctime_sec, x.ctime_nsec)?);
        }
        if sets(ATTR_CRTIME) {
            new.item.crtime = to_time(given_time(x.crtime_sec, x.crtime_nsec)?);
        }
        if sets(ATTR_SIZE) {
            new.item.size = x.size;
        }
        if sets(ATTR_RETENTION) {
            new.set_retained(retain);
        }
        if sets(ATTR_PROJECT_ID) {
            new.item.project = x.project_id;
        }
        let version = sets(ATTR_DATA_VERSION).then_some(x.data_version);
        let offline = x.x_flags.get() & ATTR_FLAG_SIZE_OFFLINE != 0;
        self.write_attr_x(&locks, new, version, offline)
    }

    /// One transaction with all of it.
    fn write_attr_x(
        &self,
        locks: &Locks<'_>,
        mut new: Inode,
        data_version: Option<U64>,
        offline: bool,
    ) -> Result<()> {
        let remap = if offline {
            if self.extent_from(locks, new.ino, 0)?.is_some() {
                return Err(Error::Invalid("the file has extents already"));
            }
            let len = new.size().div_ceil(DATA_BLOCK_BYTES);
            let extent = Extent { first: 0, len, blkno: 0, flags: EXTENT_OFFLINE, fences: 0 };
            Some(self.remap_hole(locks, new.ino, extent)?)
        } else {
            None
        };
        let hold = locks.hold(remap.as_ref().map_or(INODE_NEED, |remap| remap_need(remap, false)))?;
        let mut change = Change::new(&hold);
        // A data version that is not 0 goes with a data seq that is not.
        change.inode(&mut new, if data_version.is_some() { Touch::Data } else { Touch::Meta })?;
        if let Some(remap) = &remap {
            remap.prepare(&mut change, &mut new)?;
        }
        if let Some(version) = data_version {
            new.item.data_version = version;
        }
        if let Some(remap) = &remap {
            remap.finish(self.store(), &hold, new.ino);
        }
        change.finish(&[&new]);
        Ok(())
    }
}

/// Checks all that is wrong with a request whatever the file's state of retention.
fn check(inode: &Inode, x: &AttrX, sets: &impl Fn(u64) -> bool) -> Result<()> {
    let regular = inode.kind() == FileType::Regular;
    let is_new = regular && inode.item.data_version.get() == 0;
    let (size, version) = (x.size.get(), x.data_version.get());
    let offline = x.x_flags.get() & ATTR_FLAG_SIZE_OFFLINE != 0;
    let invalid = |what| Err(Error::Invalid(what));
    if sets(ATTR_DATA_VERSION) && version == 0 {
        return invalid("a data version of 0");
    }
    if (sets(ATTR_SIZE) || sets(ATTR_DATA_VERSION)) && !is_new {
        return invalid("size and data version are set of new regular files only");
    }
    if sets(ATTR_SIZE) && (size > 0 && !sets(ATTR_DATA_VERSION) || size > MAX_FILE_BYTES) {
        return invalid("a size without a data version, or above that of the largest file");
    }
    if offline && (!sets(ATTR_SIZE) || size == 0) {
        return invalid("an offline file without a size");
    }
    if sets(ATTR_RETENTION) && !regular {
        return invalid("retention is of regular files only");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
