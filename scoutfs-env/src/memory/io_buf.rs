// SPDX-License-Identifier: GPL-2.0-only
//! Memory for device IO.

use core::alloc::Layout;
use core::fmt;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use super::patience::attempt;
use super::{AllocError, permit};
use crate::device::IO_ALIGN;

/// Gives an empty buffer a pointer that is aligned, too.
#[repr(align(4096))]
struct Aligned;

const _: () = assert!(align_of::<Aligned>() == IO_ALIGN);

/// Bytes whose first is aligned to [`IO_ALIGN`], as direct device IO wants it. Its length never changes.
pub struct IoBuf {
    bytes: NonNull<u8>,
    len: usize,
}

// SAFETY: the buffer owns its bytes and hands them out by the rules of references.
unsafe impl Send for IoBuf {}
// SAFETY: as above.
unsafe impl Sync for IoBuf {}

impl IoBuf {
    /// `len` bytes, all zero. Any length; IO needs a multiple of [`IO_ALIGN`].
    pub fn zeroed(len: usize) -> Result<IoBuf, AllocError> {
        let layout = Layout::from_size_align(len, IO_ALIGN).map_err(|_| AllocError)?;
        if len == 0 {
            let bytes = NonNull::<Aligned>::dangling().cast();
            return Ok(IoBuf { bytes, len });
        }
        let bytes = attempt(|| {
            permit()?;
            // SAFETY: the layout has a size.
            let bytes = unsafe { alloc::alloc::alloc_zeroed(layout) };
            NonNull::new(bytes).ok_or(AllocError)
        })?;
        Ok(IoBuf { bytes, len })
    }

    /// A copy of `bytes`.
    pub fn from_slice(bytes: &[u8]) -> Result<IoBuf, AllocError> {
        let mut buf = Self::zeroed(bytes.len())?;
        buf.copy_from_slice(bytes);
        Ok(buf)
    }

    /// A copy.
    pub fn try_clone(&self) -> Result<IoBuf, AllocError> {
        Self::from_slice(self)
    }
}

impl Drop for IoBuf {
    fn drop(&mut self) {
        if self.len != 0 {
            // SAFETY: allocated in `zeroed` with this very layout, which was valid there.
            unsafe {
                let layout = Layout::from_size_align_unchecked(self.len, IO_ALIGN);
                alloc::alloc::dealloc(self.bytes.as_ptr(), layout);
            }
        }
    }
}

impl Deref for IoBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` initialised bytes, owned by self, borrowed as self is.
        unsafe { core::slice::from_raw_parts(self.bytes.as_ptr(), self.len) }
    }
}

impl DerefMut for IoBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and self is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.bytes.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for IoBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for IoBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IoBuf").field("len", &self.len).finish()
    }
}

impl PartialEq for IoBuf {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for IoBuf {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_and_zero() {
        for len in [0, 1, 4096, 65536, 70000] {
            let buf = IoBuf::zeroed(len).unwrap();
            assert_eq!(buf.len(), len);
            assert_eq!(buf.as_ptr().addr() % IO_ALIGN, 0);
            assert!(buf.iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn a_clone_is_a_copy() {
        let mut one = IoBuf::from_slice(b"abc").unwrap();
        let two = one.try_clone().unwrap();
        one[0] = b'x';
        assert_eq!((&*one, &*two), (&b"xbc"[..], &b"abc"[..]));
    }

    #[test]
    fn an_impossible_length_is_out_of_memory() {
        assert_eq!(IoBuf::zeroed(usize::MAX), Err(AllocError));
        assert_eq!(IoBuf::zeroed(isize::MAX as usize & !4095), Err(AllocError));
    }
}
