// SPDX-License-Identifier: GPL-2.0-only
//! What a mount does before it says that the volume is full.
//!
//! [`Error::NoSpace`] is true. In this order:
//!
//! 1. The server is asked.
//! 2. What is set aside here for files that grow is taken. The server is asked again, as somebody who cannot go on without: other
//!    mounts give back what they do not use (see `recall`).
//! 3. What is left is in log trees, and in the merged tree under deletions: all that is not merged is given to be merged, with
//!    the metadata blocks that the server lacks for it. Data gain by that as well: a zone that gets free can become theirs.
//! 4. When that is done and gave nothing, the mount gives back what it has of the other kind: data blocks to the last one,
//!    metadata blocks but for what it must be able to write. That comes last, since zones are few on a small volume, and
//!    one that has become metadata is data again only when nothing is left in it.

use core::sync::atomic::Ordering;
use core::time::Duration;

use scoutfs_btree::space::budget::{DELETE_BYTES, DELETE_TRANS_BYTES, merge_growth, trans_blocks};
use scoutfs_btree::space::{SpaceError, SpaceExtent, SpaceKind};
use scoutfs_env::{Vec, thread, time};
use scoutfs_format::msg::{MSG_STATFS, SPACE_AHEAD, SPACE_NEEDED, SPACE_STILL_NEEDED, StatfsReply};

use super::commit::Wish;
use super::recall::Waiting;
use super::supply::{Supplied, parse};
use super::{DataRun, Store};
use crate::error::{Error, Result};

/// How often to look whether merges give space back before the volume counts as full, when none goes on.
const FULL_ATTEMPTS: u32 = 400;
/// And when they do: whoever waits that long is told that it is full, though others may go on to write and delete.
const LONGEST_FULL: u32 = 10 * FULL_ATTEMPTS;
/// Between two looks.
const FULL_PAUSE: Duration = Duration::from_millis(25);
/// How often, and in which intervals, to look whether others have given something before merges are looked after.
const RECALL_LOOKS: u32 = 10;
const RECALL_PAUSE: Duration = Duration::from_millis(2);
/// Metadata blocks that the mount keeps besides what its checkpoint needs when the server has none to merge with.
const FEED_KEEP: u64 = 16;
/// An operation gives back what the mount has of the other kind no more often: whole zones are in the first of such gifts.
const MAX_CONVERSIONS: u32 = 8;
/// Bytes of items, more than a write of one extent makes.
const SMALL_CHANGE: usize = 64 << 10;
/// Most extents that are given back at once.
const GIVE_EXTENTS: usize = 64;

/// How long somebody waits on a volume that looks full: as long as merges go on, however slow they are, and a while without.
#[derive(Default)]
struct Patience {
    /// Looks since a merge went on.
    idle: u32,
    looks: u32,
    /// What the server has done when it was looked last.
    pieces: u64,
}

impl Patience {
    /// Waits a moment. False when there was enough of that.
    fn wait(&mut self, pieces: u64) -> bool {
        if self.pieces != pieces {
            self.idle = 0;
        }
        self.pieces = pieces;
        if self.idle == FULL_ATTEMPTS || self.looks == LONGEST_FULL {
            return false;
        }
        self.idle += 1;
        self.looks += 1;
        time::sleep(FULL_PAUSE);
        true
    }
}

/// How far an operation has come that needs space.
#[derive(Default)]
struct Search<'a> {
    /// It has told the server that it cannot go on.
    waiting: Option<Waiting<'a>>,
    /// Looks whether others have given something.
    looks: u32,
    patience: Patience,
    /// All logs were given to be merged.
    all_given: bool,
    /// How often the mount gave back what it has of the other kind.
    conversions: u32,
}

impl Store {
    /// Metadata blocks that the next checkpoint may need, with `bytes` more of items.
    fn meta_need(&self, bytes: usize) -> u64 {
        self.trans_need(self.tuning.max_trans_bytes, bytes)
    }

    /// The same, were no transaction larger than `trans_bytes`.
    fn trans_need(&self, trans_bytes: usize, bytes: usize) -> u64 {
        let extents = self.space.lock().list_entries();
        let open = trans_blocks(trans_bytes, bytes, extents);
        self.checkpoint_need.load(Ordering::Relaxed).saturating_add(open)
    }

    /// Metadata blocks with which a step of a deletion surely gets to disk, when no transaction is large.
    fn delete_need(&self, bytes: usize) -> u64 {
        self.trans_need(DELETE_TRANS_BYTES, bytes)
    }

