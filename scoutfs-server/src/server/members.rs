// SPDX-License-Identifier: GPL-2.0-only
//! Members: joining, leaving, leases, fencing.
//!
//! A mount slot goes through these states, each durable before anyone acts on it:
//!
//! ```text
//! none or FREE --join--> LIVE --leave, or death confirmed--> GONE --all merged and taken back--> FREE
//!                         |                                    ^
//!                         +--lease ran out--> FENCED --death confirmed
//! ```
//!
//! Each join has a new epoch, and when a member stops being live the newest record of its slot is noted: what it
//! may still write later does not count. The numbers of a slot (logs, hand-overs, records) go on counting from owner
//! to owner.
//!
//! The logs of a fenced member are merged like those of one that is gone; its blocks stay as they are, in quarantine,
//! until its death is confirmed.

use scoutfs_btree::space::{SpaceExtent, SpaceKind, budget};
use scoutfs_env::fault::{Fault, planted};
use scoutfs_env::time::Mono;
use scoutfs_env::{AllocError, OrdMap, Vec, log};
use scoutfs_format::Key;
use scoutfs_format::le::{U32, U64};
use scoutfs_format::msg::{
    CommitNumber, JoinReply, JoinRequest, Recovered, RenewReply, STATUS_AGAIN, STATUS_INVALID,
    STATUS_NO_SLOT, STATUS_NO_SPACE, STATUS_NOT_MEMBER,
};
use scoutfs_format::server_item::{MEMBER_FENCED, MEMBER_FREE, MEMBER_GONE, MEMBER_LIVE, MemberItem};

use super::recall::Needy;
use super::{Answer, Handled, LEASE, LEASE_MARGIN, Refusal, Server, bytes_of, slot_le, status_of};
use crate::error::ServerError;
use crate::roots::{Member, SlotState, read_slot};

/// A hand-over to a mount that it is not known to have taken.
pub(crate) struct HandOver {
    pub extents: Vec<SpaceExtent>,
    /// Items that it takes in the tree.
    pub parts: u64,
    /// Whether the mount was told in this term.
    pub told: bool,
}

/// The owner of a slot, past or present, and what the server knows of it.
pub(crate) struct MemberState {
    pub slot: u32,
    pub item: MemberItem,
    /// When its lease was last renewed.
    pub renewed: Mono,
    /// Seqs that it has open or in hand, given out in this term.
    pub open_seqs: Vec<u64>,
    /// Lowest and highest write version that it was granted in this term and may have numbered a transaction with.
    pub granted: Option<(u64, u64)>,
    /// It has no seq below this one.
    pub closed_below: u64,
    /// Seqs below this one were given out by former servers, and it may have some.
    pub unknown_below: u64,
    /// What it was asked to commit below, and has not answered; 0 nothing.
    pub asked_below: u64,
    /// The highest record number that it told of.
    pub commit_nr: u64,
    /// By slot: epoch and number of the newest commit of others that it was told of in this term.
    pub told: OrdMap<u32, (u64, u64)>,
    /// Hand-overs to it, by number.
    pub hand_overs: OrdMap<u64, HandOver>,
    /// The last request for space, and the hand-over that answered it.
    pub last_space: Option<(u64, u64)>,
    /// Free blocks that it has, by kind, as far as is known.
    pub free: [u64; 2],
    /// What it has done for locks that go back, as it told last.
    pub revoke_progress: u64,
    /// What counts of its ring, as it was last read.
    pub state: Option<SlotState>,
    /// Its slot is damaged: nothing of it is merged or taken back.
    pub broken: bool,
}

impl MemberState {
    pub fn new(member: Member, now: Mono, unknown_below: u64) -> Self {
        MemberState {
            slot: member.slot,
            item: member.item,
            renewed: now,
            open_seqs: Vec::new(),
            granted: None,
            closed_below: 0,
            unknown_below,
            asked_below: 0,
            commit_nr: member.item.frozen_commit_nr.get(),
            told: OrdMap::new(),
            hand_overs: OrdMap::new(),
            last_space: None,
            free: [0; 2],
            revoke_progress: 0,
            state: None,
            broken: false,
        }
    }

    pub fn rid(&self) -> u64 {
        self.item.rid.get()
    }

    pub fn is(&self, state: u32) -> bool {
        self.item.state.get() == state
    }

    pub fn member(&self) -> Member {
        Member { slot: self.slot, item: self.item }
    }

    pub fn merged_through(&self) -> u64 {
        self.item.merged_through.get()
    }

