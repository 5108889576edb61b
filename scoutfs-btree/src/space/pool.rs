// SPDX-License-Identifier: GPL-2.0-only
//! One kind of a mount's space.

use core::mem;

use super::{Extent, ExtentSet, FreeRuns, Owner, SpaceError, SpaceKind};

/// What a transaction, or the checkpoint that commits it, did.
#[derive(Default)]
pub(super) struct Changes {
    /// Blocks that were free before and are in use, or given away, after it.
    pub used: ExtentSet,
    /// Blocks that were in use, or another's, before and are free after it.
    pub added: ExtentSet,
    /// As `added`, but not to be allocated yet.
    pub withheld: ExtentSet,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.used.is_empty() && self.added.is_empty() && self.withheld.is_empty()
    }
}

/// Who frees blocks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// The open transaction.
    Open,
    /// The checkpoint of the transaction that is being committed.
    Checkpoint,
}

/// Blocks of one kind. Blocks that are in none of the sets are in use, or not the mount's.
///
/// A block moves `free -> held -> open.used` and then out of sight, or, in a checkpoint, `free -> checkpoint.used`. It comes
/// back through `open.added -> closing.added -> free` or `checkpoint.added -> free`. Blocks that somebody else may still write are
/// free for the device, and go through `open.withheld -> closing.withheld -> withheld -> free`, the last step when that is over.
///
/// What must not fail later is reserved when it begins: `free` always has room for all of `held`, `closing.added`,
/// `checkpoint.added` and `checkpoint.used`.
pub(super) struct Pool {
    pub kind: SpaceKind,
    pub free: FreeRuns,
    /// Allocated in memory only; for the device they are free.
    pub held: ExtentSet,
    pub open: Changes,
    pub closing: Changes,
    pub checkpoint: Changes,
    /// Free and not to be allocated yet. Has room for all of `closing.withheld`.
    pub withheld: ExtentSet,
    /// Blocks of all hand-overs that were given and are not known to be taken.
    pub given: ExtentSet,
}

impl Pool {
    pub fn new(kind: SpaceKind, free: FreeRuns, given: ExtentSet) -> Self {
        Pool {
            kind,
            free,
            held: ExtentSet::new(),
            open: Changes::default(),
            closing: Changes::default(),
            checkpoint: Changes::default(),
            withheld: ExtentSet::new(),
            given,
        }
    }

    /// Blocks that become free when the current transactions are committed.
    pub fn pending(&self) -> u64 {
        self.open.added.blocks() + self.closing.added.blocks() + self.checkpoint.added.blocks()
    }

    fn no_space(&self) -> SpaceError {
        SpaceError::NoSpace { kind: self.kind, pending: self.pending() }
    }

    /// Extents that must find room in `free` later.
    fn promised(&self) -> usize {
        let sets = [&self.held, &self.closing.added, &self.checkpoint.added, &self.checkpoint.used];
        sets.iter().map(|set| set.nr_extents()).sum()
    }

    /// Room in `free` for what must not fail later, and for `more` changes. Taking blocks out counts as two.
    fn reserve_free(&mut self, more: usize) -> Result<(), SpaceError> {
        self.free.reserve(self.promised() + more)
    }

    /// Allocates by `choose`.
    fn hold_by(
        &mut self,
        choose: impl FnOnce(&mut FreeRuns) -> Result<Option<Extent>, SpaceError>,
    ) -> Result<Extent, SpaceError> {
        self.held.reserve(1)?;
        self.reserve_free(3)?;
        let extent = choose(&mut self.free)?.ok_or(self.no_space())?;
        self.held.insert(extent)?;
        Ok(extent)
    }

    pub fn hold(&mut self, want: u64, near: Option<u64>) -> Result<Extent, SpaceError> {
        self.hold_by(|free| free.take(want, near))
    }

    pub fn suggest(&mut self, want: u64) -> Option<Extent> {
        self.free.suggest(want)
    }

    pub fn hold_longest(&mut self, want: u64) -> Result<Extent, SpaceError> {
        self.hold_by(|free| free.take_longest(want))
    }

    fn check_held(&self, extent: Extent) -> Result<(), SpaceError> {
        let Extent { start, len } = extent;
        if self.held.contains(extent) { Ok(()) } else { Err(SpaceError::NotInSet { start, len }) }
    }

