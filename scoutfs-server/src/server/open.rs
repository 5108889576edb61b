// SPDX-License-Identifier: GPL-2.0-only
//! Taking over what the leader before left.
//!
//! The first thing a new leader writes is the newest state under its own term, so that nothing the old one may still
//! write counts. The old leader's working set is taken over when it is known to write no more: it left cleanly, its voter
//! slot was given to another (who has made sure of its death), or its process is dead. Otherwise the set goes
//! into quarantine, and this leader takes another one (see `take_over`).

use scoutfs_btree::space::{Extent, SpaceKind, read_list};
use scoutfs_btree::{BlockCache, CorruptKind, Cursor, Error as TreeError};
use scoutfs_env::device::BlockDevice;
use scoutfs_env::time::Mono;
use scoutfs_env::{Arc, Box, OrdMap, Vec, log, try_box};
use scoutfs_format::Key;
use scoutfs_format::geometry::Geometry;
use scoutfs_format::key::{KIND_FREE, KIND_HAND_OVER, KIND_MEMBER, KIND_MERGE, KIND_QUARANTINE, ZONE_SERVER};
use scoutfs_format::le::{U32, U64};
use scoutfs_format::server_item::{FreeItem, MEMBER_FREE, MEMBER_LIVE, MergeItem, QuarantineItem};
use scoutfs_format::space::{ENTRY_FREE, SPACE_DATA, SPACE_META};
use scoutfs_format::tree::MAX_TREE_HEIGHT;
use scoutfs_format::voter::{LeaderId, ProcessId, SUPER_CLEAN, SuperBlock, TakeOver};
use scoutfs_lock::file_locks::FileLockServer;
use zerocopy::FromBytes;

use super::changes::Changes;
use super::cut_off::CutOff;
use super::fences::FencedData;
use super::free_space::FreeSpace;
use super::hand_over::parse_part;
use super::horizon::Horizon;
use super::members::{HandOver, MemberState, Members};
use super::merges::Merges;
use super::recall::Recalls;
use super::seqs::Counters;
use super::take_over::Former;
use super::work::WorkSet;
use super::{DeathOracle, Leader, Server, locks};
use crate::error::ServerError;
use crate::roots::parse_member;
use crate::super_block::{NUMBER_END, ValidSuper, write_super_after};

/// Metadata blocks that a former leader may still write.
pub(crate) struct Quarantine {
    pub extent: Extent,
    pub process: ProcessId,
}

/// All items of a server's tree, parsed and checked one by one. The free space has what leaders took who have not committed yet.
pub(crate) struct ServerItems {
    pub free: FreeSpace,
    pub quarantined: Vec<Quarantine>,
    pub fenced_data: FencedData,
    pub members: Members,
    /// Progress by slot and log number.
    pub progress: OrdMap<(u32, u64), Key>,
}

impl ServerItems {
    /// Reads the tree. `unknown_below` is for the members, see [`MemberState`].
    #[inline(never)]
    pub fn read(
        cache: &BlockCache,
        geometry: &Geometry,
        sb: &SuperBlock,
        now: Mono,
        unknown_below: u64,
    ) -> Result<ServerItems, ServerError> {
        let mut items = ServerItems {
            free: FreeSpace::new(*geometry, sb.meta_zones.get()),
            quarantined: Vec::new(),
            fenced_data: FencedData::default(),
            members: Members::default(),
            progress: OrdMap::new(),
        };
        // Members first: hand-overs and progress are theirs, and sort before them.
        for pass in [KIND_MEMBER, 0] {
            let mut cursor = Cursor::new(cache, sb.server_root, Key::MIN);
            while let Some(item) = cursor.peek()? {
                let key = item.key;
                if key.zone != ZONE_SERVER {
                    return Err(ServerError::Item { key, what: "not of the server's zone" });
                }
                if pass == KIND_MEMBER {
                    if key.kind == KIND_MEMBER {
                        let member = parse_member(geometry, &item)?;
                        items.members.insert(MemberState::new(member, now, unknown_below))?;
                    }
                } else {
                    items.item(key, item.value)?;
                }
                cursor.advance();
            }
        }
        Ok(items)
    }

