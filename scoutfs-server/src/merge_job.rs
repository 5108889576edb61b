// SPDX-License-Identifier: GPL-2.0-only
//! A piece of a merge, which any thread may run.
//!
//! The server lends the piece the blocks that it may write, and hands it the roots that it works on; both belong to
//! this term. What comes of it counts only when the server accepts it and publishes the new root.

use scoutfs_btree::tree::SliceSource;
use scoutfs_btree::{
    BlockCache, BlockSpace, Error, Limit, MergeStep, OwnedItem, Rule, Tail, apply, leaf, merge_step,
};
use scoutfs_env::{Arc, Vec};
use scoutfs_format::tree::TreeRoot;
use scoutfs_format::{BlockRef, Key};

/// Leaves that one piece of a sweep looks at.
const SWEEP_LEAVES: u32 = 256;
/// Deletions that one piece of a sweep drops; those in the leaves that hold them go as well.
const SWEEP_ITEMS: usize = 256;

/// What is to be done to the fs tree.
#[derive(Debug)]
pub(crate) enum Work {
    /// Merge a piece of log trees of a slot, oldest first, and of the tail of the last one.
    Merge { logs: Vec<TreeRoot>, tail: Option<Arc<Tail>> },
    /// Drop deletions that nothing needs any more.
    Sweep,
}

/// A piece of work on the fs tree.
#[derive(Debug)]
pub struct MergeJob {
    pub(crate) id: u64,
    pub(crate) work: Work,
    pub(crate) fs_root: TreeRoot,
    /// Where the piece begins.
    pub(crate) from: Key,
    pub(crate) tombstone_floor: u64,
    pub(crate) limit: Limit,
    /// The blocks that it may write, ascending.
    pub(crate) blocks: Vec<u64>,
    /// The seq of all of them.
    pub(crate) trans_seq: u64,
}

/// What came of a [`MergeJob`].
#[derive(Debug)]
pub struct MergeResult {
    pub(crate) id: u64,
    pub(crate) outcome: Result<Piece, Error>,
}

/// A piece that was done.
#[derive(Debug)]
pub(crate) struct Piece {
    pub fs_root: TreeRoot,
    /// Where the next piece begins; `None` when this was the last.
    pub next: Option<Key>,
    pub tombstones_delta: i64,
    /// Of the blocks that were lent, those that the new tree refers to.
    pub used: Vec<u64>,
    /// Blocks of the old tree that the new one does not refer to.
    pub freed: Vec<u64>,
}

impl MergeJob {
    /// Does the piece. Needs no server; an error is part of the result.
    pub fn run(&self, cache: &BlockCache) -> MergeResult {
        let mut space = JobSpace {
            blocks: &self.blocks,
            next: 0,
            dropped: Vec::new(),
            freed: Vec::new(),
            trans_seq: self.trans_seq,
            counter: 0,
        };
        let outcome = self.step(cache, &mut space).and_then(|step| {
            let mut used = Vec::new();
            for block in self.blocks.get(..space.next).unwrap_or_default() {
                if !space.dropped.contains(block) {
                    used.push(*block)?;
                }
            }
            let (fs_root, next) = (step.fs_root, step.next);
            let (tombstones_delta, freed) = (step.tombstones_delta, space.freed);
            Ok(Piece { fs_root, next, tombstones_delta, used, freed })
        });
        MergeResult { id: self.id, outcome }
    }

    fn step(&self, cache: &BlockCache, space: &mut JobSpace<'_>) -> Result<MergeStep, Error> {
        match &self.work {
            Work::Merge { logs, tail } => merge_step(
                cache,
                space,
                &self.fs_root,
                logs,
                tail.as_deref(),
                self.from,
                self.tombstone_floor,
                self.limit,
            ),
            Work::Sweep => self.sweep(cache, space),
        }
    }

    /// Finds deletions below the floor and writes their leaves anew, which drops them.
    fn sweep(&self, cache: &BlockCache, space: &mut JobSpace<'_>) -> Result<MergeStep, Error> {
        let mut deletions: Vec<OwnedItem> = Vec::new();
        let mut next = Some(self.from);
        let mut leaves = 0;
        while let Some(from) = next
            && leaves < SWEEP_LEAVES
            && deletions.len() < SWEEP_ITEMS
        {
            let leaf = leaf(cache, &self.fs_root, &from)?;
            // One deletion is enough to have the leaf written.
            let old = leaf
                .iter()
                .find(|item| item.key >= from && item.deletion && item.version < self.tombstone_floor);
            if let Some(item) = old {
                deletions.push(item.to_owned()?)?;
            }
            leaves += 1;
            next = leaf.last().next();
        }
        let rule = Rule::Merge { tombstone_floor: self.tombstone_floor };
        let mut source = SliceSource::new(&deletions);
        let applied = apply(cache, space, &self.fs_root, &mut source, &rule, self.limit)?;
        Ok(MergeStep {
            fs_root: applied.root,
            next: applied.next.or(next),
            tombstones_delta: applied.stats.tombstones_delta,
            stats: applied.stats,
        })
    }
}

/// The blocks that were lent.
struct JobSpace<'a> {
    blocks: &'a [u64],
    next: usize,
    /// Blocks that were written and then freed again.
    dropped: Vec<u64>,
    freed: Vec<u64>,
    trans_seq: u64,
    counter: u32,
}

impl BlockSpace for JobSpace<'_> {
    fn alloc_block(&mut self) -> Result<u64, Error> {
        let block = *self.blocks.get(self.next).ok_or(Error::NoSpace)?;
        self.next += 1;
        Ok(block)
    }

    fn free_block(&mut self, block: &BlockRef) -> Result<(), Error> {
        let blkno = block.blkno.get();
        let written = self.blocks.get(..self.next).unwrap_or_default();
        if written.binary_search(&blkno).is_ok() {
            self.dropped.push(blkno)?;
        } else {
            self.freed.push(blkno)?;
        }
        Ok(())
    }

    fn block_seq(&mut self) -> (u64, u32) {
        let counter = self.counter;
        self.counter = counter.wrapping_add(1);
        (self.trans_seq, counter)
    }
}
