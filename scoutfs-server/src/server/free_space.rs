// SPDX-License-Identifier: GPL-2.0-only
//! The free space that the server owns: metadata blocks, data blocks and whole empty zones.
//!
//! All of it is in memory and, extent for extent, in items of the server's tree. A zone that gets wholly free is empty
//! again and may become either kind the next time.

use scoutfs_btree::space::{Extent, ExtentSet, SpaceError, SpaceKind};
use scoutfs_format::geometry::Geometry;
use scoutfs_format::key::Key;
use scoutfs_format::le::U64;
use scoutfs_format::server_item::FreeItem;
use scoutfs_format::space::SPACE_ZONES;

use super::changes::Changes;
use crate::error::ServerError;

/// Blocks of a kind in a zone.
pub(crate) fn zone_blocks(geometry: &Geometry, kind: SpaceKind) -> u64 {
    match kind {
        SpaceKind::Meta => geometry.zone_meta_blocks(),
        SpaceKind::Data => geometry.zone_data_blocks(),
    }
}

/// The first block of a kind in the zones.
pub(crate) fn first_block(geometry: &Geometry, kind: SpaceKind) -> u64 {
    match kind {
        SpaceKind::Meta => geometry.first_meta_block(),
        SpaceKind::Data => geometry.first_data_block(),
    }
}

/// The blocks of a run of zones.
pub(crate) fn zone_extent(geometry: &Geometry, kind: SpaceKind, zones: Extent) -> Extent {
    let blocks = zone_blocks(geometry, kind);
    Extent::new(first_block(geometry, kind) + zones.start * blocks, zones.len * blocks)
}

/// See the module.
pub(crate) struct FreeSpace {
    geometry: Geometry,
    meta: ExtentSet,
    data: ExtentSet,
    /// In zones from the first.
    zones: ExtentSet,
    /// Zones that hold metadata.
    pub meta_zones: u64,
}

impl FreeSpace {
    pub fn new(geometry: Geometry, meta_zones: u64) -> Self {
        FreeSpace {
            geometry,
            meta: ExtentSet::new(),
            data: ExtentSet::new(),
            zones: ExtentSet::new(),
            meta_zones,
        }
    }

    /// The free extents of a kind that are not in empty zones.
    pub fn of(&self, kind: SpaceKind) -> &ExtentSet {
        match kind {
            SpaceKind::Meta => &self.meta,
            SpaceKind::Data => &self.data,
        }
    }

    fn of_mut(&mut self, kind: SpaceKind) -> &mut ExtentSet {
        match kind {
            SpaceKind::Meta => &mut self.meta,
            SpaceKind::Data => &mut self.data,
        }
    }

