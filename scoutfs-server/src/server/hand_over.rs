// SPDX-License-Identifier: GPL-2.0-only
//! Space to and from mounts.
//!
//! A hand-over to a mount is a numbered list of extents. Its items are durable before the mount hears of it, and are
//! forgotten when the mount's own record names the number. Meanwhile the extents are neither the server's nor (as far as
//! the server knows) the mount's. A new server tells a mount that asks for space of the hand-overs that the old one may
//! not have told, oldest first, before it makes another; the mount ignores numbers that it has.
//!
//! # Who gets how much
//!
//! No answer gives more than an eighth of what is left of a kind (empty zones counted in), or one zone, so that
//! several mounts and both kinds get some of a small volume. Large requests get empty zones; what is left of zones
//! serves small ones, and all when no empty zone is left. The server keeps enough metadata for its own commits and merges, and
//! does not let data take the last zones that they and the mounts' reserves need.
//!
//! Who joins gets his reserve with his slot, as hand-overs like any other, or is refused. Where nothing is left, mounts
//! give back what they do not use (see `recall`).

use scoutfs_btree::space::{Extent, ExtentSet, SpaceError, SpaceExtent, SpaceKind};
use scoutfs_env::fault::{Fault, planted};
use scoutfs_env::{Vec, log};
use scoutfs_format::Key;
use scoutfs_format::le::{U32, U64};
use scoutfs_format::msg::{
    HandOverHeader, HandOverTaken, SPACE_AHEAD, SPACE_NEEDED, STATUS_AGAIN, STATUS_CORRUPT, STATUS_INVALID,
    SpaceRequest,
};
use scoutfs_format::server_item::{HAND_OVER_EXTENTS, HandOverExtent};
use zerocopy::{FromBytes, IntoBytes};

use super::free_space::{first_block, zone_blocks, zone_extent};
use super::members::HandOver;
use super::recall::Needy;
use super::{Answer, Handled, Refusal, Server, bytes_of};
use crate::error::ServerError;

/// Most extents of one hand-over to a mount.
const MAX_EXTENTS: usize = 256;
/// No answer gives more than this part of what is left.
const SHARE: u64 = 8;

/// As stored and sent. Extents are never longer than what fits.
pub(crate) fn raw_extent(extent: &SpaceExtent) -> HandOverExtent {
    HandOverExtent {
        start: U64::new(extent.extent.start),
        len: U32::new(u32::try_from(extent.extent.len).unwrap_or(u32::MAX)),
        kind: extent.kind.to_raw(),
        pad: [0; 3],
    }
}

/// From what is stored or sent; `None` when the kind is unknown.
pub(crate) fn space_extent(raw: &HandOverExtent) -> Option<SpaceExtent> {
    let kind = SpaceKind::from_raw(raw.kind)?;
    Some(SpaceExtent::new(kind, raw.start.get(), raw.len.get().into()))
}

fn payload(number: u64, extents: &[SpaceExtent]) -> Result<Vec<u8>, ServerError> {
    let head = HandOverHeader {
        number: U64::new(number),
        nr_extents: U32::new(extents.len() as u32),
        pad: U32::ZERO,
    };
    let mut payload = Vec::from_slice(head.as_bytes())?;
    for extent in extents {
        payload.extend_from_slice(raw_extent(extent).as_bytes())?;
    }
    Ok(payload)
}

