// SPDX-License-Identifier: GPL-2.0-only
//! Which log is merged when, and what becomes of the pieces.
//!
//! One piece is out at a time. A live member's logs are merged when they are finalized; those of a member that is gone or
//! fenced all are, the last one with the tail. All logs of a slot that can be merged are merged together, for a leaf of the fs tree
//! that several of them change is written once then; slots take turns. The commit that publishes a piece publishes
//! how far the merge has come, too, by the number of the last log, and with the last piece names that log and all before it as
//! merged, so a merge goes on after a crash where its last published piece ended.
//!
//! # When a tombstone may be dropped
//!
//! A deletion in the fs tree hides older items of its key in logs. It may be dropped when its version is below the
//! lowest version that any log may hold that is not *durably named as merged*: the **floor**.
//!
//! - The log that is being merged counts as well. Its items behind the present piece are not yet merged, but deletions
//!   in the leaf that the piece ends in would be dropped with the rest; and until the super block names the log as
//!   merged, readers still read all of it.
//! - Open logs that have a tail count through the lowest version that they promise ever to hold.
//! - A log with nothing in it does not count, nor a mount that has no log yet, or opens one with a seq that it fetched long
//!   ago. Were it to write an item older than a deletion of the same key that was merged, it would have held the key's lock
//!   before the deletion's writer; it gave the lock up only after its commit, so its record was there when the rings were
//!   read for the floor, after the deletion's record. So the floor is made from rings that are read after the log's
//!   own record was, once for each log. (Were empty logs to count, the last deletions would stay as long as any other
//!   mount is idle.)
//! - A slot that cannot be read makes the floor 0.
//!
//! Deletions for which the floor rises too late, when their leaf has been written, stay until something else touches the
//! leaf. When many are there, a *sweep* goes through the fs tree and writes their leaves anew. In a low tree, which is soon read, the few
//! are swept as well once nothing has been merged for a while: what was deleted gives all of its space back.
//!
//! # When the volume is full
//!
//! A mount that asks for metadata blocks when none are free makes the server *short*: pieces of sweeps and of logs take turns then,
//! and a sweep begins as soon as the floor has risen, however few deletions there are. The mount is told to come again
//! until all logs are merged and the sweep has nothing left to drop; only then is the volume full.
//! One that asks for data blocks does the same, since a zone that gets free of metadata can hold data, but a sweep must have
//! enough to drop that a whole zone may come of it, and the server is short no longer than the mount is told to come again.

use core::time::Duration;

use scoutfs_btree::space::SpaceKind;
use scoutfs_btree::{Error, Limit};
use scoutfs_env::fault::{Fault, planted};
use scoutfs_env::time::Mono;
use scoutfs_env::{OrdMap, Vec, log};
use scoutfs_format::Key;
use scoutfs_format::block::BLOCK_SIZE;
use scoutfs_format::le::U64;
use scoutfs_format::msg::{CommitNumber, MSG_MERGED, MergedLogs};
use scoutfs_format::ring::LOG_FINALIZED;
use scoutfs_format::server_item::{MEMBER_LIVE, MergeItem};

use super::{Answer, Handled, Server};
use crate::error::ServerError;
use crate::merge_job::{MergeJob, MergeResult, Piece, Work};

/// Changes that a piece applies at most.
const MAX_CHANGES: u64 = 100_000;
/// After a piece has failed, and between sweeps.
const RETRY: Duration = Duration::from_secs(10);
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// Fewer tombstones than this are left alone, but in a low tree.
const SWEEP_TOMBSTONES: u64 = 4096;
/// Space that a deletion may give at most: the items of a small file take that much, and each of them is a deletion.
const DROPPED_BYTES: u64 = 1024;
/// A tree that is not higher is low: leaves, and a root above them.
const LOW_TREE: u8 = 2;
/// Few tombstones are swept when nothing has been merged for so long.
const QUIET: Duration = Duration::from_secs(10);

