// SPDX-License-Identifier: GPL-2.0-only
//! Items that the mount will have to write, for pages that programs change in a kernel's memory where the file has blocks and no data yet: when
//! the pages are written nobody can be told that there is no space.
//!
//! They count as written wherever metadata blocks are kept for what is (`shortage`). So who is not privileged leaves them alone.
//!
//! Locking: none; a count.

use scoutfs_env::sync::atomic::{AtomicU64, Ordering};

use super::Store;

/// Bytes of such items.
#[derive(Default)]
pub(crate) struct Owed(AtomicU64);

impl Owed {
    /// How many there are.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

impl Store {
    /// Sees to it that so many bytes of items can be written later. False, with nothing done, if that would take more than there is now.
    pub(crate) fn owe(&self, bytes: u64) -> bool {
        self.owed.0.fetch_add(bytes, Ordering::AcqRel);
        let done = self.has_room();
        if !done {
            self.pay(bytes);
        }
        done
    }

    /// They are written, or need not be.
    pub(crate) fn pay(&self, bytes: u64) {
        self.owed.0.fetch_sub(bytes, Ordering::AcqRel);
    }
}