impl Server {
    /// A mount wants space. An answer without extents says that there is none.
    pub(super) fn space(&mut self, slot: u32, id: u64, request: SpaceRequest) -> Handled {
        let kind = u8::try_from(request.kind.get()).ok().and_then(SpaceKind::from_raw);
        let (Some(kind), Some(member)) = (kind, self.members.get_mut(slot)) else {
            return Err(Refusal::Status(STATUS_INVALID));
        };
        // The same request again, or hand-overs of a former server that the mount may not know.
        let again = match member.last_space {
            Some((last_id, number)) if last_id == id => Some(number),
            _ => member.hand_overs.iter().find(|(_, h)| !h.told).map(|(&number, _)| number),
        };
        if let Some(number) = again {
            member.last_space = Some((id, number));
            return Ok(Answer::Durable(match member.hand_overs.get_mut(&number) {
                Some(hand_over) => {
                    hand_over.told = true;
                    payload(number, &hand_over.extents)?
                }
                None => payload(0, &[])?,
            }));
        }
        let (rid, need) = (member.rid(), request.need.get());
        if need == SPACE_AHEAD && self.recalls.is_wanted(kind, self.now) {
            return Err(Refusal::Status(STATUS_AGAIN));
        }
        let mut extents = self.take_for_mount(kind, request.blocks.get())?;
        if extents.is_empty() && kind == SpaceKind::Data && self.clear_zones()? {
            extents = self.take_for_mount(kind, request.blocks.get())?;
        }
        if extents.is_empty() {
            let needy = Needy { rid, slot: Some(slot), first: need == SPACE_NEEDED };
            let recalled = need != SPACE_AHEAD && self.recall(kind, needy, request.blocks.get())?;
            return if self.more_space_to_come(kind) || recalled {
                Err(Refusal::Status(STATUS_AGAIN))
            } else {
                Ok(Answer::Now(payload(0, &[])?))
            };
        }
        self.recalls.served(kind, rid);
        let number = self.give(slot, extents, true)?;
        let Some(member) = self.members.get_mut(slot) else {
            return Err(Refusal::Status(STATUS_INVALID));
        };
        member.last_space = Some((id, number));
        let extents = member.hand_overs.get(&number).map_or(&[][..], |h| &h.extents);
        Ok(Answer::Durable(payload(number, extents)?))
    }

    /// Metadata blocks that are not to be given: those that the working set lacks.
    fn kept_meta(&self) -> u64 {
        self.work_deficit()
    }

    /// Empty zones that mounts may have for a kind. Data must not take the last ones.
    fn spare_zones(&self, kind: SpaceKind) -> u64 {
        let kept = match kind {
            SpaceKind::Meta => 0,
            SpaceKind::Data => {
                let kept = self.kept_meta() + 2 * (self.total_meta() / 64).clamp(16, 256);
                let loose = self.free.of(SpaceKind::Meta).blocks();
                kept.saturating_sub(loose).div_ceil(self.geometry.zone_meta_blocks())
            }
        };
        self.free.empty_zones().saturating_sub(kept)
    }

    /// Whether there is something of a kind that a mount may have.
    pub(super) fn has_spare(&self, kind: SpaceKind) -> bool {
        match kind {
            SpaceKind::Meta => self.free.available(kind) > self.kept_meta(),
            SpaceKind::Data => !self.free.of(kind).is_empty() || self.spare_zones(kind) > 0,
        }
    }

    /// Takes extents of a kind out of the free space, no more than a fair share.
    fn take_for_mount(&mut self, kind: SpaceKind, want: u64) -> Result<Vec<SpaceExtent>, ServerError> {
        let mut extents = Vec::new();
        let blocks = zone_blocks(&self.geometry, kind);
        let left = match kind {
            SpaceKind::Meta => self.free.available(kind).saturating_sub(self.kept_meta()),
            SpaceKind::Data => self.free.available(kind),
        };
        let want = want.min((left / SHARE).max(blocks)).min(left);
        if want == 0 {
            return Ok(extents);
        }
        let zones = self.spare_zones(kind);
        if want < blocks || zones == 0 {
            let wanted = want.min(self.free.of(kind).blocks());
            let changes = &mut self.changes;
            self.free.take(kind, wanted, MAX_EXTENTS, 0, changes, &mut |extent| {
                Ok(extents.push(SpaceExtent { kind, extent })?)
            })?;
        }
        let rest = want - extents.iter().map(|e| e.extent.len).sum::<u64>();
        let wanted_zones = (rest / blocks).max(1).min(zones);
        if rest > 0
            && let Some(run) = self.free.take_zones(kind, wanted_zones, &mut self.changes)?
        {
            // What is not wanted stays, as loose blocks of the kind.
            let taken = run.len.min(rest).min(u32::MAX.into());
            if taken < run.len {
                let loose = Extent::new(run.start + taken, run.len - taken);
                self.free.add(kind, loose, &mut self.changes)?;
            }
            extents.push(SpaceExtent::new(kind, run.start, taken))?;
        }
        Ok(extents)
    }