    /// Makes sure that the open transaction can put `count` extents to use.
    pub fn reserve_use(&mut self, count: usize) -> Result<(), SpaceError> {
        self.held.reserve(count)?;
        self.open.used.reserve(count)?;
        self.reserve_free(count)
    }

    pub fn use_held(&mut self, extent: Extent) -> Result<(), SpaceError> {
        self.check_held(extent)?;
        self.reserve_use(1)?;
        self.use_reserved(extent)
    }

    /// The part of [`use_held`](Self::use_held) that does not fail when the blocks are held and
    /// [`reserve_use`](Self::reserve_use) has counted them.
    pub fn use_reserved(&mut self, extent: Extent) -> Result<(), SpaceError> {
        self.held.remove(extent)?;
        self.open.used.insert(extent)
    }

    /// Whether all of `extents` are held.
    pub fn check_all_held(&self, extents: &ExtentSet) -> Result<(), SpaceError> {
        extents.iter().try_for_each(|extent| self.check_held(extent))
    }

    /// Does not fail for want of memory when `extent` is all that was held there.
    pub fn release(&mut self, extent: Extent) -> Result<(), SpaceError> {
        self.check_held(extent)?;
        if self.held.containing(extent.start) != Some(extent) {
            self.held.reserve(1)?;
            self.reserve_free(2)?;
        }
        self.held.remove(extent)?;
        self.free.insert(extent)
    }

    /// Checks that none of the blocks is in one of `sets`.
    fn check_outside<'a>(
        &self,
        extent: Extent,
        sets: impl IntoIterator<Item = (&'a ExtentSet, Owner)>,
    ) -> Result<(), SpaceError> {
        for (set, owner) in sets {
            if let Some(with) = set.first_common(extent)? {
                let Extent { start, len } = extent;
                return Err(SpaceError::Owned { kind: self.kind, start, len, with, owner });
            }
        }
        Ok(())
    }

    /// Checks that blocks are in use, as far as that can be known.
    fn check_in_use(&self, extent: Extent) -> Result<(), SpaceError> {
        let sets = [
            (self.free.set(), Owner::Free),
            (&self.held, Owner::Held),
            (&self.open.added, Owner::Added),
            (&self.closing.added, Owner::Added),
            (&self.checkpoint.added, Owner::Added),
            (&self.open.withheld, Owner::Added),
            (&self.closing.withheld, Owner::Added),
            (&self.withheld, Owner::Free),
            (&self.given, Owner::Given),
        ];
        self.check_outside(extent, sets)
    }

    /// Checks that blocks are not the mount's, as far as that can be known.
    pub fn check_foreign(&self, extent: Extent) -> Result<(), SpaceError> {
        self.check_in_use(extent)?;
        let used = [&self.open.used, &self.closing.used, &self.checkpoint.used];
        self.check_outside(extent, used.map(|set| (set, Owner::Used)))
    }

    /// Frees blocks that are in use. Those that `by` itself put to use are free at once, for no durable state and no other
    /// transaction knows them; the others are when the commit is done, or if they are to be withheld when
    /// [`release_withheld`](Self::release_withheld) says so after that.
    pub fn free(&mut self, by: By, extent: Extent, withhold: bool) -> Result<(), SpaceError> {
        let last = extent.last()?;
        self.check_in_use(extent)?;
        let foreign = match by {
            By::Open => &self.checkpoint.used,
            By::Checkpoint => &self.open.used,
        };
        self.check_outside(extent, [(foreign, Owner::Used)])?;

        let own = match by {
            By::Open => &self.open.used,
            By::Checkpoint => &self.checkpoint.used,
        };
        let mut parts = 0;
        let mut rest = Some(extent);
        while let Some(part) = rest.map_or(Ok(None), |rest| own.first_common(rest))? {
            parts += 1;
            rest = rest_after(part, last)?;
        }
        // Each part is an insertion into `free`; of what is promised `used` may get one more extent and `added` one more
        // than there are parts.
        self.reserve_free(2 * parts + 2)?;
        let changes = match by {
            By::Open => &mut self.open,
            By::Checkpoint => &mut self.checkpoint,
        };
        changes.used.reserve(parts)?;
        let Changes { used, added, withheld } = changes;
        let added = if withhold { withheld } else { added };
        added.reserve(parts + 1)?;

        let mut rest = Some(extent);
        while let Some(left) = rest {
            let Some(part) = used.first_common(left)? else {
                return added.insert(left);
            };
            if left.start < part.start {
                added.insert(Extent::from_ends(left.start, part.start - 1))?;
            }
            used.remove(part)?;
            self.free.insert(part)?;
            rest = rest_after(part, last)?;
        }
        Ok(())
    }