/// What a piece is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// The logs of a slot that are not merged, up to this one.
    Log {
        slot: u32,
        nr: u64,
    },
    Sweep,
}

/// See the module.
pub(crate) struct Merges {
    /// Where a merge, or what follows it, goes on: by slot and the number of the last log.
    pub progress: OrdMap<(u32, u64), Key>,
    /// The piece that is out.
    out: Option<(u64, Target)>,
    next_id: u64,
    last_slot: u32,
    /// The floor that was found for a log.
    floor: Option<(Target, u64)>,
    /// The floor of the sweep that is under way.
    sweep_floor: Option<u64>,
    /// Where the sweep goes on.
    sweep_from: Option<Key>,
    next_sweep: Mono,
    /// From when on few tombstones are swept.
    quiet_from: Mono,
    /// The floor of the last sweep.
    swept_floor: u64,
    /// A mount asked for blocks of the kind and there are none.
    short: Option<SpaceKind>,
    /// Since the last sweep nothing happened that can have raised the floor.
    swept: bool,
    /// The last piece was one of a sweep.
    last_was_sweep: bool,
    not_before: Mono,
}

impl Merges {
    pub fn new(progress: OrdMap<(u32, u64), Key>) -> Self {
        Merges {
            progress,
            out: None,
            next_id: 0,
            last_slot: 0,
            floor: None,
            sweep_floor: None,
            sweep_from: None,
            next_sweep: Mono::ZERO,
            quiet_from: Mono::ZERO,
            swept_floor: 0,
            short: None,
            swept: false,
            last_was_sweep: false,
            not_before: Mono::ZERO,
        }
    }

    /// Something changed: there may be work before the time that was set.
    pub fn wake(&mut self) {
        self.not_before = Mono::ZERO;
        self.swept = false;
    }

    /// Whether a piece is out.
    pub fn any_out(&self) -> bool {
        self.out.is_some()
    }

    /// Whether a piece of a merge of this slot is out.
    pub fn is_out(&self, slot: u32) -> bool {
        matches!(self.out, Some((_, Target::Log { slot: s, .. })) if s == slot)
    }
}

impl Server {
    /// A mount has finalized log trees.
    pub(super) fn finalized(&mut self, slot: u32, _commit: CommitNumber) -> Handled {
        let state = self.read_member(slot)?;
        self.merges.wake();
        // It may not know yet what was merged before.
        let through = self.members.get(slot).map_or(0, |m| m.merged_through());
        if state.is_some_and(|state| state.logs().any(|log| log.nr.get() <= through)) {
            self.tell_merged(slot)?;
        }
        Ok(Answer::Now(Vec::new()))
    }

    fn tell_merged(&mut self, slot: u32) -> Result<(), ServerError> {
        let Some(member) = self.members.get(slot).filter(|m| m.is(MEMBER_LIVE)) else {
            return Ok(());
        };
        let (rid, through) = (member.rid(), member.item.merged_through);
        let after_commit = self.dirty();
        self.request(rid, MSG_MERGED, &MergedLogs { through }, after_commit)
    }

    /// Blocks that a piece is lent.
    pub(super) fn merge_blocks(&self) -> u64 {
        // See `Limit::max_blocks`.
        let completing = 4 * (u64::from(self.sb.fs_root.height) + 2);
        completing + (self.total_meta() / 64).clamp(16, 256)
    }

    /// Number of the last log of a slot that can be merged now; `None` when none can. A merge that has begun keeps to its
    /// logs, whatever was finalized since.
    fn mergeable(&self, slot: u32) -> Option<u64> {
        let member = self.members.get(slot).filter(|m| !m.broken)?;
        let state = member.state.as_ref()?;
        let begun = self.merges.progress.range((slot, 0)..=(slot, u64::MAX)).map(|(&(_, nr), _)| nr);
        let mut begun = begun.filter(|&nr| nr > member.merged_through());
        let left = || state.logs().filter(|log| log.nr.get() > member.merged_through());
        let last = if member.is(MEMBER_LIVE) {
            left().take_while(|log| log.flags.get() & LOG_FINALIZED != 0).last()
        } else {
            left().last()
        };
        let last = last?.nr.get();
        Some(begun.next().unwrap_or(last))
    }

