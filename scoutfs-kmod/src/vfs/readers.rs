// SPDX-License-Identifier: GPL-2.0-only
//! Whether somebody may have read from a file in this kernel since it was written to last: while nobody has, a write to pages need not become a
//! change of the item that is recorded (`scoutfs_fs::data::changed`).
//!
//! Locking: none. Who reads notes it before he looks at pages, who writes asks when he has changed them: whoever has seen what was there before
//! is noticed.

use core::sync::atomic::{fence, AtomicUsize, Ordering};

use kernel::bindings;

use crate::ffi;

/// The word: where symbolic links have their target, and new inodes nothing. 0: somebody may have read.
///
/// # Safety
///
/// The inode is one of ours, a regular file's, and lives as long as this is used.
unsafe fn word<'a>(inode: *mut bindings::inode) -> &'a AtomicUsize {
    // SAFETY: by the contract; nobody else uses the pointer.
    unsafe { AtomicUsize::from_ptr((&raw mut (*inode).__bindgen_anon_5.i_link).cast()) }
}

/// Somebody is about to read from the file, or to see its pages in a mapping, which the kernel knows of already.
///
/// # Safety
///
/// As [`word`].
pub(super) unsafe fn note(inode: *mut bindings::inode) {
    // SAFETY: by the contract.
    let word = unsafe { word(inode) };
    if word.load(Ordering::Relaxed) != 0 {
        word.store(0, Ordering::Relaxed);
    }
    fence(Ordering::SeqCst);
}

/// Whether somebody may have read from the file since the last call, or can without [`note`]. To be called after pages were changed.
///
/// # Safety
///
/// As [`word`].
pub(super) unsafe fn were_there(inode: *mut bindings::inode) -> bool {
    fence(Ordering::SeqCst);
    // SAFETY: by the contract.
    unsafe {
        if ffi::scoutfs_mapping_mapped((*inode).i_mapping) {
            // And will have, when it is not mapped any more.
            word(inode).store(0, Ordering::Relaxed);
            return true;
        }
        word(inode).swap(1, Ordering::Relaxed) == 0
    }
}
