// SPDX-License-Identifier: GPL-2.0-only
//! Free blocks and how they are chosen.

use scoutfs_env::OrdMap;

use super::{Extent, ExtentSet, SpaceError};

/// An [`ExtentSet`] to allocate from. It also keeps its runs by size, so that choosing one never looks at many.
///
/// - Who extends something names the block behind its end, and gets that when it is free.
/// - Everyone else gets blocks where the last one left off, so that what is written together lies together, unless
///   the run there is shorter than what is wanted. Then it is the longest run (to within a factor of two) that is next.
pub struct FreeRuns {
    set: ExtentSet,
    /// (log2 of the length, last block) of each run.
    by_size: OrdMap<(u8, u64), ()>,
    /// Where to go on.
    next: u64,
}

impl Default for FreeRuns {
    fn default() -> Self {
        Self::new()
    }
}

/// The key of a run in `by_size`.
fn size_key(start: u64, last: u64) -> (u8, u64) {
    // Runs are not empty; the logarithm is below 64.
    ((last - start + 1).ilog2() as u8, last)
}

impl FreeRuns {
    /// No free blocks.
    pub const fn new() -> Self {
        FreeRuns { set: ExtentSet::new(), by_size: OrdMap::new(), next: 0 }
    }

    /// The free blocks.
    pub fn set(&self) -> &ExtentSet {
        &self.set
    }

    /// Makes sure that the next `count` calls of [`insert`](Self::insert) do not fail for want of memory, whatever is taken
    /// out before them. What is taken out between them counts as two.
    pub fn reserve(&mut self, count: usize) -> Result<(), SpaceError> {
        self.set.reserve(count)?;
        Ok(self.by_size.reserve(count)?)
    }

    /// Gives back the memory that was reserved.
    pub fn release_reserve(&mut self) {
        self.set.release_reserve();
        self.by_size.release_reserve();
    }

    /// Adds free blocks; fails as [`ExtentSet::insert`] does.
    pub fn insert(&mut self, extent: Extent) -> Result<(), SpaceError> {
        let last = extent.last()?;
        let before = extent.start.checked_sub(1).and_then(|before| self.set.ending_at(before));
        let after = self.set.containing(last + 1);
        let after_key = match after {
            Some(after) => Some(size_key(after.start, after.last()?)),
            None => None,
        };
        let start = before.map_or(extent.start, |before| before.start);
        let joined_key = size_key(start, after_key.map_or(last, |(_, last)| last));
        // Both indexes change or neither: what can fail comes first, and what undoes it cannot fail.
        let is_new = self.by_size.insert(joined_key, ())?.is_none();
        if let Err(error) = self.set.insert(extent) {
            if is_new {
                self.by_size.remove(&joined_key);
            }
            return Err(error);
        }
        if let Some(before) = before {
            self.by_size.remove(&size_key(before.start, extent.start - 1));
        }
        if let Some(after_key) = after_key.filter(|&key| key != joined_key) {
            self.by_size.remove(&after_key);
        }
        Ok(())
    }

    /// Takes certain blocks out; fails as [`ExtentSet::remove`] does.
    pub fn remove(&mut self, extent: Extent) -> Result<(), SpaceError> {
        let Extent { start, len } = extent;
        let last = extent.last()?;
        let run = self.set.containing(start).ok_or(SpaceError::NotInSet { start, len })?;
        let run_last = run.last()?;
        self.by_size.reserve(2)?;
        self.set.remove(extent)?;
        let run_key = size_key(run.start, run_last);
        let tail_key = (last < run_last).then(|| size_key(last + 1, run_last));
        if tail_key != Some(run_key) {
            self.by_size.remove(&run_key);
            if let Some(tail_key) = tail_key {
                self.by_size.insert(tail_key, ())?;
            }
        }
        if run.start < start {
            self.by_size.insert(size_key(run.start, start - 1), ())?;
        }
        Ok(())
    }

    /// Takes up to `want` blocks that lie side by side, at `near` if that is free. `None` when nothing is free
    /// or wanted.
    pub fn take(&mut self, want: u64, near: Option<u64>) -> Result<Option<Extent>, SpaceError> {
        if want == 0 {
            return Ok(None);
        }
        if let Some(near) = near
            && let Some(run) = self.set.containing(near)
        {
            let extent = Extent::new(near, want.min(run.len - (near - run.start)));
            self.remove(extent)?;
            return Ok(Some(extent));
        }
        let Some(extent) = self.choose(want) else { return Ok(None) };
        self.remove(extent)?;
        self.next = extent.start + extent.len;
        Ok(Some(extent))
    }

    /// Where `want` blocks, or as many as there are, may be taken one by one: others are not offered them soon.
    pub fn suggest(&mut self, want: u64) -> Option<Extent> {
        let extent = self.choose(want)?;
        self.next = extent.start + extent.len;
        Some(extent)
    }

    /// Takes up to `want` blocks of the longest run (to within a factor of two).
    pub fn take_longest(&mut self, want: u64) -> Result<Option<Extent>, SpaceError> {
        let extent = self.longest().map(|run| Extent::new(run.start, run.len.min(want)));
        if let Some(extent) = extent {
            self.remove(extent)?;
        }
        Ok(extent)
    }

