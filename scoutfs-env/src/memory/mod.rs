// SPDX-License-Identifier: GPL-2.0-only
//! Containers whose growth can fail.
//!
//! | module | what |
//! | --- | --- |
//! | `vec` | [`Vec`], over the one of `alloc` |
//! | `boxed` | [`Box`], the one of `alloc`, and [`try_box`] |
//! | `arc` | [`Arc`], a shared pointer |
//! | `ord_map` | [`OrdMap`], an ordered map (B-tree) |
//! | `patience` | [`patiently`]: threads that wait for memory |
//! | `io_buf` | [`IoBuf`], memory that a device can read and write directly |
//! | [`alloc_fault`] | (std) failing allocations on purpose |
//!
//! Every allocation of every container passes `permit` first, so that a test can make it fail. A container
//! is unchanged by an operation that returned [`AllocError`]. Shrinking and removing never allocate.

#[cfg(feature = "std")]
pub mod alloc_fault;
mod arc;
mod boxed;
mod io_buf;
#[cfg(test)]
mod live;
mod ord_map;
mod patience;
mod vec;

use core::alloc::Layout;
use core::ptr::NonNull;

use patience::attempt;

pub use arc::Arc;
pub use boxed::{Box, try_box};
pub use io_buf::IoBuf;
pub use ord_map::{IntoIter, OrdMap, Range, RangeMut};
pub use patience::patiently;
pub use vec::{Drain, Vec};

/// No memory: the only way in which growing a container can fail. Sizes beyond the address space count as
/// well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("out of memory")]
pub struct AllocError;

/// Asks whether an allocation may be tried. Always yes, unless a test of the std build says otherwise.
#[inline]
fn permit() -> Result<(), AllocError> {
    #[cfg(feature = "std")]
    alloc_fault::on_allocation()?;
    Ok(())
}

/// Memory for one `T`, uninitialised. A `T` without size gets a dangling pointer.
fn allocate<T>() -> Result<NonNull<T>, AllocError> {
    let layout = Layout::new::<T>();
    if layout.size() == 0 {
        return Ok(NonNull::dangling());
    }
    attempt(|| {
        permit()?;
        // SAFETY: the layout has a size.
        let memory = unsafe { alloc::alloc::alloc(layout) };
        NonNull::new(memory.cast()).ok_or(AllocError)
    })
}

/// Gives back what [`allocate`] gave.
///
/// # Safety
///
/// The pointer comes from `allocate::<T>`, is not used again, and its value has been dropped or moved out.
unsafe fn release<T>(memory: NonNull<T>) {
    let layout = Layout::new::<T>();
    if layout.size() != 0 {
        // SAFETY: by the contract it was allocated with this layout.
        unsafe { alloc::alloc::dealloc(memory.as_ptr().cast(), layout) };
    }
}