    /// Subtracts what leaders took that have not committed yet from the free space, of which the tree has it as a part.
    #[cfg(test)]
    pub fn set_aside(&mut self, take_overs: &[TakeOver]) -> Result<(), ServerError> {
        let mut changes = Changes::new();
        for take_over in take_overs {
            let extent = Extent::new(take_over.start.get(), take_over.len.get().into());
            self.free.set_aside(extent, &mut changes)?;
        }
        Ok(())
    }

    fn item(&mut self, key: Key, value: &[u8]) -> Result<(), ServerError> {
        let bad = |what| ServerError::Item { key, what };
        let length = || bad("wrong length");
        let slot = || u32::try_from(key.first).map_err(|_| bad("no such mount slot"));
        match key.kind {
            KIND_MEMBER => {}
            KIND_FREE => {
                let item = FreeItem::read_from_bytes(value).map_err(|_| length())?;
                let code = u8::try_from(key.first).unwrap_or(0);
                if key != Key::free(code, key.second) {
                    return Err(bad("unknown kind of space"));
                }
                self.free.load(code, Extent::new(key.second, item.len.get()))?;
            }
            KIND_QUARANTINE => {
                let item = QuarantineItem::read_from_bytes(value).map_err(|_| length())?;
                let extent = Extent::new(key.second, item.len.get());
                if key == Key::quarantine(SPACE_DATA, key.second) {
                    self.free.check(SpaceKind::Data, extent)?;
                    return self.fenced_data.load(item.fence.get(), extent);
                }
                if key != Key::quarantine(SPACE_META, key.second) {
                    return Err(bad("unknown kind of space"));
                }
                self.free.check(SpaceKind::Meta, extent)?;
                self.quarantined.push(Quarantine { extent, process: item.process })?;
            }
            KIND_HAND_OVER => {
                let slot = slot()?;
                let extents = parse_part(key, value)?;
                let member = self.members.get_mut(slot).ok_or(bad("no such member"))?;
                match member.hand_overs.get_mut(&key.second) {
                    Some(hand_over) if hand_over.parts == key.third => {
                        hand_over.parts += 1;
                        hand_over.extents.extend_from_slice(&extents)?;
                    }
                    None if key.third == 0 => {
                        let hand_over = HandOver { extents, parts: 1, told: false };
                        member.hand_overs.insert(key.second, hand_over)?;
                    }
                    _ => return Err(bad("a part of a hand-over is missing")),
                }
            }
            KIND_MERGE => {
                let slot = slot()?;
                let item = MergeItem::read_from_bytes(value).map_err(|_| length())?;
                self.members.get(slot).ok_or(bad("no such member"))?;
                self.progress.insert((slot, key.second), item.next.get())?;
            }
            _ => return Err(bad("unknown kind of item")),
        }
        Ok(())
    }
}

/// The free blocks and the blocks of a working set's list.
#[inline(never)]
pub(crate) fn read_work(
    cache: &BlockCache,
    sb: &SuperBlock,
) -> Result<(Vec<Extent>, Vec<scoutfs_format::BlockRef>), ServerError> {
    let mut extents = Vec::new();
    let mut wrong = None;
    let blocks = read_list(cache, &sb.work, |entry| {
        if entry.kind != SPACE_META || entry.state != ENTRY_FREE {
            wrong = Some(entry.start.get());
        }
        Ok(extents.push(Extent::new(entry.start.get(), entry.len.get().into()))?)
    })?;
    match wrong {
        Some(start) => Err(ServerError::Work { start }),
        None => Ok((extents, blocks)),
    }
}

