// SPDX-License-Identifier: GPL-2.0-only
//! Which pages of a folio have changed: a dirty folio may have pages that have no blocks, or that are as the device has them.
//!
//! It is in the folio's private word, while there is something. A folio that became dirty without it has changed wholly, and so has one
//! that somebody made dirty who had it pinned, such as a device that wrote to a program's memory ([`dirty`]).
//!
//! # Locking
//!
//! The folio is locked, or under writeback: who locks it waits for that before it notes a change. Only [`dirty`] is called without.

use core::ops::BitOr;

use kernel::bindings;
use kernel::ffi::c_void;

use crate::ffi;
use crate::kobj::folio::PAGE;

/// Pages of a folio, at most: `SCOUTFS_FOLIO_ORDER` says the same to the kernel.
const PAGES: usize = 1 << ffi::SCOUTFS_FOLIO_ORDER;

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Changed {
    /// One bit for each page.
    pages: u32,
    /// The same, of those that programs have changed by a mapping to memory.
    mapped: u32,
}

const _: () = assert!(PAGES <= u32::BITS as usize && size_of::<usize>() == 8);

impl Changed {
    const NOTHING: Changed = Changed { pages: 0, mapped: 0 };
    /// Who did it is not known.
    const ALL: Changed = Changed { pages: u32::MAX, mapped: u32::MAX };

    /// Pages `first..end` of a folio.
    pub(crate) fn range(first: usize, end: usize, mapped: bool) -> Self {
        let below = |page: usize| (1u64 << page.min(PAGES)) - 1;
        // No more than 32 bits.
        let pages = (below(end) & !below(first)) as u32;
        Changed { pages, mapped: if mapped { pages } else { 0 } }
    }

    /// Whether it was by a mapping to memory, or may have been.
    pub(crate) fn is_mapped(self) -> bool {
        self.mapped != 0
    }

    /// The next run of pages from `page` on, `first..end`, below `pages`.
    pub(crate) fn next(self, page: usize, pages: usize) -> Option<(usize, usize)> {
        let has = |page: &usize| self.pages >> *page & 1 != 0;
        let pages = pages.min(PAGES);
        let first = (page..pages).find(has)?;
        let end = (first..pages).find(|page| !has(page)).unwrap_or(pages);
        Some((first, end))
    }

    fn from_word(word: usize) -> Self {
        // The halves.
        Changed { pages: word as u32, mapped: (word >> 32) as u32 }
    }

    fn word(self) -> *mut c_void {
        ((self.mapped as usize) << 32 | self.pages as usize) as *mut c_void
    }

    fn without(self, other: Changed) -> Self {
        Changed { pages: self.pages & !other.pages, mapped: self.mapped & !other.pages }
    }
}

impl BitOr for Changed {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Changed { pages: self.pages | other.pages, mapped: self.mapped | other.mapped }
    }
}

/// What is noted.
///
/// # Safety
///
/// As the module says.
unsafe fn noted(folio: *mut bindings::folio) -> Changed {
    // SAFETY: by the contract.
    unsafe {
        match ffi::scoutfs_folio_has_private(folio) {
            true => Changed::from_word(ffi::scoutfs_folio_private(folio).addr()),
            false => Changed::NOTHING,
        }
    }
}

/// Notes a change. The folio is to be marked as dirty then.
///
/// # Safety
///
/// The folio is one of ours, locked, and not under writeback.
pub(crate) unsafe fn note(folio: *mut bindings::folio, change: Changed) {
    // SAFETY: by the contract.
    unsafe {
        let all = noted(folio) | change;
        match ffi::scoutfs_folio_has_private(folio) {
            true => ffi::scoutfs_folio_change_private(folio, all.word()),
            false => ffi::scoutfs_folio_attach_private(folio, all.word()),
        }
    }
}

/// Takes what is noted of a folio that was marked clean, to be written.
///
/// # Safety
///
/// The folio is one of ours, and locked.
pub(crate) unsafe fn take(folio: *mut bindings::folio) -> Changed {
    // SAFETY: by the contract. Who sets the flag after it was cleared makes the folio dirty again.
    unsafe {
        let all = ffi::scoutfs_folio_checked(folio) || !ffi::scoutfs_folio_has_private(folio);
        ffi::scoutfs_folio_clear_checked(folio);
        let changed = noted(folio);
        ffi::scoutfs_folio_detach_private(folio);
        if all { Changed::ALL } else { changed }
    }
}

/// Puts back what was taken and could not be written. The folio is to be marked as dirty then.
///
/// # Safety
///
/// The folio is one of ours, and under writeback since it was taken.
pub(crate) unsafe fn put_back(folio: *mut bindings::folio, changed: Changed) {
    // SAFETY: by the contract. Where nothing is noted everything has changed.
    unsafe {
        if changed != Changed::ALL {
            ffi::scoutfs_folio_attach_private(folio, changed.word());
        }
    }
}

/// Somebody marks a folio as dirty. A program's memory that is no longer mapped was noted when it became writable; of who has it pinned,
/// and may have written to any page at any time since, nobody knows.
///
/// # Safety
///
/// As the VFS calls it.
pub(crate) unsafe extern "C" fn dirty(
    mapping: *mut bindings::address_space,
    folio: *mut bindings::folio,
) -> bool {
    // SAFETY: by the contract.
    unsafe {
        if ffi::scoutfs_folio_maybe_pinned(folio) {
            ffi::scoutfs_folio_set_checked(folio);
        }
        bindings::filemap_dirty_folio(mapping, folio)
    }
}

/// The kernel wants to take a folio out of the cache, or to split it.
///
/// # Safety
///
/// As the VFS calls it, with a locked folio of ours.
pub(crate) unsafe extern "C" fn release(folio: *mut bindings::folio, _gfp: bindings::gfp_t) -> bool {
    // SAFETY: by the contract.
    unsafe {
        if ffi::scoutfs_folio_dirty(folio) || ffi::scoutfs_folio_writeback(folio) {
            return false;
        }
        ffi::scoutfs_folio_detach_private(folio);
    }
    true
}

/// Bytes of a folio are cut off, or the whole folio.
///
/// # Safety
///
/// As the VFS calls it, with a locked folio of ours that is not under writeback.
pub(crate) unsafe extern "C" fn invalidate(folio: *mut bindings::folio, offset: usize, len: usize) {
    // SAFETY: by the contract.
    unsafe {
        if offset == 0 && len >= ffi::scoutfs_folio_size(folio) {
            ffi::scoutfs_folio_detach_private(folio);
            return;
        }
        if ffi::scoutfs_folio_has_private(folio) {
            let changed = noted(folio);
            let page = PAGE as usize;
            let gone = Changed::range(offset.div_ceil(page), (offset + len) / page, true);
            ffi::scoutfs_folio_change_private(folio, changed.without(gone).word());
        }
    }
}