    pub fn note_commit(&mut self, commit_nr: u64) {
        self.commit_nr = self.commit_nr.max(commit_nr);
    }

    /// It is granted a write version, which is as good as a seq.
    pub fn note_granted(&mut self, version: u64) {
        let (lowest, highest) = self.granted.unwrap_or((version, version));
        self.granted = Some((lowest.min(version), highest.max(version)));
    }

    /// It has no seq below this one any more.
    pub fn close_below(&mut self, below: u64) {
        self.open_seqs.retain(|&seq| seq >= below);
        // Of those between the two not all are remembered.
        self.granted = self
            .granted
            .filter(|&(_, highest)| highest >= below)
            .map(|(lowest, highest)| (lowest.max(below), highest));
        self.closed_below = self.closed_below.max(below);
    }

    /// Whether an item with a version below `horizon` may still come from it.
    pub fn may_use_below(&self, horizon: u64) -> bool {
        self.open_seqs.iter().any(|&seq| seq < horizon)
            || self.granted.is_some_and(|(lowest, _)| lowest < horizon)
            || self.closed_below < horizon.min(self.unknown_below)
    }
}

/// All members, by slot.
#[derive(Default)]
pub(crate) struct Members {
    map: OrdMap<u32, MemberState>,
}

impl Members {
    pub fn insert(&mut self, member: MemberState) -> Result<(), AllocError> {
        self.map.insert(member.slot, member)?;
        Ok(())
    }

    pub fn get(&self, slot: u32) -> Option<&MemberState> {
        self.map.get(&slot)
    }

    pub fn get_mut(&mut self, slot: u32) -> Option<&mut MemberState> {
        self.map.get_mut(&slot)
    }

    pub fn iter(&self) -> impl Iterator<Item = &MemberState> {
        self.map.values()
    }

    pub fn live(&self) -> impl Iterator<Item = &MemberState> {
        self.iter().filter(|m| m.is(MEMBER_LIVE))
    }

    pub fn live_mut(&mut self) -> impl Iterator<Item = &mut MemberState> {
        self.map.values_mut().filter(|m| m.is(MEMBER_LIVE))
    }

    /// All but those whose slot is free.
    pub fn in_use(&self) -> impl Iterator<Item = &MemberState> {
        self.iter().filter(|m| !m.is(MEMBER_FREE))
    }

    /// The slot of a mount that is a member.
    pub fn live_slot(&self, rid: u64) -> Option<u32> {
        self.live().find(|m| m.rid() == rid).map(|m| m.slot)
    }

    /// Parts of hand-overs, each an item.
    pub fn nr_hand_over_items(&self) -> u64 {
        self.iter().flat_map(|m| m.hand_overs.values()).map(|h| h.parts).sum()
    }

    pub fn len(&self) -> usize {
        self.map.len()
    }
}

impl Server {
    /// Metadata blocks that each mount keeps for commits and deletes: with more it is quicker.
    pub(super) fn reserve_blocks(&self) -> u64 {
        budget::delete_blocks().max((self.total_meta() / 64).min(256))
    }

    /// Metadata blocks, were all zones metadata.
    pub(super) fn total_meta(&self) -> u64 {
        self.geometry.nr_zones() * self.geometry.zone_meta_blocks()
    }