/// Refuses a super block that cannot be counted on from.
#[inline(never)]
fn check_super(sb: &SuperBlock, geometry: &Geometry) -> Result<(), ServerError> {
    let counters = [("seq bound", sb.seq_bound), ("inode bound", sb.ino_bound), ("block seq", sb.block_seq)];
    if let Some((what, found)) = counters.iter().find(|(_, n)| n.get() >= NUMBER_END) {
        return Err(ServerError::Counter { what, found: found.get() });
    }
    if sb.meta_zones.get() > geometry.nr_zones() {
        return Err(ServerError::Counter { what: "number of metadata zones", found: sb.meta_zones.get() });
    }
    // The height decides how many blocks a merge takes.
    let root = &sb.fs_root;
    if root.height > MAX_TREE_HEIGHT {
        return Err(
            TreeError::corrupt(root.block.blkno.get(), CorruptKind::Height { height: root.height }).into()
        );
    }
    Ok(())
}

impl Server {
    /// Begins to serve as the leader of a new term, from the newest super block and what leaders took over by it, writing to the copies of its voter slot.
    ///
    /// Writes the newest state under the new term before anything else, and nothing when it fails before. Members that are known to be dead, or that have left,
    /// are gone, and the mount of the leader before is fenced: its lease ended with that of the leader, which the winner of an
    /// election has waited for. The others have a lease and its margin to be heard of. More waits for [`commit`](Self::commit).
    #[inline(never)]
    pub fn open(
        dev: Arc<Box<dyn BlockDevice>>,
        cache: Arc<BlockCache>,
        (sb, take_overs): (&ValidSuper, &[TakeOver]),
        leader: Leader,
        dead: &dyn DeathOracle,
        now: Mono,
    ) -> Result<Box<Server>, ServerError> {
        let Leader { voter, term, .. } = leader;
        let geometry = sb.geometry;
        let old = &sb.sb;
        if cache.fsid() != old.id.fsid.get() {
            let (expected, found) = (cache.fsid(), old.id.fsid.get());
            return Err(ServerError::OtherVolume { expected, found });
        }
        if term <= old.term.get() {
            return Err(ServerError::Term { term, newest: old.term.get() });
        }
        if voter >= geometry.nr_voters() {
            return Err(ServerError::Voter { voter, nr_voters: geometry.nr_voters() });
        }
        check_super(old, &geometry)?;
        let mut counters = Counters::new(old);
        let items = ServerItems::read(&cache, &geometry, old, now, counters.next_seq).map_err(settled)?;
        let (work_extents, work_list) = read_work(&cache, old).map_err(settled)?;
        let former = Former::read(&**dev, &geometry, (old, take_overs), voter, dead)?;

        let mut new = try_box(*old)?;
        new.term = U64::new(term);
        new.flags = U64::new(old.flags.get() & !SUPER_CLEAN);
        counters.raise_bounds(&mut new);
        let block_seq = counters.next_seq;
        counters.next_seq += 1;
        let newest_copy = if sb.voter == voter { sb.copy } else { 1 };
        let mut server = Self::assemble(dev, cache, (geometry, leader), new, items, counters, now)?;
        server.work_list = work_list;
        server.block_seq = block_seq;
        let take_overs = server.take_over_work(work_extents, &former)?;
        // What was read may be another host's writes that are not durable yet.
        server.dev.flush()?;
        write_super_after(&**server.dev, voter, newest_copy, &mut server.sb, &take_overs)?;
        *server.durable = *server.sb;
        server.take_over_members(dead, &former)?;
        Ok(server)
    }

