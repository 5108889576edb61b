// SPDX-License-Identifier: GPL-2.0-only
//! Getting space, seqs and inode numbers from the server, ahead of need where possible.
//!
//! Hand-overs of space are taken strictly in order, and what was given back may come again, so one request or gift is under way
//! at a time (`supply` lock). What was taken can be used after the next commit, which names the hand-over.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use core::time::Duration;

use scoutfs_btree::space::{SpaceExtent, SpaceKind};
use scoutfs_env::fault::{Fault, planted};
use scoutfs_env::probe::{self, Event};
use scoutfs_env::sync::Mutex;
use scoutfs_env::time::{self, Mono};
use scoutfs_env::{Arc, Vec};
use scoutfs_format::le::{U32, U64};
use scoutfs_format::msg::{
    ConfirmDeath, DeathConfirmed, FreeBlocks, HandOverHeader, HandOverTaken, InosReply, MSG_CONFIRM_DEATH,
    MSG_INOS, MSG_RENEW, MSG_SEQ, MSG_SPACE, MSG_SPACE_GIVE, MSG_SPACE_TAKEN, MSG_STATFS, RenewReply,
    Renewal, SPACE_AHEAD, SeqReply, SeqRequest, SpaceRequest, StatfsReply,
};
use scoutfs_format::server_item::HandOverExtent;
use zerocopy::{FromBytes, IntoBytes};

use super::Store;
use super::commit::Wish;
use crate::error::{Error, Result};
use crate::node::{FENCED, Leadership};

/// What was fetched ahead, and what the worker must tell the server.
pub(crate) struct Numbers {
    next_seq: Mutex<Option<u64>>,
    /// Held by who asks for the number of the open transaction.
    numbering: Mutex<()>,
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
    /// How many operations wait for space of the kind.
    pub(super) waiting: [AtomicU32; 2],
    /// End of the lease, in nanoseconds of the monotonic clock.
    lease_end: AtomicU64,
    lease_ms: u64,
    /// Where this node may lead: the lease of its mount ends with that of the leader.
    leadership: Option<Arc<Leadership>>,
    /// The last answer of [`Store::statfs`].
    statfs: Mutex<Option<StatFs>>,
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
    /// Of the free ones, those that other mounts hold besides their reserves, as far as is known.
    pub others_free_meta: u64,
    /// Of the free ones, those that other mounts hold, as far as is known.
    pub others_free_data: u64,
    /// Metadata blocks that nobody uses, and that who was fenced may still write, as far as is known.
    pub quarantined_meta: u64,
    /// The same of data blocks, with those that this mount has freed.
    pub quarantined_data: u64,
    /// Blocks of 4 KiB in zones that have no kind yet.
    pub unassigned: u64,
    /// Inodes.
    pub inodes: u64,
}

impl Numbers {
    pub fn new(taken: u64, lease_ms: u64, now: Mono, leadership: Option<Arc<Leadership>>) -> Self {
        let lease_end = now.saturating_add(Duration::from_millis(lease_ms));
        probe::tell(Event::Lease(lease_end));
        Numbers {
            next_seq: Mutex::new(None),
            numbering: Mutex::new(()),
            inos: [Mutex::new(Batch::default()), Mutex::new(Batch::default())],
            supply: Mutex::new(None),
            taken: AtomicU64::new(taken),
            told_taken: AtomicU64::new(taken),
            finalized: AtomicBool::new(false),
            low: [AtomicBool::new(true), AtomicBool::new(true)],
            waiting: [AtomicU32::new(0), AtomicU32::new(0)],
            lease_end: AtomicU64::new(lease_end.as_ns()),
            lease_ms,
            leadership,
            statfs: Mutex::new(None),
        }
    }

    /// How long a lease is.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// What is left of the lease.
    pub fn lease_left(&self, now: Mono) -> Duration {
        self.lease_end().saturating_duration_since(now)
    }

    fn lease_end(&self) -> Mono {
        let leads_until = self.leadership.as_ref().map_or(Mono::MAX, |leadership| leadership.lease_end());
        Mono::from_ns(self.lease_end.load(Ordering::Acquire)).min(leads_until)
    }

    /// More space of the kind should be asked for.
    pub fn note_low(&self, kind: SpaceKind) {
        self.low[kind as usize].store(true, Ordering::Relaxed);
    }

    /// The seq that was fetched ahead.
    pub fn take_seq(&self) -> Option<u64> {
        self.next_seq.lock().take()
    }

