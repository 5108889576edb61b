// SPDX-License-Identifier: GPL-2.0-only
//! Lines for the kernel log.

use core::ffi::CStr;

use kernel::bindings;
use kernel::ffi::{c_char, c_int};

/// Of each level: the kernel's level, our name, and a text with its length.
const FORMATS: [&CStr; 4] =
    [c"\x013scoutfs: %.*s\n", c"\x014scoutfs: %.*s\n", c"\x016scoutfs: %.*s\n", c"\x017scoutfs: %.*s\n"];

/// See `scoutfs_env`.
///
/// # Safety
///
/// `len` bytes are valid for reading.
#[no_mangle]
unsafe extern "C" fn scoutfs_host_log(level: u32, line: *const u8, len: usize) {
    let [.., last] = FORMATS;
    let format = FORMATS.get(level as usize).copied().unwrap_or(last);
    // SAFETY: the format takes a length and a text, and those are valid by the contract.
    unsafe { bindings::_printk(format.as_ptr().cast::<c_char>(), len as c_int, line) };
}
