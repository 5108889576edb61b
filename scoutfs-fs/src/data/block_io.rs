// SPDX-License-Identifier: GPL-2.0-only
//! Reading and writing runs of device blocks that lie behind each other, for any byte range of a file.
//!
//! Whole blocks go between the device and the caller's memory without a copy when that memory is aligned as
//! the device wants it. The rest goes through a buffer of bounded size.

use scoutfs_env::IoBuf;
use scoutfs_env::device::IO_ALIGN;

use crate::data::extent::Extent;
use crate::data::state::DataState;
use crate::data::write::Mapping;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::change::Touch;
use crate::inode::record::{DATA_BLOCK_BYTES, Inode};
use crate::store::Locks;

/// Bytes of a data block, in memory.
pub(crate) const BLOCK_LEN: usize = DATA_BLOCK_BYTES as usize;

/// Bytes that are copied at once; copying fewer than this is cheaper than another request to the device.
const BOUNCE_LEN: usize = 128 << 10;

fn is_aligned(bytes: &[u8]) -> bool {
    bytes.as_ptr().addr().is_multiple_of(IO_ALIGN)
}

/// The offset in its block.
pub(crate) fn in_block(offset: u64) -> usize {
    // Below the block size.
    (offset % DATA_BLOCK_BYTES) as usize
}

/// How many of `len` bytes at `offset` of a file can be moved by one request without a copy: whole blocks
/// of aligned memory, where no copy of bounded size would take all.
fn direct_len(offset: u64, memory: &[u8]) -> usize {
    let whole = memory.len() - memory.len() % BLOCK_LEN;
    let all = whole == memory.len();
    if is_direct(offset, memory) && (all || whole > BOUNCE_LEN) { whole } else { 0 }
}

/// Whether whole blocks go to or from this memory without a copy.
pub(super) fn is_direct(offset: u64, memory: &[u8]) -> bool {
    in_block(offset) == 0 && is_aligned(memory)
}

impl Fs {
    /// Reads `buf.len()` bytes at `offset` of a file, all in the written extent `extent`.
    pub(crate) fn read_run(&self, extent: &Extent, mut offset: u64, mut buf: &mut [u8]) -> Result<()> {
        let mut bounce: Option<IoBuf> = None;
        while !buf.is_empty() {
            let device_offset = extent.blkno_of(offset / DATA_BLOCK_BYTES) * DATA_BLOCK_BYTES;
            let direct = direct_len(offset, buf);
            let len = if direct > 0 {
                let (now, _) = buf.split_at_mut(direct);
                self.store().device().read(device_offset, now)?;
                direct
            } else {
                let skip = in_block(offset);
                let len = buf.len().min(BOUNCE_LEN - skip);
                let whole = (skip + len).next_multiple_of(BLOCK_LEN);
                let copy = bounce_of(&mut bounce, whole)?;
                self.store().device().read(device_offset, copy)?;
                let (now, _) = buf.split_at_mut(len);
                now.copy_from_slice(&copy[skip..skip + len]);
                len
            };
            offset += len as u64;
            buf = buf.split_at_mut(len).1;
        }
        Ok(())
    }

