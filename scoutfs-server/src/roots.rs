// SPDX-License-Identifier: GPL-2.0-only
//! Slots, super block and members, read in the order that readers need.
//!
//! What must hold: a log tree is dropped from its slot only after the super block whose fs tree holds all of it is
//! durable. So slots are read *first* and the super block after them, each time any slot is read again; the other way
//! round a log tree that was merged and dropped in between would be missed. Members are items of the server's tree
//! and come from the same super block. By what they say
//!
//! - records of other epochs than the member's are ignored, and those after the number at which a reclaimed member
//!   was frozen;
//! - log trees that are completely merged are ignored, whatever a slot still says. The items in the records (the
//!   tail) belong to the last log tree that the checkpoint names.
//!
//! The exception are records that the server has named, and that add nothing but a tail to the same log trees ([`Roots::follow`]): nothing
//! was dropped then, so an older super block hides nothing, and whoever they are from, they count.
//!
//! Blocks of the server's tree may be freed and reused while they are read; [`read_roots`] then begins again.

use scoutfs_btree::ring::{Follower, RING_BYTES, Record, RingError, RingState, parse_ring};
use scoutfs_btree::{BlockCache, Cursor, ForestRoots, Item, LogSource, Tail};
use scoutfs_env::device::BlockDevice;
use scoutfs_env::fault::{Fault, planted};
use scoutfs_env::{Arc, IoBuf, Vec};
use scoutfs_format::geometry::Geometry;
use scoutfs_format::ring::{FrameHeader, LogTree};
use scoutfs_format::server_item::{MEMBER_FREE, MEMBER_LIVE, MemberItem};
use scoutfs_format::tree::TreeRoot;
use scoutfs_format::{Key, SECTOR_SIZE};
use zerocopy::FromBytes;

use crate::error::{ServerError, SlotProblem};
use crate::super_block::{NUMBER_END, ValidSuper, read_super};

/// The owner of a mount slot, past or present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The slot.
    pub slot: u32,
    /// What the server says.
    pub item: MemberItem,
}

/// What counts of a slot's ring.
#[derive(Clone, Debug)]
pub struct SlotState {
    /// The slot.
    pub slot: u32,
    /// Its newest record and those that it builds on.
    pub ring: Arc<RingState>,
    /// The items of these records, oldest first; they belong to the last log tree. One tail unless the ring was followed.
    pub tails: Arc<Vec<Arc<Tail>>>,
}

impl SlotState {
    /// Epoch of the records.
    pub fn epoch(&self) -> u64 {
        self.ring.epoch()
    }

    /// Number of the newest record.
    pub fn commit_nr(&self) -> u64 {
        self.ring.commit_nr()
    }

    /// The log trees of the newest record, oldest first.
    pub fn logs(&self) -> impl Iterator<Item = LogTree> + '_ {
        self.ring.logs()
    }

    /// Whether there are items in a log tree, or in its tail.
    pub fn holds_items(&self, log: &LogTree) -> bool {
        log.root != TreeRoot::EMPTY
            || log.nr.get() == self.last_log_nr() && self.tails.iter().any(|tail| !tail.is_empty())
    }

    /// Number of the last log tree, open or not; 0 when there is none.
    pub fn last_log_nr(&self) -> u64 {
        self.logs().last().map_or(0, |log| log.nr.get())
    }
}

/// All that a reader needs to read items.
#[derive(Debug)]
pub struct Roots {
    /// The super block, read after the slots.
    pub sb: ValidSuper,
    /// All members that the server knows, by slot.
    pub members: Vec<Member>,
    /// The slots that were read and have records that count, by slot.
    pub slots: Vec<SlotState>,
    /// The trees and tails to read.
    pub forest: ForestRoots,
}

/// Reads all slots, then the super block and the members.
pub fn read_roots(
    dev: &dyn BlockDevice,
    cache: &BlockCache,
    geometry: &Geometry,
) -> Result<Roots, ServerError> {
    let mut all = Vec::with_capacity(geometry.nr_slots() as usize)?;
    all.try_extend(0..geometry.nr_slots())?;
    read_some(dev, cache, geometry, &all, &[])
}

/// Reads the given slots only, then the super block and the members. The forest lacks the other slots.
pub fn read_slots(
    dev: &dyn BlockDevice,
    cache: &BlockCache,
    geometry: &Geometry,
    slots: &[u32],
) -> Result<Roots, ServerError> {
    read_some(dev, cache, geometry, slots, &[])
}

impl Roots {
    /// Reads the given slots again, then the super block and the members; what was read of the other slots before is
    /// kept as far as it still counts. On an error nothing changes.
    pub fn refresh(
        &mut self,
        dev: &dyn BlockDevice,
        cache: &BlockCache,
        slots: &[u32],
    ) -> Result<(), ServerError> {
        *self = read_some(dev, cache, &self.sb.geometry, slots, &self.slots)?;
        Ok(())
    }

