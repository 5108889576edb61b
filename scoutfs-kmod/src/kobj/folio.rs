// SPDX-License-Identifier: GPL-2.0-only
//! Folios of the page cache, and the locks of an address space.
//!
//! # Locking
//!
//! The inode's lock, then [`Invalidation`], then folios, from the lowest index up. All of them come before the locks of the core.

use kernel::bindings;

use super::changed::{self, Changed};
use super::error::{check, check_pointer, Errno, Result};
use crate::ffi;

/// Bytes of a page.
pub(crate) const PAGE: u64 = bindings::PAGE_SIZE as u64;

/// A folio that is locked here, with a reference. Dropping it unlocks it.
pub(crate) struct LockedFolio {
    folio: *mut bindings::folio,
    /// Whether the reference is ours to give back.
    owned: bool,
}

impl LockedFolio {
    /// The folio of a page index if it is in the cache.
    ///
    /// # Safety
    ///
    /// The mapping is alive.
    pub(crate) unsafe fn find(mapping: *mut bindings::address_space, index: u64) -> Option<Self> {
        // SAFETY: by the contract.
        let folio = unsafe {
            bindings::__filemap_get_folio_mpol(
                mapping,
                index as usize,
                ffi::SCOUTFS_FGP_LOCK,
                0,
                core::ptr::null_mut(),
            )
        };
        Some(LockedFolio { folio: check_pointer(folio).ok()?, owned: true })
    }

    /// Locks a folio unless somebody else has; `None` also when it has left this mapping. The reference stays the caller's.
    ///
    /// # Safety
    ///
    /// The caller has a reference of the folio for as long as this lives.
    pub(crate) unsafe fn try_lock(
        folio: *mut bindings::folio,
        mapping: *mut bindings::address_space,
    ) -> Option<Self> {
        // SAFETY: by the contract. What a locked folio belongs to does not change.
        unsafe {
            if !ffi::scoutfs_folio_trylock(folio) {
                return None;
            }
            let locked = LockedFolio { folio, owned: false };
            (ffi::scoutfs_folio_mapping(folio) == mapping).then_some(locked)
        }
    }

    /// The folio of a page index, new if it is not in the cache, and then large if so many bytes are to be written from there on.
    ///
    /// # Safety
    ///
    /// The mapping is alive.
    pub(crate) unsafe fn make(mapping: *mut bindings::address_space, index: u64, bytes: u64) -> Result<Self> {
        // SAFETY: by the contract.
        let folio = unsafe {
            bindings::__filemap_get_folio_mpol(
                mapping,
                index as usize,
                ffi::scoutfs_fgp_write(bytes as usize),
                ffi::SCOUTFS_GFP_PAGE,
                core::ptr::null_mut(),
            )
        };
        Ok(LockedFolio { folio: check_pointer(folio)?, owned: true })
    }

    /// Locks a folio that somebody holds; `None` when it has left this mapping meanwhile.
    ///
    /// # Safety
    ///
    /// Somebody holds a reference of the folio for as long as this lives.
    pub(crate) unsafe fn lock(
        folio: *mut bindings::folio,
        mapping: *mut bindings::address_space,
    ) -> Option<Self> {
        // SAFETY: by the contract. What a locked folio belongs to does not change.
        let still = unsafe {
            ffi::scoutfs_folio_lock(folio);
            ffi::scoutfs_folio_mapping(folio) == mapping
        };
        let locked = LockedFolio { folio, owned: false };
        still.then_some(locked)
    }

    /// The kernel's folio.
    pub(crate) fn as_ptr(&self) -> *mut bindings::folio {
        self.folio
    }

    /// Leaves it locked, for the kernel.
    pub(crate) fn leave_locked(self) {
        core::mem::forget(self);
    }

    /// Where it begins in the file.
    pub(crate) fn pos(&self) -> u64 {
        // SAFETY: a folio that is held.
        unsafe { ffi::scoutfs_folio_pos(self.folio) }.unsigned_abs()
    }

