// SPDX-License-Identifier: GPL-2.0-only
//! Proof that each block of a volume has exactly one owner.
//!
//! Every owner says what it owns, in sectors of 4 KiB: the super block's trees and working set, the free space and
//! hand-overs of the server, quarantine, and for each member its log trees, its space and the hand-overs that it gave. The
//! caller says what the items of the filesystem own. No two owners may own the same sector, none may be left without an
//! owner, and no zone may hold both metadata and data.
//!
//! The volume must not be in use while it is audited; it may have been left in any state that a crash can leave.

use scoutfs_btree::space::{Extent, SpaceExtent, SpaceKind};
use scoutfs_btree::tree::{FreeCursor, Node, Place, Visitor, free_tree, walk};
use scoutfs_btree::{BlockCache, Error as TreeError};
use scoutfs_env::time::Mono;
use scoutfs_env::{AllocError, OrdMap, Vec};
use scoutfs_format::Key;
use scoutfs_format::block::SECTORS_PER_BLOCK;
use scoutfs_format::geometry::Geometry;
use scoutfs_format::server_item::{MEMBER_FREE, MEMBER_GONE};
use scoutfs_format::tree::TreeRoot;

use crate::error::ServerError;
use crate::roots::Roots;
use crate::server::{
    FreedBlocks, Leftovers, MemberState, SPACE_PROGRESS, ServerItems, read_work, trees_left,
};

/// Who owns space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Owner {
    /// A node of the merged tree.
    #[error("the fs tree")]
    FsTree,
    /// A node of the server's tree.
    #[error("the server's tree")]
    ServerTree,
    /// A block of the list of the working set.
    #[error("the list of the working set")]
    WorkList,
    /// The working set.
    #[error("the working set")]
    WorkSet,
    /// Free, the server's.
    #[error("the server's free space")]
    Free,
    /// An empty zone.
    #[error("the empty zones")]
    EmptyZone,
    /// A former leader may still write it.
    #[error("the quarantine")]
    Quarantine,
    /// A node of a log tree.
    #[error("log tree {nr} of mount slot {slot}")]
    Log {
        /// The slot.
        slot: u32,
        /// The log tree.
        nr: u64,
    },
    /// The space of the mount in a slot, and hand-overs to and from it.
    #[error("the space of mount slot {slot}")]
    Mount {
        /// The slot.
        slot: u32,
    },
    /// A block of a mount's list of space.
    #[error("the space list of mount slot {slot}")]
    MountList {
        /// The slot.
        slot: u32,
    },
    /// Data of an inode.
    #[error("the data of inode {ino}")]
    Data {
        /// The inode.
        ino: u64,
    },
}

/// Something that is wrong.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Issue {
    /// Space with two owners.
    #[error("sectors {start} + {len} belong to {first} and to {second}")]
    TwoOwners {
        /// First sector of the device.
        start: u64,
        /// Sectors.
        len: u64,
        /// One owner.
        first: Owner,
        /// The other.
        second: Owner,
    },
    /// Space without an owner.
    #[error("sectors {start} + {len} belong to nobody")]
    NoOwner {
        /// First sector of the device.
        start: u64,
        /// Sectors.
        len: u64,
    },
    /// Space outside of the zones.
    #[error("sectors {start} + {len}, of {owner}, are not in the zones")]
    OutsideZones {
        /// First sector of the device.
        start: u64,
        /// Sectors.
        len: u64,
        /// Who claims them.
        owner: Owner,
    },
    /// A zone with metadata and data.
    #[error("zone {zone} holds both metadata and data")]
    MixedZone {
        /// The zone.
        zone: u64,
    },
    /// The super block counts zones wrongly.
    #[error("the super block counts {counted} metadata zones, there are {found}")]
    MetaZones {
        /// What the super block says.
        counted: u64,
        /// What was found.
        found: u64,
    },
    /// Something could not be read.
    #[error("{owner}: {error}")]
    Broken {
        /// Whose it is.
        owner: Owner,
        /// Why.
        error: ServerError,
    },
}