    /// Runs of empty zones.
    #[cfg(test)]
    pub fn zones(&self) -> impl Iterator<Item = Extent> + '_ {
        self.zones.iter()
    }

    /// Number of empty zones.
    pub fn empty_zones(&self) -> u64 {
        self.zones.blocks()
    }

    /// Free blocks, were all empty zones to become of this kind.
    pub fn available(&self, kind: SpaceKind) -> u64 {
        self.of(kind).blocks() + self.zones.blocks() * zone_blocks(&self.geometry, kind)
    }

    /// Number of items in the server's tree.
    pub fn nr_items(&self) -> u64 {
        (self.meta.nr_extents() + self.data.nr_extents() + self.zones.nr_extents()) as u64
    }

    /// Takes over an item of the tree.
    pub fn load(&mut self, code: u8, extent: Extent) -> Result<(), ServerError> {
        if code == SPACE_ZONES {
            let Extent { start, len } = extent;
            if start.checked_add(len).is_none_or(|end| end > self.geometry.nr_zones()) {
                return Err(SpaceError::Impossible { start, len }.into());
            }
            return Ok(self.zones.insert(extent)?);
        }
        let kind = SpaceKind::from_raw(code).ok_or(SpaceError::Entry {
            kind: code,
            state: 0,
            number: 0,
            start: extent.start,
            len: u32::MAX,
        })?;
        self.check(kind, extent)?;
        Ok(self.of_mut(kind).insert(extent)?)
    }

    /// Whether an extent may become free: it lies in the zones, is not free yet, and no zone of it is empty or holds
    /// free space of the other kind.
    pub fn check(&self, kind: SpaceKind, extent: Extent) -> Result<(), SpaceError> {
        let Extent { start, len } = extent;
        let blocks = zone_blocks(&self.geometry, kind);
        let at = start.checked_sub(first_block(&self.geometry, kind));
        let end = at.and_then(|at| at.checked_add(len));
        let (Some(at), Some(end)) = (at, end) else {
            return Err(SpaceError::OutsideZones { kind, start, len });
        };
        if end > self.geometry.nr_zones() * blocks {
            return Err(SpaceError::OutsideZones { kind, start, len });
        }
        if let Some(with) = self.of(kind).first_common(extent)? {
            return Err(SpaceError::Overlap { start, len, with });
        }
        let zones = Extent::new(at / blocks, end.div_ceil(blocks) - at / blocks);
        if let Some(with) = self.zones.first_common(zones)? {
            let with = zone_extent(&self.geometry, kind, with);
            return Err(SpaceError::Overlap { start, len, with });
        }
        let other = match kind {
            SpaceKind::Meta => SpaceKind::Data,
            SpaceKind::Data => SpaceKind::Meta,
        };
        let there = self.of(other).first_common(zone_extent(&self.geometry, other, zones))?;
        if there.is_some() {
            return Err(SpaceError::TwoKinds { start, len });
        }
        Ok(())
    }

    /// Adds an extent. An error that is not about memory changes nothing.
    pub fn add(&mut self, kind: SpaceKind, extent: Extent, changes: &mut Changes) -> Result<(), ServerError> {
        self.check(kind, extent)?;
        let joined = insert(self.of_mut(kind), kind.to_raw(), extent, changes)?;
        let blocks = zone_blocks(&self.geometry, kind);
        let at = joined.start - first_block(&self.geometry, kind);
        let (zone, zone_end) = (at.div_ceil(blocks), (at + joined.len) / blocks);
        if zone < zone_end {
            let zones = Extent::new(zone, zone_end - zone);
            let whole = zone_extent(&self.geometry, kind, zones);
            self.remove(kind, whole, changes)?;
            insert(&mut self.zones, SPACE_ZONES, zones, changes)?;
            if kind == SpaceKind::Meta {
                self.meta_zones = self.meta_zones.saturating_sub(zones.len);
            }
        }
        Ok(())
    }

    /// Takes an extent of a kind that is free.
    pub fn remove(
        &mut self,
        kind: SpaceKind,
        extent: Extent,
        changes: &mut Changes,
    ) -> Result<(), ServerError> {
        remove(self.of_mut(kind), kind.to_raw(), extent, changes)
    }

    /// Takes up to `zones` neighbouring empty zones and makes them of a kind: the first run that is long enough, or
    /// else the longest. Their blocks are all the caller's.
    pub fn take_zones(
        &mut self,
        kind: SpaceKind,
        zones: u64,
        changes: &mut Changes,
    ) -> Result<Option<Extent>, ServerError> {
        let mut best: Option<Extent> = None;
        for run in self.zones.iter() {
            if best.is_none_or(|best| run.len > best.len) {
                best = Some(run);
            }
            if run.len >= zones {
                break;
            }
        }
        let Some(best) = best.filter(|_| zones > 0) else {
            return Ok(None);
        };
        let taken = Extent::new(best.start, best.len.min(zones));
        remove(&mut self.zones, SPACE_ZONES, taken, changes)?;
        if kind == SpaceKind::Meta {
            self.meta_zones += taken.len;
        }
        Ok(Some(zone_extent(&self.geometry, kind, taken)))
    }

    /// Takes metadata blocks that are free, loose or in empty zones, which hold metadata from then on.
    ///
    /// Fails with [`SpaceError::NotInSet`] when some are not free, and has taken part of them then.
    pub fn set_aside(&mut self, extent: Extent, changes: &mut Changes) -> Result<(), ServerError> {
        let Extent { start, len } = extent;
        let (first, blocks) =
            (first_block(&self.geometry, SpaceKind::Meta), zone_blocks(&self.geometry, SpaceKind::Meta));
        let end = start.checked_add(len).filter(|_| start >= first && len > 0);
        let end = end.ok_or(SpaceError::OutsideZones { kind: SpaceKind::Meta, start, len })?;
        let mut at = start;
        while at < end {
            let zone = Extent::new((at - first) / blocks, 1);
            if self.meta.containing(at).is_none() && self.zones.contains(zone) {
                remove(&mut self.zones, SPACE_ZONES, zone, changes)?;
                self.meta_zones += 1;
                let whole = zone_extent(&self.geometry, SpaceKind::Meta, zone);
                insert(&mut self.meta, SpaceKind::Meta.to_raw(), whole, changes)?;
            }
            let found = self.meta.containing(at).ok_or(SpaceError::NotInSet { start, len })?;
            let part = Extent::new(at, (found.start + found.len).min(end) - at);
            self.remove(SpaceKind::Meta, part, changes)?;
            at += part.len;
        }
        Ok(())
    }

    /// The longest extent of metadata blocks that are free, loose or in empty zones, of `want` blocks at most. Loose ones are
    /// preferred.
    pub fn longest_meta(&self, want: u64) -> Option<Extent> {
        let want = want.min(u32::MAX.into());
        let longer = |best: Option<Extent>, found: Extent| match best {
            Some(best) if best.len.min(want) >= found.len.min(want) => Some(best),
            _ => Some(found),
        };
        let loose = self.meta.iter().fold(None, longer);
        let zones = self.zones.iter().map(|zones| zone_extent(&self.geometry, SpaceKind::Meta, zones));
        let best = zones.fold(loose, longer)?;
        Some(Extent::new(best.start, best.len.min(want))).filter(|best| best.len > 0)
    }

    /// Takes up to `want` free blocks of a kind from at most `max_extents` extents, the first at or after `cursor`
    /// first, and tells each.
    pub fn take(
        &mut self,
        kind: SpaceKind,
        want: u64,
        max_extents: usize,
        mut cursor: u64,
        changes: &mut Changes,
        taken: &mut dyn FnMut(Extent) -> Result<(), ServerError>,
    ) -> Result<u64, ServerError> {
        let mut left = want;
        for _ in 0..max_extents {
            let set = self.of(kind);
            let Some(found) = set.at_or_after(cursor).or_else(|| set.at_or_after(0)) else {
                break;
            };
            // The length of an extent that is handed over has 32 bits.
            let extent = Extent::new(found.start, found.len.min(left).min(u32::MAX.into()));
            if extent.len == 0 {
                break;
            }
            self.remove(kind, extent, changes)?;
            taken(extent)?;
            left -= extent.len;
            cursor = extent.start + extent.len;
        }
        Ok(want - left)
    }
}