    /// What to merge next: a slot and the number of its last log to merge, slots in turn.
    fn next_log(&self) -> Option<(u32, u64)> {
        let mergeable = |slot: u32| self.mergeable(slot).map(|nr| (slot, nr));
        let slots = || self.members.in_use().map(|m| m.slot);
        let after = slots().filter(|&slot| slot > self.merges.last_slot);
        let before = slots().filter(|&slot| slot <= self.merges.last_slot);
        after.chain(before).find_map(mergeable)
    }

    /// The logs of a slot up to the one with this number, and the tail if it belongs to that one.
    fn merge_of(&self, slot: u32, through: u64) -> Result<Work, ServerError> {
        let mut logs = Vec::new();
        let mut tail = None;
        if let Some(member) = self.members.get(slot)
            && let Some(state) = &member.state
        {
            let merged = if planted(Fault::MergeAgain) { 0 } else { member.merged_through() };
            for log in state.logs().filter(|log| merged < log.nr.get() && log.nr.get() <= through) {
                logs.push(log.root)?;
            }
            // The server reads slots as a whole: there is one at most.
            tail = state.tails.last().cloned().filter(|_| state.last_log_nr() == through);
        }
        Ok(Work::Merge { logs, tail })
    }

    fn wants_sweep(&self, now: Mono) -> bool {
        self.merges.sweep_from.is_some() || self.sweep_due().is_some_and(|due| now >= due)
    }

    /// When the next sweep is due. It is at once when tombstones take the place of what mounts ask for.
    fn sweep_due(&self) -> Option<Mono> {
        let tombstones = self.sb.tombstones.get();
        if self.short_sweep() {
            Some(Mono::ZERO)
        } else if tombstones >= SWEEP_TOMBSTONES {
            Some(self.merges.next_sweep)
        } else {
            let few = tombstones > 0 && self.sb.fs_root.height <= LOW_TREE && !self.merges.swept;
            few.then_some(self.merges.next_sweep.max(self.merges.quiet_from))
        }
    }

    /// Whether a sweep is wanted for the space that it may give.
    fn short_sweep(&self) -> bool {
        let enough = match self.merges.short {
            Some(SpaceKind::Meta) => 1,
            Some(SpaceKind::Data) => self.geometry.zone_meta_blocks() * BLOCK_SIZE as u64 / DROPPED_BYTES,
            None => return false,
        };
        !self.merges.swept && self.sb.tombstones.get() >= enough
    }

    /// A mount asked for blocks and there are none. Returns whether merging may still give some.
    pub(super) fn short_of(&mut self, kind: SpaceKind) -> bool {
        if self.merges.short.is_none() {
            self.merges.wake();
        }
        // Who lacks metadata gets more of the server.
        if self.merges.short != Some(SpaceKind::Meta) {
            self.merges.short = Some(kind);
        }
        let more = self.merges.any_out()
            || self.merges.sweep_from.is_some()
            || self.next_log().is_some()
            || self.short_sweep();
        if !more && kind == SpaceKind::Data {
            self.merges.short = self.merges.short.filter(|&short| short != kind);
        }
        more
    }

    /// When [`poll_job`](Self::poll_job) may have something.
    pub(super) fn next_merge(&self, now: Mono) -> Mono {
        if self.merges.out.is_some() {
            Mono::MAX
        } else if self.next_log().is_some() || self.wants_sweep(now) {
            now.max(self.merges.not_before)
        } else {
            self.sweep_due().unwrap_or(Mono::MAX)
        }
    }

