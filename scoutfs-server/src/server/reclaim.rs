// SPDX-License-Identifier: GPL-2.0-only
//! Taking back what a mount that is gone has left, in bounded steps.
//!
//! When all logs of the member are merged, first the blocks of its log trees are freed, tree by tree; then its free
//! space, its hand-overs that nobody took and the blocks of its space list become the server's; then its slot is free.
//! Progress is an item that changes in the very commit that frees, so each block is freed exactly once:
//!
//! - `merge(slot, nr)` of a merged log: the trees before `nr` are freed, and of that tree all that holds only keys below
//!   the position;
//! - `merge(slot, u64::MAX)`: all trees are freed, and all extents below (kind, block) are taken back.
//!
//! What is left is always worked out from the slot's frozen record and the server's items, so [`Leftovers`] serves the
//! audit as well.

use scoutfs_btree::space::{Extent, SpaceExtent, SpaceKind, SpaceReplay, read_list};
use scoutfs_btree::tree::FreeCursor;
use scoutfs_btree::{BlockCache, BlockSpace, Error, free_tree};
use scoutfs_env::{OrdMap, Vec, log};
use scoutfs_format::geometry::Geometry;
use scoutfs_format::le::{U32, U64};
use scoutfs_format::ring::LogTree;
use scoutfs_format::server_item::{MEMBER_FREE, MEMBER_GONE, MemberItem};
use scoutfs_format::{BlockRef, Key};

use super::Server;
use super::members::{HandOver, MemberState};
use crate::error::ServerError;
use crate::roots::SlotState;

/// Log number of the progress of taking back space.
pub(crate) const SPACE_PROGRESS: u64 = u64::MAX;
/// Blocks of a log tree that a step frees.
const STEP_BLOCKS: u64 = 256;
/// Extents that a step takes back.
const STEP_EXTENTS: usize = 256;

/// The space of the member that is being taken back.
pub(crate) struct Reclaiming {
    slot: u32,
    leftovers: Leftovers,
}

/// All that a mount owns that is not part of a log tree.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    /// Free space and hand-overs, by (kind, block).
    pub extents: Vec<SpaceExtent>,
    /// The blocks of its list of space.
    pub list: Vec<u64>,
    /// The hand-overs to the server that its newest record has given.
    pub given: u64,
    /// Inodes that it made less those that it deleted.
    pub inode_delta: i64,
}

impl Leftovers {
    /// From what counts of its slot and what the server has written down.
    pub fn new(
        cache: &BlockCache,
        geometry: &Geometry,
        member: &MemberItem,
        state: Option<&SlotState>,
        hand_overs: &OrdMap<u64, HandOver>,
    ) -> Result<Leftovers, ServerError> {
        let mut left = Leftovers::default();
        let mut taken = member.down_forgotten.get();
        if let Some(state) = state {
            let header = state.ring.newest().header();
            taken = taken.max(header.taken.get());
            left.given = header.given.get();
            left.inode_delta = header.inode_delta.get();
            let mut replay = SpaceReplay::new(*geometry);
            let mut wrong = None;
            let list = read_list(cache, &header.space, |entry| {
                if wrong.is_none() {
                    wrong = replay.list_entry(entry).err();
                }
                Ok(())
            })
            .map_err(Error::stale_to_corrupt)?;
            if let Some(e) = wrong {
                return Err(e.into());
            }
            for block in &list {
                left.list.push(block.blkno.get())?;
            }
            for record in state.ring.records() {
                for entry in record.space() {
                    replay.record_entry(&entry)?;
                }
            }
            replay.check(left.given)?;
            for kind in SpaceKind::ALL {
                for extent in replay.free(kind).iter() {
                    left.extents.push(SpaceExtent { kind, extent })?;
                }
            }
            for (number, extents) in replay.given() {
                if number > member.up_taken.get() {
                    left.extents.extend_from_slice(extents)?;
                }
            }
        }
        for (&number, hand_over) in hand_overs {
            if number > taken {
                left.extents.extend_from_slice(&hand_over.extents)?;
            }
        }
        scoutfs_env::sort::sort_by_key(&mut left.extents, |e| (e.kind, e.extent.start));
        Ok(left)
    }

