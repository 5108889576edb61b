// SPDX-License-Identifier: GPL-2.0-only
//! Where a file's data are: the VFS's FIEMAP, over what the core's own ioctl tells.

use kernel::bindings;
use kernel::ffi::c_int;

use super::with;
use crate::ffi;
use crate::kobj::error::{check, code, Result};

/// Extents that the core is asked for at once.
const EXTENTS: usize = 256;
/// The request's flag that is obeyed.
const FLAG_SYNC: u32 = scoutfs_format::ioctl::FIEMAP_SYNC;

pub(super) unsafe extern "C" fn fiemap(
    inode: *mut bindings::inode,
    info: *mut bindings::fiemap_extent_info,
    start: u64,
    len: u64,
) -> c_int {
    // SAFETY: the VFS gives an inode of ours, and what is asked for.
    code(unsafe { fill(inode, info.cast(), start, len) })
}

/// # Safety
///
/// As the VFS calls.
unsafe fn fill(
    inode: *mut bindings::inode,
    info: *mut ffi::fiemap_extent_info,
    start: u64,
    mut len: u64,
) -> Result<()> {
    // SAFETY: by the contract. The program's memory is written while nothing is held.
    unsafe {
        check(ffi::fiemap_prep(inode, info, start, &mut len, FLAG_SYNC))?;
        let end = start.saturating_add(len);
        let mut at = start;
        while at < end {
            let extents = with(inode, |fs, ino| fs.fiemap(ino, at, end, EXTENTS))?;
            for e in &extents {
                let (from, length) = (e.logical.get(), e.length.get());
                let full = ffi::fiemap_fill_next_extent(info, from, e.physical.get(), length, e.flags.get());
                if check(full)? == 1 {
                    return Ok(());
                }
                at = from.saturating_add(length);
            }
            if extents.len() < EXTENTS {
                break;
            }
        }
    }
    Ok(())
}