    /// Where the file goes on behind it.
    pub(crate) fn end(&self) -> u64 {
        // SAFETY: a folio that is held.
        self.pos().saturating_add(unsafe { ffi::scoutfs_folio_size(self.folio) } as u64)
    }

    pub(crate) fn is_uptodate(&self) -> bool {
        // SAFETY: a folio that is held.
        unsafe { ffi::scoutfs_folio_uptodate(self.folio) }
    }

    pub(crate) fn is_under_writeback(&self) -> bool {
        // SAFETY: a folio that is held.
        unsafe { ffi::scoutfs_folio_writeback(self.folio) }
    }

    /// Waits until nobody writes it any more: until it is unlocked nobody will.
    pub(crate) fn wait_for_writeback(&self) {
        // SAFETY: a folio that is held and locked.
        unsafe { bindings::folio_wait_writeback(self.folio) }
    }

    /// The part of bytes `pos..end` of the file that lies in it has changed, and is to be written. It is not under writeback.
    pub(crate) fn mark_changed(&self, pos: u64, end: u64, mapped: bool) {
        let start = pos.saturating_sub(self.pos()) / PAGE;
        let end = end.min(self.end()).saturating_sub(self.pos()).div_ceil(PAGE);
        // SAFETY: a folio that is held and locked.
        unsafe {
            changed::note(self.folio, Changed::range(start as usize, end as usize, mapped));
            bindings::folio_mark_dirty(self.folio);
        }
    }

    pub(crate) fn mark_uptodate(&self) {
        // SAFETY: a folio that is held and locked.
        unsafe { ffi::scoutfs_folio_mark_uptodate(self.folio) }
    }

    /// Copies what of `bytes`, which begin at a place in the file, lies in this folio.
    pub(crate) fn copy_from(&self, pos: u64, bytes: &[u8]) {
        // SAFETY: a folio that is held and locked. A program that has mapped it may change it at any time, so it is written through
        // a pointer and never borrowed.
        unsafe {
            let size = ffi::scoutfs_folio_size(self.folio);
            let skip = usize::try_from(self.pos().saturating_sub(pos)).unwrap_or(usize::MAX).min(bytes.len());
            let start = usize::try_from(pos.saturating_sub(self.pos())).unwrap_or(size).min(size);
            let len = (bytes.len() - skip).min(size - start);
            let to = ffi::scoutfs_folio_address(self.folio).cast::<u8>().add(start);
            core::ptr::copy_nonoverlapping(bytes[skip..].as_ptr(), to, len);
        }
    }

    /// Zeros from a place in the file to the folio's end.
    pub(crate) fn zero_from(&self, pos: u64) {
        // SAFETY: as in `copy_from`.
        unsafe { zero_from(self.folio, pos) };
    }
}

impl Drop for LockedFolio {
    fn drop(&mut self) {
        // SAFETY: it was locked here, and the reference is ours if it is owned.
        unsafe {
            bindings::folio_unlock(self.folio);
            if self.owned {
                ffi::scoutfs_folio_put(self.folio);
            }
        }
    }
}

/// Zeros a folio from a place in the file on.
///
/// # Safety
///
/// The folio is held, and locked or under writeback.
pub(crate) unsafe fn zero_from(folio: *mut bindings::folio, pos: u64) {
    // SAFETY: by the contract; the range lies in the folio.
    unsafe {
        let size = ffi::scoutfs_folio_size(folio);
        let begin = ffi::scoutfs_folio_pos(folio).unsigned_abs();
        let start = usize::try_from(pos.saturating_sub(begin)).unwrap_or(size).min(size);
        ffi::scoutfs_folio_address(folio).cast::<u8>().add(start).write_bytes(0, size - start);
    }
}

