// SPDX-License-Identifier: GPL-2.0-only
//! The kernel's keyed hash.

use super::hooks::scoutfs_host_hmac_sha256;

pub(crate) fn hmac_sha256(secret: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let mut proof = [0; 32];
    // SAFETY: secret and proof have 32 bytes, and the pointer and length of the message are those of a live slice.
    unsafe {
        scoutfs_host_hmac_sha256(secret.as_ptr(), message.as_ptr(), message.len(), proof.as_mut_ptr());
    }
    proof
}