    /// Blocks of a kind that were free.
    pub fn blocks(&self, kind: SpaceKind) -> u64 {
        let extents = self.extents.iter().filter(|e| e.kind == kind);
        extents.fold(0, |sum, e| sum.saturating_add(e.extent.len))
    }

    /// Index of the first extent that is not below the position.
    pub fn index_of(&self, position: Key) -> usize {
        let at = (position.first, position.second);
        self.extents.partition_point(|e| (u64::from(e.kind.to_raw()), e.extent.start) < at)
    }
}

/// The log trees of a member that is gone that are not yet freed: each with where to go on.
pub(crate) fn trees_left(
    slot: u32,
    merged_through: u64,
    state: &SlotState,
    progress: &OrdMap<(u32, u64), Key>,
) -> Result<Vec<(LogTree, Key)>, ServerError> {
    let mut trees = Vec::new();
    if progress.get(&(slot, SPACE_PROGRESS)).is_some() {
        return Ok(trees);
    }
    let current = progress
        .range((slot, 0)..=(slot, merged_through))
        .next()
        .map_or((0, Key::MIN), |(&(_, nr), &position)| (nr, position));
    for log in state.logs() {
        let nr = log.nr.get();
        if nr >= current.0 {
            let position = if nr == current.0 { current.1 } else { Key::MIN };
            trees.push((log, position))?;
        }
    }
    Ok(trees)
}

/// Notes which blocks would be freed.
#[derive(Default)]
pub(crate) struct FreedBlocks {
    pub blocks: Vec<u64>,
}

impl BlockSpace for FreedBlocks {
    fn alloc_block(&mut self) -> Result<u64, Error> {
        Err(Error::NoSpace)
    }

    fn free_block(&mut self, block: &BlockRef) -> Result<(), Error> {
        Ok(self.blocks.push(block.blkno.get())?)
    }

    fn block_seq(&mut self) -> (u64, u32) {
        (0, 0)
    }
}

/// Whether all that the member has written is merged.
fn all_merged(member: &MemberState) -> bool {
    let last = member.state.as_ref().map_or(0, SlotState::last_log_nr);
    last <= member.merged_through()
}

impl Server {
    /// The member to take back from.
    fn to_reclaim(&self) -> Option<u32> {
        let ready =
            |m: &&MemberState| m.is(MEMBER_GONE) && !m.broken && all_merged(m) && !self.merges.is_out(m.slot);
        self.members.iter().find(ready).map(|m| m.slot)
    }

    /// Whether members that are gone still have something that will be the server's.
    pub(super) fn reclaim_pending(&self) -> bool {
        self.members.iter().any(|m| m.is(MEMBER_GONE) && !m.broken) || self.can_release()
    }

    /// Whether [`reclaim_step`](Self::reclaim_step) has something to do now.
    pub(super) fn can_reclaim(&self) -> bool {
        self.to_reclaim().is_some() || self.can_release()
    }

    /// Takes back a bounded part.
    pub(super) fn reclaim_step(&mut self) -> Result<(), ServerError> {
        if self.can_release() {
            self.pieces += 1;
            return self.release_fenced_data();
        }
        let Some(slot) = self.to_reclaim() else {
            return Ok(());
        };
        self.pieces += 1;
        match self.reclaim(slot) {
            // Memory comes back; books that do not add up do not.
            Ok(()) | Err(ServerError::NoMemory) => Ok(()),
            // A commit failed on the way.
            Err(e) if !self.is_running() => Err(e),
            Err(e) => {
                log::error!("scoutfs server: cannot take back mount slot {slot}: {e}");
                if let Some(member) = self.members.get_mut(slot) {
                    member.broken = true;
                }
                self.reclaiming = None;
                Ok(())
            }
        }
    }

    fn reclaim(&mut self, slot: u32) -> Result<(), ServerError> {
        let Some(member) = self.members.get(slot) else {
            return Ok(());
        };
        if let Some(state) = member.state.clone() {
            let progress = &self.merges.progress;
            let trees = trees_left(slot, member.merged_through(), &state, progress)?;
            if let Some((tree, position)) = trees.first() {
                return self.free_log(slot, tree, *position, trees.get(1).map(|(log, _)| log));
            }
        }
        self.take_back(slot)
    }