    /// A commit made hand-overs up to `taken` durable, and perhaps finalized a log tree.
    pub fn note_committed(&self, taken: u64, finalized: bool) {
        self.taken.fetch_max(taken, Ordering::AcqRel);
        if finalized {
            self.finalized.store(true, Ordering::Release);
        }
    }
}

pub(super) fn parse<T: FromBytes>(payload: &[u8]) -> Result<T> {
    T::read_from_bytes(payload).map_err(|_| Error::Shutdown("an answer of the server has a wrong length"))
}

impl Store {
    /// A seq from the server.
    fn fetch_seq(&self) -> Result<u64> {
        let request = SeqRequest { closed_below: U64::new(self.trans.closed_below()) };
        let reply: SeqReply = parse(&self.client.request(MSG_SEQ, request.as_bytes())?)?;
        Ok(reply.seq.get())
    }

    /// Numbers the open transaction: with the seq that was fetched ahead if it still is good.
    pub(super) fn number_trans(&self) -> Result<()> {
        // One asks for all who want to enter.
        let _turn = self.client.lock_unless_killed(&self.numbers.numbering)?;
        if let Some(seq) = self.numbers.take_seq()
            && self.trans.number(seq)
        {
            return Ok(());
        }
        // Somebody else may have had the number, or a grant came.
        while !self.trans.is_numbered() && !self.trans.number(self.fetch_seq()?) {}
        Ok(())
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
        let mut batch = self.client.lock_unless_killed(&self.numbers.inos[usize::from(directory)])?;
        if batch.left == 0 {
            let reply: InosReply = parse(&self.client.request(MSG_INOS, &[])?)?;
            *batch = Batch { next: reply.first.get(), left: reply.count.get() };
        }
        let ino = batch.next;
        batch.next += 1;
        batch.left = batch.left.checked_sub(1).ok_or(Error::NoSpace)?;
        Ok(ino)
    }

    /// Blocks to ask for at once.
    pub(super) fn space_chunk(&self, kind: SpaceKind) -> u64 {
        let bytes = (self.geometry().volume_bytes() / 64).clamp(1 << 20, 1 << 30);
        match kind {
            SpaceKind::Meta => bytes / scoutfs_format::BLOCK_SIZE as u64,
            SpaceKind::Data => bytes / scoutfs_format::SECTOR_SIZE as u64,
        }
    }

    /// Asks the server for space that nobody waits for. What came can be used after a commit.
    pub(crate) fn request_space(&self, kind: SpaceKind, blocks: u64) -> Result<Supplied> {
        self.request_space_for(SPACE_AHEAD, kind, blocks)
    }

    /// Asks the server for space, for a `SPACE_*` need. What came can be used after a commit.
    pub(super) fn request_space_for(&self, need: u32, kind: SpaceKind, blocks: u64) -> Result<Supplied> {
        let mut untaken = self.client.lock_unless_killed(&self.numbers.supply)?;
        self.request_space_in_turn(need, kind, blocks, &mut untaken)
    }

    /// Takes the reserve that the server set aside for this mount when it joined. It can be used after a commit.
    pub(crate) fn take_reserve(&self) -> Result<()> {
        loop {
            let (have, reserve) = {
                let space = self.space.lock();
                let kind = SpaceKind::Meta;
                (space.free_blocks(kind) + space.pending_blocks(kind), space.reserve_blocks())
            };
            if have >= reserve {
                return Ok(());
            }
            if self.request_space(SpaceKind::Meta, reserve - have)? != Supplied::Some {
                return Err(Error::NoReserve);
            }
        }
    }

