// SPDX-License-Identifier: GPL-2.0-only
//! One super block write for all that was handled.
//!
//! A commit applies the changes of the server's tree, writes the working set as a list, flushes, and writes the super
//! block, twice. Then what the state before referred to may be used again, and answers that waited are released.
//!
//! # The size of the working set
//!
//! A commit may allocate only what the durable working set has; what it frees, and what is added to the set, becomes
//! usable when it is done. `commit_blocks` bounds what a number of changes can cost; more than [`MAX_CHANGES`] changes are
//! committed before more is handled. The server takes what it lacks before it gives anything to mounts, and gives
//! back what it has too much.

use scoutfs_btree::space::{Extent, SpaceKind, list_blocks, write_list};
use scoutfs_btree::tree::SliceSource;
use scoutfs_btree::{Limit, Rule, apply};
use scoutfs_env::Vec;
use scoutfs_env::fault::{Fault, planted};
use scoutfs_format::BlockRef;
use scoutfs_format::le::{U32, U64};
use scoutfs_format::space::{ENTRY_FREE, SPACE_META, SpaceEntry};
use scoutfs_format::voter::SUPER_CLEAN;

use super::work::CommitSpace;
use super::{LeaseState, Server};
use crate::error::ServerError;
use crate::super_block::write_super;

/// With more changes than this the server commits before it handles more.
pub(super) const MAX_CHANGES: usize = 256;
/// Changes that one message or step adds at most: a hand-over of a thousand extents, three changes each.
const MAX_STEP_CHANGES: u64 = 3_200;

impl Server {
    /// Whether something waits for [`commit`](Self::commit).
    pub fn dirty(&self) -> bool {
        self.super_dirty || self.taking_over || !self.changes.is_empty() || !self.work.pending.is_empty()
    }

    /// Makes durable all that was handled, and releases the answers that depend on it. Free when nothing is dirty.
    ///
    /// It counts when the lease is valid after that, see [`set_lease`](Self::set_lease); so it must be before what
    /// [`poll_message`](Self::poll_message) gives is sent. After an error the server refuses everything.
    #[inline(never)]
    pub fn commit(&mut self) -> Result<(), ServerError> {
        if !self.is_running() {
            return Err(ServerError::Stopped);
        }
        if self.dirty()
            && let Err(e) = self.write_commit()
        {
            self.stop(e.clone());
            return Err(e);
        }
        let waiting = core::mem::take(&mut self.waiting);
        for message in waiting {
            self.send(message, false);
        }
        Ok(())
    }

    /// The last commit, with the clean flag: nothing that this server wrote, or had written, is in flight. Nothing is
    /// handled after that. While a piece of a merge is out the flag is not set.
    #[inline(never)]
    pub fn stop_clean(&mut self) -> Result<(), ServerError> {
        self.commit()?;
        if !self.merges.any_out() {
            self.sb.flags = U64::new(self.sb.flags.get() | SUPER_CLEAN);
            self.super_dirty = true;
        }
        let done = self.commit();
        self.stopped = true;
        done
    }

    fn write_commit(&mut self) -> Result<(), ServerError> {
        self.balance_work()?;
        self.counters.raise_bounds(&mut self.sb);
        let mut freed = Vec::new();
        if !self.changes.is_empty() || !self.work.pending.is_empty() || self.taking_over {
            let mut space = CommitSpace {
                work: &mut self.work,
                trans_seq: self.block_seq,
                counter: &mut self.block_counter,
                freed: Vec::new(),
            };
            let items = self.changes.take()?;
            let mut source = SliceSource::new(&items);
            let applied =
                apply(&self.cache, &mut space, &self.sb.server_root, &mut source, &Rule::Plain, Limit::NONE)?;
            self.sb.server_root = applied.root;
            freed = space.freed;
            self.write_work_list()?;
            self.sb.work_leader = self.leader;
        }
        self.sb.meta_zones = U64::new(self.free.meta_zones);
        self.sb.block_seq = U64::new(self.block_seq);
        if !planted(Fault::SkipServerFlush) {
            self.dev.flush()?;
        }
        // What former leaders may write, and what this one does, has names in tree and list now: no entries of a take-over are left.
        write_super(&**self.dev, self.leader.voter.get(), &mut self.sb)?;
        // If it was late another leader may go on from the super block before, whose blocks must not be used again then.
        match self.lease.as_ref().map(|lease| lease.confirm()) {
            None | Some(LeaseState::Valid) => {}
            Some(LeaseState::Resumed(now)) => self.resumed(now),
            Some(LeaseState::Over) => return Err(ServerError::Stopped),
        }
        *self.durable = *self.sb;
        self.super_dirty = false;
        self.taking_over = false;
        self.work.commit_done()?;
        for blkno in freed {
            self.cache.drop_block(blkno);
        }
        if self.block_counter > u32::MAX / 2 {
            // Bounds were raised just now.
            self.block_seq = self.counters.next_seq;
            self.counters.next_seq += 1;
            self.block_counter = 0;
        }
        Ok(())
    }