    /// Metadata blocks that must be free before `bytes` more of items are written. Who is not privileged leaves the reserve
    /// alone, and what merging all that is not merged, and what is owed, may cost: the mount gives it to the server when that has no more.
    pub(super) fn meta_want(&self, bytes: usize, privileged: bool) -> u64 {
        let need = self.meta_need(bytes);
        if privileged {
            return need.min(self.delete_need(bytes));
        }
        let unmerged = self.unmerged_bytes.load(Ordering::Relaxed);
        let open = (2 * self.tuning.max_trans_bytes).saturating_add(bytes) as u64;
        let delete = self.delete_need(DELETE_BYTES);
        let reserve = self.space.lock().reserve_blocks().max(delete);
        let later = unmerged.saturating_add(open).saturating_add(self.owed.bytes());
        need.saturating_add(reserve).saturating_add(merge_growth(later))
    }

    /// Metadata blocks below which the worker gets more, so that nobody has to wait for them.
    pub(super) fn meta_ahead(&self, bytes: usize, privileged: bool) -> u64 {
        let need = self.meta_need(bytes);
        self.meta_want(bytes, privileged).max(need).saturating_add(need / 2)
    }

    /// Whether a small change finds its metadata blocks without waiting, and surely.
    pub(crate) fn has_room(&self) -> bool {
        let want = self.meta_want(SMALL_CHANGE, false);
        self.space.lock().free_blocks(SpaceKind::Meta) >= want
    }

    /// Waits until the next checkpoint surely has its metadata blocks. The privileged may use the reserve. Gives the bytes of items
    /// up to which that is so in each transaction. [`Error::NoSpace`] when there are none anywhere; see the module.
    pub(super) fn ensure_meta(&self, bytes: usize, privileged: bool) -> Result<usize> {
        let mut search = Search::default();
        loop {
            let want = self.meta_want(bytes, privileged);
            let ahead = self.meta_ahead(bytes, privileged);
            let (free, pending) = {
                let space = self.space.lock();
                (space.free_blocks(SpaceKind::Meta), space.pending_blocks(SpaceKind::Meta))
            };
            if free >= want {
                if free < ahead {
                    self.numbers.note_low(SpaceKind::Meta);
                }
                let max = self.tuning.max_trans_bytes;
                let plenty = !privileged || free >= self.meta_need(bytes);
                return Ok(if plenty { max } else { max.min(DELETE_TRANS_BYTES) });
            }
            if free + pending >= want && pending > 0 {
                self.commit(Wish::default())?;
                continue;
            }
            let blocks = ahead.saturating_sub(free + pending);
            self.get_space(SpaceKind::Meta, blocks, privileged, &mut search, &|| ())?;
        }
    }

    /// Takes free data blocks in memory only: a run of 1 to `want_blocks`, near `near` if possible. Waits for the server when
    /// there are none; [`Error::NoSpace`] when there are none anywhere. `unset` gives back what is set aside in memory: it is called
    /// before others are asked for what they have.
    pub fn reserve_data(&self, want_blocks: u64, near: Option<u64>, unset: &dyn Fn()) -> Result<DataRun> {
        let mut search = Search::default();
        loop {
            self.trans.check()?;
            if let Some(run) = self.space.reserve_data(want_blocks.max(1), near)? {
                let free = self.space.lock().free_blocks(SpaceKind::Data);
                if free < self.space_chunk(SpaceKind::Data) / 2 {
                    self.numbers.note_low(SpaceKind::Data);
                }
                return Ok(run);
            }
            if self.space.lock().pending_blocks(SpaceKind::Data) > 0 {
                self.commit(Wish::default())?;
                continue;
            }
            self.get_space(SpaceKind::Data, want_blocks, false, &mut search, unset)?;
        }
    }

