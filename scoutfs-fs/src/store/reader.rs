// SPDX-License-Identifier: GPL-2.0-only
//! Reading committed items for the item cache, and fresh roots when blocks were reused.

use scoutfs_btree::{BlockCache, Error as TreeError, RangeItems, read_range};
use scoutfs_env::device::BlockDevice;
use scoutfs_env::sync::Mutex;
use scoutfs_env::{Arc, Box, Vec};
use scoutfs_format::Key;
use scoutfs_format::geometry::Geometry;
use scoutfs_item::ItemReader;
use scoutfs_server::ServerError;
use scoutfs_server::roots::{Roots, read_roots};

use super::roots::{RootsCell, Snapshot};
use crate::error::{Error, Result};

/// What reading takes: the device, its blocks and the roots.
pub(crate) struct Reader {
    pub device: Arc<Box<dyn BlockDevice>>,
    pub cache: Arc<BlockCache>,
    pub geometry: Geometry,
    /// This mount's slot, whose log is in memory.
    pub slot: u32,
    pub roots: RootsCell,
    /// What was read last. Held by who reads roots from the device, so that older roots never replace newer ones.
    refreshing: Mutex<Option<Roots>>,
}

impl Reader {
    pub fn new(
        device: Arc<Box<dyn BlockDevice>>,
        cache: Arc<BlockCache>,
        geometry: Geometry,
        slot: u32,
        roots: RootsCell,
    ) -> Self {
        Reader { device, cache, geometry, slot, roots, refreshing: Mutex::new(None) }
    }

    /// Reads all roots again and returns the number up to which this mount's logs are merged.
    pub fn refresh(&self) -> Result<u64> {
        let mut last = self.refreshing.lock();
        let roots = read_roots(&**self.device, &self.cache, &self.geometry)?;
        let merged_through = self.show(&roots)?;
        *last = Some(roots);
        Ok(merged_through)
    }

    /// Reads what the server has told of commits in some slots: a slot, an epoch and a number each. Says whether the roots are as
    /// wanted then. Of other slots what was read last stands: their log trees may be out of date, which a reader finds when their
    /// blocks were reused.
    pub fn refresh_slots(
        &self,
        told: &[(u32, u64, u64)],
        wanted: impl FnOnce(&Roots) -> bool,
    ) -> Result<bool> {
        let mut last = self.refreshing.lock();
        match &mut *last {
            Some(roots) => {
                if !roots.follow(&**self.device, &self.cache, told)? {
                    let mut slots = Vec::with_capacity(told.len())?;
                    slots.try_extend(told.iter().map(|&(slot, ..)| slot))?;
                    roots.refresh(&**self.device, &self.cache, &slots)?;
                }
            }
            none => *none = Some(read_roots(&**self.device, &self.cache, &self.geometry)?),
        }
        let Some(roots) = &*last else { return Ok(false) };
        self.show(roots)?;
        Ok(wanted(roots))
    }

    fn show(&self, roots: &Roots) -> Result<u64> {
        let merged_through = roots.member(self.slot).map_or(0, |member| member.merged_through.get());
        self.roots.set_others(roots.forest_without(Some(self.slot))?, merged_through)?;
        Ok(merged_through)
    }

    /// Calls `read` with consistent roots, and again with fresh ones when a block is stale. A block that is stale twice
    /// from the same roots is corrupt.
    pub fn with_roots<T>(
        &self,
        read: impl Fn(&Snapshot) -> core::result::Result<T, TreeError>,
    ) -> core::result::Result<T, TreeError> {
        let mut snapshot = self.roots.snapshot();
        loop {
            let stale = match read(&snapshot) {
                Err(e) if e.is_stale() => e,
                other => return other,
            };
            // That the roots changed is not enough: a commit adds a tail and leaves the trees as old as they were.
            let mut now = self.roots.snapshot();
            if same_roots(&now, &snapshot) {
                match self.refresh() {
                    Ok(_) => {}
                    Err(Error::Tree(e)) => return Err(e),
                    Err(Error::Io(e)) => return Err(TreeError::Io(e)),
                    Err(Error::NoMemory) => return Err(TreeError::NoMemory),
                    Err(_) => return Err(stale.stale_to_corrupt()),
                }
                now = self.roots.snapshot();
                if same_roots(&now, &snapshot) {
                    return Err(stale.stale_to_corrupt());
                }
            }
            snapshot = now;
        }
    }
}

fn same_roots(a: &Snapshot, b: &Snapshot) -> bool {
    a.forest.fs_root == b.forest.fs_root && a.forest.logs[..] == b.forest.logs[..]
}

impl ItemReader for Reader {
    fn read_range(&self, key: Key, low: Key, high: Key) -> core::result::Result<RangeItems, TreeError> {
        self.with_roots(|roots| read_range(&self.cache, &roots.forest, key, low, high))
    }
}

impl From<ServerError> for Error {
    fn from(e: ServerError) -> Self {
        match e {
            ServerError::Tree(e) => e.into(),
            ServerError::Io(e) => Error::Io(e),
            ServerError::NoMemory => Error::NoMemory,
            other => Error::Volume(other),
        }
    }
}

#[cfg(test)]
mod tests;