    /// Writes `data` at `offset` of the file to the blocks of `extent`, which holds all of it. What the first
    /// and the last block hold beside `data` in `before`, which may be the same, is kept, and zero if they were not written there or
    /// lie behind the end of the file.
    ///
    /// Returns the last block's content if it ends in the middle of it.
    pub(crate) fn write_run(
        &self,
        state: &mut DataState,
        inode: &Inode,
        (before, extent): (&Extent, &Extent),
        mut offset: u64,
        mut data: &[u8],
    ) -> Result<Option<IoBuf>> {
        // Taken away in any case: what the device holds changes, whether the rest succeeds or not.
        let mut known = state.take_tail(offset / DATA_BLOCK_BYTES, inode.item.data_version.get());
        let mut bounce: Option<IoBuf> = None;
        let mut tail = None;
        while !data.is_empty() {
            let block = offset / DATA_BLOCK_BYTES;
            let device_offset = extent.blkno_of(block) * DATA_BLOCK_BYTES;
            let direct = direct_len(offset, data);
            let len = if direct > 0 {
                self.store().device().write(device_offset, &data[..direct])?;
                direct
            } else {
                let skip = in_block(offset);
                let len = data.len().min(BOUNCE_LEN - skip);
                let end = skip + len;
                let whole = end.next_multiple_of(BLOCK_LEN);
                // A small append needs no other buffer than the block that it appends to.
                let mut read_first = skip > 0;
                if whole == BLOCK_LEN && read_first && before.is_written() && known.is_some() {
                    bounce = known.take();
                    read_first = false;
                }
                let copy = bounce_of(&mut bounce, whole)?;
                if read_first {
                    self.old_block(inode, before, block, &mut copy[..BLOCK_LEN])?;
                }
                let last = whole - BLOCK_LEN;
                if end < whole && (last > 0 || skip == 0) {
                    let last_block = block + (last / BLOCK_LEN) as u64;
                    self.old_block(inode, before, last_block, &mut copy[last..])?;
                }
                copy[skip..end].copy_from_slice(&data[..len]);
                self.store().device().write(device_offset, copy)?;
                if len == data.len() && end < whole {
                    tail = match bounce.take() {
                        Some(buf) if buf.len() == BLOCK_LEN => Some(buf),
                        // Only a help: not an error without memory.
                        buf => buf.and_then(|buf| IoBuf::from_slice(&buf[last..whole]).ok()),
                    };
                }
                len
            };
            offset += len as u64;
            data = &data[len..];
        }
        self.store().note_data_written();
        Ok(tail)
    }

    /// What a block holds before it is changed in part.
    fn old_block(&self, inode: &Inode, extent: &Extent, block: u64, buf: &mut [u8]) -> Result<()> {
        let valid = inode.size().saturating_sub(block * DATA_BLOCK_BYTES).min(DATA_BLOCK_BYTES) as usize;
        if extent.is_written() && valid > 0 {
            self.store().device().read(extent.blkno_of(block) * DATA_BLOCK_BYTES, buf)?;
            buf[valid..].fill(0);
        } else {
            buf.fill(0);
        }
        Ok(())
    }

    /// Zeros the bytes `from..to` of one block on the device, if `extent` holds it and it is written.
    ///
    /// # Errors
    ///
    /// [`Error::NotSupported`] when the block is in the archive: nothing brings the rest of it back yet.
    pub(crate) fn zero_in_block(
        &self,
        locks: &Locks<'_>,
        state: &mut DataState,
        inode: &mut Inode,
        extent: Option<Extent>,
        (from, to): (u64, u64),
    ) -> Result<()> {
        let block = from / DATA_BLOCK_BYTES;
        let Some(extent) = extent.filter(|e| e.first <= block && from < to) else {
            return Ok(());
        };
        if !extent.is_written() {
            return if extent.blkno == 0 { Err(Error::NotSupported) } else { Ok(()) };
        }
        let mut buf = IoBuf::zeroed(BLOCK_LEN)?;
        self.old_block(inode, &extent, block, &mut buf)?;
        state.forget_tail();
        let start = in_block(from);
        buf[start..start + (to - from) as usize].fill(0);
        let write = |blkno: u64| self.store().device().write(blkno * DATA_BLOCK_BYTES, &buf);
        if !self.store().may_be_written(inode.ino, extent.fences) {
            write(extent.blkno_of(block))?;
            self.store().note_data_written();
            return Ok(());
        }
        let run = self.reserve_run(locks, state, inode, block, 1)?;
        if let Err(error) = write(run.start) {
            self.store().unreserve_data(run);
            return Err(error.into());
        }
        self.store().note_data_written();
        let mut new = inode.clone();
        let mapping = Mapping { touch: Touch::Data, replaces: true, privileged: false };
        self.map_run(locks, &mut new, self.extent_of(&run, block, 0), run, mapping)?;
        *inode = new;
        Ok(())
    }
}

/// A buffer of `len` bytes, up to [`BOUNCE_LEN`], made once for a run.
fn bounce_of(bounce: &mut Option<IoBuf>, len: usize) -> Result<&mut [u8]> {
    if bounce.as_ref().is_none_or(|b| b.len() < len) {
        *bounce = Some(IoBuf::zeroed(len)?);
    }
    match bounce {
        Some(buf) => Ok(&mut buf[..len]),
        None => Err(Error::NoMemory),
    }
}
