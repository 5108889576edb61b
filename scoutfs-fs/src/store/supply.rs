// SPDX-License-Identifier: GPL-2.0-only
//! Getting space, seqs and inode numbers from the server, ahead of need where possible.
//!
//! Hand-overs of space are taken strictly in order, and what was given back may come again, so one request or gift is under way
//! at a time (`supply` lock). What was taken can be used after the next commit, which names the hand-over.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;

use scoutfs_btree::space::{SpaceError, SpaceExtent, SpaceKind};
use scoutfs_env::Vec;
use scoutfs_env::fault::{Fault, planted};
use scoutfs_env::sync::Mutex;
use scoutfs_env::time::{self, Mono};
use scoutfs_format::le::{U32, U64};
use scoutfs_format::msg::{
    HandOverHeader, HandOverTaken, InosReply, MSG_INOS, MSG_RENEW, MSG_SEQ, MSG_SPACE, MSG_SPACE_GIVE,
    MSG_SPACE_TAKEN, MSG_STATFS, RenewReply, SeqReply, SeqRequest, SpaceRequest, StatfsReply,
};
use scoutfs_format::server_item::HandOverExtent;
use zerocopy::{FromBytes, IntoBytes};

use super::commit::Wish;
use super::slot::{checkpoint_blocks, merge_growth};
use super::{DataRun, Store};
use crate::error::{Error, Result};

/// How often to look whether merges give space back before the volume counts as full, when none goes on.
const FULL_ATTEMPTS: u32 = 400;
/// And when they do: whoever waits that long is told that it is full, though others may go on to write and delete.
const LONGEST_FULL: u32 = 10 * FULL_ATTEMPTS;
/// Between two looks.
const FULL_PAUSE: Duration = Duration::from_millis(25);
/// Metadata blocks that the mount keeps besides what its checkpoint needs when the server has none to merge with.
const FEED_KEEP: u64 = 8;
/// Most extents that are given back at once.
const GIVE_EXTENTS: usize = 64;

/// What was fetched ahead, and what the worker must tell the server.
pub(crate) struct Numbers {
    next_seq: Mutex<Option<u64>>,
    /// Inode numbers: those of directories, and all others.
    inos: [Mutex<Batch>; 2],
    /// One request for, or gift of, space at a time, and who counts what both have. An answer that could not be taken for want of
    /// memory waits here: it has a number, and no later one can be taken before it.
    supply: Mutex<Option<Vec<u8>>>,
    /// Hand-overs up to this number are durably taken, and the server was told.
    taken: AtomicU64,
    told_taken: AtomicU64,
    /// A log tree was finalized and the server was not told.
    finalized: AtomicBool,
    /// More space of the kind should be asked for.
    low: [AtomicBool; 2],
    /// End of the lease, in nanoseconds of the monotonic clock.
    lease_end: AtomicU64,
    lease_ms: u64,
}

#[derive(Clone, Copy, Default)]
struct Batch {
    next: u64,
    left: u64,
}

/// What the server had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Supplied {
    /// Some, which can be used after a commit.
    Some,
    /// Nothing now, but it is taking space back.
    Later,
    /// Nothing.
    None,
}

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
    /// Waits a moment. [`Error::NoSpace`] when there was enough of that.
    fn wait(&mut self, pieces: u64) -> Result<()> {
        if self.pieces != pieces {
            self.idle = 0;
        }
        self.pieces = pieces;
        if self.idle == FULL_ATTEMPTS || self.looks == LONGEST_FULL {
            return Err(Error::NoSpace);
        }
        self.idle += 1;
        self.looks += 1;
        time::sleep(FULL_PAUSE);
        Ok(())
    }
}

/// Space and inodes of the volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatFs {
    /// Metadata blocks of 64 KiB, in zones of that kind.
    pub total_meta: u64,
    /// Of them free.
    pub free_meta: u64,
    /// Kept for commits and deletes.
    pub reserved_meta: u64,
    /// Data blocks of 4 KiB, in zones of that kind.
    pub total_data: u64,
    /// Of them free.
    pub free_data: u64,
    /// Of the free ones, those that the server holds.
    pub server_free_meta: u64,
    /// Of the free ones, those that the server holds.
    pub server_free_data: u64,
    /// Blocks of 4 KiB in zones that have no kind yet.
    pub unassigned: u64,
    /// Inodes.
    pub inodes: u64,
}

