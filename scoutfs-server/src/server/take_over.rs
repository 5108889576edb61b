// SPDX-License-Identifier: GPL-2.0-only
//! The metadata blocks that leaders before this one may still write, and those that this one writes first.
//!
//! A leader whose death is not known may have writes on their way to its working set. So that set goes into quarantine,
//! and its successor takes another one out of the free space. To write down that these blocks are not free it must write some
//! of them. Until its first commit is durable only the super block can say which: the first super block of the term names
//! them, as a [`TakeOver`] for each extent. A leader that comes to nothing before that commit leaves the
//! working set of the one before as it was, and its entries; whoever follows treats both alike, each by its own leader.
//!
//! # What must hold
//!
//! - A leader writes no block that no durable super block of its own term names as its own: in the working set, or in an
//!   entry.
//! - What a leader that may live may write stays named until its death is known: by the working set and its leader, by entries, and after
//!   the first commit of a successor by items of quarantine. The write that makes that commit durable empties the entries.
//! - The server's tree has the blocks of entries as free: the tree of the last commit, which no take-over has changed. Whoever
//!   reads it must subtract them ([`FreeSpace::set_aside`](super::free_space::FreeSpace::set_aside)). They neither overlap nor are they in the working set.
//! - There is always an entry for one more leader. All that may still write own voter slots, one each, and a leader's own slot is none of
//!   theirs; each leaves at least one entry for each slot that has none.

use scoutfs_btree::space::{Extent, SpaceKind};
use scoutfs_env::device::BlockDevice;
use scoutfs_env::fault::{Fault, planted};
use scoutfs_env::{IoBuf, Vec, log};
use scoutfs_format::geometry::Geometry;
use scoutfs_format::le::{U32, U64};
use scoutfs_format::server_item::QuarantineItem;
use scoutfs_format::space::SPACE_META;
use scoutfs_format::voter::{LeaderId, MAX_TAKE_OVERS, ProcessId, SUPER_CLEAN, SuperBlock, TakeOver};
use scoutfs_format::{Key, SECTOR_SIZE};
use scoutfs_net::quorum::VoterBlock;

use super::open::Quarantine;
use super::{DeathOracle, Server};
use crate::error::ServerError;

/// What is known of the leaders that a super block names.
#[derive(Default)]
pub(crate) struct Former {
    /// Whose working set it names: its process, if it may still write.
    work: Option<ProcessId>,
    /// The entries of those that may still write.
    take_overs: Vec<(TakeOver, ProcessId)>,
    /// The mounts of all of them. Their leases have ended with their terms.
    led: Vec<u64>,
}

impl Former {
    /// Whether a mount led.
    pub fn led(&self, rid: u64) -> bool {
        self.led.contains(&rid)
    }

    /// Looks at the voter slots of the leaders that a super block names. `voter` is the own slot.
    #[inline(never)]
    pub fn read(
        dev: &dyn BlockDevice,
        geometry: &Geometry,
        (sb, take_overs): (&SuperBlock, &[TakeOver]),
        voter: u32,
        dead: &dyn DeathOracle,
    ) -> Result<Former, ServerError> {
        let slots = Slots { dev, geometry, fsid: sb.id.fsid.get(), voter, dead };
        let mut former = Former::default();
        if sb.flags.get() & SUPER_CLEAN == 0 {
            former.note_led(&sb.work_leader)?;
            former.work = slots.may_write(&sb.work_leader)?;
        }
        for take_over in take_overs {
            let leader = take_over.leader();
            former.note_led(&leader)?;
            if let Some(process) = slots.may_write(&leader)? {
                former.take_overs.push((*take_over, process))?;
            }
        }
        Ok(former)
    }

    #[cfg(test)]
    pub fn may_write(&mut self, take_over: TakeOver) {
        self.take_overs.push((take_over, ProcessId::default())).unwrap();
    }

    #[cfg(test)]
    pub fn used(&self) -> usize {
        self.take_overs.len()
    }

    fn note_led(&mut self, leader: &LeaderId) -> Result<(), ServerError> {
        let rid = leader.rid.get();
        if rid != 0 && !self.led(rid) {
            self.led.push(rid)?;
        }
        Ok(())
    }

    /// How many entries a new leader may add: its share of those that nobody has.
    pub fn share(&self, nr_voters: u32) -> usize {
        let mut owners = 0;
        for (at, (take_over, _)) in self.take_overs.iter().enumerate() {
            let earlier = self.take_overs.iter().take(at);
            owners += usize::from(!earlier.clone().any(|(other, _)| other.voter == take_over.voter));
        }
        let without = (nr_voters as usize).saturating_sub(owners).max(1);
        MAX_TAKE_OVERS.saturating_sub(self.take_overs.len()) / without
    }
}

struct Slots<'a> {
    dev: &'a dyn BlockDevice,
    geometry: &'a Geometry,
    fsid: u64,
    /// The own one.
    voter: u32,
    dead: &'a dyn DeathOracle,
}

