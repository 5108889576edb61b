// SPDX-License-Identifier: GPL-2.0-only
//! Who owns each block.
//!
//! A map of runs in units of 4 KiB: neighbours with one owner are one run. It takes memory for each change of owner along
//! the device, and for a volume of large files that is little.

use core::fmt;

use scoutfs_btree::space::SpaceKind;
use scoutfs_env::{AllocError, OrdMap};
use scoutfs_format::block::SECTORS_PER_BLOCK;
use scoutfs_format::geometry::Geometry;

use super::issue::TreeId;

/// The owner of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A tree: the block is one of its nodes.
    Tree(TreeId),
    /// A mount's list of space: the block is part of the list.
    SpaceList {
        /// The mount's slot.
        slot: u32,
    },
    /// The list of the server's working set: the block is part of the list.
    WorkList,
    /// The server's working set.
    WorkSet,
    /// The server's free space.
    ServerFree,
    /// Nobody before a death is confirmed.
    Quarantine,
    /// A mount's free space.
    MountFree {
        /// The mount's slot.
        slot: u32,
    },
    /// A hand-over from the server to a mount that has not taken it.
    HandOverDown {
        /// The mount's slot.
        slot: u32,
        /// Its number.
        number: u64,
    },
    /// A hand-over from a mount to the server, which has not taken it.
    HandOverUp {
        /// The mount's slot.
        slot: u32,
        /// Its number.
        number: u64,
    },
    /// Data of files.
    Files,
}

impl Owner {
    /// Whether nothing is in the blocks.
    fn is_free(self) -> bool {
        match self {
            Owner::WorkSet
            | Owner::ServerFree
            | Owner::MountFree { .. }
            | Owner::HandOverDown { .. }
            | Owner::HandOverUp { .. } => true,
            Owner::Tree(_) | Owner::SpaceList { .. } | Owner::WorkList | Owner::Quarantine | Owner::Files => {
                false
            }
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Tree(tree) => write!(f, "the {tree}"),
            Owner::SpaceList { slot } => write!(f, "the list of space of mount slot {slot}"),
            Owner::WorkList => f.write_str("the list of the working set"),
            Owner::WorkSet => f.write_str("the server's working set"),
            Owner::ServerFree => f.write_str("the server's free space"),
            Owner::Quarantine => f.write_str("quarantine"),
            Owner::MountFree { slot } => write!(f, "the free space of mount slot {slot}"),
            Owner::HandOverDown { slot, number } => write!(f, "hand-over {number} to mount slot {slot}"),
            Owner::HandOverUp { slot, number } => write!(f, "hand-over {number} of mount slot {slot}"),
            Owner::Files => f.write_str("files"),
        }
    }
}

/// A run of blocks with one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// First 4 KiB block.
    pub first: u64,
    /// Last 4 KiB block.
    pub last: u64,
    /// Metadata or data; `None` for whole zones that are neither yet.
    pub kind: Option<SpaceKind>,
    pub owner: Owner,
}

impl Run {
    /// The run of 4 KiB blocks that are `len` blocks of a kind; `None` when they are not all in the zones.
    pub fn new(geometry: &Geometry, kind: SpaceKind, start: u64, len: u64, owner: Owner) -> Option<Run> {
        let unit = sectors(Some(kind));
        let (start, len) = (start.checked_mul(unit)?, len.checked_mul(unit)?);
        let inside = geometry.has_data_blocks(start, len);
        inside.then(|| Run { first: start, last: start + len - 1, kind: Some(kind), owner })
    }
}

/// 4 KiB blocks in one block of a kind.
fn sectors(kind: Option<SpaceKind>) -> u64 {
    match kind {
        Some(SpaceKind::Meta) => SECTORS_PER_BLOCK,
        Some(SpaceKind::Data) | None => 1,
    }
}

/// See the module.
pub(super) struct Owners {
    geometry: Geometry,
    /// Last 4 KiB block -> first, kind, owner.
    runs: OrdMap<u64, (u64, Option<SpaceKind>, Owner)>,
}

impl Owners {
    pub fn new(geometry: Geometry) -> Self {
        Owners { geometry, runs: OrdMap::new() }
    }

    /// See [`Run::new`].
    pub fn run(&self, kind: SpaceKind, start: u64, len: u64, owner: Owner) -> Option<Run> {
        Run::new(&self.geometry, kind, start, len, owner)
    }

