// SPDX-License-Identifier: GPL-2.0-only
//! The kernel's checksum code.

use super::hooks::scoutfs_host_crc32c;

pub(crate) fn append(crc: u32, data: &[u8]) -> u32 {
    // SAFETY: the pointer and length are those of a live slice.
    unsafe { scoutfs_host_crc32c(crc, data.as_ptr(), data.len()) }
}