    /// A server whose first super block is this one, and that has taken nothing over yet. In a frame of its own, which is large.
    #[inline(never)]
    fn assemble(
        dev: Arc<Box<dyn BlockDevice>>,
        cache: Arc<BlockCache>,
        (geometry, leader): (Geometry, Leader),
        sb: Box<SuperBlock>,
        items: ServerItems,
        counters: Counters,
        now: Mono,
    ) -> Result<Box<Server>, ServerError> {
        let ServerItems { free, quarantined, fenced_data, members, progress } = items;
        // Before the rest, so that that is made where it stays.
        let durable = boxed(|| *sb)?;
        let merges = boxed(|| Merges::new(progress))?;
        let (recalls, file_locks) = (boxed(Recalls::default)?, boxed(FileLockServer::new)?);
        let cut_off = boxed(CutOff::default)?;
        let server = Server {
            dev,
            cache,
            geometry,
            leader: LeaderId {
                term: U64::new(leader.term),
                rid: U64::new(leader.rid),
                voter: U32::new(leader.voter),
                pad: U32::ZERO,
            },
            taking_over: false,
            now,
            locks: locks::Locks::new(leader.term),
            durable,
            sb,
            lease: None,
            super_dirty: false,
            changes: Changes::new(),
            work: WorkSet::default(),
            work_list: Vec::new(),
            block_seq: 0,
            block_counter: 0,
            free,
            quarantined,
            fenced_data,
            members,
            counters,
            horizon: Horizon::default(),
            cut_off,
            merges,
            reclaiming: None,
            deaths_due: now,
            pieces: 0,
            recalls,
            file_locks,
            ready: OrdMap::new(),
            ready_next: 0,
            waiting: Vec::new(),
            request_id: 0,
            failed: None,
            stopped: false,
        };
        Ok(try_box(server)?)
    }

    /// Reads the slots of all members; those that left or are dead are gone, and the mounts of former leaders have no lease.
    #[inline(never)]
    fn take_over_members(&mut self, dead: &dyn DeathOracle, former: &Former) -> Result<(), ServerError> {
        let mut slots = Vec::new();
        for member in self.members.iter().filter(|m| !m.is(MEMBER_FREE)) {
            slots.push(member.slot)?;
        }
        for slot in slots {
            let Some(member) = self.members.get(slot) else {
                continue;
            };
            let (live, is_dead) = (member.is(MEMBER_LIVE), dead.is_dead(&member.item.process));
            let led = former.led(member.rid());
            match self.try_read_member(slot) {
                Ok(state) => {
                    if let Some(state) = &state {
                        self.forget_taken(slot, state.ring.newest().header().taken.get())?;
                    }
                    let left = state.is_some_and(|state| state.ring.newest().is_clean());
                    if live && (left || is_dead || led) {
                        self.expel(slot, is_dead)?;
                    }
                    self.count_quarantined(slot)?;
                }
                Err(ServerError::NoMemory) => return Err(ServerError::NoMemory),
                Err(e) => {
                    log::error!("scoutfs server: {e}");
                    if let Some(member) = self.members.get_mut(slot) {
                        member.broken = true;
                    }
                }
            }
        }
        self.confirm_deaths(dead)?;
        self.locks_recover();
        Ok(())
    }

    /// Space in quarantine whose former leader is dead is free.
    pub(super) fn release_quarantine(&mut self, dead: &dyn DeathOracle) -> Result<(), ServerError> {
        let mut at = 0;
        while let Some(quarantine) = self.quarantined.get(at) {
            if !dead.is_dead(&quarantine.process) {
                at += 1;
                continue;
            }
            let extent = quarantine.extent;
            self.changes.delete(Key::quarantine(SPACE_META, extent.start))?;
            self.free.add(SpaceKind::Meta, extent, &mut self.changes)?;
            self.quarantined.swap_remove(at);
        }
        Ok(())
    }
}

/// Makes a large value, in a frame of its own.
#[inline(never)]
fn boxed<T>(make: impl FnOnce() -> T) -> Result<Box<T>, ServerError> {
    Ok(try_box(make())?)
}

/// Nobody else changes the server's tree while a new server reads it, so a stale block is a damaged one.
fn settled(e: ServerError) -> ServerError {
    match e {
        ServerError::Tree(e) => ServerError::Tree(TreeError::stale_to_corrupt(e)),
        e => e,
    }
}