/// What an audit found.
#[derive(Debug)]
pub struct Audit {
    /// What is wrong; at most [`MAX_ISSUES`].
    pub issues: Vec<Issue>,
    /// Metadata blocks that the server or mounts have free, those set aside for their own use included.
    pub free_meta_blocks: u64,
    /// Data blocks that the server or mounts have free.
    pub free_data_blocks: u64,
    /// Empty zones.
    pub empty_zones: u64,
    /// Blocks in quarantine.
    pub quarantined_blocks: u64,
}

/// More issues than this are not listed.
pub const MAX_ISSUES: usize = 1000;

/// Told of each extent of file data: inode, first block, blocks.
pub type DataVisitor<'a> = dyn FnMut(u64, u64, u64) -> Result<(), ServerError> + 'a;

/// Audits a volume whose roots were just read. `data` tells the visitor of every extent of file data.
///
/// Errors are those that leave nothing to audit; what is wrong with the volume is in the [`Audit`].
pub fn audit(
    cache: &BlockCache,
    roots: &Roots,
    data: impl FnOnce(&mut DataVisitor<'_>) -> Result<(), ServerError>,
) -> Result<Audit, ServerError> {
    let geometry = &roots.sb.geometry;
    let sb = &roots.sb.sb;
    let mut claims = Claims::new(*geometry);
    claims.tree(cache, &sb.fs_root, Owner::FsTree)?;
    claims.tree(cache, &sb.server_root, Owner::ServerTree)?;
    match read_work(cache, sb) {
        Ok((extents, list)) => {
            for extent in extents {
                claims.blocks(SpaceKind::Meta, extent, Owner::WorkSet)?;
            }
            for block in list {
                claims.meta(block.blkno.get(), Owner::WorkList)?;
            }
        }
        Err(error) => claims.broken(Owner::WorkList, error)?,
    }
    match ServerItems::read(cache, geometry, sb, Mono::ZERO, 0) {
        Ok(items) => {
            claims.server(&items)?;
            for member in items.members.iter().filter(|m| !m.is(MEMBER_FREE)) {
                if let Err(error) = claims.member(cache, roots, &items, member) {
                    if matches!(error, ServerError::NoMemory) {
                        return Err(error);
                    }
                    claims.broken(Owner::Mount { slot: member.slot }, error)?;
                }
            }
        }
        Err(error) => claims.broken(Owner::ServerTree, error)?,
    }
    data(&mut |ino, start, len| {
        claims.blocks(SpaceKind::Data, Extent::new(start, len), Owner::Data { ino })
    })?;
    claims.finish(sb.meta_zones.get())
}

/// Sectors and their owners.
struct Claims {
    geometry: Geometry,
    /// First sector -> (sectors, owner). Neighbours of one owner are one.
    map: OrdMap<u64, (u64, Owner)>,
    /// Zones with metadata, and zones with data: bits 1 and 2.
    zones: OrdMap<u64, u8>,
    audit: Audit,
}

impl Claims {
    fn new(geometry: Geometry) -> Self {
        Claims {
            geometry,
            map: OrdMap::new(),
            zones: OrdMap::new(),
            audit: Audit {
                issues: Vec::new(),
                free_meta_blocks: 0,
                free_data_blocks: 0,
                empty_zones: 0,
                quarantined_blocks: 0,
            },
        }
    }

    fn issue(&mut self, issue: Issue) -> Result<(), AllocError> {
        if self.audit.issues.len() < MAX_ISSUES {
            self.audit.issues.push(issue)?;
        }
        Ok(())
    }

    fn broken(&mut self, owner: Owner, error: ServerError) -> Result<(), ServerError> {
        Ok(self.issue(Issue::Broken { owner, error })?)
    }

    fn zone_sectors(&self) -> u64 {
        self.geometry.zone_data_blocks()
    }

    fn first_sector(&self) -> u64 {
        self.geometry.first_data_block()
    }

    fn meta(&mut self, blkno: u64, owner: Owner) -> Result<(), ServerError> {
        self.blocks(SpaceKind::Meta, Extent::new(blkno, 1), owner)
    }

    /// Blocks of a kind have an owner.
    fn blocks(&mut self, kind: SpaceKind, blocks: Extent, owner: Owner) -> Result<(), ServerError> {
        let unit = match kind {
            SpaceKind::Meta => SECTORS_PER_BLOCK,
            SpaceKind::Data => 1,
        };
        let (start, len) = (blocks.start.saturating_mul(unit), blocks.len.saturating_mul(unit));
        if !self.claim(start, len, owner)? {
            return Ok(());
        }
        let (zone_sectors, first) = (self.zone_sectors(), self.first_sector());
        for zone in (start - first) / zone_sectors..=(start + len - 1 - first) / zone_sectors {
            let bits = self.zones.get(&zone).copied().unwrap_or(0);
            self.zones.insert(zone, bits | 1 << kind as u8)?;
        }
        let audit = &mut self.audit;
        match (owner, kind) {
            (Owner::Quarantine, _) => audit.quarantined_blocks += blocks.len,
            (Owner::Free | Owner::WorkSet | Owner::Mount { .. }, SpaceKind::Meta) => {
                audit.free_meta_blocks += blocks.len;
            }
            (Owner::Free | Owner::Mount { .. }, SpaceKind::Data) => {
                audit.free_data_blocks += blocks.len;
            }
            _ => {}
        }
        Ok(())
    }

    /// Sectors have an owner. Says whether they lie in the zones.
    fn claim(&mut self, start: u64, len: u64, owner: Owner) -> Result<bool, AllocError> {
        let first = self.first_sector();
        let zones_end = first + self.geometry.nr_zones() * self.zone_sectors();
        let end = start.checked_add(len).filter(|&end| len > 0 && start >= first && end <= zones_end);
        let Some(end) = end else {
            self.issue(Issue::OutsideZones { start, len, owner })?;
            return Ok(false);
        };
        // What is owned already stays with its owner; the rest is claimed in the gaps.
        let mut at = start;
        if let Some((&before, &(before_len, _))) = self.map.lower(&start)
            && before + before_len > start
        {
            at = before;
        }
        while at < end {
            match self.map.ceiling(&at).map(|(&s, &v)| (s, v)).filter(|&(s, _)| s < end) {
                Some((taken, (taken_len, other))) => {
                    let (from, to) = (taken.max(start), (taken + taken_len).min(end));
                    self.issue(Issue::TwoOwners {
                        start: from,
                        len: to - from,
                        first: other,
                        second: owner,
                    })?;
                    if at < taken {
                        let from = at.max(start);
                        self.put(from, taken - from, owner)?;
                    }
                    at = taken + taken_len;
                }
                None => {
                    self.put(at, end - at, owner)?;
                    at = end;
                }
            }
        }
        Ok(true)
    }

    /// Adds a claim that overlaps with none, and joins it with its neighbours of the same owner.
    fn put(&mut self, start: u64, len: u64, owner: Owner) -> Result<(), AllocError> {
        let (mut start, mut len) = (start, len);
        if let Some((&before, &(before_len, other))) = self.map.lower(&start)
            && before + before_len == start
            && other == owner
        {
            len += before_len;
            start = before;
        }
        if let Some(&(after_len, other)) = self.map.get(&(start + len))
            && other == owner
        {
            self.map.remove(&(start + len));
            len += after_len;
        }
        self.map.insert(start, (len, owner))?;
        Ok(())
    }

    fn tree(&mut self, cache: &BlockCache, root: &TreeRoot, owner: Owner) -> Result<(), ServerError> {
        struct Nodes<'a> {
            claims: &'a mut Claims,
            owner: Owner,
        }
        impl Nodes<'_> {
            fn note(&mut self, result: Result<(), ServerError>) -> Result<(), TreeError> {
                result.map_err(|_| TreeError::NoMemory)
            }
        }
        impl Visitor for Nodes<'_> {
            fn node(&mut self, place: &Place, _node: &Node) -> Result<(), TreeError> {
                let done = self.claims.meta(place.block.blkno.get(), self.owner);
                self.note(done)
            }

            fn broken(&mut self, place: &Place, error: TreeError) -> Result<(), TreeError> {
                let done = self.claims.meta(place.block.blkno.get(), self.owner);
                self.note(done)?;
                let error = ServerError::Tree(error.stale_to_corrupt());
                let done = self.claims.broken(self.owner, error);
                self.note(done)
            }
        }
        Ok(walk(cache, root, &mut Nodes { claims: self, owner })?)
    }

    fn server(&mut self, items: &ServerItems) -> Result<(), ServerError> {
        for kind in SpaceKind::ALL {
            for extent in items.free.of(kind).iter() {
                self.blocks(kind, extent, Owner::Free)?;
            }
        }
        let zone_sectors = self.zone_sectors();
        for zones in items.free.zones() {
            let start = self.first_sector() + zones.start * zone_sectors;
            self.claim(start, zones.len * zone_sectors, Owner::EmptyZone)?;
            self.audit.empty_zones += zones.len;
        }
        for quarantine in &items.quarantined {
            self.blocks(SpaceKind::Meta, quarantine.extent, Owner::Quarantine)?;
        }
        for extent in items.fenced_data.iter() {
            self.blocks(SpaceKind::Data, extent, Owner::Quarantine)?;
        }
        Ok(())
    }

    /// What the member in a slot owns: all of its log trees and space, or what is left of them when they are being
    /// taken back.
    fn member(
        &mut self,
        cache: &BlockCache,
        roots: &Roots,
        items: &ServerItems,
        member: &MemberState,
    ) -> Result<(), ServerError> {
        let slot = member.slot;
        let state = roots.slot(slot);
        let gone = member.is(MEMBER_GONE);
        if let Some(state) = state {
            let merged_through = member.merged_through();
            let all_merged = state.last_log_nr() <= merged_through;
            let trees = if gone && all_merged {
                trees_left(slot, merged_through, state, &items.progress)?
            } else {
                let mut all = Vec::new();
                for log in state.logs() {
                    all.push((log, Key::MIN))?;
                }
                all
            };
            for (log, position) in trees {
                let owner = Owner::Log { slot, nr: log.nr.get() };
                let mut left = FreedBlocks::default();
                let mut cursor = FreeCursor::at(position);
                free_tree(cache, &mut left, &log.root, &mut cursor, u64::MAX)
                    .map_err(TreeError::stale_to_corrupt)?;
                for blkno in left.blocks {
                    self.meta(blkno, owner)?;
                }
            }
        }
        let left = Leftovers::new(cache, &self.geometry, &member.item, state, &member.hand_overs)?;
        let position = items.progress.get(&(slot, SPACE_PROGRESS)).copied().filter(|_| gone);
        let from = left.index_of(position.unwrap_or(Key::MIN));
        for &SpaceExtent { kind, extent } in left.extents.get(from..).unwrap_or_default() {
            self.blocks(kind, extent, Owner::Mount { slot })?;
        }
        for &blkno in &left.list {
            self.meta(blkno, Owner::MountList { slot })?;
        }
        Ok(())
    }

    fn finish(mut self, counted: u64) -> Result<Audit, ServerError> {
        let mut at = self.first_sector();
        let end = at + self.geometry.nr_zones() * self.zone_sectors();
        while at < end {
            match self.map.ceiling(&at).map(|(&start, &(len, _))| (start, len)) {
                Some((start, len)) if start == at => at += len,
                other => {
                    let gap_end = other.map_or(end, |(start, _)| start);
                    self.issue(Issue::NoOwner { start: at, len: gap_end - at })?;
                    at = gap_end;
                }
            }
        }
        let (mut meta_zones, mut mixed) = (0, Vec::new());
        for (&zone, &bits) in &self.zones {
            if bits & (1 << SpaceKind::Meta as u8) != 0 {
                meta_zones += 1;
            }
            if bits.count_ones() > 1 {
                mixed.push(zone)?;
            }
        }
        for zone in mixed {
            self.issue(Issue::MixedZone { zone })?;
        }
        if meta_zones != counted {
            self.issue(Issue::MetaZones { counted, found: meta_zones })?;
        }
        Ok(self.audit)
    }
}
