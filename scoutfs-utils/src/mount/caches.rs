// SPDX-License-Identifier: GPL-2.0-only
//! What the kernel keeps of a mount, dropped when the cluster's locks say so.

use scoutfs_fs::fs::KernelCaches;

use crate::fuse::{Errno, Notifier};

/// The kernel on the other side of a FUSE mount. A mount that is gone keeps nothing.
pub struct FuseCaches(Notifier);

impl FuseCaches {
    /// The kernel that a notifier speaks to.
    pub fn new(notifier: Notifier) -> Self {
        FuseCaches(notifier)
    }
}

/// Page caches are dropped in pages.
const PAGE: u64 = 4096;

impl KernelCaches for FuseCaches {
    fn forget_names(&self) {
        // Kernels without epochs (before Linux 6.16) are told to keep no names.
        match self.0.inc_epoch() {
            Ok(()) | Err(Errno::INVAL | Errno::NODEV) => {}
            Err(e) => scoutfs_env::warn!("the kernel does not look names up again: {e}"),
        }
    }

    fn forget_attributes(&self, ino: u64) -> bool {
        match self.0.inval_attr(ino) {
            Ok(known) => known,
            Err(Errno::NODEV) => true,
            Err(e) => {
                scoutfs_env::warn!("the kernel keeps attributes of inode {ino}: {e}");
                false
            }
        }
    }

    fn forget_pages(&self, ino: u64, first: u64, end: u64) {
        let first = first / PAGE * PAGE;
        match self.0.inval_inode(ino, first, end - first) {
            Ok(_) | Err(Errno::NODEV) => {}
            Err(e) => scoutfs_env::warn!("the kernel keeps pages of inode {ino}: {e}"),
        }
    }
}
