// SPDX-License-Identifier: GPL-2.0-only
//! Reading for which nobody waits: a kernel fills pages that a program is likely to want next.
//!
//! The device fills the kernel's memory without a copy, and no lock of ours is held until it has: whoever changes which blocks a file
//! has waits for pages that are being filled, for the kernel keeps them locked. On another mount that is because this one drops
//! its pages before it gives the lock back; here the front end drops the pages of a range before it has the core change its blocks. A
//! file without users is deleted after its pages are gone. What a lease was over for is not believed.

use scoutfs_env::device::ReadAhead;
use scoutfs_env::{Box, Vec, time, try_box};

use crate::counters::Counter;
use crate::data::block_io::{BLOCK_LEN, is_direct};
use crate::data::extent::Extent;
use crate::data::read::readable;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::record::DATA_BLOCK_BYTES;
use crate::store::Locks;

/// Told with how many bytes were read, of a file that may end before the memory does; what is behind them in the memory is not
/// zeroed. Without a number, or when it is dropped, nothing was. It may be called in an interrupt, where nobody sleeps.
pub type Done = Box<dyn FnOnce(Option<usize>) + Send>;

/// What a range of a file reads as.
struct Stretch {
    /// In the file.
    end: u64,
    /// None: zeros.
    extent: Option<Extent>,
}

impl Fs {
    /// Begins to read at `offset`, a multiple of the block size, into parts of memory that follow each other in the file and are whole
    /// blocks. `done` is told the end, perhaps at once. See [the module](self) for what the caller must see to.
    ///
    /// # Errors
    ///
    /// As of [`Fs::read`]; `done` is not told then. That the device cannot read it is no error here.
    pub fn read_ahead(
        &self,
        ino: u64,
        offset: u64,
        memory: Vec<&'static mut [u8]>,
        done: Done,
    ) -> Result<()> {
        let whole =
            |part: &&'static mut [u8]| part.len().is_multiple_of(BLOCK_LEN) && is_direct(offset, part);
        if !memory.iter().all(whole) {
            return Err(Error::Invalid("memory that is not of whole blocks"));
        }
        let len = memory.iter().map(|part| part.len() as u64).sum();
        self.write_delayed_of(ino)?;
        let pin = self.pin(ino)?;
        let locks = self.lock_pages(&pin, offset, offset.saturating_add(len))?;
        let _state = pin.data.read();
        let size = self.load_file(&locks, ino)?.size();
        let valid = usize::try_from(size.saturating_sub(offset).min(len)).unwrap_or(usize::MAX);
        self.count(Counter::Read);
        self.count_n(Counter::ReadBytes, valid as u64);
        let pieces = self.pieces(&locks, ino, offset, size, memory)?;
        if pieces.is_empty() {
            done(Some(valid));
            return Ok(());
        }
        let numbers = self.store().numbers.clone();
        let ended = try_box(move |read: bool| {
            let is_sure = read && !numbers.lease_left(time::mono_now()).is_zero();
            done(is_sure.then_some(valid));
        });
        self.store().device().read_ahead(ReadAhead { pieces, done: ended? });
        Ok(())
    }

    /// What is to be read from where; the rest is zeroed.
    fn pieces(
        &self,
        locks: &Locks<'_>,
        ino: u64,
        offset: u64,
        size: u64,
        memory: Vec<&'static mut [u8]>,
    ) -> Result<Vec<(u64, &'static mut [u8])>> {
        let mut pieces = Vec::new();
        let mut at = offset;
        let mut stretch = Stretch { end: offset, extent: None };
        for mut left in memory {
            while !left.is_empty() {
                if at >= stretch.end {
                    stretch = self.stretch(locks, ino, at, size)?;
                }
                let len = usize::try_from(stretch.end - at).unwrap_or(usize::MAX).min(left.len());
                let (now, rest) = left.split_at_mut(len);
                match &stretch.extent {
                    Some(extent) => {
                        let from = extent.blkno_of(at / DATA_BLOCK_BYTES) * DATA_BLOCK_BYTES;
                        pieces.push((from, now))?;
                    }
                    None => now.fill(0),
                }
                left = rest;
                at += len as u64;
            }
        }
        Ok(pieces)
    }

    fn stretch(&self, locks: &Locks<'_>, ino: u64, at: u64, size: u64) -> Result<Stretch> {
        let zeros = |end| Stretch { end, extent: None };
        if at >= size {
            return Ok(zeros(u64::MAX));
        }
        let block = at / DATA_BLOCK_BYTES;
        let end = size.next_multiple_of(DATA_BLOCK_BYTES);
        Ok(match self.extent_from(locks, ino, block)? {
            None => zeros(u64::MAX),
            Some(extent) if extent.first > block => zeros(extent.first * DATA_BLOCK_BYTES),
            Some(extent) => {
                Stretch { end: end.min(extent.end() * DATA_BLOCK_BYTES), extent: readable(extent)? }
            }
        })
    }
}
