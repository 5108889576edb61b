// SPDX-License-Identifier: GPL-2.0-only
//! Fences: mounts that were reclaimed by lease alone, and the data blocks that they may still write.
//!
//! A lease cannot recall a write that was already submitted. What a fenced mount may still write are blocks of its own, which stay
//! as they are until its death is confirmed, and blocks of files that it had locked for writing. Who gets such a lock after it is
//! told of the fence with the grant ([`Fences`]): files get new blocks where they are written from then on, and the old
//! ones are not used again before the deaths of all who may write to them are confirmed. A mount only withholds those that it
//! frees itself, so data space that comes back from a mount that is gone goes into quarantine here as long as there is a fence that is not
//! confirmed.
//!
//! In normal running there is none, and this costs nothing.

use scoutfs_btree::space::{Extent, SpaceKind};
use scoutfs_env::{OrdMap, log};
use scoutfs_format::Key;
use scoutfs_format::le::{U32, U64};
use scoutfs_format::msg::Fences;
use scoutfs_format::server_item::{MEMBER_FENCED, QuarantineItem};
use scoutfs_format::space::SPACE_DATA;

use super::Server;
use super::reclaim::Leftovers;
use crate::error::ServerError;

/// Extents that a step releases.
const STEP_EXTENTS: usize = 256;

/// Data blocks in quarantine.
#[derive(Default)]
pub(crate) struct FencedData {
    /// By fence and first block: how many blocks. They are free when all deaths up to that fence are confirmed.
    extents: OrdMap<(u32, u64), u64>,
}

impl FencedData {
    /// An item of the server's tree.
    pub fn load(&mut self, fence: u32, extent: Extent) -> Result<(), ServerError> {
        self.extents.insert((fence, extent.start), extent.len)?;
        Ok(())
    }

    /// All extents.
    pub fn iter(&self) -> impl Iterator<Item = Extent> + '_ {
        self.extents.iter().map(|(&(_, start), &len)| Extent::new(start, len))
    }

    pub fn len(&self) -> usize {
        self.extents.len()
    }
}

impl Server {
    /// What mounts are told.
    pub(super) fn fences(&self) -> Fences {
        let newest = self.members.iter().map(|m| m.item.fence.get()).max();
        let unconfirmed = self.unconfirmed_fences().max();
        Fences { newest: U32::new(newest.unwrap_or(0)), unconfirmed: U32::new(unconfirmed.unwrap_or(0)) }
    }

    fn unconfirmed_fences(&self) -> impl Iterator<Item = u32> {
        self.members.iter().filter(|m| m.is(MEMBER_FENCED)).map(|m| m.item.fence.get())
    }

    /// Blocks of a kind that somebody may still write whose death is not confirmed.
    pub(super) fn quarantined_blocks(&self, kind: SpaceKind) -> u64 {
        let fenced = self.members.iter().filter(|m| m.is(MEMBER_FENCED)).map(|m| m.free[kind as usize]);
        let aside: u64 = match kind {
            SpaceKind::Meta => self.quarantined.iter().map(|quarantine| quarantine.extent.len).sum(),
            SpaceKind::Data => self.fenced_data.iter().map(|extent| extent.len).sum(),
        };
        fenced.fold(aside, u64::saturating_add)
    }

    /// Counts what a fenced mount has, by its frozen record and the hand-overs to it. Where that cannot be read it stays as the mount last said.
    pub(super) fn count_quarantined(&mut self, slot: u32) -> Result<(), ServerError> {
        let Some(member) = self.members.get_mut(slot).filter(|m| m.is(MEMBER_FENCED)) else {
            return Ok(());
        };
        let (item, state) = (&member.item, member.state.as_ref());
        match Leftovers::new(&self.cache, &self.geometry, item, state, &member.hand_overs) {
            Ok(left) => {
                member.free = SpaceKind::ALL.map(|kind| left.blocks(kind));
                Ok(())
            }
            Err(ServerError::NoMemory) => Err(ServerError::NoMemory),
            Err(e) => {
                log::error!("scoutfs server: cannot read what the fenced mount in slot {slot} has: {e}");
                Ok(())
            }
        }
    }

    /// The number of the fence that is to come.
    pub(super) fn next_fence(&self) -> Result<U32, ServerError> {
        let newest = self.fences().newest.get();
        let counter = ServerError::Counter { what: "number of fences", found: newest.into() };
        newest.checked_add(1).map(U32::new).ok_or(counter)
    }

    /// Data blocks come back from a mount that is gone.
    pub(super) fn take_back_data(&mut self, extent: Extent) -> Result<(), ServerError> {
        let fence = self.fences().unconfirmed;
        if fence.get() == 0 {
            return self.free.add(SpaceKind::Data, extent, &mut self.changes);
        }
        self.free.check(SpaceKind::Data, extent)?;
        let item = QuarantineItem { len: U64::new(extent.len), fence, ..QuarantineItem::default() };
        self.changes.put(Key::quarantine(SPACE_DATA, extent.start), &item)?;
        self.fenced_data.load(fence.get(), extent)
    }

    /// The first data blocks in quarantine that nobody writes any more.
    fn releasable(&self) -> Option<((u32, u64), u64)> {
        let (&at, &len) = self.fenced_data.extents.first_key_value()?;
        let is_open = self.unconfirmed_fences().any(|fence| fence <= at.0);
        (!is_open).then_some((at, len))
    }

    /// Whether [`release_fenced_data`](Self::release_fenced_data) has something to do.
    pub(super) fn can_release(&self) -> bool {
        self.releasable().is_some()
    }

    /// Makes a bounded part of what nobody writes any more free.
    pub(super) fn release_fenced_data(&mut self) -> Result<(), ServerError> {
        for _ in 0..STEP_EXTENTS {
            let Some((at, len)) = self.releasable() else { break };
            self.changes.delete(Key::quarantine(SPACE_DATA, at.1))?;
            self.free.add(SpaceKind::Data, Extent::new(at.1, len), &mut self.changes)?;
            self.fenced_data.extents.remove(&at);
        }
        self.commit_if_large()
    }
}
