// SPDX-License-Identifier: GPL-2.0-only
//! The kernel's random numbers.

use super::hooks::scoutfs_host_random;

pub(crate) fn fill(buf: &mut [u8]) {
    // SAFETY: the pointer and length are those of a live, exclusively borrowed slice.
    unsafe { scoutfs_host_random(buf.as_mut_ptr(), buf.len()) }
}
