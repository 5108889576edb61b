// SPDX-License-Identifier: GPL-2.0-only
//! What attributes are shown with of an inode while programs have changed pages of it that are not written: its item changes with them, as
//! it does with any write, so that after a crash neither is there without the other.
//!
//! # When nobody looks
//!
//! An item costs a record in the log, which is written after the data. So when the pages are written, and made durable, the item may stay as it is
//! while what it lacks makes no difference: nobody has asked for the attributes, or read the file, since it took over what was shown
//! ([`ChangedPages::ask`]), and its time is less than [`COARSE`] older. Who asks later is shown what is true, as before; the item takes
//! it over at the next opportunity, and at the latest when the file is closed, the mount synced, the cluster lock given back.
//! A crash before that leaves data that are newer than the version that the item has: nobody has seen others with it. Kernels treat
//! the versions and times of local filesystems alike (`STATX_CHANGE_COOKIE`, multigrain timestamps).
//!
//! Locking: changes are made under the inode's local lock for changing, and exist only while this mount has its cluster lock for writing.
//! The mutex is a leaf: who asks for attributes may not wait for the local lock.

use core::time::Duration;
use scoutfs_env::sync::Mutex;

use scoutfs_env::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use scoutfs_env::time::Timespec;

use crate::data::write::Written;
use crate::inode::record::{Attr, Inode, from_time};

/// The longest tick of Linux, to which it rounds times that nobody has asked for.
const COARSE: Duration = Duration::from_millis(10);

/// See the module.
#[derive(Default)]
pub(crate) struct ChangedPages {
    /// How often the item took over what was shown, times two, and one more while something is shown.
    turns: AtomicU64,
    shown: Mutex<Pending>,
    /// Since the item took over what was shown nobody has asked. Not so when the cluster lock came, or the inode into the table.
    unseen: AtomicBool,
}

/// What is shown, in little memory: each cached inode has it.
#[derive(Clone, Copy, Default)]
struct Pending {
    sec: i64,
    nsec: u32,
    /// 0: nothing.
    writes: u32,
    /// The time is that of the contents, too.
    mtime: bool,
}

impl Pending {
    fn written(&self) -> Option<Written> {
        let when = Timespec { sec: self.sec, nsec: self.nsec };
        let written = Written { mtime: self.mtime.then_some(when), ctime: when, count: self.writes.into() };
        (self.writes > 0).then_some(written)
    }
}

impl ChangedPages {
    /// A program has written to pages.
    pub fn note(&self, now: Timespec) {
        let mut shown = self.shown.lock();
        *shown =
            Pending { sec: now.sec, nsec: now.nsec, writes: shown.writes.saturating_add(1), mtime: true };
        self.turns.fetch_or(1, Ordering::AcqRel);
    }

    /// The item has a newer time of the contents, or one that somebody has set.
    pub fn forget_mtime(&self) {
        if self.is_some() {
            self.shown.lock().mtime = false;
        }
    }

    /// Somebody has learned of the version, or is about to read the file, and will look at the version only if he has not before.
    pub fn ask(&self) {
        if self.unseen.load(Ordering::SeqCst) {
            self.unseen.store(false, Ordering::SeqCst);
        }
    }

    /// Whether the item is to take over what is shown, now that pages are written or are to be durable.
    pub fn is_due(&self, inode: &Inode) -> bool {
        let Some(shown) = self.shown() else { return false };
        if !self.unseen.load(Ordering::SeqCst) {
            return true;
        }
        let had = from_time(&inode.item.mtime);
        let is_close = |mtime: Timespec| {
            let nsec = match mtime.sec.checked_sub(had.sec) {
                Some(0) => mtime.nsec,
                Some(1) => mtime.nsec + 1_000_000_000,
                _ => return false,
            };
            nsec.checked_sub(had.nsec).is_some_and(|later| later < COARSE.subsec_nanos())
        };
        !shown.mtime.is_some_and(is_close)
    }

    /// The item has it.
    pub fn take_over(&self) {
        // Who asks from now on, before it is gone from here, sees what the item has.
        self.unseen.store(true, Ordering::SeqCst);
        self.end();
    }

    /// The item has it, or it is lost.
    pub fn end(&self) {
        if self.is_some() {
            // From odd to even.
            self.turns.fetch_add(1, Ordering::AcqRel);
            *self.shown.lock() = Pending::default();
        }
    }

    /// What is shown.
    pub fn shown(&self) -> Option<Written> {
        if self.is_some() { self.shown.lock().written() } else { None }
    }

    /// Changes whenever something that was shown is not any more.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Acquire)
    }

    /// Whether something is shown.
    pub fn is_some(&self) -> bool {
        !self.turns().is_multiple_of(2)
    }

    /// Attributes with what is shown, for somebody who asks. The caller has the inode's local lock.
    pub fn show(&self, mut attr: Attr) -> Attr {
        if let Some(shown) = self.shown() {
            shown.show(&mut attr);
        }
        self.ask();
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