    /// Writes what is left of the working set. Its old list is part of the new set.
    fn write_work_list(&mut self) -> Result<(), ServerError> {
        for block in &self.work_list {
            self.work.free(block.blkno.get())?;
        }
        // Taking blocks out makes no extents, as the lowest ones go first.
        let blocks = list_blocks(self.work.nr_extents());
        let places = self.work.take(blocks as u64)?;
        let mut list = Vec::with_capacity(places.len())?;
        for blkno in places {
            list.push(BlockRef::new(blkno, self.block_seq, self.block_counter))?;
            self.block_counter = self.block_counter.wrapping_add(1);
        }
        let mut entries = Vec::with_capacity(self.work.nr_extents())?;
        for extent in self.work.iter() {
            entries.push(work_entry(extent)?)?;
        }
        self.sb.work = write_list(&self.cache, &list, &entries)?;
        self.work_list = list;
        Ok(())
    }

    /// Bounds the blocks that a commit of so many changes writes.
    fn commit_blocks(&self, changes: u64) -> u64 {
        // Leaves are at least a quarter full. Free space takes 56 bytes an item, hand-overs up to 1 KiB.
        let leaves = self.free.nr_items() / 280
            + (self.quarantined.len() + self.fenced_data.len() + self.members.len()) as u64 / 120
            + self.members.nr_hand_over_items() / 14
            + 3;
        let touched = leaves.min(changes);
        // New items: hand-overs of messages, extents of a step.
        let grown = MAX_CHANGES as u64 / 40 + changes / 1_000;
        let parents = 4 * (u64::from(self.sb.server_root.height) + 1);
        let list = list_blocks(self.work.nr_extents()) as u64 + 1;
        // Each leaf may be split, or drag an underfull neighbour along.
        2 * touched + grown + parents + list
    }

    /// Blocks that the working set should have: for a commit, for how much it may grow what it frees in return, and for a
    /// piece of a merge.
    pub(super) fn work_target(&self) -> u64 {
        self.commit_reserve() * 3 / 2 + self.merge_blocks()
    }

    /// Blocks that the working set may have too much before some are given back.
    pub(super) fn work_slack(&self) -> u64 {
        self.geometry.zone_meta_blocks().max(self.work_target() / 4)
    }

    /// Blocks that no merge may use.
    pub(super) fn commit_reserve(&self) -> u64 {
        self.commit_blocks(MAX_CHANGES as u64 + MAX_STEP_CHANGES)
    }

    /// Blocks that the working set lacks.
    pub(super) fn work_deficit(&self) -> u64 {
        self.work_target().saturating_sub(self.work.total())
    }

    /// Takes what the working set lacks out of the free space, and gives back what it has too much.
    pub(super) fn balance_work(&mut self) -> Result<(), ServerError> {
        let mut lacks = self.work_deficit();
        while lacks > 0 {
            let (changes, pending) = (&mut self.changes, &mut self.work.pending);
            let got = self
                .free
                .take(SpaceKind::Meta, lacks, 64, 0, changes, &mut |extent| Ok(pending.insert(extent)?))?;
            lacks -= got;
            // The first commit after a take-over may have few blocks, and changes cost some: no more loose ones than once.
            if got > 0 && !(self.taking_over && lacks > 0) {
                continue;
            }
            let Some(zone) = self.free.take_zones(SpaceKind::Meta, 1, changes)? else {
                break;
            };
            let used = zone.len.min(lacks);
            pending.insert(Extent::new(zone.start, used))?;
            if used < zone.len {
                let rest = Extent::new(zone.start + used, zone.len - used);
                self.free.add(SpaceKind::Meta, rest, changes)?;
            }
            lacks -= used;
        }
        // Only what no durable tree refers to is given back: it may be handed over and written at once.
        let slack = self.work_slack();
        // Of that, this very commit keeps what it may need: what is pending is of no use to it.
        let spare = self.work.usable.blocks().saturating_sub(self.commit_reserve());
        let mut surplus = self.work.total().saturating_sub(self.work_target() + slack).min(spare);
        for _ in 0..64 {
            let Some(last) = self.work.usable.iter().last().filter(|_| surplus > 0) else {
                break;
            };
            let len = last.len.min(surplus);
            let extent = Extent::new(last.start + last.len - len, len);
            self.work.usable.remove(extent)?;
            self.free.add(SpaceKind::Meta, extent, &mut self.changes)?;
            surplus -= len;
        }
        Ok(())
    }

    /// Keeps counters and the working set ahead of their use.
    pub(super) fn keep_ahead(&mut self) -> Result<(), ServerError> {
        if self.counters.raise_bounds(&mut self.sb) {
            self.super_dirty = true;
        }
        if self.work_deficit() > self.commit_reserve() / 2 && self.free.available(SpaceKind::Meta) > 0 {
            self.super_dirty = true;
        }
        self.commit_if_large()
    }

    /// Keeps the number of changes within what the working set was made for.
    pub(super) fn commit_if_large(&mut self) -> Result<(), ServerError> {
        if self.changes.len() > MAX_CHANGES {
            self.commit()?;
        }
        Ok(())
    }
}

/// An entry of the working set.
pub(crate) fn work_entry(extent: Extent) -> Result<SpaceEntry, ServerError> {
    let len = u32::try_from(extent.len)
        .map_err(|_| scoutfs_btree::space::SpaceError::Impossible { start: extent.start, len: extent.len })?;
    Ok(SpaceEntry {
        start: U64::new(extent.start),
        number: U64::ZERO,
        len: U32::new(len),
        kind: SPACE_META,
        state: ENTRY_FREE,
        pad: [0; 2],
    })
}
