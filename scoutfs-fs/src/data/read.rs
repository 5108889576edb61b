// SPDX-License-Identifier: GPL-2.0-only
//! Reading, and looking for data and holes.

use crate::counters::Counter;
use crate::data::extent::Extent;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::record::{DATA_BLOCK_BYTES, Inode};
use crate::store::{LockMode, Locks};

impl Fs {
    /// Reads up to `buf.len()` bytes at `offset`; fewer only at the end of the file. Memory that is aligned to
    /// 4096 bytes, with an offset that is, too, is read into without a copy.
    pub fn read(&self, ino: u64, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.write_delayed_of(ino)?;
        let pin = self.pin(ino)?;
        let locks = self.lock_pages(&pin, offset, offset.saturating_add(buf.len() as u64))?;
        let _state = pin.data.read();
        let inode = self.load_file(&locks, ino)?;
        let left = inode.size().saturating_sub(offset);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        self.count(Counter::Read);
        self.read_range(&locks, ino, offset, &mut buf[..len])?;
        // Had the lease ended, others could have changed the blocks meanwhile.
        self.store().check_lease()?;
        self.count_n(Counter::ReadBytes, len as u64);
        Ok(len)
    }

    fn read_range(&self, locks: &Locks<'_>, ino: u64, mut offset: u64, mut buf: &mut [u8]) -> Result<()> {
        while !buf.is_empty() {
            let extent = self.extent_from(locks, ino, offset / DATA_BLOCK_BYTES)?;
            let (until, written) = match extent {
                None => (u64::MAX, None),
                Some(e) if e.first > offset / DATA_BLOCK_BYTES => (e.first * DATA_BLOCK_BYTES, None),
                Some(e) => (e.end() * DATA_BLOCK_BYTES, readable(e)?),
            };
            let len = usize::try_from(until - offset).unwrap_or(usize::MAX).min(buf.len());
            let (now, rest) = buf.split_at_mut(len);
            match written {
                Some(extent) => self.read_run(&extent, offset, now)?,
                None => now.fill(0),
            }
            offset += len as u64;
            buf = rest;
        }
        Ok(())
    }

    /// The first offset at or after `offset` that has data.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchOffset`] when there are none, or `offset` is at or behind the end of the file.
    pub fn seek_data(&self, ino: u64, offset: u64) -> Result<u64> {
        self.seek(ino, offset, true)
    }

    /// The first offset at or after `offset` that has no data; the end of the file counts.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchOffset`] when `offset` is at or behind the end of the file.
    pub fn seek_hole(&self, ino: u64, offset: u64) -> Result<u64> {
        self.seek(ino, offset, false)
    }

    fn seek(&self, ino: u64, offset: u64, data: bool) -> Result<u64> {
        self.write_delayed_of(ino)?;
        let pin = self.pin(ino)?;
        let locks = self.store().lock(&[(ino, LockMode::Read)])?;
        let _state = pin.data.read();
        let inode = self.load_file(&locks, ino)?;
        let found = self.seek_in(&locks, &inode, offset, data)?;
        found.ok_or(Error::NoSuchOffset)
    }

    fn seek_in(&self, locks: &Locks<'_>, inode: &Inode, offset: u64, data: bool) -> Result<Option<u64>> {
        let size = inode.size();
        if offset >= size {
            return Ok(None);
        }
        let mut at = offset;
        while at < size {
            let block = at / DATA_BLOCK_BYTES;
            let extent = self.extent_from(locks, inode.ino, block)?;
            let (until, is_data) = match extent {
                None => (size, false),
                Some(e) if e.first > block => (e.first * DATA_BLOCK_BYTES, false),
                // What is in the archive is data.
                Some(e) => (e.end() * DATA_BLOCK_BYTES, e.is_written() || e.blkno == 0),
            };
            if is_data == data {
                return Ok(Some(at));
            }
            at = until;
        }
        Ok((!data).then_some(size))
    }
}

/// The extent if it has to be read, or `None` if it reads as zeros.
pub(super) fn readable(extent: Extent) -> Result<Option<Extent>> {
    if extent.is_written() {
        return Ok(Some(extent));
    }
    // Nothing brings data back from an archive yet.
    if extent.blkno == 0 { Err(Error::NotSupported) } else { Ok(None) }
}