    /// Gives a mount that joins its reserve, which is there. It is told when it asks for space.
    pub(super) fn give_reserve(&mut self, slot: u32, blocks: u64) -> Result<(), ServerError> {
        let kind = SpaceKind::Meta;
        let zone_blocks = zone_blocks(&self.geometry, kind);
        let mut left = blocks;
        while left > 0 {
            let mut extents = Vec::new();
            let mut got = 0;
            if left < zone_blocks || self.free.empty_zones() == 0 {
                let changes = &mut self.changes;
                got = self.free.take(kind, left, MAX_EXTENTS, 0, changes, &mut |extent| {
                    Ok(extents.push(SpaceExtent { kind, extent })?)
                })?;
            }
            if got == 0 {
                let zones = (left / zone_blocks).max(1);
                let Some(run) = self.free.take_zones(kind, zones, &mut self.changes)? else { break };
                got = run.len.min(left);
                extents.push(SpaceExtent::new(kind, run.start, got))?;
                if got < run.len {
                    let rest = Extent::new(run.start + got, run.len - got);
                    self.free.add(kind, rest, &mut self.changes)?;
                }
            }
            left -= got;
            self.give(slot, extents, false)?;
        }
        Ok(())
    }

    /// Notes a hand-over to a mount, which is told of it now or when it asks; returns its number.
    fn give(&mut self, slot: u32, extents: Vec<SpaceExtent>, told: bool) -> Result<u64, ServerError> {
        let Some(member) = self.members.get_mut(slot) else {
            return Ok(0);
        };
        let last = member.item.down_given.get();
        let number = if planted(Fault::ReuseHandOver) { last.max(1) } else { last + 1 };
        member.item.down_given = U64::new(number);
        for of in &extents {
            let free = &mut member.free[of.kind as usize];
            *free = free.saturating_add(of.extent.len);
        }
        let mut parts = 0;
        for part in extents.chunks(HAND_OVER_EXTENTS as usize) {
            let mut value = Vec::new();
            for extent in part {
                value.extend_from_slice(raw_extent(extent).as_bytes())?;
            }
            self.changes.put(Key::hand_over(slot, number, parts), &*value)?;
            parts += 1;
        }
        member.hand_overs.insert(number, HandOver { extents, parts, told })?;
        self.note_member(slot)?;
        Ok(number)
    }

    /// Whether space of a kind will come back to the server without any mount's doing.
    fn more_space_to_come(&mut self, kind: SpaceKind) -> bool {
        let merging = self.short_of(kind);
        let working = match kind {
            SpaceKind::Meta => self.work.total() > self.work_target() + self.work_slack(),
            // The next commit makes these usable, and then they can move.
            SpaceKind::Data => !self.work.pending.is_empty(),
        };
        merging || working || self.reclaim_pending()
    }

    /// A mount says that it has taken hand-overs. Its own record decides.
    pub(super) fn space_taken(&mut self, slot: u32, taken: HandOverTaken) -> Handled {
        let known = self.members.get(slot).map_or(0, |m| m.item.down_forgotten.get());
        if taken.number.get() <= known {
            return Ok(Answer::Now(Vec::new()));
        }
        let state = self.read_member(slot)?;
        let through = state.map_or(0, |state| state.ring.newest().header().taken.get());
        let given = self.members.get(slot).map_or(0, |m| m.item.down_given.get());
        if through < taken.number.get() || through > given {
            return Err(Refusal::Status(STATUS_INVALID));
        }
        self.forget_taken(slot, through)?;
        Ok(Answer::Now(Vec::new()))
    }

    /// Forgets the hand-overs up to a number: they are the mount's.
    pub(super) fn forget_taken(&mut self, slot: u32, through: u64) -> Result<(), ServerError> {
        let Some(member) = self.members.get_mut(slot) else {
            return Ok(());
        };
        while let Some((&number, hand_over)) = member.hand_overs.first_key_value()
            && number <= through
        {
            for part in 0..hand_over.parts {
                self.changes.delete(Key::hand_over(slot, number, part))?;
            }
            member.hand_overs.pop_first();
        }
        if through > member.item.down_forgotten.get() {
            member.item.down_forgotten = U64::new(through);
            self.note_member(slot)?;
        }
        Ok(())
    }