    /// Frees a part of a log tree.
    fn free_log(
        &mut self,
        slot: u32,
        tree: &LogTree,
        position: Key,
        next: Option<&LogTree>,
    ) -> Result<(), ServerError> {
        let mut freed = FreedBlocks::default();
        let mut cursor = FreeCursor::at(position);
        free_tree(&self.cache, &mut freed, &tree.root, &mut cursor, STEP_BLOCKS)
            .map_err(Error::stale_to_corrupt)?;
        for &blkno in &freed.blocks {
            self.free.check(SpaceKind::Meta, Extent::new(blkno, 1))?;
        }
        for blkno in freed.blocks {
            self.free.add(SpaceKind::Meta, Extent::new(blkno, 1), &mut self.changes)?;
            self.cache.drop_block(blkno);
        }
        match cursor.position() {
            Some(position) => self.set_progress(slot, tree.nr.get(), position)?,
            None => {
                self.clear_progress(slot, tree.nr.get())?;
                match next {
                    Some(next) => self.set_progress(slot, next.nr.get(), Key::MIN)?,
                    None => self.set_progress(slot, SPACE_PROGRESS, Key::MIN)?,
                }
            }
        }
        self.commit_if_large()
    }

    /// Takes back a part of the space, and with the last part frees the slot.
    fn take_back(&mut self, slot: u32) -> Result<(), ServerError> {
        let Some(member) = self.members.get(slot) else {
            return Ok(());
        };
        if self.reclaiming.as_ref().is_none_or(|r| r.slot != slot) {
            let (item, state) = (&member.item, member.state.as_ref());
            let leftovers = Leftovers::new(&self.cache, &self.geometry, item, state, &member.hand_overs)?;
            self.reclaiming = Some(Reclaiming { slot, leftovers });
        }
        // What an error leaves is worked out again.
        let Some(Reclaiming { leftovers, .. }) = self.reclaiming.take() else {
            return Ok(());
        };
        let position = self.merges.progress.get(&(slot, SPACE_PROGRESS)).copied();
        let from = leftovers.index_of(position.unwrap_or(Key::MIN));
        let part = leftovers.extents.get(from..).unwrap_or_default();
        let part = part.get(..STEP_EXTENTS.min(part.len())).unwrap_or_default();
        for extent in part {
            match extent.kind {
                SpaceKind::Meta => self.free.add(SpaceKind::Meta, extent.extent, &mut self.changes)?,
                SpaceKind::Data => self.take_back_data(extent.extent)?,
            }
        }
        if let Some(last) = part.last() {
            let kind = last.kind.to_raw();
            let after = last.extent.start + last.extent.len;
            let position = Key::new(0, kind.into(), 0, after, 0, 0);
            self.set_progress(slot, SPACE_PROGRESS, position)?;
            self.reclaiming = Some(Reclaiming { slot, leftovers });
            return self.commit_if_large();
        }
        for &blkno in &leftovers.list {
            self.free.add(SpaceKind::Meta, Extent::new(blkno, 1), &mut self.changes)?;
        }
        self.clear_progress(slot, SPACE_PROGRESS)?;
        self.free_slot(slot, leftovers.given, leftovers.inode_delta)
    }

    /// Nothing of the member is left but its numbers.
    fn free_slot(&mut self, slot: u32, given: u64, inode_delta: i64) -> Result<(), ServerError> {
        let Some(member) = self.members.get(slot) else {
            return Ok(());
        };
        let down_given = member.item.down_given.get();
        self.forget_taken(slot, down_given)?;
        if let Some(member) = self.members.get_mut(slot) {
            let item = &mut member.item;
            item.rid = U64::ZERO;
            item.state = U32::new(MEMBER_FREE);
            item.up_taken = U64::new(given.max(item.up_taken.get()));
            member.state = None;
        }
        self.note_member(slot)?;
        // May be below zero meanwhile, as two's complement: one mount has deleted what another that still counts has made.
        let inodes = self.sb.inodes.get().wrapping_add_signed(inode_delta);
        self.sb.inodes = U64::new(inodes);
        self.super_dirty = true;
        self.commit_if_large()
    }
}
