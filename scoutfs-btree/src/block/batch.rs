// SPDX-License-Identifier: GPL-2.0-only
//! Writing new blocks, neighbours at once.

use scoutfs_env::{Arc, IoBuf, Vec};
use scoutfs_format::{BLOCK_SIZE, BlockRef};

use super::{Block, BlockCache, BlockSpace, NewBlock};
use crate::Error;

/// Most blocks that one write takes: the kernel splits larger requests anyway.
const MAX_RUN: usize = 16;

/// Collects new blocks as long as each is the neighbour of the one before, and writes them with one request.
/// [`finish`](Self::finish) writes the rest; a batch that is dropped without it has not written all its blocks.
pub struct WriteBatch<'a> {
    cache: &'a BlockCache,
    run: Vec<Arc<Block>>,
    /// Where the blocks of a run are put side by side; kept from run to run.
    buf: Option<IoBuf>,
}

impl<'a> WriteBatch<'a> {
    /// An empty batch.
    pub fn new(cache: &'a BlockCache) -> Self {
        WriteBatch { cache, run: Vec::new(), buf: None }
    }

    /// Gives a block a place and a seq of `space` and writes it, now or later. The returned reference
    /// may be stored in other blocks of the batch, but not read before [`finish`](Self::finish).
    pub fn add(
        &mut self,
        space: &mut dyn BlockSpace,
        block: NewBlock,
        magic: u32,
    ) -> Result<BlockRef, Error> {
        let blkno = space.alloc_block()?;
        let (trans_seq, counter) = space.block_seq();
        let reference = BlockRef::new(blkno, trans_seq, counter);
        self.cache.offset(blkno)?;
        let adjacent = match self.run.last() {
            Some(last) => last.blkno().checked_add(1) == Some(blkno) && self.run.len() < MAX_RUN,
            None => true,
        };
        if !adjacent {
            self.finish()?;
        }
        let block = block.seal(magic, self.cache.fsid(), &reference);
        self.run.push(Arc::new(block)?)?;
        Ok(reference)
    }

    /// Writes what has not been written yet. On an error some of it may be written, and no reference to a block of
    /// the batch may be used.
    pub fn finish(&mut self) -> Result<(), Error> {
        let Some(first) = self.run.first() else {
            return Ok(());
        };
        let offset = self.cache.offset(first.blkno())?;
        let device = self.cache.device();
        if self.run.len() == 1 {
            device.write(offset, first.bytes())?;
        } else {
            let len = self.run.len() * BLOCK_SIZE;
            let mut buf = match self.buf.take() {
                Some(buf) if buf.len() >= len => buf,
                _ => IoBuf::zeroed(len)?,
            };
            for (to, block) in buf.chunks_exact_mut(BLOCK_SIZE).zip(&self.run) {
                to.copy_from_slice(block.bytes());
            }
            let written = device.write(offset, &buf[..len]);
            self.buf = Some(buf);
            written?;
        }
        for block in self.run.drain(..) {
            self.cache.insert(block);
        }
        Ok(())
    }
}