    /// Gives a mount a slot. Asking again gets the same.
    pub(super) fn join(&mut self, now: Mono, from: u64, request: JoinRequest) -> Handled {
        if request.rid.get() != from || from == 0 {
            return Err(Refusal::Status(STATUS_INVALID));
        }
        if let Some(slot) = self.members.live_slot(from) {
            if let Some(member) = self.members.get_mut(slot) {
                member.renewed = now;
                // It begins another session: what it was asked before is not answered any more.
                member.asked_below = 0;
            }
            self.horizon_progress()?;
            self.recall_again(slot)?;
            return self.join_reply(slot);
        }
        if self.members.iter().any(|m| m.rid() == from) {
            // It was reclaimed; it must not go on under the same name.
            return Err(Refusal::Status(STATUS_NOT_MEMBER));
        }
        let free_slot = (0..self.geometry.nr_slots())
            .find(|&slot| self.members.get(slot).is_none_or(|m| m.is(MEMBER_FREE)));
        // What mounts that are gone have left is being taken back.
        let shortage = |status| if self.reclaim_pending() { STATUS_AGAIN } else { status };
        let Some(slot) = free_slot else {
            return Err(Refusal::Status(shortage(STATUS_NO_SLOT)));
        };
        // Who changes nothing needs nothing.
        let reserve = if request.read_only.get() == 0 { self.reserve_blocks() } else { 0 };
        let kept = self.work_deficit();
        if reserve > 0 && self.free.available(SpaceKind::Meta) < kept + reserve {
            let needy = Needy { rid: from, slot: None, first: false };
            let status = shortage(STATUS_NO_SPACE);
            let more = self.recall(SpaceKind::Meta, needy, kept + reserve)?;
            if !more && status == STATUS_NO_SPACE {
                let quarantined = self.quarantined_blocks(SpaceKind::Meta);
                log::warn!(
                    "scoutfs server: no {reserve} metadata blocks are left for another mount, which is refused; {quarantined} are in \
                     quarantine until fenced mounts are known to be dead"
                );
            }
            return Err(Refusal::Status(if more { STATUS_AGAIN } else { status }));
        }
        self.recalls.served(SpaceKind::Meta, from);
        let old = self.members.get(slot).map(|m| m.item).unwrap_or_default();
        let item = MemberItem {
            rid: U64::new(from),
            epoch: U64::new(old.epoch.get() + 1),
            state: U32::new(MEMBER_LIVE),
            frozen_commit_nr: U64::ZERO,
            reclaimed: U64::ZERO,
            process: request.process,
            ..old
        };
        self.members.insert(MemberState::new(Member { slot, item }, now, 0))?;
        self.note_member(slot)?;
        self.give_reserve(slot, reserve)?;
        self.join_reply(slot)
    }

    fn join_reply(&self, slot: u32) -> Handled {
        let Some(member) = self.members.get(slot) else {
            return Err(Refusal::Status(STATUS_NOT_MEMBER));
        };
        let item = &member.item;
        Ok(Answer::Durable(bytes_of(&JoinReply {
            slot: slot_le(slot),
            pad: U32::ZERO,
            epoch: item.epoch,
            merged_through: item.merged_through,
            down_given: item.down_forgotten,
            up_taken: item.up_taken,
            lease_ms: U64::new(LEASE.as_millis() as u64),
            reserve_blocks: U64::new(self.reserve_blocks()),
        })?))
    }

    /// A mount that was a member under a former server has told all that this one must know. Saying it twice does no harm.
    pub(super) fn recovered(&mut self, now: Mono, slot: u32, said: Recovered) -> Handled {
        let Some(member) = self.members.get_mut(slot) else {
            return Err(Refusal::Status(STATUS_NOT_MEMBER));
        };
        for seq in [said.seq.get(), said.last_seq.get()] {
            // 0 is none: a mount that is only just joining.
            if seq != 0 && seq >= member.closed_below && !member.open_seqs.contains(&seq) {
                member.open_seqs.push(seq)?;
            }
        }
        member.unknown_below = 0;
        member.renewed = now;
        member.note_commit(said.commit_nr.get());
        for (&number, hand_over) in member.hand_overs.iter_mut() {
            hand_over.told |= number <= said.taken.get();
        }
        self.horizon_progress()?;
        self.locks_recover();
        self.send_locks(now)?;
        Ok(Answer::Now(Vec::new()))
    }

    pub(super) fn renew(&mut self, now: Mono, slot: u32) -> Handled {
        let Some(member) = self.members.get_mut(slot) else {
            return Err(Refusal::Status(STATUS_NOT_MEMBER));
        };
        member.renewed = now;
        let epoch = member.item.epoch;
        Ok(Answer::Now(bytes_of(&RenewReply { epoch, fences: self.fences() })?))
    }

    /// A mount leaves. Its slot must say so, too.
    pub(super) fn leave(&mut self, slot: u32, commit: CommitNumber) -> Handled {
        let state = self.read_member(slot)?;
        let left = state.is_some_and(|state| {
            state.ring.newest().is_clean() && state.commit_nr() == commit.commit_nr.get()
        });
        if !left {
            return Err(Refusal::Status(STATUS_INVALID));
        }
        self.end_member(slot, MEMBER_GONE)?;
        Ok(Answer::Durable(Vec::new()))
    }

    /// Reads what counts of a member's slot now, and keeps it.
    ///
    /// A slot that cannot be read is the mount's problem: its request is refused.
    pub(super) fn read_member(&mut self, slot: u32) -> Result<Option<SlotState>, Refusal> {
        match self.try_read_member(slot) {
            Ok(state) => Ok(state),
            Err(ServerError::NoMemory) => Err(Refusal::Stop(ServerError::NoMemory)),
            Err(e) => {
                log::warn!("scoutfs server: {e}");
                Err(Refusal::Status(status_of(&e)))
            }
        }
    }

