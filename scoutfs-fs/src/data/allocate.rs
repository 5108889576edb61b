// SPDX-License-Identifier: GPL-2.0-only
//! `fallocate`.

use scoutfs_format::item::{EXTENT_UNWRITTEN, MAX_FILE_BYTES};

use crate::counters::Counter;
use crate::data::extent::{Extent, remap_need};
use crate::data::state::DataState;
use crate::data::write::Mapping;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::INODE_NEED;
use crate::inode::change::{Change, Touch};
use crate::inode::passing::Attempts;
use crate::inode::record::{DATA_BLOCK_BYTES, Inode};
use crate::store::{LockMode, Locks};

/// What to do with a range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllocateMode {
    /// Give it blocks where it has none.
    Allocate,
    /// Take its blocks away, so that it reads as zeros. Never changes the size.
    PunchHole,
    /// Make it read as zeros, with blocks.
    ZeroRange,
}

impl Fs {
    /// Allocates, frees or zeros `len` bytes at `offset`. Unless `keep_size`, the file grows to hold the range (not
    /// when a hole is punched).
    ///
    /// # Errors
    ///
    /// On [`Error::NoSpace`] a part may have been allocated; the size is as before.
    pub fn fallocate(
        &self,
        ino: u64,
        mode: AllocateMode,
        keep_size: bool,
        offset: u64,
        len: u64,
    ) -> Result<()> {
        self.writable()?;
        if len == 0 {
            return Err(Error::Invalid("a range of no bytes"));
        }
        let end = offset.checked_add(len).filter(|end| *end <= MAX_FILE_BYTES).ok_or(Error::FileTooBig)?;
        self.count(Counter::Fallocate);
        let mut attempts = Attempts::of(self);
        loop {
            let done = self.try_fallocate(ino, mode, keep_size, offset, end);
            if !attempts.once_more(&done) {
                return done;
            }
        }
    }

    fn try_fallocate(
        &self,
        ino: u64,
        mode: AllocateMode,
        keep_size: bool,
        offset: u64,
        end: u64,
    ) -> Result<()> {
        let pin = self.pin(ino)?;
        let locks = self.store().lock(&[(ino, LockMode::Write)])?;
        let mut state = pin.data.write();
        self.write_gathered(&locks, &mut state, &pin)?;
        let mut inode = self.load_file(&locks, ino)?;
        inode.check_changeable()?;
        self.finish_truncate_locked(&locks, &mut inode)?;
        if mode != AllocateMode::Allocate {
            self.zero_edges(&locks, &mut state, &mut inode, offset, end)?;
            let whole = offset.div_ceil(DATA_BLOCK_BYTES)..end / DATA_BLOCK_BYTES;
            if !whole.is_empty() {
                self.clear_blocks(&locks, &mut inode, whole.start, whole.end - 1, mode)?;
            }
        }
        if mode != AllocateMode::PunchHole {
            self.fill_holes(&locks, &mut state, &mut inode, offset, end)?;
        }
        let grows = mode != AllocateMode::PunchHole && !keep_size && end > inode.size();
        if grows {
            self.zero_past_end(&locks, &mut state, &mut inode)?;
        }
        let mut new = inode.clone();
        new.touch_mtime(self.store().now());
        if grows {
            new.item.size.set(end);
        }
        let contents = grows || mode != AllocateMode::Allocate;
        let hold = locks.hold(INODE_NEED)?;
        let mut change = Change::new(&hold);
        change.inode(&mut new, if contents { Touch::Data } else { Touch::Meta })?;
        change.finish(&[&new]);
        pin.changed.forget_mtime();
        Ok(())
    }

    /// Zeros the parts of the range that are not whole blocks.
    fn zero_edges(
        &self,
        locks: &Locks<'_>,
        state: &mut DataState,
        inode: &mut Inode,
        offset: u64,
        end: u64,
    ) -> Result<()> {
        let mut zero = |from: u64, to: u64| {
            let extent = self.extent_from(locks, inode.ino, from / DATA_BLOCK_BYTES)?;
            self.zero_in_block(locks, state, inode, extent, (from, to))
        };
        if !offset.is_multiple_of(DATA_BLOCK_BYTES) {
            zero(offset, end.min(offset.next_multiple_of(DATA_BLOCK_BYTES)))?;
        }
        let last = end - end % DATA_BLOCK_BYTES;
        if last != end && last >= offset {
            zero(last, end)?;
        }
        Ok(())
    }

    /// Makes whole blocks read as zeros: frees them, or calls them unwritten.
    fn clear_blocks(
        &self,
        locks: &Locks<'_>,
        inode: &mut Inode,
        first: u64,
        last: u64,
        mode: AllocateMode,
    ) -> Result<()> {
        let mut from = Some(first);
        while let Some(first) = from {
            if mode == AllocateMode::PunchHole {
                from = self.free_extents(locks, inode, first, last, |_, _| ())?;
                continue;
            }
            let unwritten = |e: Extent| (e.blkno != 0).then_some(Extent { flags: EXTENT_UNWRITTEN, ..e });
            let remap = self.remap(locks, inode.ino, first, last, None, unwritten)?;
            from = remap.next;
            if remap.is_empty() {
                continue;
            }
            let mut new = inode.clone();
            let hold = locks.hold(remap_need(&remap, false))?;
            let mut change = Change::new(&hold);
            change.inode(&mut new, Touch::Data)?;
            remap.prepare(&mut change, &mut new)?;
            remap.finish(self.store(), &hold, new.ino);
            change.finish(&[&new]);
            *inode = new;
        }
        Ok(())
    }

    /// Gives the holes of the range unwritten blocks.
    pub(super) fn fill_holes(
        &self,
        locks: &Locks<'_>,
        state: &mut DataState,
        inode: &mut Inode,
        offset: u64,
        end: u64,
    ) -> Result<()> {
        let end = end.div_ceil(DATA_BLOCK_BYTES);
        let mut block = offset / DATA_BLOCK_BYTES;
        while block < end {
            let found = self.extent_from(locks, inode.ino, block)?;
            if let Some(extent) = found.filter(|e| e.first <= block) {
                block = extent.end();
                continue;
            }
            let hole_end = found.map_or(end, |e| e.first.min(end));
            let run = self.reserve_run(locks, state, inode, block, hole_end - block)?;
            let extent = self.extent_of(&run, block, EXTENT_UNWRITTEN);
            let mut new = inode.clone();
            let mapping = Mapping { touch: Touch::Meta, replaces: false, privileged: false };
            self.map_run(locks, &mut new, extent, run, mapping)?;
            *inode = new;
            block = extent.end();
        }
        Ok(())
    }
}