impl Numbers {
    pub fn new(taken: u64, lease_ms: u64, now: Mono) -> Self {
        Numbers {
            next_seq: Mutex::new(None),
            inos: [Mutex::new(Batch::default()), Mutex::new(Batch::default())],
            supply: Mutex::new(None),
            taken: AtomicU64::new(taken),
            told_taken: AtomicU64::new(taken),
            finalized: AtomicBool::new(false),
            low: [AtomicBool::new(true), AtomicBool::new(true)],
            lease_end: AtomicU64::new(now.saturating_add(Duration::from_millis(lease_ms)).as_ns()),
            lease_ms,
        }
    }

    /// How long a lease is.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// What is left of the lease.
    pub fn lease_left(&self, now: Mono) -> Duration {
        Duration::from_nanos(self.lease_end.load(Ordering::Acquire).saturating_sub(now.as_ns()))
    }

    /// A prefetched seq that is too low is thrown away.
    pub fn drop_seq_below(&self, seq: u64) {
        let mut next = self.next_seq.lock();
        if next.is_some_and(|n| n < seq) {
            *next = None;
        }
    }

    /// A commit made hand-overs up to `taken` durable, and perhaps finalized a log tree.
    pub fn note_committed(&self, taken: u64, finalized: bool) {
        self.taken.fetch_max(taken, Ordering::AcqRel);
        if finalized {
            self.finalized.store(true, Ordering::Release);
        }
    }
}

fn parse<T: FromBytes>(payload: &[u8]) -> Result<T> {
    T::read_from_bytes(payload).map_err(|_| Error::Shutdown("an answer of the server has a wrong length"))
}

impl Store {
    /// A seq from the server.
    pub(super) fn fetch_seq(&self) -> Result<u64> {
        let request = SeqRequest { closed_below: U64::new(self.trans.seq()) };
        let reply: SeqReply = parse(&self.client.request(MSG_SEQ, request.as_bytes())?)?;
        Ok(reply.seq.get())
    }

    /// The seq of the next transaction: the one that was fetched ahead if it still is good.
    pub(super) fn next_seq(&self) -> Result<u64> {
        if let Some(seq) = self.numbers.next_seq.lock().take()
            && self.trans.accepts(seq)
        {
            return Ok(seq);
        }
        self.fetch_seq()
    }

    /// The next seq was fetched and not used.
    pub(super) fn keep_seq(&self, seq: u64) {
        self.numbers.next_seq.lock().get_or_insert(seq);
    }

    /// Fetches the next seq ahead, when the mount is busy.
    pub(crate) fn prefetch_seq(&self) -> Result<()> {
        if !self.trans.used() || self.numbers.next_seq.lock().is_some() {
            return Ok(());
        }
        let seq = self.fetch_seq()?;
        *self.numbers.next_seq.lock() = Some(seq);
        Ok(())
    }

    /// A never used inode number. Directories and other files draw from batches of their own. May ask the
    /// server: call it before locking.
    pub fn new_ino(&self, directory: bool) -> Result<u64> {
        let mut batch = self.numbers.inos[usize::from(directory)].lock();
        if batch.left == 0 {
            let reply: InosReply = parse(&self.client.request(MSG_INOS, &[])?)?;
            *batch = Batch { next: reply.first.get(), left: reply.count.get() };
        }
        let ino = batch.next;
        batch.next += 1;
        batch.left = batch.left.checked_sub(1).ok_or(Error::NoSpace)?;
        Ok(ino)
    }

    /// Metadata blocks that the next checkpoint may need, with `bytes` more of items.
    fn meta_need(&self, bytes: usize) -> u64 {
        // The transaction is bounded; two of them can be on their way.
        let open = (2 * self.tuning.max_trans_bytes).saturating_add(bytes) as u64;
        self.checkpoint_need.load(Ordering::Relaxed).saturating_add(checkpoint_blocks(open))
    }

