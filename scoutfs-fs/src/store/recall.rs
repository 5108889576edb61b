// SPDX-License-Identifier: GPL-2.0-only
//! Giving back space that this mount does not use: because another lacks it, or by itself when it has far too much.
//!
//! # Who keeps what
//!
//! - Metadata blocks that the next checkpoints may need, the reserve, and what merging what is not merged may take, are used: they
//!   stay.
//! - Of data blocks none stay, but half of them where somebody here waits for some: two mounts that take from each other both
//!   go on, and what is left gets less with each step of either. Metadata go, above what stays, to the mount with the lowest slot
//!   that waits, for there half of what an operation needs is of no use.
//! - What is freed and not committed is committed first.
//!
//! A mount on which nothing changes gives back by itself what is above four pieces of the size in which it gets space, down to
//! two. It asks for more when it has half a piece: what is written and deleted again and again makes nothing go back and
//! forth.

use core::sync::atomic::{AtomicU32, Ordering};

use scoutfs_btree::space::SpaceKind;
use scoutfs_format::msg::{SpaceRecall, SpaceRecalled};

use super::Store;
use super::commit::Wish;
use crate::error::Result;

/// Pieces above which a mount that does nothing gives back, and those that it keeps then.
const TOO_MANY_PIECES: u64 = 4;
const KEPT_PIECES: u64 = 2;
/// Gifts, of the longest runs each, in which space goes back. In more pieces it is of little use to others, and takes long.
const MAX_GIFTS: u32 = 4;

/// Somebody waits for space of a kind as long as this lives.
pub(super) struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    pub fn new(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Store {
    /// Whether an operation of this mount waits for space of a kind.
    fn is_waited_for(&self, kind: SpaceKind) -> bool {
        self.numbers.waiting[kind as usize].load(Ordering::Acquire) > 0
    }

    fn free_blocks(&self, kind: SpaceKind) -> u64 {
        self.space.lock().free_blocks(kind)
    }

    /// Another mount lacks space: gives the server what is not used, and gives the answer. For the worker.
    ///
    /// `unset` gives back what is set aside for files that grow. `deletes`: there will be more in a moment, as inodes may be about to be
    /// deleted here.
    pub(crate) fn give_recalled(
        &self,
        recall: &SpaceRecall,
        deletes: bool,
        unset: impl FnOnce(),
    ) -> Result<SpaceRecalled> {
        let kind = u8::try_from(recall.kind.get()).ok().and_then(SpaceKind::from_raw);
        let mut kept = false;
        if let Some(kind) = kind {
            let all = recall.all.get() != 0;
            if all || kind == SpaceKind::Data {
                unset();
            }
            let pending = self.space.lock().pending_blocks(kind) > 0;
            if all || pending {
                self.commit(Wish { finalize: all, ..Wish::default() })?;
            }
            let keep = self.kept_of(kind, recall.slot.get());
            self.give_unused(kind, recall.blocks.get(), keep)?;
            if all {
                let other = match kind {
                    SpaceKind::Meta => SpaceKind::Data,
                    SpaceKind::Data => SpaceKind::Meta,
                };
                self.give_unused(other, u64::MAX, self.kept_of(other, u32::MAX))?;
                // Of log trees that were finalized.
                self.tell_server()?;
            }
            kept = deletes || self.is_waited_for(kind) && self.free_blocks(kind) > self.used_of(kind);
        }
        Ok(SpaceRecalled { round: recall.round, kind: recall.kind, kept: u32::from(kept).into() })
    }

    /// Blocks of a kind without which this mount cannot go on.
    fn used_of(&self, kind: SpaceKind) -> u64 {
        match kind {
            SpaceKind::Meta => self.meta_want(0, false),
            SpaceKind::Data => 0,
        }
    }

    /// Free blocks of a kind that stay when others lack some, of which the one with the lowest slot has this one.
    fn kept_of(&self, kind: SpaceKind, slot: u32) -> u64 {
        let used = self.used_of(kind);
        if !self.is_waited_for(kind) {
            return used;
        }
        match kind {
            SpaceKind::Data => self.free_blocks(kind).div_ceil(2),
            SpaceKind::Meta if slot < self.identity.slot => used,
            SpaceKind::Meta => u64::MAX,
        }
    }

    /// Gives up to `count` free blocks of a kind, and keeps `keep`. The server has them then.
    fn give_unused(&self, kind: SpaceKind, count: u64, keep: u64) -> Result<()> {
        let mut left = count.min(self.free_blocks(kind).saturating_sub(keep));
        for _ in 0..MAX_GIFTS {
            let before = self.free_blocks(kind);
            if left == 0 || !self.give(kind, left, keep)? {
                break;
            }
            left = left.saturating_sub(before.saturating_sub(self.free_blocks(kind)));
            self.commit(Wish::default())?;
            self.tell_server()?;
        }
        Ok(())
    }

    /// Nothing changes here: gives back what is far more than this mount uses. For the worker.
    pub(crate) fn give_back_unused(&self) -> Result<()> {
        for kind in SpaceKind::ALL {
            if self.is_waited_for(kind) {
                continue;
            }
            let base = match kind {
                SpaceKind::Meta => self.meta_ahead(0, false),
                SpaceKind::Data => 0,
            };
            let pieces = |count: u64| base.saturating_add(count.saturating_mul(self.space_chunk(kind)));
            if self.free_blocks(kind) > pieces(TOO_MANY_PIECES) {
                self.give_unused(kind, u64::MAX, pieces(KEPT_PIECES))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
