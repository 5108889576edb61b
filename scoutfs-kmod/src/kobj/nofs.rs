// SPDX-License-Identifier: GPL-2.0-only
//! A scope without filesystem reclaim.
//!
//! Under the core's locks, and in its transactions, an allocation must not make the kernel write pages or drop inodes of a
//! filesystem, which might wait for the very same. Scopes nest.

use core::marker::PhantomData;

use crate::ffi;

/// As long as it lives, allocations of this thread do not enter filesystems.
pub(crate) struct NoFs {
    flags: u32,
    /// It belongs to the thread that entered it.
    on_thread: PhantomData<*const ()>,
}

impl NoFs {
    pub(crate) fn enter() -> Self {
        // SAFETY: changes a flag of the current task.
        NoFs { flags: unsafe { ffi::scoutfs_nofs_save() }, on_thread: PhantomData }
    }
}

impl Drop for NoFs {
    fn drop(&mut self) {
        // SAFETY: the same task, which had this flag before; scopes nest, as values do.
        unsafe { ffi::scoutfs_nofs_restore(self.flags) };
    }
}