    /// Reads on in the rings of slots up to the records that the server has told of, each a slot, an epoch and a number. False when that is
    /// not all that there is to be seen, or when any of them looks otherwise than as a known state with more items: then
    /// [`Roots::refresh`] tells, and nothing has changed.
    pub fn follow(
        &mut self,
        dev: &dyn BlockDevice,
        cache: &BlockCache,
        told: &[(u32, u64, u64)],
    ) -> Result<bool, ServerError> {
        let mut slots = self.slots.try_clone()?;
        for &(slot, epoch, commit_nr) in told {
            let lives = |member: &MemberItem| {
                member.state.get() == MEMBER_LIVE && member.epoch.get() == epoch && commit_nr > 0
            };
            let Some(known) = slots.iter_mut().find(|s| s.slot == slot && s.epoch() == epoch) else {
                return Ok(false);
            };
            if !self.member(slot).is_some_and(lives) {
                return Ok(false);
            }
            let Some(state) = follow_ring(dev, &self.sb.geometry, cache.fsid(), known)? else {
                return Ok(false);
            };
            // Records behind that may be late ones of an owner that was fenced, and a checkpoint's log trees may stand for some that are
            // merged: what the super block says counts.
            if state.commit_nr() != commit_nr || !state.logs().eq(known.logs()) {
                return Ok(false);
            }
            *known = state;
        }
        self.forest = forest(&self.sb.sb.fs_root, &self.members, &slots, None)?;
        self.slots = slots;
        Ok(true)
    }

    /// The member in a slot.
    pub fn member(&self, slot: u32) -> Option<&MemberItem> {
        self.members.iter().find(|m| m.slot == slot).map(|m| &m.item)
    }

    /// What counts of a slot.
    pub fn slot(&self, slot: u32) -> Option<&SlotState> {
        self.slots.iter().find(|s| s.slot == slot)
    }

    /// The trees and tails to read, but for those of one slot: a mount has its own in memory.
    pub fn forest_without(&self, slot: Option<u32>) -> Result<ForestRoots, ServerError> {
        forest(&self.sb.sb.fs_root, &self.members, &self.slots, slot)
    }
}

/// How often a slot that looks torn is read again before it counts as damaged.
const RING_TRIES: u32 = 10;

fn read_some(
    dev: &dyn BlockDevice,
    cache: &BlockCache,
    geometry: &Geometry,
    slots: &[u32],
    known: &[SlotState],
) -> Result<Roots, ServerError> {
    let fsid = cache.fsid();
    let mut stale: Option<(u64, u64)> = None;
    loop {
        let early = if planted(Fault::SuperBeforeSlots) { Some(read_super(dev)?) } else { None };
        // Rings first: see the module.
        let mut rings = Vec::with_capacity(slots.len())?;
        let mut followed: Vec<SlotState> = Vec::with_capacity(slots.len())?;
        for &slot in slots {
            if let Some(old) = known.iter().find(|s| s.slot == slot)
                && let Some(state) = follow_ring(dev, geometry, fsid, old)?
            {
                followed.push(state)?;
                continue;
            }
            if let Some(bytes) = read_ring(dev, geometry, fsid, slot)? {
                rings.push((slot, bytes))?;
            }
        }
        let sb = match early {
            Some(sb) => sb,
            None => read_super(dev)?,
        };
        if sb.sb.id.fsid.get() != fsid {
            return Err(ServerError::OtherVolume { expected: fsid, found: sb.sb.id.fsid.get() });
        }
        let members = match read_members(cache, &sb.sb.server_root) {
            Ok(members) => members,
            Err(ServerError::Tree(e)) if e.is_stale() => {
                let seen = (sb.sb.term.get(), sb.sb.seq.get());
                if stale == Some(seen) {
                    return Err(ServerError::Tree(e.stale_to_corrupt()));
                }
                stale = Some(seen);
                continue;
            }
            Err(e) => return Err(e),
        };
        let mut states: Vec<SlotState> = Vec::with_capacity(members.len())?;
        for member in &members {
            let state = match rings.iter_mut().find(|(slot, _)| *slot == member.slot) {
                Some((slot, bytes)) => parse_or_read_again(dev, geometry, fsid, *slot, bytes, member)?,
                None if let Some(state) = followed.iter().find(|s| s.slot == member.slot) => {
                    let lives = member.item.state.get() == MEMBER_LIVE;
                    if lives && still_counts(state, &member.item) {
                        Some(state.clone())
                    } else {
                        read_slot(dev, geometry, fsid, member)?
                    }
                }
                None if slots.contains(&member.slot) => None,
                None => match known.iter().find(|s| s.slot == member.slot) {
                    Some(old) if still_counts(old, &member.item) => Some(old.clone()),
                    Some(_) => read_slot(dev, geometry, fsid, member)?,
                    None => None,
                },
            };
            if let Some(state) = state {
                states.push(state)?;
            }
        }
        let forest = forest(&sb.sb.fs_root, &members, &states, None)?;
        return Ok(Roots { sb, members, slots: states, forest });
    }
}