    /// Metadata blocks that must be free before `bytes` more of items are written. Who is not privileged leaves the reserve
    /// alone, and what merging all that is not merged may cost: the mount gives it to the server when that has no more.
    fn meta_want(&self, bytes: usize, privileged: bool) -> u64 {
        let need = self.meta_need(bytes);
        if privileged {
            return need;
        }
        let unmerged = self.unmerged_bytes.load(Ordering::Relaxed);
        let open = (2 * self.tuning.max_trans_bytes).saturating_add(bytes) as u64;
        let reserve = self.space.lock().reserve_blocks();
        need.saturating_add(reserve).saturating_add(merge_growth(unmerged.saturating_add(open)))
    }

    /// Metadata blocks below which the worker gets more, so that nobody has to wait for them.
    fn meta_ahead(&self, bytes: usize, privileged: bool) -> u64 {
        self.meta_want(bytes, privileged).saturating_add(self.meta_need(bytes) / 2)
    }

    /// Waits until the next checkpoint surely has its metadata blocks. The privileged may use the reserve.
    ///
    /// When the server has none, what is left is in log trees, and in the merged tree under deletions: all that is
    /// not merged is given to be merged, and [`Error::NoSpace`] is true only when that is done and gave nothing.
    pub(super) fn ensure_meta(&self, bytes: usize, privileged: bool) -> Result<()> {
        let mut patience = Patience::default();
        let mut all_given = false;
        loop {
            let want = self.meta_want(bytes, privileged);
            let ahead = self.meta_ahead(bytes, privileged);
            let (free, pending) = {
                let space = self.space.lock();
                (space.free_blocks(SpaceKind::Meta), space.pending_blocks(SpaceKind::Meta))
            };
            if free >= want {
                if free < ahead {
                    self.numbers.low[SpaceKind::Meta as usize].store(true, Ordering::Relaxed);
                }
                return Ok(());
            }
            if free + pending >= want && pending > 0 {
                self.commit(Wish::default())?;
                continue;
            }
            let nothing_unmerged = self.unmerged_bytes.load(Ordering::Relaxed) == 0;
            match self.request_space(SpaceKind::Meta, ahead.saturating_sub(free + pending))? {
                Supplied::Some => {
                    self.commit(Wish::default())?;
                    continue;
                }
                Supplied::None if all_given && nothing_unmerged => return Err(Error::NoSpace),
                Supplied::None | Supplied::Later => {}
            }
            self.commit(Wish { finalize: true, ..Wish::default() })?;
            let pieces = self.feed_merges(privileged)?;
            self.tell_server()?;
            all_given = true;
            patience.wait(pieces)?;
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
            self.meta_need(0).saturating_add(reserve)
        };
        if self.give(SpaceKind::Meta, lacking, keep)? {
            self.commit(Wish::default())?;
        }
        Ok(pieces)
    }

