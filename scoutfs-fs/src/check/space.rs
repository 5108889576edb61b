// SPDX-License-Identifier: GPL-2.0-only
//! Slots, the server's items, and whose space is whose.
//!
//! Everything but the data of files gets its owner here. A hand-over belongs to its giver's list until the taker's
//! record (or member item) names it, and to the taker from then on.

use scoutfs_btree::space::{SpaceExtent, SpaceKind, SpaceReplay, read_list};
use scoutfs_btree::{Error as TreeError, ForestRoots, Item, OwnedItem};
use scoutfs_env::Vec;
use scoutfs_format::Key;
use scoutfs_format::key::{KIND_FREE, KIND_HAND_OVER, KIND_MEMBER, KIND_MERGE, KIND_QUARANTINE, ZONE_SERVER};
use scoutfs_format::ring::LogTree;
use scoutfs_format::server_item::{
    FreeItem, HAND_OVER_EXTENTS, HandOverExtent, MEMBER_FREE, MEMBER_GONE, MEMBER_LIVE, MemberItem,
    MergeItem, QuarantineItem,
};
use scoutfs_format::space::{ENTRY_FREE, SPACE_META, SPACE_ZONES};
use scoutfs_format::tree::TreeRoot;
use scoutfs_server::ServerError;
use scoutfs_server::roots::{Member, Roots, SlotState, read_slot};
use scoutfs_server::super_block::ValidSuper;
use zerocopy::FromBytes;

use super::events::{Event, Events};
use super::issue::{Issue, IssueKind, Place, TreeId};
use super::owners::Owner;
use super::trees::{Tree, check_version};
use super::{CheckError, Checker};

/// What the items of the filesystem are read from.
pub(super) struct Found {
    pub forest: ForestRoots,
    /// Inodes by the super block and all records that it does not count.
    pub inodes: i64,
}

/// Log number of the progress of taking back a mount's space.
const SPACE_PROGRESS: u64 = u64::MAX;

/// How far the server is with merging the log trees of a mount, or with freeing them and taking back its space.
struct Progress {
    slot: u32,
    log_nr: u64,
    next: Key,
}

/// What the server has already taken back of a mount that is gone: its log trees one by one, then its space in the order
/// of kind and block.
#[derive(Clone, Copy, Default)]
struct TakenBack {
    /// Log trees before this one.
    logs_before: u64,
    /// Nodes of that log tree that only cover keys below this one.
    nodes_below: Key,
    /// Extents below this kind and block.
    space_below: (u64, u64),
}

impl TakenBack {
    fn of(member: &Member, state: Option<&SlotState>, progress: &[Progress]) -> Self {
        let merged_through = member.item.merged_through.get();
        let all_merged = state.is_none_or(|state| state.last_log_nr() <= merged_through);
        if member.item.state.get() != MEMBER_GONE || !all_merged {
            return TakenBack::default();
        }
        let mut own = progress.iter().filter(|p| p.slot == member.slot);
        let Some(first) = own.next() else {
            return TakenBack::default();
        };
        match own.next_back().unwrap_or(first) {
            Progress { log_nr: SPACE_PROGRESS, next, .. } => TakenBack {
                logs_before: SPACE_PROGRESS,
                nodes_below: Key::MIN,
                space_below: (next.first, next.second),
            },
            _ => TakenBack { logs_before: first.log_nr, nodes_below: first.next, space_below: (0, 0) },
        }
    }

    fn has(&self, blocks: &SpaceExtent) -> bool {
        (u64::from(blocks.kind.to_raw()), blocks.extent.start) < self.space_below
    }
}

