// SPDX-License-Identifier: GPL-2.0-only
//! Memory that is given back when the kernel runs short: clean items and blocks that the core keeps of each mount.
//!
//! The kernel calls from any task that wants memory, whatever that holds. Who is in the core allocates in a scope without filesystem
//! reclaim, and is not served: he may hold what giving back needs. Nobody waits here.

use core::ptr::null_mut;

use kernel::bindings;
use scoutfs_fs::store::Store;

use crate::ffi;
use crate::kobj::error::{Errno, Result};

/// What the kernel counts: a page's worth of memory.
const OBJECT: usize = bindings::PAGE_SIZE;
/// Objects that are given back at once: a metadata block.
const BATCH: usize = scoutfs_format::BLOCK_SIZE / OBJECT;
/// The kernel's answer for one who cannot be served now.
const SHRINK_STOP: usize = usize::MAX;
/// And when there is nothing.
const SHRINK_EMPTY: usize = usize::MAX - 1;
/// As dear to make again as most things.
const DEFAULT_SEEKS: i32 = 2;

/// A mount's part in it, as long as it lives.
pub(super) struct Shrinker(*mut bindings::shrinker);

// SAFETY: any thread may take it away.
unsafe impl Send for Shrinker {}
// SAFETY: nothing can be done with a shared reference.
unsafe impl Sync for Shrinker {}

impl Shrinker {
    /// # Safety
    ///
    /// The store lives longer than this.
    pub(super) unsafe fn new(store: &Store) -> Result<Self> {
        // SAFETY: the format takes a number.
        unsafe {
            let shrinker = bindings::shrinker_alloc(0, c"scoutfs-%llx".as_ptr().cast(), store.rid());
            if shrinker.is_null() {
                return Err(Errno::NOMEM);
            }
            (*shrinker).count_objects = Some(count);
            (*shrinker).scan_objects = Some(scan);
            (*shrinker).batch = BATCH as isize;
            (*shrinker).seeks = DEFAULT_SEEKS;
            (*shrinker).private_data = core::ptr::from_ref(store).cast_mut().cast();
            bindings::shrinker_register(shrinker);
            Ok(Shrinker(shrinker))
        }
    }
}

impl Drop for Shrinker {
    fn drop(&mut self) {
        // SAFETY: made in `new`. It waits for who is in one of the functions below.
        unsafe { bindings::shrinker_free(core::mem::replace(&mut self.0, null_mut())) };
    }
}

/// # Safety
///
/// As the kernel calls.
unsafe fn store<'a>(shrinker: *mut bindings::shrinker) -> &'a Store {
    // SAFETY: set in `new`, whose caller keeps it alive.
    unsafe { &*(*shrinker).private_data.cast::<Store>() }
}

unsafe extern "C" fn count(shrinker: *mut bindings::shrinker, _: *mut bindings::shrink_control) -> usize {
    // SAFETY: the kernel gives a shrinker of ours.
    match unsafe { store(shrinker) }.cached_bytes() / OBJECT {
        0 => SHRINK_EMPTY,
        objects => objects,
    }
}

unsafe extern "C" fn scan(shrinker: *mut bindings::shrinker, control: *mut bindings::shrink_control) -> usize {
    // SAFETY: the kernel gives a shrinker of ours, and what it wants.
    unsafe {
        if (*control).gfp_mask & ffi::SCOUTFS_GFP_FS == 0 {
            return SHRINK_STOP;
        }
        let given = store(shrinker).reclaim((*control).nr_to_scan.saturating_mul(OBJECT)) / OBJECT;
        (*control).nr_scanned = (*control).nr_to_scan.max(given);
        given
    }
}
