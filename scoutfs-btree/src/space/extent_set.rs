// SPDX-License-Identifier: GPL-2.0-only
//! A set of blocks, kept as extents.

use scoutfs_env::OrdMap;

use super::{Extent, SpaceError};

/// Extents that neither overlap nor touch: neighbours are joined. All operations take time logarithmic in the number
/// of extents, unless they say otherwise.
///
/// An extent is found by its *last* block: then the first extent at or after a block is the one that holds it, if any
/// does, and taking blocks from the front of an extent, which is what allocation does, moves nothing and needs no memory.
pub struct ExtentSet {
    /// Last block -> first block.
    map: OrdMap<u64, u64>,
    blocks: u64,
}

impl Default for ExtentSet {
    fn default() -> Self {
        Self::new()
    }
}

impl ExtentSet {
    /// An empty set.
    pub const fn new() -> Self {
        ExtentSet { map: OrdMap::new(), blocks: 0 }
    }

    /// Number of blocks.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Number of extents.
    pub fn nr_extents(&self) -> usize {
        self.map.len()
    }

    /// Whether there are no blocks.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// All extents in order.
    pub fn iter(&self) -> impl Iterator<Item = Extent> + '_ {
        self.map.iter().map(|(&last, &start)| Extent::from_ends(start, last))
    }

    /// The first extent that has `block` or comes after it.
    pub fn at_or_after(&self, block: u64) -> Option<Extent> {
        self.map.ceiling(&block).map(|(&last, &start)| Extent::from_ends(start, last))
    }

    /// The extent that has `block`.
    pub fn containing(&self, block: u64) -> Option<Extent> {
        self.at_or_after(block).filter(|found| found.start <= block)
    }

    /// The extent whose last block is `block`.
    pub fn ending_at(&self, block: u64) -> Option<Extent> {
        self.map.get(&block).map(|&start| Extent::from_ends(start, block))
    }

    /// The first part of `extent` that is in the set.
    pub fn first_common(&self, extent: Extent) -> Result<Option<Extent>, SpaceError> {
        let last = extent.last()?;
        let found = self.map.ceiling(&extent.start).filter(|&(_, &start)| start <= last);
        Ok(found.map(|(&found_last, &found_start)| {
            Extent::from_ends(found_start.max(extent.start), found_last.min(last))
        }))
    }

    /// Whether all blocks of `extent` are in the set.
    pub fn contains(&self, extent: Extent) -> bool {
        match (extent.last(), self.containing(extent.start)) {
            (Ok(last), Some(found)) => last - found.start < found.len,
            _ => false,
        }
    }

    /// Makes sure that the next `count` calls of [`insert`](Self::insert) and [`remove`](Self::remove) do not fail for
    /// want of memory.
    pub fn reserve(&mut self, count: usize) -> Result<(), SpaceError> {
        Ok(self.map.reserve(count)?)
    }

    /// Gives back the memory that was reserved.
    pub fn release_reserve(&mut self) {
        self.map.release_reserve();
    }

    /// Adds an extent.
    ///
    /// Fails with [`SpaceError::Overlap`] when a block of it is in the set, [`SpaceError::Impossible`] and
    /// [`SpaceError::NoMemory`].
    pub fn insert(&mut self, extent: Extent) -> Result<(), SpaceError> {
        let Extent { start, len } = extent;
        let last = extent.last()?;
        let after = self.at_or_after(start);
        if let Some(with) = after.filter(|after| after.start <= last) {
            return Err(SpaceError::Overlap { start, len, with });
        }
        let before = start.checked_sub(1).and_then(|before| self.ending_at(before));
        let joined_start = before.map_or(start, |before| before.start);
        // Only an extent whose last block is new takes memory, and that comes first, so that failing changes nothing.
        match after {
            Some(after) if after.start == last + 1 => {
                if let Some((_, start)) = self.map.ceiling_mut(&last) {
                    *start = joined_start;
                }
            }
            _ => {
                self.map.insert(last, joined_start)?;
            }
        }
        if before.is_some() {
            self.map.remove(&(start - 1));
        }
        // The sum is at most the number of blocks that there can be.
        self.blocks += len;
        Ok(())
    }

    /// Removes an extent, all of whose blocks must be there.
    ///
    /// Fails with [`SpaceError::NotInSet`], [`SpaceError::Impossible`], and [`SpaceError::NoMemory`], which cannot happen
    /// when the blocks are the first ones of the extent that has them.
    pub fn remove(&mut self, extent: Extent) -> Result<(), SpaceError> {
        let Extent { start, len } = extent;
        let last = extent.last()?;
        let not_in_set = SpaceError::NotInSet { start, len };
        let found = self.containing(start).ok_or(not_in_set)?;
        let found_last = found.last()?;
        if found_last < last {
            return Err(not_in_set);
        }
        if found.start < start {
            self.map.insert(start - 1, found.start)?;
        }
        if last < found_last {
            if let Some(start) = self.map.get_mut(&found_last) {
                *start = last + 1;
            }
        } else {
            self.map.remove(&found_last);
        }
        self.blocks -= len;
        Ok(())
    }

    /// Takes the first extent out.
    pub fn pop_first(&mut self) -> Option<Extent> {
        let (last, start) = self.map.pop_first()?;
        let extent = Extent::from_ends(start, last);
        self.blocks -= extent.len;
        Some(extent)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::vec::Vec;

    use super::*;

    fn extents(set: &ExtentSet) -> Vec<(u64, u64)> {
        set.iter().map(|extent| (extent.start, extent.len)).collect()
    }

    #[test]
    fn neighbours_become_one_extent() {
        let mut set = ExtentSet::new();
        for (start, len) in [(10, 5), (20, 5), (15, 5), (5, 5), (25, 1)] {
            set.insert(Extent::new(start, len)).unwrap();
        }
        assert_eq!(extents(&set), [(5, 21)]);
        assert_eq!(set.blocks(), 21);
    }

    #[test]
    fn an_overlap_is_refused_and_named() {
        let mut set = ExtentSet::new();
        set.insert(Extent::new(10, 5)).unwrap();
        for (start, len) in [(10, 5), (9, 2), (14, 1), (0, 100), (12, 1)] {
            let with = Extent::new(10, 5);
            assert_eq!(set.insert(Extent::new(start, len)), Err(SpaceError::Overlap { start, len, with }));
        }
        assert_eq!(extents(&set), [(10, 5)]);
    }

    #[test]
    fn impossible_extents_are_refused() {
        let mut set = ExtentSet::new();
        for (start, len) in [(0, 0), (5, 0), (u64::MAX, 1), (1, u64::MAX), (u64::MAX, u64::MAX)] {
            let error = Err(SpaceError::Impossible { start, len });
            assert_eq!(set.insert(Extent::new(start, len)), error);
            assert_eq!(set.remove(Extent::new(start, len)), error);
        }
        set.insert(Extent::new(u64::MAX - 1, 1)).unwrap();
        set.insert(Extent::new(0, u64::MAX - 1)).unwrap();
        assert_eq!(extents(&set), [(0, u64::MAX)]);
    }

    #[test]
    fn only_what_is_there_can_be_removed() {
        let mut set = ExtentSet::new();
        set.insert(Extent::new(10, 5)).unwrap();
        set.insert(Extent::new(20, 5)).unwrap();
        for (start, len) in [(9, 1), (9, 3), (14, 2), (10, 15), (15, 5), (24, 2)] {
            assert_eq!(set.remove(Extent::new(start, len)), Err(SpaceError::NotInSet { start, len }));
        }
        assert_eq!(extents(&set), [(10, 5), (20, 5)]);
    }

    #[test]
    fn taking_from_the_front_needs_no_memory() {
        let mut set = ExtentSet::new();
        set.insert(Extent::new(0, 100)).unwrap();
        scoutfs_env::alloc_fault::fail_after(0);
        for block in 0..100 {
            set.remove(Extent::new(block, 1)).unwrap();
        }
        scoutfs_env::alloc_fault::clear();
        assert!(set.is_empty());
    }

    #[test]
    fn what_was_reserved_cannot_fail() {
        let mut set = ExtentSet::new();
        for n in 0..200 {
            set.insert(Extent::new(n * 10, 5)).unwrap();
        }
        set.reserve(100).unwrap();
        scoutfs_env::alloc_fault::fail_after(0);
        for n in 0..50 {
            set.insert(Extent::new(n * 40 + 6, 2)).unwrap();
            set.remove(Extent::new(n * 40 + 2, 1)).unwrap();
        }
        scoutfs_env::alloc_fault::clear();
    }

    proptest! {
        #[test]
        fn a_set_is_its_bitmap(ops in prop::collection::vec((any::<bool>(), 0u64..64, 1u64..20, 0usize..4), 1..200)) {
            let mut set = ExtentSet::new();
            let mut bits = [false; 96];
            for (insert, start, len, fail) in ops {
                let extent = Extent::new(start, len);
                let range = start as usize..(start + len) as usize;
                let before = extents(&set);
                if fail == 0 {
                    scoutfs_env::alloc_fault::fail_after(0);
                }
                let result = if insert { set.insert(extent) } else { set.remove(extent) };
                scoutfs_env::alloc_fault::clear();
                if result == Err(SpaceError::NoMemory) {
                    prop_assert_eq!(extents(&set), before);
                    continue;
                }
                let expected = bits[range.clone()].iter().all(|&bit| bit != insert);
                prop_assert_eq!(result.is_ok(), expected, "{:?}", result);
                if expected {
                    bits[range].fill(insert);
                }
                let mut runs = Vec::new();
                for run in bits.chunk_by(|a, b| a == b).scan(0, |at, run| { *at += run.len(); Some((*at - run.len(), run)) }) {
                    if run.1[0] {
                        runs.push((run.0 as u64, run.1.len() as u64));
                    }
                }
                prop_assert_eq!(extents(&set), runs);
                prop_assert_eq!(set.blocks(), bits.iter().filter(|&&bit| bit).count() as u64);
                for block in 0..96u64 {
                    prop_assert_eq!(set.containing(block).is_some(), bits[block as usize]);
                    let common = set.first_common(Extent::new(block, 7)).unwrap();
                    let first = (block..(block + 7).min(96)).find(|&b| bits[b as usize]);
                    prop_assert_eq!(common.map(|common| common.start), first);
                }
            }
        }
    }
}