/// Whether a state that was read earlier is still one of the member's.
fn still_counts(state: &SlotState, member: &MemberItem) -> bool {
    state.epoch() == member.epoch.get()
        && (member.state.get() == MEMBER_LIVE
            || (member.state.get() != MEMBER_FREE && state.commit_nr() == member.frozen_commit_nr.get()))
}

/// What came in a slot's ring after a state that is known, read with few frames. None when nothing was found there: then the whole
/// ring tells.
#[inline(never)]
fn follow_ring(
    dev: &dyn BlockDevice,
    geometry: &Geometry,
    fsid: u64,
    known: &SlotState,
) -> Result<Option<SlotState>, ServerError> {
    let slot = known.slot;
    let problem = |e| match e {
        RingError::NoMemory => ServerError::NoMemory,
        e => ServerError::Slot { slot, what: SlotProblem::Ring(e) },
    };
    let mut follower = Follower::new(&known.ring, fsid, u16::try_from(slot).unwrap_or(u16::MAX));
    while let Some((first, count)) = follower.wants() {
        let mut bytes = IoBuf::zeroed(count as usize * SECTOR_SIZE)?;
        dev.read(geometry.slot_offset(slot) + u64::from(first) * SECTOR_SIZE as u64, &mut bytes)?;
        follower.give(&bytes).map_err(problem)?;
    }
    let Some(ring) = follower.finish().map_err(problem)? else { return Ok(None) };
    let newer = |record: &&Arc<Record>| record.commit_nr() > known.commit_nr();
    let goes_on = ring.records().first().is_some_and(|first| !newer(&first));
    let mut tails = Vec::new();
    let tail = if goes_on {
        tails.extend_from_slice(&known.tails)?;
        tail_of(ring.records().iter().filter(newer))?
    } else {
        tail_of(ring.records().iter())?
    };
    if let Some(tail) = tail {
        Tail::push(&mut tails, tail)?;
    }
    if !tails.is_empty() && ring.logs().next().is_none() {
        return Ok(None);
    }
    Ok(Some(SlotState { slot, ring: Arc::new(ring)?, tails: Arc::new(tails)? }))
}

/// The items of records, if there are any.
fn tail_of<'a>(records: impl Iterator<Item = &'a Arc<Record>>) -> Result<Option<Arc<Tail>>, ServerError> {
    let mut tails = Vec::new();
    for record in records {
        let mut tail = Tail::new();
        tail.merge_in(record.items().map(|item| Item {
            key: item.key,
            version: item.version,
            deletion: item.deletion,
            value: item.value,
        }))?;
        if !tail.is_empty() {
            Tail::push(&mut tails, Arc::new(tail)?)?;
        }
    }
    match &tails[..] {
        [] => Ok(None),
        [tail] => Ok(Some(tail.clone())),
        tails => Ok(Some(Arc::new(Tail::joined(tails)?)?)),
    }
}

/// The bytes of a slot's ring, or `None` when no frame of the volume is in it.
fn read_ring(
    dev: &dyn BlockDevice,
    geometry: &Geometry,
    fsid: u64,
    slot: u32,
) -> Result<Option<IoBuf>, ServerError> {
    let mut bytes = IoBuf::zeroed(RING_BYTES)?;
    dev.read(geometry.slot_offset(slot), &mut bytes)?;
    let used = bytes
        .chunks_exact(SECTOR_SIZE)
        .any(|frame| FrameHeader::ref_from_prefix(frame).is_ok_and(|(head, _)| head.fsid.get() == fsid));
    Ok(used.then_some(bytes))
}

/// What counts of a member's slot, read now. `None` when the member has no records.
pub fn read_slot(
    dev: &dyn BlockDevice,
    geometry: &Geometry,
    fsid: u64,
    member: &Member,
) -> Result<Option<SlotState>, ServerError> {
    match read_ring(dev, geometry, fsid, member.slot)? {
        Some(mut bytes) => parse_or_read_again(dev, geometry, fsid, member.slot, &mut bytes, member),
        None => Ok(None),
    }
}