    /// The blocks for one who has no wish where.
    fn choose(&self, want: u64) -> Option<Extent> {
        let (next, run) = match self.set.at_or_after(self.next) {
            Some(run) => (self.next.max(run.start), run),
            None => {
                let first = self.set.at_or_after(0)?;
                (first.start, first)
            }
        };
        let left = run.len - (next - run.start);
        if left >= want {
            return Some(Extent::new(next, want));
        }
        let longest = self.longest()?;
        if longest.len <= left {
            Some(Extent::new(next, left))
        } else {
            Some(Extent::new(longest.start, longest.len.min(want)))
        }
    }

    /// The next one of the runs that are longest to within a factor of two.
    fn longest(&self) -> Option<Extent> {
        let (&(size, _), ()) = self.by_size.last_key_value()?;
        let next = self.by_size.ceiling(&(size, self.next));
        let (&(_, last), ()) = next.or_else(|| self.by_size.ceiling(&(size, 0)))?;
        self.set.ending_at(last)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::vec::Vec;

    use super::*;

    fn runs(extents: &[(u64, u64)]) -> FreeRuns {
        let mut runs = FreeRuns::new();
        for &(start, len) in extents {
            runs.insert(Extent::new(start, len)).unwrap();
        }
        runs
    }

    fn take(runs: &mut FreeRuns, want: u64, near: Option<u64>) -> Option<(u64, u64)> {
        runs.take(want, near).unwrap().map(|extent| (extent.start, extent.len))
    }

    #[test]
    fn a_file_goes_on_behind_its_end() {
        let mut free = runs(&[(100, 50), (1000, 1000)]);
        assert_eq!(take(&mut free, 10, Some(120)), Some((120, 10)));
        assert_eq!(take(&mut free, 10, Some(130)), Some((130, 10)));
        assert_eq!(take(&mut free, 100, Some(140)), Some((140, 10)));
        assert_eq!(take(&mut free, 100, Some(150)), Some((1000, 100)));
    }

    #[test]
    fn blocks_taken_one_by_one_are_neighbours() {
        let mut free = runs(&[(10, 3), (20, 2), (30, 4)]);
        let blocks: Vec<_> = core::iter::from_fn(|| take(&mut free, 1, None)).map(|run| run.0).collect();
        assert_eq!(blocks, [10, 11, 12, 20, 21, 30, 31, 32, 33]);
    }

    #[test]
    fn what_is_suggested_is_offered_to_nobody_soon() {
        let mut free = runs(&[(10, 20), (50, 5)]);
        assert_eq!(free.suggest(10), Some(Extent::new(10, 10)));
        assert_eq!(take(&mut free, 2, None), Some((20, 2)));
        assert_eq!(take(&mut free, 1, Some(13)), Some((13, 1)));
        assert_eq!(take(&mut free, 8, None), Some((22, 8)));
        assert_eq!(free.suggest(100), Some(Extent::new(50, 5)));
        assert_eq!(take(&mut free, 3, None), Some((10, 3)));
        assert_eq!(FreeRuns::new().suggest(1), None);
    }

    #[test]
    fn freed_blocks_wait_for_the_next_round() {
        let mut free = runs(&[(10, 10)]);
        assert_eq!(take(&mut free, 4, None), Some((10, 4)));
        free.insert(Extent::new(10, 4)).unwrap();
        assert_eq!(take(&mut free, 4, None), Some((14, 4)));
        assert_eq!(take(&mut free, 2, None), Some((18, 2)));
        assert_eq!(take(&mut free, 4, None), Some((10, 4)));
    }

    #[test]
    fn much_at_once_comes_from_a_long_run() {
        let mut free = FreeRuns::new();
        for n in 0..1000 {
            free.insert(Extent::new(n * 10, 3)).unwrap();
        }
        free.insert(Extent::new(50_000, 5000)).unwrap();
        assert_eq!(take(&mut free, 100, None), Some((50_000, 100)));
        assert_eq!(take(&mut free, 5000, None), Some((50_100, 4900)));
        assert_eq!(take(&mut free, 100, None), Some((0, 3)));
    }

    proptest! {
        #[test]
        fn the_index_by_size_is_that_of_the_runs(
            ops in prop::collection::vec((0u8..4, 0u64..200, 1u64..40), 1..200),
        ) {
            let mut free = FreeRuns::new();
            for (op, at, len) in ops {
                let blocks = free.set().blocks();
                match op {
                    0 => drop(free.insert(Extent::new(at, len))),
                    1 => drop(free.remove(Extent::new(at, len))),
                    _ => {
                        let near = (op == 2).then_some(at);
                        let was_free = free.set().containing(at).is_some();
                        match free.take(len, near).unwrap() {
                            Some(got) => {
                                prop_assert!(got.len >= 1 && got.len <= len);
                                prop_assert_eq!(free.set().blocks(), blocks - got.len);
                                prop_assert!(free.set().first_common(got).unwrap().is_none());
                                prop_assert!(near.is_none() || !was_free || got.start == at);
                            }
                            None => prop_assert_eq!(blocks, 0),
                        }
                    }
                }
                let mut expected: Vec<_> =
                    free.set().iter().map(|run| size_key(run.start, run.last().unwrap())).collect();
                expected.sort();
                prop_assert!(free.by_size.keys().copied().eq(expected));
            }
        }
    }
}
