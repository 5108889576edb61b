// SPDX-License-Identifier: GPL-2.0-only
//! What programs change in a kernel's memory, and is written later: nobody can be told then that there is no space.
//!
//! A kernel asks here before a program may change a page ([`Fs::prepare_pages`]). From then on the page has blocks that can be
//! written in place. They stay so until the page is written: other nodes take them away only with the cluster lock, before which
//! pages are written, and programs here only where the kernel drops pages first. Fences that come meanwhile do not matter (see
//! [`KnownFences`](crate::store::KnownFences)). So writing needs no data block; for the items it may use the reserve of metadata blocks.
//!
//! Locking: as for a write.

use scoutfs_env::IoBuf;
use scoutfs_format::item::{EXTENT_UNWRITTEN, MAX_FILE_BYTES};

use crate::data::block_io::BLOCK_LEN;
use crate::data::extent::Extent;
use crate::data::state::DataState;
use crate::data::write::Mapping;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::change::Touch;
use crate::inode::passing::Attempts;
use crate::inode::record::{DATA_BLOCK_BYTES, Inode};
use crate::store::{DataRun, LockMode, Locks};

/// Blocks that are copied at once.
const COPY_BLOCKS: u64 = 32;

impl Fs {
    /// Sees to it that `len` bytes at `offset`, which are in a kernel's memory, can be changed there and written by [`Fs::write_pages`]
    /// without more space for data. Holes get blocks, and blocks that somebody who was fenced may still write are exchanged. What is
    /// read from the file stays the same.
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`] when there is none, [`Error::NotSupported`] where data are in an archive.
    pub fn prepare_pages(&self, ino: u64, offset: u64, len: u64) -> Result<()> {
        self.writable()?;
        let end = offset.checked_add(len).filter(|end| *end <= MAX_FILE_BYTES).ok_or(Error::FileTooBig)?;
        let mut attempts = Attempts::of(self);
        loop {
            let done = self.try_prepare_pages(ino, offset, end);
            if !attempts.once_more(&done) {
                return done;
            }
        }
    }

    fn try_prepare_pages(&self, ino: u64, offset: u64, end: u64) -> Result<()> {
        let end_block = end.div_ceil(DATA_BLOCK_BYTES);
        let pin = self.pin(ino)?;
        let locks = self.store().lock(&[(ino, LockMode::Write)])?;
        let mut state = pin.data.write();
        self.write_gathered(&locks, &mut state, &pin)?;
        let mut inode = self.load_file(&locks, ino)?;
        inode.check_changeable()?;
        self.finish_truncate_locked(&locks, &mut inode)?;
        let mut block = offset / DATA_BLOCK_BYTES;
        while block < end_block {
            let found = self.extent_from(&locks, ino, block)?;
            block = match found.filter(|e| e.first <= block) {
                Some(extent) if extent.blkno == 0 => return Err(Error::NotSupported),
                Some(extent) if self.store().may_be_written(ino, extent.fences) => {
                    let part = extent.part(block, extent.end().min(end_block));
                    self.exchange_blocks(&locks, &mut state, &mut inode, part)?
                }
                Some(extent) => extent.end(),
                None => {
                    let hole_end = found.map_or(end_block, |e| e.first.min(end_block));
                    let run = self.reserve_run(&locks, &mut state, &inode, block, hole_end - block)?;
                    let extent = self.extent_of(&run, block, EXTENT_UNWRITTEN);
                    self.map_prepared(&locks, &mut inode, extent, run, false)?;
                    extent.end()
                }
            };
        }
        Ok(())
    }

    /// Gives the first blocks of an extent's part others with the same content. Returns the logical block behind them.
    fn exchange_blocks(
        &self,
        locks: &Locks<'_>,
        state: &mut DataState,
        inode: &mut Inode,
        old: Extent,
    ) -> Result<u64> {
        let run = self.reserve_run(locks, state, inode, old.first, old.len.min(COPY_BLOCKS))?;
        let new = self.extent_of(&run, old.first, old.flags);
        if old.is_written()
            && let Err(error) = self.copy_blocks(old.blkno, run.start, run.len)
        {
            self.store().unreserve_data(run);
            return Err(error);
        }
        self.map_prepared(locks, inode, new, run, true)?;
        Ok(new.end())
    }

    fn map_prepared(
        &self,
        locks: &Locks<'_>,
        inode: &mut Inode,
        extent: Extent,
        run: DataRun,
        replaces: bool,
    ) -> Result<()> {
        let mut new = inode.clone();
        let mapping = Mapping { touch: Touch::Meta, replaces, privileged: false };
        self.map_run(locks, &mut new, extent, run, mapping)?;
        *inode = new;
        Ok(())
    }

    /// Copies at most [`COPY_BLOCKS`].
    fn copy_blocks(&self, from: u64, to: u64, blocks: u64) -> Result<()> {
        let mut buf = IoBuf::zeroed(blocks as usize * BLOCK_LEN)?;
        self.store().device().read(from * DATA_BLOCK_BYTES, &mut buf)?;
        self.store().device().write(to * DATA_BLOCK_BYTES, &buf)?;
        self.store().note_data_written();
        Ok(())
    }
}