    /// Gives up to `count` free blocks to the server with the open transaction, in the longest runs, and keeps `keep`. False
    /// when there are none to give.
    fn give(&self, kind: SpaceKind, count: u64, keep: u64) -> Result<bool> {
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

    /// Takes free data blocks in memory only: a run of 1 to `want_blocks`, near `near` if possible. Waits for the server when
    /// there are none; [`Error::NoSpace`] when there are none anywhere.
    pub fn reserve_data(&self, want_blocks: u64, near: Option<u64>) -> Result<DataRun> {
        let mut patience = Patience::default();
        loop {
            self.trans.check()?;
            if let Some(run) = self.space.reserve_data(want_blocks.max(1), near)? {
                let free = self.space.lock().free_blocks(SpaceKind::Data);
                if free < self.space_chunk(SpaceKind::Data) / 2 {
                    self.numbers.low[SpaceKind::Data as usize].store(true, Ordering::Relaxed);
                }
                return Ok(run);
            }
            if self.space.lock().pending_blocks(SpaceKind::Data) > 0 {
                self.commit(Wish::default())?;
                continue;
            }
            let supplied = self.request_space(SpaceKind::Data, want_blocks)?;
            if supplied == Supplied::Some {
                self.commit(Wish::default())?;
                continue;
            }
            // Metadata blocks that are not needed can become data.
            let given = supplied == Supplied::None && self.give_back(SpaceKind::Meta)?;
            if supplied == Supplied::None && !given {
                return Err(Error::NoSpace);
            }
            let reply: StatfsReply = parse(&self.client.request(MSG_STATFS, &[])?)?;
            patience.wait(reply.pieces.get())?;
        }
    }

    /// Blocks to ask for at once.
    fn space_chunk(&self, kind: SpaceKind) -> u64 {
        let bytes = (self.geometry().volume_bytes() / 64).clamp(1 << 20, 1 << 30);
        match kind {
            SpaceKind::Meta => bytes / scoutfs_format::BLOCK_SIZE as u64,
            SpaceKind::Data => bytes / scoutfs_format::SECTOR_SIZE as u64,
        }
    }

    /// Asks the server for space. What came can be used after a commit.
    pub(crate) fn request_space(&self, kind: SpaceKind, blocks: u64) -> Result<Supplied> {
        self.request_space_in_turn(kind, blocks, &mut self.numbers.supply.lock())
    }

    fn request_space_in_turn(
        &self,
        kind: SpaceKind,
        blocks: u64,
        untaken: &mut Option<Vec<u8>>,
    ) -> Result<Supplied> {
        if let Some(payload) = &*untaken {
            let supplied = self.take_space(payload)?;
            *untaken = None;
            return Ok(supplied);
        }
        let request = SpaceRequest {
            blocks: U64::new(blocks.max(self.space_chunk(kind))),
            kind: U32::new(kind.to_raw().into()),
            pad: U32::ZERO,
        };
        let payload = match self.client.try_request(MSG_SPACE, request.as_bytes()) {
            Ok(Some(payload)) => payload,
            Ok(None) => return Ok(Supplied::Later),
            Err(Error::NoSpace) => return Ok(Supplied::None),
            Err(e) => return Err(e),
        };
        let supplied = self.take_space(&payload);
        if matches!(supplied, Err(Error::NoMemory)) {
            *untaken = Some(payload);
        }
        supplied
    }

    /// Takes what the server handed over, all of it or nothing.
    fn take_space(&self, payload: &[u8]) -> Result<Supplied> {
        let bad = Error::Shutdown("a hand-over of the server makes no sense");
        let (header, rest) = HandOverHeader::read_from_prefix(payload).map_err(|_| bad.clone())?;
        if header.nr_extents.get() == 0 {
            return Ok(Supplied::None);
        }
        let given = <[HandOverExtent]>::ref_from_bytes(rest).map_err(|_| bad.clone())?;
        if given.len() != header.nr_extents.get() as usize {
            return Err(bad);
        }
        let mut extents = Vec::with_capacity(given.len())?;
        for e in given {
            let kind = SpaceKind::from_raw(e.kind).ok_or_else(|| bad.clone())?;
            extents.push(SpaceExtent::new(kind, e.start.get(), e.len.get().into()))?;
        }
        self.space.lock().take(header.number.get(), &extents)?;
        Ok(Supplied::Some)
    }

    /// Gives free blocks of a kind back to the server, all but what is needed soon. False when there are none to give.
    pub(crate) fn give_back(&self, kind: SpaceKind) -> Result<bool> {
        let keep = match kind {
            SpaceKind::Meta => self.meta_want(0, false),
            SpaceKind::Data => self.space_chunk(kind),
        };
        let gave = self.give(kind, u64::MAX, keep)?;
        if gave {
            self.commit(Wish::default())?;
            self.tell_server()?;
        }
        Ok(gave)
    }

    /// Tells the server what is durable: hand-overs that were taken and given, finalized log trees.
    pub(crate) fn tell_server(&self) -> Result<()> {
        let commit_nr = self.commit_nr.load(Ordering::Acquire);
        let taken = self.numbers.taken.load(Ordering::Acquire);
        if taken > self.numbers.told_taken.load(Ordering::Acquire) {
            let message = HandOverTaken { number: U64::new(taken), commit_nr: U64::new(commit_nr) };
            self.client.request(MSG_SPACE_TAKEN, message.as_bytes())?;
            self.numbers.told_taken.fetch_max(taken, Ordering::AcqRel);
        }
        // The server may hand out at once what it was given: no hand-over is taken before that is forgotten here.
        let one = self.numbers.supply.lock();
        loop {
            let mut payload = Vec::new();
            if let Some((number, extents)) = self.space.lock().given().next() {
                let header = HandOverHeader {
                    number: U64::new(number),
                    nr_extents: U32::new(extents.len() as u32),
                    pad: U32::ZERO,
                };
                payload.extend_from_slice(header.as_bytes())?;
                for e in extents {
                    let extent = HandOverExtent {
                        start: U64::new(e.extent.start),
                        len: U32::new(e.extent.len as u32),
                        kind: e.kind.to_raw(),
                        pad: [0; 3],
                    };
                    payload.extend_from_slice(extent.as_bytes())?;
                }
            }
            if payload.is_empty() {
                break;
            }
            let reply: HandOverTaken = parse(&self.client.request(MSG_SPACE_GIVE, &payload)?)?;
            self.space.lock().forget_given(reply.number.get())?;
        }
        drop(one);
        if self.numbers.finalized.swap(false, Ordering::AcqRel)
            && let Err(e) = self.tell_finalized(commit_nr)
        {
            self.numbers.finalized.store(true, Ordering::Release);
            return Err(e);
        }
        Ok(())
    }

    fn tell_finalized(&self, commit_nr: u64) -> Result<()> {
        use scoutfs_format::msg::{CommitNumber, MSG_FINALIZED};
        let message = CommitNumber {
            slot: U32::new(self.identity.slot),
            pad: U32::ZERO,
            epoch: U64::new(self.identity.epoch),
            commit_nr: U64::new(commit_nr),
        };
        self.client.request(MSG_FINALIZED, message.as_bytes()).map(|_| ())
    }

    /// Gets what is low, ahead of need. For the worker.
    pub(crate) fn refill(&self) -> Result<()> {
        let mut got = false;
        for kind in SpaceKind::ALL {
            if self.numbers.low[kind as usize].swap(false, Ordering::Relaxed) {
                let enough = match kind {
                    SpaceKind::Meta => self.meta_ahead(0, false),
                    SpaceKind::Data => self.space_chunk(kind) / 2,
                };
                let (free, pending) = {
                    let space = self.space.lock();
                    (space.free_blocks(kind), space.pending_blocks(kind))
                };
                if free + pending < enough {
                    got |= self.request_space(kind, enough - free - pending)? == Supplied::Some;
                }
            }
        }
        if got {
            self.commit(Wish::default())?;
        }
        self.tell_server()
    }

    /// Asks for the lease to go on. It runs from when this was sent.
    pub(crate) fn renew(&self) -> Result<()> {
        let sent = time::mono_now();
        let reply: RenewReply = parse(&self.client.request(MSG_RENEW, &[])?)?;
        if reply.epoch.get() != self.identity.epoch {
            return Err(Error::Shutdown("the mount was fenced"));
        }
        let end = sent.saturating_add(Duration::from_millis(self.numbers.lease_ms)).as_ns();
        self.numbers.lease_end.fetch_max(end, Ordering::AcqRel);
        Ok(())
    }

    /// Fails when the lease has ended and the leader does not confirm that this mount's epoch still stands. Waits for the leader
    /// then.
    pub(super) fn check_lease(&self) -> Result<()> {
        if planted(Fault::IgnoreLease) {
            return Ok(());
        }
        if time::mono_now().as_ns() < self.numbers.lease_end.load(Ordering::Acquire) {
            return Ok(());
        }
        self.renew()
    }

    /// Space and inodes of the volume.
    pub fn statfs(&self) -> Result<StatFs> {
        // Blocks that move to or from the server meanwhile would count twice.
        let _turn = self.numbers.supply.lock();
        let reply: StatfsReply = parse(&self.client.request(MSG_STATFS, &[])?)?;
        let space = self.space.lock();
        let own = |kind| space.free_blocks(kind) + space.pending_blocks(kind) + space.held_blocks(kind);
        let zone_blocks = self.geometry().zone_data_blocks();
        let delta = *self.inode_delta.lock();
        Ok(StatFs {
            total_meta: reply.total_meta.get(),
            free_meta: reply.free_meta.get() + own(SpaceKind::Meta),
            reserved_meta: space.reserve_blocks(),
            total_data: reply.total_data.get(),
            free_data: reply.free_data.get() + own(SpaceKind::Data),
            server_free_meta: reply.free_meta.get(),
            server_free_data: reply.free_data.get(),
            unassigned: reply.free_zones.get().saturating_mul(zone_blocks),
            inodes: reply.inodes.get().saturating_add(delta).max(0) as u64,
        })
    }
}

#[cfg(test)]
mod tests;