impl Slots<'_> {
    /// The process of a leader, if it may still write.
    ///
    /// It does not when it has left its voter slot, which it does with its writes behind it, or when the slot has another
    /// owner, who has made sure of that before: by what the quorum calls a death, which is all that is ever known of one. So
    /// the own slot is proof enough, as this leader is not the one that is meant: a mount leads once.
    fn may_write(&self, leader: &LeaderId) -> Result<Option<ProcessId>, ServerError> {
        let (voter, nr_voters) = (leader.voter.get(), self.geometry.nr_voters());
        if leader.rid.get() == 0 || voter == self.voter {
            return Ok(None);
        }
        if voter >= nr_voters {
            return Err(ServerError::Voter { voter, nr_voters });
        }
        let mut copies = [IoBuf::zeroed(SECTOR_SIZE)?, IoBuf::zeroed(SECTOR_SIZE)?];
        let mut readable = [false; 2];
        for (copy, sector) in copies.iter_mut().enumerate() {
            let offset = self.geometry.quorum_block_offset(voter, copy as u32);
            readable[copy] = self.dev.read(offset, sector).is_ok();
        }
        let sector = |copy: usize| readable[copy].then_some(&copies[copy][..]);
        Ok(match VoterBlock::newest([sector(0), sector(1)], self.fsid, voter, nr_voters) {
            Ok(block) if !block.owned || block.rid != leader.rid.get() => None,
            Ok(block) => (!self.dead.is_dead(&block.process)).then_some(block.process),
            // It is not known who: a name that no process has.
            Err(_) => Some(ProcessId::default()),
        })
    }
}

impl Server {
    /// Takes over the working set, or puts it into quarantine and takes another. All of it in memory and in the super
    /// block that is to be written, with the entries that are returned: nothing may be written to the blocks before that is durable.
    #[inline(never)]
    pub(super) fn take_over_work(
        &mut self,
        work: Vec<Extent>,
        former: &Former,
    ) -> Result<Vec<TakeOver>, ServerError> {
        let old_leader = self.sb.work_leader;
        let mut take_overs = Vec::new();
        for (take_over, process) in &former.take_overs {
            take_overs.push(*take_over)?;
            let extent = Extent::new(take_over.start.get(), take_over.len.get().into());
            // Whatever it took is part of a zone of metadata from now on, and cannot be counted as free.
            self.free.set_aside(extent, &mut self.changes)?;
            quarantine(&mut self.changes, &mut self.quarantined, extent, take_over.term, process)?;
            log::warn!("scoutfs server: the leader of term {} is not known to be dead", take_over.term);
        }
        for &extent in &work {
            self.free.check(SpaceKind::Meta, extent)?;
        }
        self.taking_over = former.work.is_some() || !former.take_overs.is_empty();
        let Some(process) = &former.work else {
            for extent in work {
                self.work.usable.insert(extent)?;
            }
            self.sb.work_leader = self.leader;
            return Ok(take_overs);
        };
        log::warn!("scoutfs server: the leader of term {} is not known to be dead", old_leader.term);
        for extent in work {
            quarantine(&mut self.changes, &mut self.quarantined, extent, old_leader.term, process)?;
        }
        self.name_first_blocks(former, &mut take_overs)?;
        Ok(take_overs)
    }

    /// Takes the blocks of the first commit, and names them in the super block.
    fn name_first_blocks(
        &mut self,
        former: &Former,
        take_overs: &mut Vec<TakeOver>,
    ) -> Result<(), ServerError> {
        let refused = |lacks| ServerError::FormerLeaders { lacks };
        let share = former.share(self.geometry.nr_voters());
        if share == 0 {
            return Err(refused("room in the super block"));
        }
        let mut lacks = self.commit_reserve();
        let mut taken = 0;
        for _ in 0..share {
            let Some(extent) = self.free.longest_meta(lacks) else {
                break;
            };
            self.free.set_aside(extent, &mut self.changes)?;
            self.work.usable.insert(extent)?;
            taken += extent.len;
            lacks -= extent.len;
            let LeaderId { term, rid, voter, .. } = self.leader;
            // `longest_meta` gives no longer ones.
            let len = U32::new(u32::try_from(extent.len).unwrap_or(u32::MAX));
            if !planted(Fault::WriteUnnamed) {
                take_overs.push(TakeOver { start: U64::new(extent.start), term, rid, len, voter })?;
            }
        }
        if taken == 0 {
            return Err(refused("free metadata block"));
        }
        Ok(())
    }

    /// Makes the first commit of the term, if something was taken over from leaders that may still write: what they have is named
    /// by the tree then. To be done before anything is handled, because it has no more space than was named for it.
    pub(super) fn finish_take_over(&mut self) {
        if self.taking_over {
            // An error stops the server.
            let _ = self.commit();
        }
    }
}

/// Notes that a leader may still write an extent.
fn quarantine(
    changes: &mut super::changes::Changes,
    quarantined: &mut Vec<Quarantine>,
    extent: Extent,
    term: U64,
    process: &ProcessId,
) -> Result<(), ServerError> {
    let len = U64::new(extent.len);
    let item = QuarantineItem { len, term, process: *process, ..QuarantineItem::default() };
    changes.put(Key::quarantine(SPACE_META, extent.start), &item)?;
    Ok(quarantined.push(Quarantine { extent, process: *process })?)
}
