// SPDX-License-Identifier: GPL-2.0-only
//! A device in memory, for tests. Every write is durable at once; `scoutfs-sim` has devices that lose writes.

use std::sync::{Arc, PoisonError, RwLock};
use std::vec::Vec;

use core::sync::atomic::{AtomicU64, Ordering};

use super::{BlockDevice, IO_ALIGN, IoError, IoOp, check_io};

type Block = [u8; IO_ALIGN];

/// A block device in memory that counts its requests. Blocks that were never written are zero and take no
/// memory; a snapshot shares all blocks until one side writes them.
#[derive(Debug)]
pub struct MemDevice {
    read_only: bool,
    blocks: RwLock<Vec<Option<Arc<Block>>>>,
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    write_bytes: AtomicU64,
    flushes: AtomicU64,
}

/// What was asked of a [`MemDevice`] so far. A durable write counts as a write and a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemStats {
    /// Read requests that succeeded.
    pub reads: u64,
    /// Bytes of those.
    pub read_bytes: u64,
    /// Write requests that succeeded.
    pub writes: u64,
    /// Bytes of those.
    pub write_bytes: u64,
    /// Flushes.
    pub flushes: u64,
}

impl MemDevice {
    /// A device full of zeros. `size_bytes` is rounded down to a multiple of [`IO_ALIGN`].
    pub fn new(size_bytes: u64) -> MemDevice {
        let count = size_bytes / IO_ALIGN as u64;
        let count = usize::try_from(count).expect("a test device fits the address space");
        Self::with_blocks(std::vec![None; count], false)
    }

    fn with_blocks(blocks: Vec<Option<Arc<Block>>>, read_only: bool) -> MemDevice {
        MemDevice {
            read_only,
            blocks: RwLock::new(blocks),
            reads: AtomicU64::new(0),
            read_bytes: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            write_bytes: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
        }
    }

    /// Another device with the present content, that can be written.
    pub fn snapshot(&self) -> MemDevice {
        Self::with_blocks(self.blocks().clone(), false)
    }

    /// Another device with the present content, all of whose writes fail.
    pub fn read_only_snapshot(&self) -> MemDevice {
        Self::with_blocks(self.blocks().clone(), true)
    }

    /// What was asked so far.
    pub fn stats(&self) -> MemStats {
        MemStats {
            reads: self.reads.load(Ordering::Relaxed),
            read_bytes: self.read_bytes.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
            write_bytes: self.write_bytes.load(Ordering::Relaxed),
            flushes: self.flushes.load(Ordering::Relaxed),
        }
    }

    fn blocks(&self) -> std::sync::RwLockReadGuard<'_, Vec<Option<Arc<Block>>>> {
        self.blocks.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlockDevice for MemDevice {
    fn size_bytes(&self) -> u64 {
        (self.blocks().len() * IO_ALIGN) as u64
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        check_io(self, IoOp::Read, offset, buf)?;
        let (chunks, _) = buf.as_chunks_mut::<IO_ALIGN>();
        for (to, from) in chunks.iter_mut().zip(&self.blocks()[offset as usize / IO_ALIGN..]) {
            match from {
                Some(from) => to.copy_from_slice(&**from),
                None => to.fill(0),
            }
        }
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.read_bytes.fetch_add(buf.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        check_io(self, IoOp::Write, offset, buf)?;
        let mut blocks = self.blocks.write().unwrap_or_else(PoisonError::into_inner);
        let (chunks, _) = buf.as_chunks::<IO_ALIGN>();
        for (to, from) in blocks[offset as usize / IO_ALIGN..].iter_mut().zip(chunks) {
            match to.as_mut().and_then(Arc::get_mut) {
                Some(to) => to.copy_from_slice(from),
                None => *to = Some(Arc::new(*from)),
            }
        }
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.write_bytes.fetch_add(buf.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn flush(&self) -> Result<(), IoError> {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IoBuf;
    use crate::device::{EINVAL, EROFS};

    fn filled(len: usize, byte: u8) -> IoBuf {
        let mut buf = IoBuf::zeroed(len).unwrap();
        buf.fill(byte);
        buf
    }

    #[test]
    fn reads_what_was_written_and_zeros_elsewhere() {
        let device = MemDevice::new(5 * 4096 + 100);
        assert_eq!(device.size_bytes(), 5 * 4096);
        device.write(4096, &filled(8192, 7)).unwrap();
        device.write_durable(8192, &filled(4096, 8)).unwrap();
        let mut buf = IoBuf::zeroed(5 * 4096).unwrap();
        buf.fill(9);
        device.read(0, &mut buf).unwrap();
        for (block, byte) in [0, 7, 8, 0, 0].into_iter().enumerate() {
            assert!(buf[block * 4096..][..4096].iter().all(|&b| b == byte));
        }
        assert_eq!(
            device.stats(),
            MemStats { reads: 1, read_bytes: 5 * 4096, writes: 2, write_bytes: 3 * 4096, flushes: 1 }
        );
    }

    #[test]
    fn a_snapshot_and_its_origin_do_not_see_each_others_writes() {
        let device = MemDevice::new(8192);
        device.write(0, &filled(4096, 1)).unwrap();
        let copy = device.snapshot();
        device.write(0, &filled(4096, 2)).unwrap();
        copy.write(4096, &filled(4096, 3)).unwrap();
        let mut buf = IoBuf::zeroed(8192).unwrap();
        copy.read(0, &mut buf).unwrap();
        assert_eq!((buf[0], buf[4096]), (1, 3));
        device.read(0, &mut buf).unwrap();
        assert_eq!((buf[0], buf[4096]), (2, 0));
        let frozen = copy.read_only_snapshot();
        assert_eq!(frozen.write(0, &filled(4096, 1)).unwrap_err().errno, EROFS);
    }

    #[test]
    fn requests_that_are_not_aligned_or_out_of_range_fail() {
        let device = MemDevice::new(8192);
        let mut buf = filled(8192, 0);
        let errno = |result: Result<(), IoError>| result.unwrap_err().errno;
        assert_eq!(errno(device.read(1, &mut buf[..4096])), EINVAL);
        assert_eq!(errno(device.read(0, &mut buf[..512])), EINVAL);
        assert_eq!(errno(device.write(0, &buf[512..4608])), EINVAL);
        assert_eq!(errno(device.write(4096, &buf)), EINVAL);
        assert_eq!(errno(device.write(u64::MAX - 4095, &buf)), EINVAL);
        assert_eq!(device.stats(), MemStats::default());
        device.write(8192, &[]).unwrap_err();
    }
}