    /// The run of whole zones that are neither metadata nor data yet.
    pub fn zones(&self, start: u64, len: u64, owner: Owner) -> Option<Run> {
        let end = start.checked_add(len).filter(|&end| len > 0 && end <= self.geometry.nr_zones())?;
        let (base, blocks) = (self.geometry.first_data_block(), self.geometry.zone_data_blocks());
        Some(Run { first: base + start * blocks, last: base + end * blocks - 1, kind: None, owner })
    }

    /// Gives a run to its owner, and tells each part that already has another, which keeps it.
    pub fn claim(&mut self, run: Run, taken: &mut dyn FnMut(Run)) -> Result<(), AllocError> {
        let mut at = run.first;
        loop {
            let found = self.next(at).filter(|found| found.first <= run.last);
            let free_end = found.map_or(run.last + 1, |found| found.first);
            if at < free_end {
                self.insert(Run { first: at, last: free_end - 1, ..run })?;
            }
            let Some(found) = found else { return Ok(()) };
            let last = found.last.min(run.last);
            taken(Run { first: found.first.max(at), last, ..found });
            if last == run.last {
                return Ok(());
            }
            at = last + 1;
        }
    }

    /// The first run that has a block at or after `at`.
    fn next(&self, at: u64) -> Option<Run> {
        let (&last, &(first, kind, owner)) = self.runs.ceiling(&at)?;
        Some(Run { first, last, kind, owner })
    }

    /// Adds a run that overlaps none.
    fn insert(&mut self, run: Run) -> Result<(), AllocError> {
        let same = |other: &(u64, Option<SpaceKind>, Owner)| (other.1, other.2) == (run.kind, run.owner);
        let before = run.first.checked_sub(1).filter(|last| self.runs.get(last).is_some_and(same));
        let first = match before.and_then(|last| self.runs.remove(&last)) {
            Some((first, ..)) => first,
            None => run.first,
        };
        match self.runs.ceiling_mut(&(run.last + 1)) {
            Some((_, after)) if after.0 == run.last + 1 && same(after) => after.0 = first,
            _ => drop(self.runs.insert(run.last, (first, run.kind, run.owner))?),
        }
        Ok(())
    }

    /// All runs in order.
    pub fn iter(&self) -> impl Iterator<Item = Run> + '_ {
        self.runs.iter().map(|(&last, &(first, kind, owner))| Run { first, last, kind, owner })
    }

    /// Tells of blocks of the zones that nobody owns, and of zones that hold both kinds. Returns the number of zones that
    /// hold metadata.
    pub fn finish(&self, tell: &mut dyn FnMut(Finding)) -> u64 {
        let (base, end) = (self.geometry.first_data_block(), self.geometry.end_data_block());
        let blocks = self.geometry.zone_data_blocks();
        let zone_of = |sector: u64| (sector - base) / blocks;
        let mut at = base;
        let mut before: Option<Run> = None;
        // The last zone of the runs so far, and whether it holds metadata and data.
        let mut newest: Option<(u64, [bool; 2])> = None;
        let mut meta_zones = 0;
        for run in self.iter() {
            if at < run.first {
                tell(self.gap(at, run.first, before, Some(run)));
            }
            at = run.last + 1;
            before = Some(run);
            let Some(kind) = run.kind else { continue };
            let (first_zone, last_zone) = (zone_of(run.first), zone_of(run.last));
            let (zone, mut holds) = newest.unwrap_or((first_zone, [false; 2]));
            let is_new = zone != first_zone;
            if is_new {
                holds = [false; 2];
            }
            let held = holds;
            holds[kind as usize] = true;
            if held != holds && holds == [true; 2] {
                tell(Finding::TwoKinds { zone: first_zone });
            }
            if kind == SpaceKind::Meta {
                meta_zones += last_zone - first_zone + u64::from(!held[SpaceKind::Meta as usize]);
            }
            if last_zone > first_zone {
                holds = [kind == SpaceKind::Meta, kind == SpaceKind::Data];
            }
            newest = Some((last_zone, holds));
        }
        if at < end {
            tell(self.gap(at, end, before, None));
        }
        meta_zones
    }

    /// Blocks of 4 KiB that hold something.
    pub fn used_blocks(&self) -> u64 {
        let used = self.iter().filter(|run| !run.owner.is_free() && run.owner != Owner::Quarantine);
        used.map(|run| run.last - run.first + 1).sum()
    }

    /// Whole zones of which nothing is in use.
    pub fn free_zones(&self) -> FreeZones {
        let (base, blocks) = (self.geometry.first_data_block(), self.geometry.zone_data_blocks());
        let mut zones = FreeZones::default();
        // First block and kind of the free blocks that end before `at`.
        let mut free: Option<(u64, Option<SpaceKind>)> = None;
        let mut at = base;
        let mut count = |free: Option<(u64, Option<SpaceKind>)>, end: u64| {
            let Some((first, kind)) = free else { return };
            let whole = ((end - base) / blocks).saturating_sub((first - base).div_ceil(blocks));
            match kind {
                None => zones.empty += whole,
                Some(SpaceKind::Meta) => zones.meta += whole,
                Some(SpaceKind::Data) => zones.data += whole,
            }
        };
        for run in self.iter() {
            if run.first != at || !run.owner.is_free() || free.is_none_or(|(_, kind)| kind != run.kind) {
                count(free, at);
                free = run.owner.is_free().then_some((run.first, run.kind));
            }
            at = run.last + 1;
        }
        count(free, at);
        zones
    }

    /// Blocks without owner, as blocks of the kind of a neighbour in the same zone, if they have one.
    fn gap(&self, first: u64, end: u64, before: Option<Run>, after: Option<Run>) -> Finding {
        let base = self.geometry.first_data_block();
        let zone_of = |sector: u64| (sector - base) / self.geometry.zone_data_blocks();
        let before = before.filter(|run| zone_of(run.last) == zone_of(first)).and_then(|run| run.kind);
        let after = after.filter(|run| zone_of(run.first) == zone_of(end - 1)).and_then(|run| run.kind);
        let run = Run { first, last: end - 1, kind: before.or(after), owner: Owner::Files };
        let (kind, start, len) = blocks(&run);
        Finding::Lost { kind, start, len }
    }
}

