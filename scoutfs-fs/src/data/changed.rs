// SPDX-License-Identifier: GPL-2.0-only
//! What attributes are shown with of an inode while programs have changed pages of it that are not written: its item changes with them, as
//! it does with any write, so that after a crash neither is there without the other.
//!
//! Locking: changes are made under the inode's local lock for changing, and exist only while this mount has its cluster lock for writing.
//! The mutex is a leaf: who asks for attributes may not wait for the local lock.

use scoutfs_env::sync::Mutex;
use scoutfs_env::sync::atomic::{AtomicU64, Ordering};
use scoutfs_env::time::Timespec;

use crate::data::write::Written;
use crate::inode::record::Attr;

/// See the module.
#[derive(Default)]
pub(crate) struct ChangedPages {
    /// How often the item took over what was shown, times two, and one more while something is shown.
    turns: AtomicU64,
    shown: Mutex<Option<Written>>,
}

impl ChangedPages {
    /// A program has written to pages.
    pub fn note(&self, now: Timespec) {
        let mut shown = self.shown.lock();
        let count = shown.map_or(0, |shown| shown.count) + 1;
        *shown = Some(Written { mtime: Some(now), ctime: now, count });
        self.turns.fetch_or(1, Ordering::AcqRel);
    }

    /// The item has a newer time of the contents, or one that somebody has set.
    pub fn forget_mtime(&self) {
        if self.is_some()
            && let Some(shown) = &mut *self.shown.lock()
        {
            shown.mtime = None;
        }
    }

    /// The item has it, or it is lost.
    pub fn end(&self) {
        if self.is_some() {
            // From odd to even.
            self.turns.fetch_add(1, Ordering::AcqRel);
            *self.shown.lock() = None;
        }
    }

    /// What is shown.
    pub fn shown(&self) -> Option<Written> {
        if self.is_some() { *self.shown.lock() } else { None }
    }

    /// Changes whenever something that was shown is not any more.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Acquire)
    }

    fn is_some(&self) -> bool {
        !self.turns().is_multiple_of(2)
    }

    /// Attributes with what is shown. The caller has the inode's local lock.
    pub fn show(&self, mut attr: Attr) -> Attr {
        if let Some(shown) = self.shown() {
            shown.show(&mut attr);
        }
        attr
    }
}

impl Written {
    /// Attributes as if it was done.
    pub fn show(&self, attr: &mut Attr) {
        attr.mtime = self.mtime.unwrap_or(attr.mtime);
        attr.ctime = attr.ctime.max(self.ctime);
        attr.version = attr.version.wrapping_add(self.count);
    }
}
