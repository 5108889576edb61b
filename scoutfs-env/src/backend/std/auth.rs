// SPDX-License-Identifier: GPL-2.0-only
//! The `hmac` and `sha2` crates.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

pub(crate) fn hmac_sha256(secret: &[u8; 32], message: &[u8]) -> [u8; 32] {
    // HMAC fills a key up with zeros to the size of the hash's block.
    let mut block = [0; 64];
    block[..32].copy_from_slice(secret);
    let mut mac = Hmac::<Sha256>::new(&block.into());
    mac.update(message);
    mac.finalize().into_bytes().into()
}