    fn request_space_in_turn(
        &self,
        need: u32,
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
            need: U32::new(need),
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

    /// Tells the server what is durable: hand-overs that were taken and given, finalized log trees.
    pub(crate) fn tell_server(&self) -> Result<()> {
        let commit_nr = self.commit_nr.load(Ordering::Acquire);
        let taken = self.numbers.taken.load(Ordering::Acquire);
        if taken > self.numbers.told_taken.load(Ordering::Acquire) {
            let message = HandOverTaken { number: U64::new(taken), commit_nr: U64::new(commit_nr) };
            self.client.request_surely(MSG_SPACE_TAKEN, message.as_bytes())?;
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
            let reply: HandOverTaken = parse(&self.client.request_surely(MSG_SPACE_GIVE, &payload)?)?;
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
        self.client.request_surely(MSG_FINALIZED, message.as_bytes()).map(|_| ())
    }

    /// Gets what is low, ahead of need. For the worker.
    pub(crate) fn refill(&self) -> Result<()> {
        let mut got = false;
        for kind in SpaceKind::ALL {
            if !self.read_only && self.numbers.low[kind as usize].swap(false, Ordering::Relaxed) {
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
        let FreeBlocks { meta, data } = self.own_free();
        let revoke_progress = U64::new(self.lock_table.revoke_progress());
        let renewal = Renewal { meta, data, revoke_progress };
        let reply: RenewReply = parse(&self.client.request(MSG_RENEW, renewal.as_bytes())?)?;
        if reply.epoch.get() != self.identity.epoch {
            return Err(Error::Shutdown(FENCED));
        }
        self.fences.note(&reply.fences);
        let end = sent.saturating_add(Duration::from_millis(self.numbers.lease_ms)).as_ns();
        self.numbers.lease_end.fetch_max(end, Ordering::AcqRel);
        probe::tell(Event::Lease(Mono::from_ns(end)));
        Ok(())
    }

    /// Whether locks that are held may be used: they are as good as the lease, without one the server may have given them to
    /// another. Waits for the leader where the lease has ended.
    pub(super) fn check_usable(&self) -> Result<()> {
        self.trans.check()?;
        self.check_lease()
    }

    /// Fails when the lease has ended and the leader does not confirm that this mount's epoch still stands. Waits for the leader
    /// then.
    pub(crate) fn check_lease(&self) -> Result<()> {
        if planted(Fault::IgnoreLease) {
            return Ok(());
        }
        if time::mono_now() < self.numbers.lease_end() {
            return Ok(());
        }
        self.renew()
    }

    /// Tells the server that a mount is dead, as the administrator says. Gives `DEATH_*`; what was done is durable.
    pub(crate) fn confirm_death(&self, said: &ConfirmDeath) -> Result<u32> {
        let reply: DeathConfirmed = parse(&self.client.request(MSG_CONFIRM_DEATH, said.as_bytes())?)?;
        Ok(reply.result.get())
    }

    /// Space and inodes of the volume: as they were while there is no server, for `umount` asks, too.
    pub fn statfs(&self) -> Result<StatFs> {
        if let Some(last) = *self.numbers.statfs.lock()
            && !self.client.has_server()
        {
            return Ok(last);
        }
        let now = self.ask_statfs()?;
        *self.numbers.statfs.lock() = Some(now);
        Ok(now)
    }

    /// What this mount has and does not use.
    fn own_free(&self) -> FreeBlocks {
        let space = self.space.lock();
        let own = |kind| space.free_blocks(kind) + space.pending_blocks(kind) + space.held_blocks(kind);
        FreeBlocks { meta: U64::new(own(SpaceKind::Meta)), data: U64::new(own(SpaceKind::Data)) }
    }

    fn ask_statfs(&self) -> Result<StatFs> {
        // Blocks that move to or from the server meanwhile would count twice.
        let _turn = self.client.lock_unless_killed(&self.numbers.supply)?;
        let reply: StatfsReply = parse(&self.client.request(MSG_STATFS, self.own_free().as_bytes())?)?;
        let own = self.own_free();
        let (reserved_meta, withheld) = {
            let space = self.space.lock();
            (space.reserve_blocks(), space.withheld_blocks(SpaceKind::Data))
        };
        let zone_blocks = self.geometry().zone_data_blocks();
        let delta = *self.inode_delta.lock();
        Ok(StatFs {
            total_meta: reply.total_meta.get(),
            free_meta: reply
                .free_meta
                .get()
                .saturating_add(reply.others_meta.get())
                .saturating_add(own.meta.get()),
            reserved_meta,
            total_data: reply.total_data.get(),
            free_data: reply
                .free_data
                .get()
                .saturating_add(reply.others_data.get())
                .saturating_add(own.data.get()),
            server_free_meta: reply.free_meta.get(),
            server_free_data: reply.free_data.get(),
            others_free_meta: reply.others_meta.get(),
            others_free_data: reply.others_data.get(),
            quarantined_meta: reply.quarantined_meta.get(),
            quarantined_data: reply.quarantined_data.get().saturating_add(withheld),
            unassigned: reply.free_zones.get().saturating_mul(zone_blocks),
            inodes: reply.inodes.get().saturating_add(delta).max(0) as u64,
        })
    }
}

#[cfg(test)]
mod tests;