/// The memory of a folio that nobody else reads or writes: it is locked and not up to date.
///
/// # Safety
///
/// As said, for as long as the slice lives.
pub(crate) unsafe fn fill_slice<'a>(folio: *mut bindings::folio) -> &'a mut [u8] {
    // SAFETY: by the contract.
    unsafe {
        core::slice::from_raw_parts_mut(
            ffi::scoutfs_folio_address(folio).cast(),
            ffi::scoutfs_folio_size(folio),
        )
    }
}

/// The memory of a folio that nobody changes: it is under writeback and mapped for reading at most.
///
/// # Safety
///
/// As said, for as long as the slice lives.
pub(crate) unsafe fn stable_slice<'a>(folio: *mut bindings::folio) -> &'a [u8] {
    // SAFETY: by the contract.
    unsafe {
        core::slice::from_raw_parts(ffi::scoutfs_folio_address(folio).cast(), ffi::scoutfs_folio_size(folio))
    }
}

/// Keeps pages from coming into a mapping, and clean ones from becoming dirty by a mapping to memory.
pub(crate) struct Invalidation(*mut bindings::address_space);

impl Invalidation {
    /// # Safety
    ///
    /// The mapping lives longer than this.
    pub(crate) unsafe fn enter(mapping: *mut bindings::address_space) -> Self {
        // SAFETY: by the contract.
        unsafe { bindings::down_write(&mut (*mapping).invalidate_lock) };
        Invalidation(mapping)
    }

    /// Writes the changed pages of a range, the last byte included, and waits for that.
    pub(crate) fn write_back(&self, first: u64, last: u64) -> Result<()> {
        // SAFETY: the mapping is alive.
        check(unsafe { bindings::filemap_write_and_wait_range(self.0, offset(first), offset(last)) })
            .map(drop)
    }

    /// Drops the pages of a range, the last byte included. They are clean.
    pub(crate) fn drop_pages(&self, first: u64, last: u64) -> Result<()> {
        // SAFETY: the mapping is alive.
        check(unsafe {
            bindings::invalidate_inode_pages2_range(self.0, (first / PAGE) as usize, (last / PAGE) as usize)
        })
        .map(drop)
    }
}

impl Drop for Invalidation {
    fn drop(&mut self) {
        // SAFETY: entered by this task.
        unsafe { bindings::up_write(&mut (*self.0).invalidate_lock) };
    }
}

/// Lets pages become dirty by a mapping to memory.
pub(crate) struct Faulting(*mut bindings::address_space);

impl Faulting {
    /// # Safety
    ///
    /// The mapping lives longer than this.
    pub(crate) unsafe fn enter(mapping: *mut bindings::address_space) -> Self {
        // SAFETY: by the contract.
        unsafe { bindings::down_read(&mut (*mapping).invalidate_lock) };
        Faulting(mapping)
    }
}

impl Drop for Faulting {
    fn drop(&mut self) {
        // SAFETY: entered by this task.
        unsafe { bindings::up_read(&mut (*self.0).invalidate_lock) };
    }
}

/// An offset in a file as the kernel has it.
pub(crate) fn offset(pos: u64) -> i64 {
    i64::try_from(pos).unwrap_or(i64::MAX)
}

/// An offset that the kernel gave.
pub(crate) fn position(offset: i64) -> Result<u64> {
    u64::try_from(offset).map_err(|_| Errno::INVAL)
}

/// The lock of an inode, for changing it.
pub(crate) struct InodeLock(*mut bindings::inode);

impl InodeLock {
    /// # Safety
    ///
    /// The inode lives longer than this.
    pub(crate) unsafe fn enter(inode: *mut bindings::inode) -> Self {
        // SAFETY: by the contract.
        unsafe { bindings::down_write(&mut (*inode).i_rwsem) };
        InodeLock(inode)
    }
}

impl Drop for InodeLock {
    fn drop(&mut self) {
        // SAFETY: entered by this task.
        unsafe { bindings::up_write(&mut (*self.0).i_rwsem) };
    }
}
