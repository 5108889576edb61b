// SPDX-License-Identifier: GPL-2.0-only
//! The mount's space, as operations use it.
//!
//! Locking: one mutex over [`MountSpace`], a leaf: no IO and no message under it.

use scoutfs_btree::space::{MountSpace, SpaceError, SpaceExtent, SpaceKind};
use scoutfs_env::sync::{Mutex, MutexGuard};
use scoutfs_env::{Box, try_box};

use crate::error::{Error, Result};

/// A run of free data blocks that an operation has taken. It must be given to
/// [`Hold::use_data`](super::Hold::use_data) or [`Store::unreserve_data`](super::Store::unreserve_data).
#[derive(Debug)]
#[must_use = "a run that is dropped is lost until the next mount"]
pub struct DataRun {
    /// First block.
    pub start: u64,
    /// Blocks, not 0.
    pub len: u64,
}

impl DataRun {
    /// Cuts off the first `len` blocks; both parts must be used or given back. `len` must be below the run's.
    pub fn split_off_front(&mut self, len: u64) -> DataRun {
        let len = len.min(self.len);
        let front = DataRun { start: self.start, len };
        self.start += len;
        self.len -= len;
        front
    }
}

/// See the module.
// Apart from the store, which is made on a kernel's stack.
pub(crate) struct SpaceCell(Mutex<Box<MountSpace>>);

impl SpaceCell {
    pub fn new(space: MountSpace) -> Result<Self> {
        Ok(SpaceCell(Mutex::new(try_box(space)?)))
    }

    pub fn lock(&self) -> MutexGuard<'_, Box<MountSpace>> {
        self.0.lock()
    }

    /// A run near `near`, or `None` when nothing is free now.
    pub fn reserve_data(&self, want: u64, near: Option<u64>) -> Result<Option<DataRun>> {
        match self.lock().alloc_data(want, near) {
            Ok(extent) => Ok(Some(DataRun { start: extent.start, len: extent.len })),
            Err(SpaceError::NoSpace { .. }) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Where up to `want` blocks that lie side by side may be reserved one by one: the first, and how many. They are not taken.
    pub fn suggest_data(&self, want: u64) -> Option<(u64, u64)> {
        self.lock().suggest_data(want).map(|extent| (extent.start, extent.len))
    }

    pub fn unreserve_data(&self, run: DataRun) -> Result<()> {
        if run.len == 0 {
            return Ok(());
        }
        Ok(self.lock().release_held(SpaceExtent::new(SpaceKind::Data, run.start, run.len))?)
    }

    /// As promised (see [`MountSpace::promise`]), so not for want of memory.
    pub fn use_data(&self, run: DataRun) -> Result<()> {
        if run.len == 0 {
            return Ok(());
        }
        Ok(self.lock().use_promised(SpaceExtent::new(SpaceKind::Data, run.start, run.len))?)
    }

    /// As promised (see [`MountSpace::promise`]), so not for want of memory.
    pub fn free_data(&self, start: u64, len: u64, withhold: bool) -> Result<()> {
        let mut space = self.lock();
        Ok(if withhold { space.withhold_promised(start, len) } else { space.free_promised(start, len) }?)
    }
}

impl From<SpaceError> for Error {
    fn from(e: SpaceError) -> Self {
        match e {
            SpaceError::NoMemory => Error::NoMemory,
            SpaceError::NoSpace { .. } | SpaceError::Reserved { .. } => Error::NoSpace,
            e => {
                scoutfs_env::error!("the mount's space is inconsistent: {e}");
                Error::Shutdown("the mount's space is inconsistent")
            }
        }
    }
}
