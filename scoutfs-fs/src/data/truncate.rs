// SPDX-License-Identifier: GPL-2.0-only
//! Setting the size of a file, and freeing extents.

use scoutfs_format::item::MAX_FILE_BYTES;

use crate::data::extent::{MAX_BLOCK, remap_need};
use crate::data::state::DataState;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::change::{Change, Touch};
use crate::inode::record::{DATA_BLOCK_BYTES, Inode};
use crate::inode::{INODE_NEED, SetAttr};
use crate::store::Locks;

impl Fs {
    /// Sets the size of a regular file, and the other attributes with it.
    pub(crate) fn set_size(
        &self,
        locks: &Locks<'_>,
        state: &mut DataState,
        inode: &mut Inode,
        size: u64,
        set: &SetAttr,
    ) -> Result<()> {
        if size > MAX_FILE_BYTES {
            return Err(Error::FileTooBig);
        }
        self.finish_truncate_locked(locks, inode)?;
        let now = self.store().now();
        let apply = |inode: &mut Inode| {
            inode.item.size.set(size);
            inode.touch_mtime(now);
            set.apply(inode, now);
        };
        if size > inode.size() {
            self.zero_past_end(locks, state, inode)?;
            let mut new = inode.clone();
            apply(&mut new);
            let hold = locks.hold(INODE_NEED)?;
            let mut change = Change::new(&hold);
            change.inode(&mut new, Touch::Data)?;
            change.finish(&[&new]);
            *inode = new;
            return Ok(());
        }
        // The first transaction has the new size; the extents go in as many as it takes.
        let keep = size.div_ceil(DATA_BLOCK_BYTES);
        let next = self.free_extents(locks, inode, keep, MAX_BLOCK, |inode, more| {
            apply(inode);
            inode.set_truncate_pending(more);
        })?;
        if next.is_some() {
            // The size is set whatever happens from here on; what is not freed now is freed later.
            let _ = self.finish_truncate_locked(locks, inode);
        }
        Ok(())
    }

    /// Frees what lies past the size, if a truncation was not finished.
    pub(crate) fn finish_truncate_locked(&self, locks: &Locks<'_>, inode: &mut Inode) -> Result<()> {
        let mut from = inode.size().div_ceil(DATA_BLOCK_BYTES);
        while inode.truncate_pending() {
            let next = self.free_extents(locks, inode, from, MAX_BLOCK, |inode, more| {
                inode.set_truncate_pending(more);
            })?;
            from = next.unwrap_or(from);
        }
        Ok(())
    }

    /// Frees the blocks of `first..=last` in one transaction of bounded size, in which `with` changes the inode too; it
    /// is told whether more remain to be freed. Returns where to go on.
    pub(crate) fn free_extents(
        &self,
        locks: &Locks<'_>,
        inode: &mut Inode,
        first: u64,
        last: u64,
        with: impl FnOnce(&mut Inode, bool),
    ) -> Result<Option<u64>> {
        let remap = self.remap(locks, inode.ino, first.min(MAX_BLOCK + 1), last, None, |_| None)?;
        let mut new = inode.clone();
        with(&mut new, remap.next.is_some());
        let hold = locks.hold(remap_need(&remap, true))?;
        let mut change = Change::new(&hold);
        change.inode(&mut new, Touch::Data)?;
        remap.prepare(&mut change, &mut new)?;
        remap.finish(self.store(), &hold, new.ino);
        change.finish(&[&new]);
        *inode = new;
        Ok(remap.next)
    }
}
