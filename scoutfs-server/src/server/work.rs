// SPDX-License-Identifier: GPL-2.0-only
//! The working set: the metadata blocks that the server may allocate for itself.
//!
//! What must hold: a block is allocated only when the durable super block of the own term names it as part of the
//! working set, for only such blocks does a successor keep apart while this leader's death is not confirmed. So what
//! is added to the set, and what the server frees, is *pending* until the next super block is durable.
//! The set as written is all that is free once that super block counts: what is usable, pending, or lent to a merge.

use scoutfs_btree::space::{Extent, ExtentSet, SpaceError};
use scoutfs_btree::{BlockSpace, CorruptKind, Error};
use scoutfs_env::Vec;
use scoutfs_format::BlockRef;

/// See the module.
#[derive(Default)]
pub(crate) struct WorkSet {
    /// May be allocated now.
    pub usable: ExtentSet,
    /// May be allocated after the next commit.
    pub pending: ExtentSet,
    /// Lent to a piece of a merge.
    pub lent: ExtentSet,
}

impl WorkSet {
    /// Blocks of the set.
    pub fn total(&self) -> u64 {
        self.usable.blocks() + self.pending.blocks() + self.lent.blocks()
    }

    /// Extents of the set, in no order. None overlap.
    pub fn iter(&self) -> impl Iterator<Item = Extent> + '_ {
        self.usable.iter().chain(self.pending.iter()).chain(self.lent.iter())
    }

    /// Number of extents.
    pub fn nr_extents(&self) -> usize {
        self.usable.nr_extents() + self.pending.nr_extents() + self.lent.nr_extents()
    }

    /// Takes the lowest usable block out of the set.
    fn pop(&mut self) -> Result<Option<u64>, SpaceError> {
        let Some(first) = self.usable.at_or_after(0) else {
            return Ok(None);
        };
        self.usable.remove(Extent::new(first.start, 1))?;
        Ok(Some(first.start))
    }

    /// Takes `count` usable blocks out of the set, or none.
    pub fn take(&mut self, count: u64) -> Result<Vec<u64>, Error> {
        let mut blocks = Vec::new();
        if self.usable.blocks() < count {
            return Err(Error::NoSpace);
        }
        for _ in 0..count {
            let block = self.pop().map_err(|e| tree_error(e, 0))?;
            blocks.push(block.ok_or(Error::NoSpace)?)?;
        }
        Ok(blocks)
    }

    /// Lends `count` usable blocks.
    pub fn lend(&mut self, count: u64) -> Result<Vec<u64>, Error> {
        let blocks = self.take(count)?;
        for &block in &blocks {
            self.lent.insert(Extent::new(block, 1)).map_err(|e| tree_error(e, block))?;
        }
        Ok(blocks)
    }

    /// What was lent is usable again, but for `used`, which a tree refers to now.
    pub fn end_loan(&mut self, used: &[u64]) -> Result<(), SpaceError> {
        for &block in used {
            self.lent.remove(Extent::new(block, 1))?;
        }
        append(&mut self.usable, &mut self.lent)
    }

    /// A block that the state before referred to, and the next one does not.
    pub fn free(&mut self, blkno: u64) -> Result<(), SpaceError> {
        self.pending.insert(Extent::new(blkno, 1))
    }

    /// Fails when a block of the extent is in the set.
    pub fn check_outside(&self, extent: Extent) -> Result<(), SpaceError> {
        for set in [&self.usable, &self.pending, &self.lent] {
            if let Some(with) = set.first_common(extent)? {
                let Extent { start, len } = extent;
                return Err(SpaceError::Overlap { start, len, with });
            }
        }
        Ok(())
    }

    /// A super block that names all of the set, and refers to nothing in it, is durable.
    pub fn commit_done(&mut self) -> Result<(), SpaceError> {
        append(&mut self.usable, &mut self.pending)
    }
}

fn append(to: &mut ExtentSet, from: &mut ExtentSet) -> Result<(), SpaceError> {
    while let Some(extent) = from.pop_first() {
        to.insert(extent)?;
    }
    Ok(())
}

/// An error of the server's own books as one of a tree: a block that is freed twice is damage.
pub(crate) fn tree_error(e: SpaceError, blkno: u64) -> Error {
    match e {
        SpaceError::NoMemory => Error::NoMemory,
        _ => Error::corrupt(blkno, CorruptKind::OutsideZones),
    }
}

/// The working set as a commit of the server sees it.
pub(crate) struct CommitSpace<'a> {
    pub work: &'a mut WorkSet,
    pub trans_seq: u64,
    pub counter: &'a mut u32,
    /// Blocks that were freed, for the cache to forget.
    pub freed: Vec<u64>,
}

impl BlockSpace for CommitSpace<'_> {
    fn alloc_block(&mut self) -> Result<u64, Error> {
        self.work.pop().map_err(|e| tree_error(e, 0))?.ok_or(Error::NoSpace)
    }

    fn free_block(&mut self, block: &BlockRef) -> Result<(), Error> {
        let blkno = block.blkno.get();
        self.freed.push(blkno)?;
        self.work.free(blkno).map_err(|e| tree_error(e, blkno))
    }

    fn block_seq(&mut self) -> (u64, u32) {
        let counter = *self.counter;
        *self.counter = counter.wrapping_add(1);
        (self.trans_seq, counter)
    }
}