impl Checker<'_> {
    /// Checks all but the filesystem's items, and says where those are.
    pub(super) fn check_space(&mut self, sb: ValidSuper) -> Result<Found, CheckError> {
        let items = self.server_items()?;
        let members = self.members(&items)?;
        let mut slots = Vec::new();
        for member in &members {
            if let Some(state) = self.slot(member)? {
                slots.push(state)?;
            }
        }
        let progress = self.progress(&items, &members)?;
        for item in &items {
            self.server_item(item, &members, &slots, &progress)?;
        }
        self.check_take_overs();
        self.work_list()?;
        let mut inodes = self.sb.inodes.get().cast_signed();
        for state in &slots {
            let Some(member) = members.iter().find(|m| m.slot == state.slot) else { continue };
            let back = TakenBack::of(member, Some(state), &progress);
            self.mount_space(member, state, &back)?;
            self.mount_logs(member, state, &back)?;
            inodes = inodes.saturating_add(state.ring.newest().header().inode_delta.get());
        }
        let fs = Tree {
            id: TreeId::Fs,
            root: self.sb.fs_root,
            freed_below: Key::MIN,
            versions: (0, u64::MAX),
            in_forest: true,
        };
        let seen = self.check_tree(&fs)?;
        let (counted, found) = (self.sb.tombstones.get(), seen.deletions);
        if !seen.broken && counted != found {
            self.issue(IssueKind::TombstoneCount { counted, found }, Place::Tree { tree: TreeId::Fs });
        }
        let empty = ForestRoots { fs_root: TreeRoot::EMPTY, logs: Vec::new(), tails: Vec::new() };
        let roots = Roots { sb, members, slots, forest: empty };
        let forest = roots.forest_without(None).map_err(|_| CheckError::NoMemory)?;
        Ok(Found { forest, inodes })
    }

    /// The items of the server's tree that can be read.
    fn server_items(&mut self) -> Result<Vec<OwnedItem>, CheckError> {
        let tree = Tree {
            id: TreeId::Server,
            root: self.sb.server_root,
            freed_below: Key::MIN,
            versions: (0, 0),
            in_forest: false,
        };
        let seen = self.check_tree(&tree)?;
        // Without all members nobody knows which slots count.
        self.summary.items_checked &= !seen.broken;
        Ok(seen.items)
    }

    fn members(&mut self, items: &[OwnedItem]) -> Result<Vec<Member>, CheckError> {
        let mut members = Vec::new();
        for item in items.iter().filter(|item| item.key.kind == KIND_MEMBER) {
            let Some(member) = self.value::<MemberItem>(&item.borrow()) else {
                self.summary.items_checked = false;
                continue;
            };
            let (slot, state) = (item.key.second, member.state.get());
            let known = u32::try_from(slot).ok().filter(|&slot| {
                slot < self.geometry.nr_slots()
                    && item.key == Key::member(slot)
                    && (MEMBER_LIVE..=MEMBER_FREE).contains(&state)
            });
            match known {
                Some(slot) => members.push(Member { slot, item: member })?,
                None => {
                    self.summary.items_checked = false;
                    self.issue(IssueKind::Member { slot, state }, server_place(item.key));
                }
            }
        }
        Ok(members)
    }

    /// What counts of a member's slot.
    fn slot(&mut self, member: &Member) -> Result<Option<SlotState>, CheckError> {
        let slot = member.slot;
        let fsid = self.sb.id.fsid.get();
        let kind = match read_slot(&***self.dev, &self.geometry, fsid, member) {
            Ok(state) => return Ok(state),
            Err(ServerError::NoMemory) => return Err(CheckError::NoMemory),
            Err(ServerError::Tree(e)) => return Err(e.into()),
            Err(ServerError::Io(error)) => IssueKind::Io { error },
            Err(ServerError::Slot { what: problem, .. }) => IssueKind::Slot { problem },
            Err(_) => IssueKind::Member { slot: slot.into(), state: member.item.state.get() },
        };
        self.issue(kind, Place::Slot { slot });
        self.summary.items_checked = false;
        self.summary.owners_checked = false;
        Ok(None)
    }

    /// A value of a fixed length.
    fn value<T: FromBytes>(&mut self, item: &Item<'_>) -> Option<T> {
        let value = T::read_from_bytes(item.value).ok();
        if value.is_none() {
            let (expected, found) = (size_of::<T>(), item.value.len());
            self.issue(IssueKind::ValueLength { expected, found }, server_place(item.key));
            self.summary.owners_checked = false;
        }
        value
    }

    /// The progress items, by slot and log number.
    fn progress(&mut self, items: &[OwnedItem], members: &[Member]) -> Result<Vec<Progress>, CheckError> {
        let mut progress = Vec::new();
        for item in items.iter().filter(|item| item.key.kind == KIND_MERGE) {
            let key = item.key;
            let slot = u32::try_from(key.first).unwrap_or(u32::MAX);
            if key != Key::merge(slot, key.second) || !members.iter().any(|m| m.slot == slot) {
                self.issue(IssueKind::UnknownKey, server_place(key));
            } else if let Some(merge) = self.value::<MergeItem>(&item.borrow()) {
                progress.push(Progress { slot, log_nr: key.second, next: merge.next.get() })?;
            }
        }
        Ok(progress)
    }

    fn server_item(
        &mut self,
        item: &OwnedItem,
        members: &[Member],
        slots: &[SlotState],
        progress: &[Progress],
    ) -> Result<(), CheckError> {
        let (key, item) = (item.key, item.borrow());
        if key.zone != ZONE_SERVER {
            // It was told already.
            return Ok(());
        }
        match key.kind {
            KIND_MEMBER | KIND_MERGE => {}
            KIND_FREE => {
                if let Some(free) = self.value::<FreeItem>(&item) {
                    self.server_space(key, free.len.get(), Owner::ServerFree)?;
                }
            }
            KIND_QUARANTINE => {
                if let Some(quarantine) = self.value::<QuarantineItem>(&item) {
                    self.server_space(key, quarantine.len.get(), Owner::Quarantine)?;
                }
            }
            KIND_HAND_OVER => self.hand_over(&item, members, slots, progress)?,
            _ => self.issue(IssueKind::UnknownKey, server_place(key)),
        }
        Ok(())
    }

    /// Space that an item of the server's tree says is free or in quarantine.
    fn server_space(&mut self, key: Key, len: u64, owner: Owner) -> Result<(), CheckError> {
        let code = u8::try_from(key.first).unwrap_or(0);
        let exact = match owner {
            Owner::Quarantine => Key::quarantine(code, key.second),
            _ => Key::free(code, key.second),
        };
        if code == SPACE_ZONES && key == exact {
            match self.owners.zones(key.second, len, owner) {
                Some(run) => self.claim_free(run)?,
                None => self.issue(IssueKind::OutsideZones { owner }, server_place(key)),
            }
            return Ok(());
        }
        match SpaceKind::from_raw(code).filter(|_| key == exact) {
            Some(kind) if owner == Owner::ServerFree => match self.owners.run(kind, key.second, len, owner) {
                Some(run) => self.claim_free(run)?,
                None => self.issue(IssueKind::OutsideZones { owner }, server_place(key)),
            },
            Some(kind) => drop(self.claim(kind, key.second, len, owner, Some(server_place(key)))?),
            None => self.issue(IssueKind::UnknownSpaceKind { kind: key.first }, server_place(key)),
        }
        Ok(())
    }

    /// A part of a hand-over to a mount.
    fn hand_over(
        &mut self,
        item: &Item<'_>,
        members: &[Member],
        slots: &[SlotState],
        progress: &[Progress],
    ) -> Result<(), CheckError> {
        let (key, number) = (item.key, item.key.second);
        let slot = u32::try_from(key.first).unwrap_or(u32::MAX);
        let member = members.iter().find(|m| m.slot == slot);
        let Some(member) = member.filter(|_| key == Key::hand_over(slot, number, key.third)) else {
            self.issue(IssueKind::UnknownKey, server_place(key));
            return Ok(());
        };
        let (forgotten, given) = (member.item.down_forgotten.get(), member.item.down_given.get());
        if number <= forgotten || number > given {
            self.issue(IssueKind::HandOverNumber { number, forgotten, given }, server_place(key));
        }
        let extents = <[HandOverExtent]>::ref_from_bytes(item.value).unwrap_or_default();
        if extents.is_empty() || extents.len() > HAND_OVER_EXTENTS as usize {
            let (expected, found) = (size_of::<HandOverExtent>(), item.value.len());
            self.issue(IssueKind::ValueLength { expected, found }, server_place(key));
            self.summary.owners_checked = false;
        }
        let state = slots.iter().find(|s| s.slot == slot);
        if state.is_some_and(|state| state.ring.newest().header().taken.get() >= number) {
            return Ok(());
        }
        let back = TakenBack::of(member, state, progress);
        let owner = Owner::HandOverDown { slot, number };
        for extent in extents {
            match SpaceKind::from_raw(extent.kind) {
                Some(kind) => {
                    let (start, len) = (extent.start.get(), extent.len.get().into());
                    if !back.has(&SpaceExtent::new(kind, start, len)) {
                        self.claim(kind, start, len, owner, Some(server_place(key)))?;
                    }
                }
                None => {
                    let kind = extent.kind.into();
                    self.issue(IssueKind::UnknownSpaceKind { kind }, server_place(key));
                }
            }
        }
        Ok(())
    }

    /// The server's working set.
    fn work_list(&mut self) -> Result<(), CheckError> {
        let mut entries = Vec::new();
        let list = read_list(&self.cache, &self.sb.work, |entry| Ok(entries.push(*entry)?));
        for entry in &entries {
            let (start, len) = (entry.start.get(), entry.len.get());
            if entry.kind != SPACE_META || entry.state != ENTRY_FREE {
                let (kind, state) = (entry.kind, entry.state);
                self.issue(IssueKind::WorkEntry { start, len, kind, state }, Place::WorkList);
                continue;
            }
            self.claim(SpaceKind::Meta, start, len.into(), Owner::WorkSet, Some(Place::WorkList))?;
        }
        match list {
            Ok(blocks) => {
                for block in &blocks {
                    self.claim(SpaceKind::Meta, block.blkno.get(), 1, Owner::WorkList, None)?;
                }
            }
            Err(error) => self.broken_list(error, Place::WorkList)?,
        }
        Ok(())
    }

    fn broken_list(&mut self, error: TreeError, place: Place) -> Result<(), CheckError> {
        if error == TreeError::NoMemory {
            return Err(CheckError::NoMemory);
        }
        self.summary.owners_checked = false;
        self.issue(IssueKind::List { error }, place);
        Ok(())
    }

    /// The space that a mount owns by its own records.
    fn mount_space(
        &mut self,
        member: &Member,
        state: &SlotState,
        back: &TakenBack,
    ) -> Result<(), CheckError> {
        let slot = state.slot;
        let place = Place::Slot { slot };
        let header = state.ring.newest().header();
        let (taken, given) = (header.taken.get(), member.item.down_given.get());
        if taken > given {
            self.issue(IssueKind::TakenNotGiven { taken, given }, place.clone());
        }
        let (taken, given) = (member.item.up_taken.get(), header.given.get());
        if taken > given {
            self.issue(IssueKind::ServerTookNotGiven { taken, given }, place.clone());
        }
        let mut replay = SpaceReplay::new(self.geometry);
        let mut wrong = None;
        let list = read_list(&self.cache, &header.space, |entry| {
            if wrong.is_none() {
                wrong = replay.list_entry(entry).err();
            }
            Ok(())
        });
        match list {
            Ok(blocks) => {
                for block in &blocks {
                    self.claim(SpaceKind::Meta, block.blkno.get(), 1, Owner::SpaceList { slot }, None)?;
                }
            }
            Err(error) => return self.broken_list(error, place),
        }
        for entry in state.ring.records().iter().flat_map(|record| record.space()) {
            if wrong.is_none() {
                wrong = replay.record_entry(&entry).err();
            }
        }
        if let Some(error) = wrong.or_else(|| replay.check(given).err()) {
            self.summary.owners_checked = false;
            self.issue(IssueKind::SlotSpace { error }, place);
            return Ok(());
        }
        for kind in SpaceKind::ALL {
            for extent in replay.free(kind).iter() {
                if !back.has(&SpaceExtent { kind, extent }) {
                    self.claim(kind, extent.start, extent.len, Owner::MountFree { slot }, None)?;
                }
            }
        }
        for (number, extents) in replay.given().filter(|&(number, _)| number > taken) {
            for blocks in extents.iter().filter(|blocks| !back.has(blocks)) {
                let SpaceExtent { kind, extent } = *blocks;
                let owner = Owner::HandOverUp { slot, number };
                self.claim(kind, extent.start, extent.len, owner, None)?;
            }
        }
        Ok(())
    }

    /// The log trees of a mount, and the items of its records.
    fn mount_logs(&mut self, member: &Member, state: &SlotState, back: &TakenBack) -> Result<(), CheckError> {
        let slot = state.slot;
        let merged_through = member.item.merged_through.get();
        let tree = |log: &LogTree, max: u64| {
            let nr = log.nr.get();
            Tree {
                id: TreeId::Log { slot, nr },
                root: log.root,
                freed_below: if nr == back.logs_before { back.nodes_below } else { Key::MIN },
                versions: (log.min_version.get(), max),
                in_forest: nr > merged_through,
            }
        };
        for log in state.logs().filter(|log| log.nr.get() >= back.logs_before) {
            self.check_tree(&tree(&log, log.max_version.get()))?;
        }
        if let Some(log) = state.logs().last() {
            let tree = tree(&log, u64::MAX);
            let mut events = Events::default();
            for item in state.tails.iter().flat_map(|tail| tail.range(Key::MIN, Key::MAX)) {
                self.tree_items += u64::from(tree.in_forest);
                check_version(&tree, self.sb.seq_bound.get(), &item, &mut events);
            }
            for event in events.take()? {
                if let Event::Issue(Issue { kind, place }) = event {
                    self.issue(kind, place);
                }
            }
        }
        Ok(())
    }
}

fn server_place(key: Key) -> Place {
    Place::TreeItem { tree: TreeId::Server, key }
}
