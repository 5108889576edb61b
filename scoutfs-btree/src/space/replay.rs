// SPDX-License-Identifier: GPL-2.0-only
//! A mount's space from what it wrote down.

use scoutfs_env::{OrdMap, Vec};
use scoutfs_format::geometry::Geometry;
use scoutfs_format::space::{ENTRY_FORGOTTEN, ENTRY_FREE, ENTRY_GIVEN, ENTRY_USED, SpaceEntry};

use super::{Extent, ExtentSet, FreeRuns, MountSpace, Owner, SpaceError, SpaceExtent, SpaceKind};

/// Puts the space of a mount together: first the entries of its list, then those of the checkpoint's record and of all
/// records after it, in order. After an error it is of no use.
pub struct SpaceReplay {
    geometry: Geometry,
    free: [ExtentSet; 2],
    given_sets: [ExtentSet; 2],
    given: OrdMap<u64, Vec<SpaceExtent>>,
}

impl SpaceReplay {
    /// Nothing yet.
    pub fn new(geometry: Geometry) -> Self {
        SpaceReplay {
            geometry,
            free: Default::default(),
            given_sets: Default::default(),
            given: OrdMap::new(),
        }
    }

    /// An entry of the list.
    pub fn list_entry(&mut self, entry: &SpaceEntry) -> Result<(), SpaceError> {
        match entry.state {
            ENTRY_FREE | ENTRY_GIVEN => self.record_entry(entry),
            _ => Err(wrong(entry)),
        }
    }

    /// An entry of a record.
    pub fn record_entry(&mut self, entry: &SpaceEntry) -> Result<(), SpaceError> {
        let kind = SpaceKind::from_raw(entry.kind).ok_or(wrong(entry))?;
        let extent = Extent::new(entry.start.get(), u64::from(entry.len.get()));
        let number = entry.number.get();
        if (number == 0) != matches!(entry.state, ENTRY_FREE | ENTRY_USED) {
            return Err(wrong(entry));
        }
        if entry.state == ENTRY_FORGOTTEN {
            return self.forget(entry);
        }
        extent.last()?;
        kind.check_zones(&self.geometry, extent)?;
        let (free, given) = (&mut self.free[kind as usize], &mut self.given_sets[kind as usize]);
        match entry.state {
            ENTRY_FREE => {
                check_outside(kind, extent, given, Owner::Given)?;
                free.insert(extent)
            }
            ENTRY_USED => free.remove(extent),
            ENTRY_GIVEN => {
                check_outside(kind, extent, free, Owner::Free)?;
                given.insert(extent)?;
                let blocks = SpaceExtent { kind, extent };
                match self.given.get_mut(&number) {
                    Some(extents) => extents.push(blocks)?,
                    None => drop(self.given.insert(number, Vec::from_slice(&[blocks])?)?),
                }
                Ok(())
            }
            _ => Err(wrong(entry)),
        }
    }

    fn forget(&mut self, entry: &SpaceEntry) -> Result<(), SpaceError> {
        if entry.len.get() != 0 {
            return Err(wrong(entry));
        }
        let extents = self.given.remove(&entry.number.get()).ok_or(wrong(entry))?;
        for blocks in &extents {
            self.given_sets[blocks.kind as usize].remove(blocks.extent)?;
        }
        Ok(())
    }

    /// Free blocks of a kind.
    pub fn free(&self, kind: SpaceKind) -> &ExtentSet {
        &self.free[kind as usize]
    }

    /// Hand-overs to the server that were not known to be taken, in order.
    pub fn given(&self) -> impl Iterator<Item = (u64, &[SpaceExtent])> {
        self.given.iter().map(|(&number, extents)| (number, &**extents))
    }

    /// Checks what concerns all of it: no metadata block is a data block as well, and hand-overs have numbers that were
    /// given. `given` is from the header of the newest record.
    pub fn check(&self, given: u64) -> Result<(), SpaceError> {
        if let Some((&found, _)) = self.given.last_key_value().filter(|&(&number, _)| number > given) {
            return Err(SpaceError::HandOverOrder { last: given, found });
        }
        let [meta, data] = [SpaceKind::Meta, SpaceKind::Data]
            .map(|kind| [&self.free[kind as usize], &self.given_sets[kind as usize]]);
        for Extent { start, len } in meta.iter().flat_map(|set| set.iter()) {
            // In the zones, so its sectors have numbers.
            let sectors = SpaceKind::Meta.sectors();
            let extent = Extent::new(start * sectors, len * sectors);
            for set in data {
                if set.first_common(extent)?.is_some() {
                    return Err(SpaceError::TwoKinds { start, len });
                }
            }
        }
        Ok(())
    }

    /// The space of the mount, which goes on from here. `taken` and `given` are from the header of the newest record.
    pub fn into_mount(self, taken: u64, given: u64) -> Result<MountSpace, SpaceError> {
        self.check(given)?;
        let mut free = [FreeRuns::new(), FreeRuns::new()];
        for (runs, set) in free.iter_mut().zip(&self.free) {
            for extent in set.iter() {
                runs.insert(extent)?;
            }
        }
        Ok(MountSpace::from_parts(self.geometry, free, self.given_sets, self.given, taken, given))
    }
}

fn wrong(entry: &SpaceEntry) -> SpaceError {
    SpaceError::Entry {
        kind: entry.kind,
        state: entry.state,
        number: entry.number.get(),
        start: entry.start.get(),
        len: entry.len.get(),
    }
}

fn check_outside(kind: SpaceKind, extent: Extent, set: &ExtentSet, owner: Owner) -> Result<(), SpaceError> {
    match set.first_common(extent)? {
        Some(with) => Err(SpaceError::Owned { kind, start: extent.start, len: extent.len, with, owner }),
        None => Ok(()),
    }
}
