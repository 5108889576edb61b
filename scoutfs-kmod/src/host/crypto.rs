// SPDX-License-Identifier: GPL-2.0-only
//! Random numbers, CRC-32C and HMAC-SHA-256: the kernel's library functions, which use what the processor has.

use core::ffi::c_void;

use kernel::bindings;

use crate::ffi;

/// See `scoutfs_env`.
///
/// # Safety
///
/// `len` bytes are valid for writing.
#[no_mangle]
unsafe extern "C" fn scoutfs_host_random(bytes: *mut u8, len: usize) {
    // SAFETY: by the contract.
    unsafe { bindings::get_random_bytes(bytes.cast::<c_void>(), len) };
}

/// See `scoutfs_env`. The kernel's function takes and gives values before the final xor.
///
/// # Safety
///
/// `len` bytes are valid for reading.
#[no_mangle]
unsafe extern "C" fn scoutfs_host_crc32c(crc: u32, bytes: *const u8, len: usize) -> u32 {
    // SAFETY: by the contract.
    !unsafe { ffi::crc32c(!crc, bytes.cast::<c_void>(), len) }
}

/// See `scoutfs_env`.
///
/// # Safety
///
/// `secret` has 32 bytes, `message` as many as it says, and `proof` room for 32.
#[no_mangle]
unsafe extern "C" fn scoutfs_host_hmac_sha256(
    secret: *const u8,
    message: *const u8,
    message_len: usize,
    proof: *mut u8,
) {
    // SAFETY: by the contract.
    unsafe { bindings::hmac_sha256_usingrawkey(secret, 32, message, message_len, proof) };
}