    /// A piece of a merge to be run, by any thread; then tell [`job_done`](Self::job_done). One at a time.
    #[inline(never)]
    pub fn poll_job(&mut self) -> Option<MergeJob> {
        let now = self.now;
        if !self.is_running() || self.merges.out.is_some() || now < self.merges.not_before {
            return None;
        }
        match self.make_job(now) {
            Ok(job) => job,
            Err(e) => {
                self.stop(e);
                None
            }
        }
    }

    fn make_job(&mut self, now: Mono) -> Result<Option<MergeJob>, ServerError> {
        let eased = match self.merges.short {
            // The server may have what mounts may not.
            Some(SpaceKind::Meta) => self.free.available(SpaceKind::Meta) > 0,
            Some(SpaceKind::Data) => self.has_spare(SpaceKind::Data),
            None => false,
        };
        if eased {
            self.merges.short = None;
        }
        let sweep = self.wants_sweep(now);
        let sweep_first = sweep && self.merges.short.is_some() && !self.merges.last_was_sweep;
        let (target, work) = match self.next_log().filter(|_| !sweep_first) {
            Some((slot, nr)) => (Target::Log { slot, nr }, self.merge_of(slot, nr)?),
            None if sweep => (Target::Sweep, Work::Sweep),
            None => return Ok(None),
        };
        self.merges.last_was_sweep = target == Target::Sweep;
        let (from, floor) = match target {
            Target::Log { slot, nr } => {
                let floor = match self.merges.floor {
                    Some((of, floor)) if of == target => floor,
                    _ => self.tombstone_floor()?,
                };
                self.merges.floor = Some((target, floor));
                (self.merges.progress.get(&(slot, nr)).copied().unwrap_or(Key::MIN), floor)
            }
            Target::Sweep => {
                let floor = match self.merges.sweep_floor {
                    Some(floor) => floor,
                    None => self.tombstone_floor()?,
                };
                if self.merges.sweep_from.is_none() {
                    self.merges.next_sweep = now.saturating_add(SWEEP_INTERVAL);
                    if floor <= self.merges.swept_floor {
                        self.merges.swept = true;
                        return Ok(None);
                    }
                }
                self.merges.sweep_floor = Some(floor);
                (self.merges.sweep_from.unwrap_or(Key::MIN), floor)
            }
        };
        let completing = 4 * (u64::from(self.sb.fs_root.height) + 2);
        let spare = self.work.usable.blocks().saturating_sub(self.commit_reserve());
        let lent = spare.min(self.merge_blocks());
        if lent < completing + 4 {
            // A commit brings more, if there is more.
            self.super_dirty |= self.work_deficit() > 0 && self.free.available(SpaceKind::Meta) > 0;
            self.merges.not_before = now.saturating_add(RETRY / 10);
            return Ok(None);
        }
        let trans_seq = self.take_seq()?;
        let blocks = self.work.lend(lent)?;
        self.merges.next_id += 1;
        let id = self.merges.next_id;
        self.merges.out = Some((id, target));
        Ok(Some(MergeJob {
            id,
            work,
            fs_root: self.sb.fs_root,
            from,
            tombstone_floor: floor,
            limit: Limit { max_changes: MAX_CHANGES, max_blocks: lent - completing },
            blocks,
            trans_seq,
        }))
    }

    /// The lowest version that any log may hold that is not merged. Reads all rings.
    fn tombstone_floor(&mut self) -> Result<u64, ServerError> {
        if planted(Fault::DropTombstones) {
            return Ok(u64::MAX);
        }
        let mut slots = Vec::new();
        for member in self.members.in_use() {
            slots.push((member.slot, member.is(MEMBER_LIVE)))?;
        }
        // No item has a version that was never given out. Each piece takes one, so after a merge this is above the last sweep's.
        let mut floor = self.counters.next_seq;
        for (slot, live) in slots {
            if live {
                match self.try_read_member(slot) {
                    Ok(_) => {}
                    Err(ServerError::NoMemory) => return Err(ServerError::NoMemory),
                    Err(e) => {
                        log::warn!("scoutfs server: tombstones are kept: {e}");
                        return Ok(0);
                    }
                }
            }
            let Some(member) = self.members.get(slot) else {
                continue;
            };
            if member.broken {
                return Ok(0);
            }
            if let Some(state) = &member.state {
                // What the durable super block calls merged is read by nobody.
                let logs = state.logs().filter(|log| log.nr.get() > member.merged_through());
                let logs = logs.filter(|log| state.holds_items(log));
                floor = logs.map(|log| log.min_version.get()).fold(floor, u64::min);
            }
        }
        Ok(floor)
    }