    pub(super) fn try_read_member(&mut self, slot: u32) -> Result<Option<SlotState>, ServerError> {
        let Some(member) = self.members.get_mut(slot) else {
            return Ok(None);
        };
        let fsid = self.cache.fsid();
        let state = read_slot(&**self.dev, &self.geometry, fsid, &member.member())?;
        if let Some(state) = &state {
            member.note_commit(state.commit_nr());
        }
        member.state = state.clone();
        Ok(state)
    }

    /// Writes the member's item with the next commit.
    pub(super) fn note_member(&mut self, slot: u32) -> Result<(), ServerError> {
        if let Some(member) = self.members.get(slot) {
            self.changes.put(Key::member(slot), &member.item)?;
        }
        Ok(())
    }

    /// A live member is one no more. The newest record in its slot, which was just read, is the last that counts.
    pub(super) fn end_member(&mut self, slot: u32, state: u32) -> Result<(), ServerError> {
        let fence = if state == MEMBER_FENCED { Some(self.next_fence()?) } else { None };
        let Some(member) = self.members.get_mut(slot) else {
            return Ok(());
        };
        let rid = member.rid();
        let frozen = member.state.as_ref().map_or(0, SlotState::commit_nr);
        member.item.state = U32::new(state);
        member.item.frozen_commit_nr = U64::new(frozen);
        member.item.fence = fence.unwrap_or(member.item.fence);
        member.commit_nr = frozen;
        member.open_seqs.clear();
        member.granted = None;
        member.unknown_below = 0;
        self.note_member(slot)?;
        self.locks_left(rid);
        self.recalls.ended(slot, rid);
        self.send_locks(self.now)?;
        self.merges.wake();
        self.horizon_progress()
    }

    /// Reads the slot of a live member that is dead, left, or silent for too long, and ends its membership.
    ///
    /// When the slot cannot be read its state is not known, so nothing can be decided: it stays as it is.
    pub(super) fn expel(&mut self, slot: u32, dead: bool) -> Result<(), ServerError> {
        let state = match self.try_read_member(slot) {
            Ok(state) => state,
            Err(ServerError::NoMemory) => return Err(ServerError::NoMemory),
            Err(e) => {
                log::error!("scoutfs server: cannot reclaim mount slot {slot}: {e}");
                if let Some(member) = self.members.get_mut(slot) {
                    // A device may come back; a damaged ring does not get better.
                    member.broken = !matches!(e, ServerError::Io(_));
                    member.renewed = self.now.saturating_sub(LEASE);
                }
                return Ok(());
            }
        };
        let left = state.is_some_and(|state| state.ring.newest().is_clean());
        log::info!(
            "scoutfs server: mount slot {slot} {}",
            if left {
                "was left"
            } else if dead {
                "is of a dead mount"
            } else {
                "is fenced"
            }
        );
        let gone = left || dead || planted(Fault::ReuseQuarantined);
        self.end_member(slot, if gone { MEMBER_GONE } else { MEMBER_FENCED })?;
        self.count_quarantined(slot)
    }

    /// The leader's lease had ended and goes on. Nobody could renew a lease meanwhile: all count from now.
    pub fn resumed(&mut self, now: Mono) {
        self.now = self.now.max(now);
        for member in self.members.live_mut() {
            member.renewed = member.renewed.max(now);
        }
    }

    /// Fences members whose lease has run out.
    pub(super) fn check_leases(&mut self, now: Mono) -> Result<(), ServerError> {
        if self.is_cut_off() {
            return Ok(());
        }
        let late = self.members.live().find(|m| !m.broken && lease_end(m) <= now).map(|m| m.slot);
        match late {
            Some(slot) => self.expel(slot, false),
            None => Ok(()),
        }
    }

    /// When [`check_leases`](Self::check_leases) may have something to do.
    pub(super) fn next_lease_end(&self) -> Mono {
        if self.is_cut_off() {
            return Mono::MAX;
        }
        self.members.live().filter(|m| !m.broken).map(lease_end).min().unwrap_or(Mono::MAX)
    }
}

fn lease_end(member: &MemberState) -> Mono {
    if planted(Fault::FenceEarly) {
        return member.renewed.saturating_add(LEASE / 3);
    }
    member.renewed.saturating_add(LEASE + LEASE_MARGIN)
}
