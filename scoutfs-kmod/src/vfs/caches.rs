// SPDX-License-Identifier: GPL-2.0-only
//! What this kernel keeps of a mount, and dropping it when the cluster's locks say so.
//!
//! | what | how it is dropped |
//! | --- | --- |
//! | names | each dentry has the mount's [`Caches::epoch`] of its look-up; one with another is looked up again |
//! | attributes | the inode is marked; who needs its attributes or size first has them read again (`inode::renew`) |
//! | access control lists | the VFS forgets them at once |
//! | pages | changed ones are written, all are removed |
//!
//! The thread that gives locks back does this. It takes no lock of an inode, only those of folios; who holds folios while it waits for a
//! cluster lock is let in by the core as long as these folios are being dropped. So a folio may be held only by requests that are about
//! this very folio: reading, writing, writing back.
//!
//! It takes no reference of an inode either, because to give that back could mean to delete the file, which needs locks. Instead
//! the eviction of an inode waits while its pages are being dropped.

use core::ffi::c_void;
use core::sync::atomic::{AtomicUsize, Ordering};

use kernel::bindings;
use kernel::ffi::c_int;
use scoutfs_env::sync::{Condvar, Mutex};
use scoutfs_env::Arc;
use scoutfs_fs::fs::KernelCaches;

use super::inode::{forget_version, may_have_privileges};
use crate::ffi;
use crate::kobj::folio::{offset, PAGE};

/// No inode has this number.
const NONE: u64 = 0;

/// See the module.
pub(super) struct Caches {
    sb: *mut bindings::super_block,
    epoch: AtomicUsize,
    /// The inode whose pages are being dropped.
    dropping: Mutex<u64>,
    dropped: Condvar,
}

// SAFETY: the super block may be used by any thread, and outlives the mount.
unsafe impl Send for Caches {}
// SAFETY: as above.
unsafe impl Sync for Caches {}

impl Caches {
    /// # Safety
    ///
    /// The super block lives longer than this.
    pub(super) unsafe fn new(sb: *mut bindings::super_block) -> Self {
        // Dentries of nothing have 0.
        let epoch = AtomicUsize::new(1);
        Caches { sb, epoch, dropping: Mutex::new(NONE), dropped: Condvar::new() }
    }

    /// The number of look-ups that are believed. To be read before looking up.
    pub(super) fn epoch(&self) -> usize {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Waits while pages of an inode are being dropped.
    pub(super) fn wait_for(&self, ino: u64) {
        let mut dropping = self.dropping.lock();
        while *dropping == ino {
            dropping = self.dropped.wait(dropping);
        }
    }
}

/// The mark of an inode whose attributes and size are not to be believed: its private pointer, which points to nothing. No two marks are
/// equal, and 0 is none: who has read attributes again takes away the mark that he saw before, and no later one.
///
/// # Safety
///
/// The inode is one of ours and lives as long as this is used.
pub(super) unsafe fn mark<'a>(inode: *mut bindings::inode) -> &'a AtomicUsize {
    // SAFETY: by the contract; nobody else uses the pointer.
    unsafe { AtomicUsize::from_ptr((&raw mut (*inode).i_private).cast()) }
}

/// Has attributes and size of an inode read again before they are believed.
///
/// # Safety
///
/// As [`mark`].
pub(super) unsafe fn set_mark(inode: *mut bindings::inode) {
    static LAST: AtomicUsize = AtomicUsize::new(0);
    let next = LAST.fetch_add(1, Ordering::SeqCst) + 1;
    // SAFETY: by the contract.
    unsafe { mark(inode) }.store(next, Ordering::SeqCst);
}

/// Found: marks it, and ends the search.
///
/// # Safety
///
/// As the VFS calls, with a place for the answer.
unsafe extern "C" fn mark_found(inode: *mut bindings::inode, ino: u64, found: *mut c_void) -> c_int {
    // SAFETY: an inode in the VFS's table, which is locked. Forgetting lists does not sleep.
    unsafe {
        if (*inode).i_ino != ino {
            return 0;
        }
        set_mark(inode);
        may_have_privileges(inode);
        ffi::forget_all_cached_acls(inode);
        found.cast::<bool>().write(true);
    }
    -1
}

/// Found: whether it is in use, and ends the search.
///
/// # Safety
///
/// As the VFS calls.
unsafe extern "C" fn in_use(inode: *mut bindings::inode, ino: u64, _: *mut c_void) -> c_int {
    // SAFETY: an inode in the VFS's table, which is locked.
    unsafe {
        match (*inode).i_ino == ino {
            false => 0,
            true if ffi::scoutfs_inode_is_in_use(inode) => 1,
            true => -1,
        }
    }
}

/// Found: notes an error for who syncs, and that changes were lost, and ends the search.
///
/// # Safety
///
/// As the VFS calls, with the error.
unsafe extern "C" fn note_error(inode: *mut bindings::inode, ino: u64, error: *mut c_void) -> c_int {
    // SAFETY: an inode in the VFS's table, which is locked. To note an error does not sleep.
    unsafe {
        if (*inode).i_ino != ino {
            return 0;
        }
        ffi::scoutfs_mapping_set_error((*inode).i_mapping, error.cast::<c_int>().read());
        forget_version(inode);
    }
    -1
}

/// What the core calls.
pub(super) struct Dropper(pub(super) Arc<Caches>);

impl KernelCaches for Dropper {
    fn forget_names(&self) {
        self.0.epoch.fetch_add(1, Ordering::SeqCst);
    }

    fn forget_attributes(&self, ino: u64) -> bool {
        let mut found = false;
        // SAFETY: the super block is alive.
        unsafe {
            bindings::find_inode_nowait(self.0.sb, ino, Some(mark_found), (&raw mut found).cast());
        }
        // Who makes an inode of attributes that were read before looks at the epoch afterwards.
        found
    }

    fn note_lost(&self, ino: u64, errno: i32) {
        let mut error = -errno.abs();
        // SAFETY: the super block is alive.
        unsafe {
            bindings::find_inode_nowait(self.0.sb, ino, Some(note_error), (&raw mut error).cast());
        }
    }

    fn forget_pages(&self, ino: u64, first: u64, end: u64) {
        *self.0.dropping.lock() = ino;
        // SAFETY: the super block is alive. An inode that is in use now is evicted only after this; one that is being evicted has
        // no user whose pages could be seen.
        unsafe {
            let inode = bindings::find_inode_nowait(self.0.sb, ino, Some(in_use), core::ptr::null_mut());
            if !inode.is_null() && end > first {
                drop_pages((*inode).i_mapping, first, end - 1);
            }
        }
        *self.0.dropping.lock() = NONE;
        self.0.dropped.notify_all();
    }
}

/// Writes changed pages back and removes all, the last byte's included.
///
/// # Safety
///
/// The mapping lives as long as this takes.
unsafe fn drop_pages(mapping: *mut bindings::address_space, first: u64, last: u64) {
    loop {
        // SAFETY: by the contract. An error of writing back is kept for who syncs.
        let left = unsafe {
            bindings::filemap_write_and_wait_range(mapping, offset(first), offset(last));
            bindings::invalidate_inode_pages2_range(mapping, (first / PAGE) as usize, (last / PAGE) as usize)
        };
        // A program has changed one meanwhile; its page is not writable any more.
        if left == 0 {
            return;
        }
    }
}