    /// What came of a piece. It counts only if it is the one that is out.
    #[inline(never)]
    pub fn job_done(&mut self, now: Mono, result: MergeResult) {
        self.now = self.now.max(now);
        let Some((id, target)) = self.merges.out.filter(|_| self.is_running()) else {
            return;
        };
        if id != result.id {
            return;
        }
        self.merges.out = None;
        let done = match result.outcome {
            Ok(piece) => self.accept(target, piece),
            Err(e) => self.refuse(now, target, e),
        };
        if let Err(e) = done.and_then(|()| self.commit_if_large()) {
            self.stop(e);
        }
    }

    fn accept(&mut self, target: Target, piece: Piece) -> Result<(), ServerError> {
        self.pieces += 1;
        self.work.end_loan(&piece.used)?;
        for blkno in piece.freed {
            self.work.free(blkno)?;
            self.cache.drop_block(blkno);
        }
        self.sb.fs_root = piece.fs_root;
        let tombstones = self.sb.tombstones.get().saturating_add_signed(piece.tombstones_delta);
        self.sb.tombstones = U64::new(tombstones);
        self.super_dirty = true;
        match target {
            Target::Log { slot, nr } => {
                if let Some(next) = piece.next {
                    self.set_progress(slot, nr, next)?;
                } else {
                    self.clear_progress(slot, nr)?;
                    self.merges.last_slot = slot;
                    if let Some(member) = self.members.get_mut(slot) {
                        member.item.merged_through = U64::new(nr);
                    }
                    self.note_member(slot)?;
                    self.tell_merged(slot)?;
                    self.merges.floor = None;
                    self.merges.swept = false;
                    self.merges.quiet_from = self.now.saturating_add(QUIET);
                }
            }
            Target::Sweep => {
                self.merges.sweep_from = piece.next;
                if piece.next.is_none()
                    && let Some(floor) = self.merges.sweep_floor.take()
                {
                    self.merges.swept_floor = floor;
                }
            }
        }
        Ok(())
    }

    fn refuse(&mut self, now: Mono, target: Target, e: Error) -> Result<(), ServerError> {
        // Nothing refers to what was written.
        self.work.end_loan(&[])?;
        self.merges.floor = None;
        self.merges.sweep_floor = None;
        self.merges.not_before = now.saturating_add(RETRY);
        // Nobody else frees what is being merged, nor the fs tree.
        let e = e.stale_to_corrupt();
        log::error!("scoutfs server: cannot merge {target:?}: {e}");
        if let (Target::Log { slot, .. }, Error::Corrupt(_)) = (target, &e)
            && let Some(member) = self.members.get_mut(slot)
        {
            member.broken = true;
        }
        Ok(())
    }

    pub(super) fn set_progress(&mut self, slot: u32, nr: u64, next: Key) -> Result<(), ServerError> {
        self.changes.put(Key::merge(slot, nr), &MergeItem { next: next.to_raw() })?;
        self.merges.progress.insert((slot, nr), next)?;
        Ok(())
    }

    pub(super) fn clear_progress(&mut self, slot: u32, nr: u64) -> Result<(), ServerError> {
        if self.merges.progress.remove(&(slot, nr)).is_some() {
            self.changes.delete(Key::merge(slot, nr))?;
        }
        Ok(())
    }
}