/// Adds to a set and tells the tree. Returns the extent that it is part of now.
fn insert(
    set: &mut ExtentSet,
    code: u8,
    extent: Extent,
    changes: &mut Changes,
) -> Result<Extent, ServerError> {
    set.insert(extent)?;
    let joined = set.containing(extent.start).unwrap_or(extent);
    if joined.start + joined.len > extent.start + extent.len {
        changes.delete(Key::free(code, extent.start + extent.len))?;
    }
    changes.put(Key::free(code, joined.start), &FreeItem { len: U64::new(joined.len) })?;
    Ok(joined)
}

/// Removes from a set and tells the tree.
fn remove(set: &mut ExtentSet, code: u8, extent: Extent, changes: &mut Changes) -> Result<(), ServerError> {
    let Some(whole) = set.containing(extent.start) else {
        return Err(SpaceError::NotInSet { start: extent.start, len: extent.len }.into());
    };
    set.remove(extent)?;
    let before = extent.start - whole.start;
    if before > 0 {
        changes.put(Key::free(code, whole.start), &FreeItem { len: U64::new(before) })?;
    } else {
        changes.delete(Key::free(code, whole.start))?;
    }
    let after = whole.len - before - extent.len;
    if after > 0 {
        let start = extent.start + extent.len;
        changes.put(Key::free(code, start), &FreeItem { len: U64::new(after) })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use scoutfs_format::geometry::MIN_VOLUME_BYTES;
    use scoutfs_format::space::SPACE_META;
    use std::collections::BTreeMap;
    use std::vec::Vec;
    use zerocopy::FromBytes;

    fn geometry() -> Geometry {
        Geometry::new(MIN_VOLUME_BYTES, 1).unwrap()
    }

    /// The items of the tree as the changes make them.
    fn follow(tree: &mut BTreeMap<Key, u64>, changes: &mut Changes) {
        for item in &changes.take().unwrap() {
            if item.deletion {
                tree.remove(&item.key);
            } else {
                tree.insert(item.key, FreeItem::read_from_bytes(&item.value).unwrap().len.get());
            }
        }
    }

    proptest! {
        #[test]
        fn items_follow_the_extents_and_whole_zones_become_empty(
            ops in proptest::collection::vec((any::<bool>(), any::<bool>(), 0u64..64, 1u64..40), 1..60)
        ) {
            let g = geometry();
            let mut free = FreeSpace::new(g, 2);
            let mut changes = Changes::new();
            let mut tree = BTreeMap::new();
            for (add, in_meta, start, len) in ops {
                // Zones 0 to 3 hold metadata, 4 and on data.
                let (kind, start) = match in_meta {
                    true => (SpaceKind::Meta, g.first_meta_block() + start),
                    false => (SpaceKind::Data, g.first_data_block() + 4 * 256 + start * 16),
                };
                let extent = Extent::new(start, len);
                if add {
                    let fits = free.check(kind, extent).is_ok();
                    prop_assert_eq!(free.add(kind, extent, &mut changes).is_ok(), fits);
                } else {
                    let there = free.of(kind).contains(extent);
                    prop_assert_eq!(free.remove(kind, extent, &mut changes).is_ok(), there);
                }
                follow(&mut tree, &mut changes);
                prop_assert_eq!(tree.len() as u64, free.nr_items());
                // What the tree says is what a new server would load.
                let mut again = FreeSpace::new(g, free.meta_zones);
                for (key, &len) in &tree {
                    again.load(key.first as u8, Extent::new(key.second, len)).unwrap();
                }
                for kind in SpaceKind::ALL {
                    let found: Vec<_> = again.of(kind).iter().collect();
                    prop_assert_eq!(found, free.of(kind).iter().collect::<Vec<_>>());
                    for extent in free.of(kind).iter() {
                        let at = extent.start - first_block(&g, kind);
                        let blocks = zone_blocks(&g, kind);
                        prop_assert!(at.div_ceil(blocks) * blocks + blocks > at + extent.len, "a whole zone is left");
                    }
                }
                prop_assert_eq!(again.empty_zones(), free.empty_zones());
            }
        }
    }

    #[test]
    fn a_zone_never_holds_free_space_of_both_kinds() {
        let g = geometry();
        let mut free = FreeSpace::new(g, 1);
        let mut changes = Changes::new();
        free.add(SpaceKind::Meta, Extent::new(g.first_meta_block(), 4), &mut changes).unwrap();
        let data = Extent::new(g.first_data_block() + 200, 1);
        let refused = free.add(SpaceKind::Data, data, &mut changes);
        assert!(matches!(refused, Err(ServerError::Space(SpaceError::TwoKinds { .. }))));
        let rest = Extent::new(g.first_meta_block() + 4, 12);
        free.add(SpaceKind::Meta, rest, &mut changes).unwrap();
        assert_eq!((free.empty_zones(), free.meta_zones), (1, 0));
        free.add(SpaceKind::Data, data, &mut changes).unwrap_err();
        let zone = free.take_zones(SpaceKind::Data, 7, &mut changes).unwrap();
        assert_eq!(zone, Some(Extent::new(g.first_data_block(), 256)));
        free.add(SpaceKind::Data, data, &mut changes).unwrap();
    }

    fn loaded(g: Geometry, tree: &BTreeMap<Key, u64>, meta_zones: u64) -> FreeSpace {
        let mut free = FreeSpace::new(g, meta_zones);
        for (key, &len) in tree {
            free.load(key.first as u8, Extent::new(key.second, len)).unwrap();
        }
        free
    }

    #[test]
    fn blocks_are_set_aside_out_of_loose_ones_and_of_empty_zones() {
        let g = geometry();
        let (first, blocks) = (g.first_meta_block(), g.zone_meta_blocks());
        // Zone 0 holds metadata, its second half is free; 1 to 3 are empty, 4 is in use.
        let items = [(SPACE_META, first + 8, 8), (SPACE_ZONES, 1, 3)];
        let tree: BTreeMap<Key, u64> =
            items.into_iter().map(|(code, start, len)| (Key::free(code, start), len)).collect();
        for (start, len, fits) in [
            (first + 10, 3, true),
            (first + 8, 8, true),
            (first + blocks + 3, 5, true),
            (first + 12, 2 * blocks, true),
            (first + blocks, 3 * blocks, true),
            (first + blocks, 3 * blocks + 1, false),
            (first + 7, 2, false),
            (first + 4 * blocks, 1, false),
            (first + 8, 0, false),
            (first - 1, 1, false),
            (0, u64::MAX, false),
            (u64::MAX, 2, false),
        ] {
            let mut free = loaded(g, &tree, 2);
            let (before, mut changes, mut tree) =
                (free.available(SpaceKind::Meta), Changes::new(), tree.clone());
            let extent = Extent::new(start, len);
            assert_eq!(free.set_aside(extent, &mut changes).is_ok(), fits, "{extent:?}");
            if !fits {
                continue;
            }
            assert_eq!(free.available(SpaceKind::Meta), before - len, "{extent:?}");
            free.set_aside(Extent::new(start + len - 1, 1), &mut Changes::new()).unwrap_err();
            follow(&mut tree, &mut changes);
            let again = loaded(g, &tree, free.meta_zones);
            assert!(again.of(SpaceKind::Meta).iter().eq(free.of(SpaceKind::Meta).iter()), "{extent:?}");
            assert!(again.zones().eq(free.zones()), "{extent:?}");
            // And back: the zones are empty again.
            free.add(SpaceKind::Meta, extent, &mut Changes::new()).unwrap();
            assert_eq!((free.empty_zones(), free.meta_zones), (3, 2), "{extent:?}");
        }
    }

    #[test]
    fn the_longest_free_metadata_are_found_loose_ones_first() {
        let g = geometry();
        let (first, blocks) = (g.first_meta_block(), g.zone_meta_blocks());
        let mut free = FreeSpace::new(g, 3);
        assert_eq!(free.longest_meta(5), None);
        free.load(SPACE_META, Extent::new(first, 3)).unwrap();
        free.load(SPACE_META, Extent::new(first + 10, 6)).unwrap();
        assert_eq!(free.longest_meta(100), Some(Extent::new(first + 10, 6)));
        free.load(SPACE_ZONES, Extent::new(5, 1)).unwrap();
        free.load(SPACE_ZONES, Extent::new(7, 2)).unwrap();
        assert_eq!(free.longest_meta(5), Some(Extent::new(first + 10, 5)));
        assert_eq!(free.longest_meta(3), Some(Extent::new(first, 3)));
        assert_eq!(free.longest_meta(7), Some(Extent::new(first + 5 * blocks, 7)));
        assert_eq!(free.longest_meta(u64::MAX), Some(Extent::new(first + 7 * blocks, 2 * blocks)));
        assert_eq!(free.longest_meta(0), None);
    }

    #[test]
    fn space_outside_of_the_zones_is_refused() {
        let g = geometry();
        let free = FreeSpace::new(g, 0);
        for (start, len) in
            [(0, 1), (g.first_meta_block() - 1, 2), (g.end_meta_block() - 1, 2), (u64::MAX, 1)]
        {
            free.check(SpaceKind::Meta, Extent::new(start, len)).unwrap_err();
        }
        free.check(SpaceKind::Meta, Extent::new(g.first_meta_block(), 0)).unwrap_err();
        free.check(SpaceKind::Meta, Extent::new(g.end_meta_block() - 1, 1)).unwrap();
    }
}