    /// One attempt to get blocks, after which the caller looks whether it has what it needs. [`Error::NoSpace`] when there is
    /// nothing left to try.
    fn get_space<'a>(
        &'a self,
        kind: SpaceKind,
        blocks: u64,
        privileged: bool,
        search: &mut Search<'a>,
        unset: &dyn Fn(),
    ) -> Result<()> {
        // Read first: what is written while the server looks is not known to be merged.
        let nothing_unmerged = self.unmerged_bytes.load(Ordering::Relaxed) == 0;
        let need = match search.waiting {
            Some(_) => SPACE_STILL_NEEDED,
            // Often it has some, and nobody need be asked.
            None if self.request_space_for(SPACE_AHEAD, kind, blocks)? == Supplied::Some => {
                self.commit(Wish::default())?;
                return Ok(());
            }
            None => {
                search.waiting = Some(Waiting::new(&self.numbers.waiting[kind as usize]));
                unset();
                if kind == SpaceKind::Data && self.space.lock().free_blocks(kind) > 0 {
                    search.waiting = None;
                    return Ok(());
                }
                SPACE_NEEDED
            }
        };
        let none = match self.request_space_for(need, kind, blocks)? {
            Supplied::Some => {
                self.commit(Wish::default())?;
                return Ok(());
            }
            Supplied::Later if search.looks < RECALL_LOOKS => {
                search.looks += 1;
                time::sleep(RECALL_PAUSE);
                return Ok(());
            }
            Supplied::Later => false,
            Supplied::None => true,
        };
        let mut done = none && search.all_given && nothing_unmerged;
        if !done {
            self.commit(Wish { finalize: true, ..Wish::default() })?;
            let pieces = self.feed_merges(privileged)?;
            self.tell_server()?;
            search.all_given = true;
            if thread::is_killed() {
                return Err(Error::Interrupted);
            }
            done = !search.patience.wait(pieces);
        }
        if !done {
            return Ok(());
        }
        if search.conversions == MAX_CONVERSIONS || !self.convert_to(kind)? {
            return Err(Error::NoSpace);
        }
        search.conversions += 1;
        Ok(())
    }

    /// Gives the server what this mount has of the other kind, the longest runs first, for zones that get empty to become this
    /// one. False when there is nothing to give.
    fn convert_to(&self, kind: SpaceKind) -> Result<bool> {
        match kind {
            SpaceKind::Meta => self.give_back(SpaceKind::Data, 0),
            SpaceKind::Data => {
                let server: StatfsReply = parse(&self.client.request(MSG_STATFS, &[])?)?;
                // What must be kept is better kept in zones that hold something: such blocks are all that the server
                // gives when no zone is empty, and what is given for them is in the longest runs.
                if server.free_zones.get() == 0
                    && server.free_meta.get() > 0
                    && self.request_space(SpaceKind::Meta, server.free_meta.get())? == Supplied::Some
                {
                    self.commit(Wish::default())?;
                }
                self.give_back(SpaceKind::Meta, self.meta_want(0, false))
            }
        }
    }

    /// Gives the server the metadata blocks that it lacks for merging, as far as this mount can spare them. The privileged
    /// can spare all but what the next checkpoint takes. Tells how far the server has come.
    fn feed_merges(&self, privileged: bool) -> Result<u64> {
        let reply: StatfsReply = parse(&self.client.request(MSG_STATFS, &[])?)?;
        let (lacking, pieces) = (reply.lacking_meta.get(), reply.pieces.get());
        if lacking == 0 {
            return Ok(pieces);
        }
        let keep = if privileged {
            self.checkpoint_need.load(Ordering::Relaxed).saturating_add(FEED_KEEP)
        } else {
            let reserve = self.space.lock().reserve_blocks();
            let owed = merge_growth(self.owed.bytes());
            self.meta_need(0).saturating_add(reserve).saturating_add(owed)
        };
        if self.give(SpaceKind::Meta, lacking, keep)? {
            self.commit(Wish::default())?;
        }
        Ok(pieces)
    }

    /// Gives up to `count` free blocks to the server with the open transaction, in the longest runs, and keeps `keep`. False
    /// when there are none to give.
    pub(super) fn give(&self, kind: SpaceKind, count: u64, keep: u64) -> Result<bool> {
        let mut extents = Vec::with_capacity(GIVE_EXTENTS)?;
        let mut space = self.space.lock();
        let mut left = space.free_blocks(kind).saturating_sub(keep).min(count);
        while left > 0 && extents.len() < GIVE_EXTENTS {
            match space.alloc_to_give(kind, left.min(u32::MAX.into()), true) {
                Ok(extent) => {
                    left -= extent.len;
                    extents.push(SpaceExtent::new(kind, extent.start, extent.len))?;
                }
                Err(SpaceError::NoSpace { .. }) => break,
                Err(e) => return Err(e.into()),
            }
        }
        if extents.is_empty() {
            return Ok(false);
        }
        if let Err(e) = space.give(&extents) {
            for &blocks in &extents {
                space.release_held(blocks)?;
            }
            return Err(e.into());
        }
        Ok(true)
    }

    /// Gives free blocks of a kind back to the server, all but `keep`. False when there are none to give.
    pub(crate) fn give_back(&self, kind: SpaceKind, keep: u64) -> Result<bool> {
        let gave = self.give(kind, u64::MAX, keep)?;
        if gave {
            self.commit(Wish::default())?;
            self.tell_server()?;
        }
        Ok(gave)
    }
}