/// Zones that hold nothing, whoever owns their blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FreeZones {
    /// Of no kind yet.
    pub empty: u64,
    /// All of whose metadata blocks are free, or kept by the server or a mount for what it must be able to write.
    pub meta: u64,
    /// All of whose data blocks are free.
    pub data: u64,
}

/// What is wrong with all owners together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// Blocks that nobody owns.
    Lost { kind: SpaceKind, start: u64, len: u64 },
    /// A zone that holds metadata and data.
    TwoKinds { zone: u64 },
}

/// A run as blocks of its kind.
pub(super) fn blocks(run: &Run) -> (SpaceKind, u64, u64) {
    let kind = run.kind.unwrap_or(SpaceKind::Data);
    let unit = sectors(Some(kind));
    if run.first.is_multiple_of(unit) && (run.last + 1).is_multiple_of(unit) {
        (kind, run.first / unit, (run.last + 1 - run.first) / unit)
    } else {
        (SpaceKind::Data, run.first, run.last + 1 - run.first)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use scoutfs_format::geometry::MIN_VOLUME_BYTES;
    use std::vec::Vec;

    use super::*;

    fn geometry() -> Geometry {
        Geometry::new(MIN_VOLUME_BYTES, 1).unwrap()
    }

    proptest! {
        #[test]
        fn runs_say_what_a_list_of_blocks_says(
            claims in prop::collection::vec((any::<bool>(), 0u64..600, 1u64..80, 0u32..3), 1..60),
        ) {
            let g = geometry();
            let (base, zone) = (g.first_data_block(), g.zone_data_blocks());
            let mut owners = Owners::new(g);
            let mut model = std::vec![None; (g.end_data_block() - base) as usize];
            for (meta, at, len, slot) in claims {
                let kind = if meta { SpaceKind::Meta } else { SpaceKind::Data };
                let (start, len) = if meta { (g.first_meta_block() + at / 16, len.div_ceil(16)) } else { (base + at, len) };
                let run = owners.run(kind, start, len, Owner::MountFree { slot }).unwrap();
                let mut taken = Vec::new();
                owners.claim(run, &mut |run| taken.push(run)).unwrap();
                let mut expected = 0;
                for block in run.first..=run.last {
                    let cell = &mut model[(block - base) as usize];
                    match cell {
                        Some((kind, slot)) => {
                            expected += 1;
                            let found = taken.iter().find(|run| (run.first..=run.last).contains(&block)).unwrap();
                            prop_assert_eq!((found.kind, found.owner), (Some(*kind), Owner::MountFree { slot: *slot }));
                        }
                        None => *cell = Some((kind, slot)),
                    }
                }
                prop_assert_eq!(taken.iter().map(|run| run.last - run.first + 1).sum::<u64>(), expected);
            }
            let mut gaps = std::vec![false; model.len()];
            let mut mixed = Vec::new();
            let meta_zones = owners.finish(&mut |finding| match finding {
                Finding::Lost { kind, start, len } => {
                    let unit = sectors(Some(kind));
                    for block in start * unit..(start + len) * unit {
                        gaps[(block - base) as usize] = true;
                    }
                }
                Finding::TwoKinds { zone } => mixed.push(zone),
            });
            let mut expected_mixed = Vec::new();
            let mut expected_meta = 0;
            for (nr, blocks) in model.chunks(zone as usize).enumerate() {
                let has = |kind| blocks.iter().flatten().any(|(k, _)| *k == kind);
                expected_meta += u64::from(has(SpaceKind::Meta));
                if has(SpaceKind::Meta) && has(SpaceKind::Data) {
                    expected_mixed.push(nr as u64);
                }
            }
            prop_assert_eq!(gaps, model.iter().map(Option::is_none).collect::<Vec<_>>());
            prop_assert_eq!(mixed, expected_mixed);
            prop_assert_eq!(meta_zones, expected_meta);
        }
    }

    #[test]
    fn runs_outside_of_the_zones_are_refused() {
        let g = geometry();
        let owners = Owners::new(g);
        for (kind, start, len) in [
            (SpaceKind::Data, 0, 1),
            (SpaceKind::Data, g.end_data_block() - 1, 2),
            (SpaceKind::Data, g.first_data_block(), 0),
            (SpaceKind::Meta, u64::MAX, 1),
            (SpaceKind::Meta, 1 << 60, 1),
            (SpaceKind::Meta, g.end_meta_block(), 1),
        ] {
            assert_eq!(owners.run(kind, start, len, Owner::Files), None);
        }
        assert!(owners.run(SpaceKind::Meta, g.end_meta_block() - 1, 1, Owner::Files).is_some());
        assert_eq!(owners.zones(0, 0, Owner::ServerFree), None);
        assert_eq!(owners.zones(u64::MAX, 1, Owner::ServerFree), None);
    }

    #[test]
    fn zones_are_free_whoever_owns_their_blocks() {
        let g = geometry();
        let (base, zone) = (g.first_data_block(), g.zone_data_blocks());
        let mut owners = Owners::new(g);
        let mut claim = |kind, from: u64, to: u64, owner| {
            let unit = sectors(Some(kind));
            let run = owners.run(kind, (base + from) / unit, (to - from) / unit, owner).unwrap();
            owners.claim(run, &mut |run| panic!("{run:?}")).unwrap();
        };
        // Zone 0 is used but for a block. Zones 1 and 2 are free in parts that belong to three.
        claim(SpaceKind::Data, 0, zone - 1, Owner::Files);
        claim(SpaceKind::Data, zone - 1, zone + 10, Owner::ServerFree);
        claim(SpaceKind::Data, zone + 10, 2 * zone + 1, Owner::MountFree { slot: 1 });
        claim(SpaceKind::Data, 2 * zone + 1, 3 * zone, Owner::HandOverUp { slot: 1, number: 1 });
        // Zones 3 and 4 are of the other kind; nobody owns zone 5; zone 6 has one node.
        claim(SpaceKind::Meta, 3 * zone, 4 * zone + 32, Owner::WorkSet);
        claim(SpaceKind::Meta, 4 * zone + 32, 5 * zone, Owner::MountFree { slot: 0 });
        claim(SpaceKind::Meta, 6 * zone, 6 * zone + 16, Owner::Tree(TreeId::Server));
        claim(SpaceKind::Meta, 6 * zone + 16, 7 * zone, Owner::ServerFree);
        let empty = owners.zones(8, 3, Owner::ServerFree).unwrap();
        owners.claim(empty, &mut |run| panic!("{run:?}")).unwrap();
        assert_eq!(owners.free_zones(), FreeZones { empty: 3, meta: 2, data: 2 });
        assert_eq!(owners.used_blocks(), zone - 1 + 16);
    }
}