/// A ring that is read while its owner writes it may look damaged; then it is read again.
fn parse_or_read_again(
    dev: &dyn BlockDevice,
    geometry: &Geometry,
    fsid: u64,
    slot: u32,
    bytes: &mut IoBuf,
    member: &Member,
) -> Result<Option<SlotState>, ServerError> {
    let mut tries = 1;
    loop {
        match parse_slot(bytes, fsid, slot, &member.item) {
            Err(ServerError::Slot { what: SlotProblem::Ring(e), .. })
                if e.may_be_transient() && tries < RING_TRIES =>
            {
                tries += 1;
                dev.read(geometry.slot_offset(slot), bytes)?;
            }
            other => return other,
        }
    }
}

/// What counts of the bytes of a slot's ring. Frames that do not count are wiped from `bytes`.
fn parse_slot(
    bytes: &mut [u8],
    fsid: u64,
    slot: u32,
    member: &MemberItem,
) -> Result<Option<SlotState>, ServerError> {
    let problem = |what| ServerError::Slot { slot, what };
    let epoch = member.epoch.get();
    if member.state.get() == MEMBER_FREE {
        return Ok(None);
    }
    if member.state.get() != MEMBER_LIVE {
        // Writes that a reclaimed mount had submitted may still arrive. They never go over the records that count.
        for frame in bytes.chunks_exact_mut(SECTOR_SIZE) {
            let late = FrameHeader::ref_from_prefix(frame)
                .is_ok_and(|(head, _)| head.commit_nr.get() > member.frozen_commit_nr.get());
            if late && !planted(Fault::LateRecordCounts) {
                frame.fill(0);
            }
        }
    }
    let slot_nr = u16::try_from(slot).unwrap_or(u16::MAX);
    let parsed = parse_ring(bytes, fsid, slot_nr, None).map_err(|e| match e {
        RingError::NoMemory => ServerError::NoMemory,
        e => problem(SlotProblem::Ring(e)),
    })?;
    let Some(ring) = parsed else {
        return Ok(None);
    };
    if ring.epoch() > epoch {
        return Err(problem(SlotProblem::FutureEpoch { expected: epoch, found: ring.epoch() }));
    }
    if ring.epoch() < epoch {
        return Ok(None);
    }
    let mut tails = Vec::new();
    if let Some(tail) = tail_of(ring.records().iter())? {
        tails.push(tail)?;
    }
    if !tails.is_empty() && ring.logs().next().is_none() {
        return Err(problem(SlotProblem::NoLog { commit_nr: ring.commit_nr() }));
    }
    Ok(Some(SlotState { slot, ring: Arc::new(ring)?, tails: Arc::new(tails)? }))
}

/// The members in a server tree.
pub fn read_members(cache: &BlockCache, server_root: &TreeRoot) -> Result<Vec<Member>, ServerError> {
    let mut members = Vec::new();
    let mut cursor = Cursor::new(cache, *server_root, Key::member(0));
    while let Some(item) = cursor.peek()? {
        if item.key > Key::member(u32::MAX) {
            break;
        }
        members.push(parse_member(cache.geometry(), &item)?)?;
        cursor.advance();
    }
    Ok(members)
}

/// A member item.
pub(crate) fn parse_member(geometry: &Geometry, item: &Item<'_>) -> Result<Member, ServerError> {
    let bad = |what| ServerError::Item { key: item.key, what };
    let slot = u32::try_from(item.key.second)
        .ok()
        .filter(|&slot| slot < geometry.nr_slots() && item.key == Key::member(slot))
        .ok_or(bad("no such mount slot"))?;
    let member = MemberItem::read_from_bytes(item.value).map_err(|_| bad("wrong length"))?;
    if !(MEMBER_LIVE..=MEMBER_FREE).contains(&member.state.get()) {
        return Err(bad("unknown state of a member"));
    }
    let MemberItem { epoch, merged_through, down_given, down_forgotten, up_taken, .. } = &member;
    if [epoch, merged_through, down_given, down_forgotten, up_taken].iter().any(|n| n.get() >= NUMBER_END) {
        return Err(bad("a number that no volume counts to"));
    }
    Ok(Member { slot, item: member })
}

fn forest(
    fs_root: &TreeRoot,
    members: &[Member],
    slots: &[SlotState],
    without: Option<u32>,
) -> Result<ForestRoots, ServerError> {
    let mut logs = Vec::new();
    let mut tails = Vec::new();
    for state in slots {
        let Some(member) = members.iter().find(|m| m.slot == state.slot) else {
            continue;
        };
        if Some(state.slot) == without {
            continue;
        }
        let merged_through = member.item.merged_through.get();
        for log in state.logs() {
            let nr = log.nr.get();
            if nr > merged_through && log.root.height > 0 {
                logs.push(LogSource { slot: state.slot, nr, root: log.root })?;
            }
        }
        if state.last_log_nr() > merged_through {
            tails.extend_from_slice(&state.tails)?;
        }
    }
    Ok(ForestRoots { fs_root: *fs_root, logs, tails })
}
