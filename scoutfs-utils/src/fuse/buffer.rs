// SPDX-License-Identifier: GPL-2.0-only
//! Page-aligned memory, and the window into it that a read fills.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// What buffers are aligned to, and sized in multiples of, in bytes.
pub(crate) const ALIGN: usize = 4096;

/// Zeroed memory at an address that is a multiple of [`ALIGN`]. Pages are taken when they are first touched.
#[derive(Debug)]
pub(crate) struct AlignedBuf {
    ptr: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the memory is owned by the value alone.
unsafe impl Send for AlignedBuf {}

impl AlignedBuf {
    /// Allocates `len_pages` pages of [`ALIGN`] bytes, at least one.
    pub(crate) fn new(len_pages: usize) -> io::Result<Self> {
        let layout = len_pages
            .max(1)
            .checked_mul(ALIGN)
            .and_then(|len| Layout::from_size_align(len, ALIGN).ok())
            .ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: the layout's size is not zero.
        let ptr = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { ptr, layout })
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, freed only here.
        unsafe { dealloc(self.ptr.as_ptr(), self.layout) }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `ptr` is valid and initialized for the layout's size as long as `self` lives.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.layout.size()) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.layout.size()) }
    }
}

/// Where a read puts its data: memory that is sent to the kernel as it is.
///
/// It begins at a multiple of 4096 and is as long as the request, rounded up to a multiple of 4096, so that
/// a filesystem can have it filled by O_DIRECT. It may hold an earlier request's data.
#[derive(Debug)]
pub struct ReadBuf<'a> {
    memory: &'a mut [u8],
    capacity: usize,
    filled: usize,
}

impl<'a> ReadBuf<'a> {
    /// A buffer for a request of `capacity` bytes, or None if `memory` is too small for it.
    pub(crate) fn new(memory: &'a mut [u8], capacity: usize) -> Option<Self> {
        let len = capacity.checked_next_multiple_of(ALIGN)?;
        Some(Self { memory: memory.get_mut(..len)?, capacity, filled: 0 })
    }

    /// The request's size in bytes.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// All memory: the capacity rounded up to a multiple of 4096. Say with `set_filled` what is to be sent.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.memory
    }

    /// Sends the first `len` bytes, or the capacity if that is less.
    pub fn set_filled(&mut self, len: usize) {
        self.filled = len.min(self.capacity);
    }

    /// Adds bytes to those that are to be sent, as many as there is room for, and returns how many.
    pub fn put(&mut self, bytes: &[u8]) -> usize {
        let room = &mut self.memory[self.filled..self.capacity];
        let len = room.len().min(bytes.len());
        room[..len].copy_from_slice(&bytes[..len]);
        self.filled += len;
        len
    }

    /// How many bytes are to be sent.
    pub fn filled(&self) -> usize {
        self.filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_page_aligned_and_zeroed() {
        for len_pages in [0, 1, 3, 257] {
            let buf = AlignedBuf::new(len_pages).unwrap();
            assert_eq!(buf.as_ptr() as usize % ALIGN, 0);
            assert_eq!(buf.len(), len_pages.max(1) * ALIGN);
            assert!(buf.iter().all(|&b| b == 0));
        }
        assert!(AlignedBuf::new(usize::MAX / 2).is_err());
    }

    #[test]
    fn a_read_sends_no_more_than_was_asked_for() {
        let mut memory = AlignedBuf::new(2).unwrap();
        let mut buf = ReadBuf::new(&mut memory, 5000).unwrap();
        assert_eq!(buf.as_mut_slice().len(), 8192);
        buf.set_filled(8192);
        assert_eq!(buf.filled(), 5000);
        assert_eq!(buf.put(b"x"), 0);
        buf.set_filled(4998);
        assert_eq!(buf.put(b"abc"), 2);
        assert_eq!(buf.filled(), 5000);
        assert!(ReadBuf::new(&mut memory, 8193).is_none());
        assert!(ReadBuf::new(&mut memory, usize::MAX).is_none());
    }
}