    /// Allocates a block for the checkpoint.
    pub fn checkpoint_alloc(&mut self) -> Result<u64, SpaceError> {
        self.checkpoint.used.reserve(1)?;
        self.reserve_free(3)?;
        let extent = self.free.take(1, None)?.ok_or(self.no_space())?;
        self.checkpoint.used.insert(extent)?;
        Ok(extent.start)
    }

    /// Reserves what [`close`](Self::close) promises.
    pub fn reserve_close(&mut self) -> Result<(), SpaceError> {
        self.withheld.reserve(self.open.withheld.nr_extents())?;
        self.reserve_free(self.open.added.nr_extents())
    }

    /// The open transaction becomes the one that is being committed.
    pub fn close(&mut self) {
        self.closing = mem::take(&mut self.open);
    }

    /// The transaction that is being committed counts.
    pub fn commit_done(&mut self) -> Result<(), SpaceError> {
        for added in [&mut self.closing.added, &mut self.checkpoint.added] {
            while let Some(extent) = added.pop_first() {
                self.free.insert(extent)?;
            }
        }
        while let Some(extent) = self.closing.withheld.pop_first() {
            self.withheld.insert(extent)?;
        }
        self.closing = Changes::default();
        self.checkpoint = Changes::default();
        if self.promised() == 0 {
            self.free.release_reserve();
        }
        Ok(())
    }

    /// The checkpoint was not.
    pub fn undo_checkpoint(&mut self) -> Result<(), SpaceError> {
        while let Some(extent) = self.checkpoint.used.pop_first() {
            self.free.insert(extent)?;
        }
        self.checkpoint = Changes::default();
        Ok(())
    }

    /// Extents that [`free_as_of_commit`](Self::free_as_of_commit) gives at most, now or with the next transaction.
    pub fn nr_extents(&self) -> usize {
        let sets = [
            self.free.set(),
            &self.held,
            &self.open.used,
            &self.open.added,
            &self.closing.added,
            &self.checkpoint.added,
            &self.withheld,
            &self.open.withheld,
            &self.closing.withheld,
        ];
        sets.iter().map(|set| set.nr_extents()).sum()
    }

    /// What was withheld and is durably free can be allocated. Without memory all of it still is withheld.
    pub fn release_withheld(&mut self) -> Result<(), SpaceError> {
        self.reserve_free(self.withheld.nr_extents())?;
        while let Some(extent) = self.withheld.pop_first() {
            self.free.insert(extent)?;
        }
        Ok(())
    }

    /// All blocks that are free as of the transaction that is being committed, in order, neighbours joined.
    pub fn free_as_of_commit(&self) -> impl Iterator<Item = Extent> + '_ {
        let sets = [
            self.free.set(),
            &self.held,
            &self.open.used,
            &self.closing.added,
            &self.checkpoint.added,
            &self.withheld,
            &self.closing.withheld,
        ];
        let mut sets = sets.map(|set| set.iter().peekable());
        let mut next = move || {
            let first = sets.iter_mut().filter_map(|set| Some((set.peek()?.start, set)));
            first.min_by_key(|&(start, _)| start)?.1.next()
        };
        let mut joined = next();
        core::iter::from_fn(move || {
            let mut run = joined?;
            loop {
                joined = next();
                match joined {
                    Some(extent) if run.start + run.len == extent.start => run.len += extent.len,
                    _ => return Some(run),
                }
            }
        })
    }
}

/// What is left of an extent that ends at `last` after `part` of it.
fn rest_after(part: Extent, last: u64) -> Result<Option<Extent>, SpaceError> {
    let part_last = part.last()?;
    Ok((part_last < last).then(|| Extent::from_ends(part_last + 1, last)))
}