    /// A mount gives space back. Its record that says so must be durable. Giving the same again changes nothing.
    pub(super) fn space_give(&mut self, slot: u32, payload: &[u8]) -> Handled {
        let (head, body) =
            HandOverHeader::read_from_prefix(payload).map_err(|_| Refusal::Status(STATUS_INVALID))?;
        let raws: &[HandOverExtent] =
            <[HandOverExtent]>::ref_from_bytes(body).map_err(|_| Refusal::Status(STATUS_INVALID))?;
        let number = head.number.get();
        let up_taken = self.members.get(slot).map_or(0, |m| m.item.up_taken.get());
        let answer = |number| -> Handled {
            Ok(Answer::Durable(bytes_of(&HandOverTaken { number: U64::new(number), commit_nr: U64::ZERO })?))
        };
        if number <= up_taken {
            return answer(up_taken);
        }
        if number != up_taken + 1 || raws.len() != head.nr_extents.get() as usize {
            return Err(Refusal::Status(STATUS_INVALID));
        }
        let state = self.read_member(slot)?;
        let given = state.map_or(0, |state| state.ring.newest().header().given.get());
        if given < number {
            return Err(Refusal::Status(STATUS_INVALID));
        }
        let mut extents = Vec::with_capacity(raws.len())?;
        for raw in raws {
            extents.push(space_extent(raw).ok_or(Refusal::Status(STATUS_INVALID))?)?;
        }
        if let Err(e) = self.check_disjoint(&extents) {
            log::error!("scoutfs server: mount slot {slot} gives space that is not its own: {e}");
            return Err(Refusal::Status(STATUS_CORRUPT));
        }
        let before = SpaceKind::ALL.map(|kind| self.free.available(kind));
        for extent in &extents {
            self.free.add(extent.kind, extent.extent, &mut self.changes)?;
        }
        for (kind, before) in SpaceKind::ALL.into_iter().zip(before) {
            if self.free.available(kind) > before {
                self.recalls.gained(kind);
            }
        }
        if let Some(member) = self.members.get_mut(slot) {
            member.item.up_taken = U64::new(number);
            for of in &extents {
                let free = &mut member.free[of.kind as usize];
                *free = free.saturating_sub(of.extent.len);
            }
        }
        self.note_member(slot)?;
        answer(number)
    }

    /// Whether all of the extents may become free, one after the other.
    fn check_disjoint(&self, extents: &[SpaceExtent]) -> Result<(), SpaceError> {
        let mut sets = [ExtentSet::new(), ExtentSet::new()];
        for &SpaceExtent { kind, extent } in extents {
            self.free.check(kind, extent)?;
            if kind == SpaceKind::Meta {
                self.work.check_outside(extent)?;
            }
            sets[kind as usize].insert(extent)?;
        }
        let [meta, data] = &sets;
        for extent in meta.iter() {
            // It lies in the zones.
            let blocks = zone_blocks(&self.geometry, SpaceKind::Meta);
            let at = extent.start - first_block(&self.geometry, SpaceKind::Meta);
            let zone = at / blocks;
            let zones = Extent::new(zone, (at + extent.len).div_ceil(blocks) - zone);
            if data.first_common(zone_extent(&self.geometry, SpaceKind::Data, zones))?.is_some() {
                return Err(SpaceError::TwoKinds { start: extent.start, len: extent.len });
            }
        }
        Ok(())
    }
}

/// A part of a hand-over, as its item has it.
pub(crate) fn parse_part(key: Key, value: &[u8]) -> Result<Vec<SpaceExtent>, ServerError> {
    let bad = |what| ServerError::Item { key, what };
    let raws = <[HandOverExtent]>::ref_from_bytes(value).map_err(|_| bad("wrong length of a hand-over"))?;
    let mut extents = Vec::with_capacity(raws.len())?;
    for raw in raws {
        extents.push(space_extent(raw).ok_or(bad("unknown kind of space"))?)?;
    }
    Ok(extents)
}
