// SPDX-License-Identifier: GPL-2.0-only
//! Proofs that somebody knows a secret: HMAC-SHA-256, on the host's code.

use crate::backend::auth;

/// Bytes of a proof, and of a secret.
pub const PROOF_LEN: usize = 32;

/// HMAC-SHA-256 of `message` under `secret` (RFC 2104, FIPS 180-4).
pub fn prove(secret: &[u8; PROOF_LEN], message: &[u8]) -> [u8; PROOF_LEN] {
    auth::hmac_sha256(secret, message)
}

/// Whether `proof` is that of `message` under `secret`. Takes as long whether it is or not.
pub fn is_proof(secret: &[u8; PROOF_LEN], message: &[u8], proof: &[u8; PROOF_LEN]) -> bool {
    let right = prove(secret, message);
    let difference = right.iter().zip(proof).fold(0, |all, (a, b)| all | (a ^ b));
    core::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_published_values() {
        // RFC 4231, test case 1, its key filled up with zeros as HMAC does; and what is nearly right is wrong.
        let mut secret = [0; 32];
        secret[..20].fill(0x0b);
        let mut proof = prove(&secret, b"Hi There");
        assert_eq!(proof[..8], [0xb0, 0x34, 0x4c, 0x61, 0xd8, 0xdb, 0x38, 0x53]);
        assert_eq!(proof[24..], [0x26, 0xe9, 0x37, 0x6c, 0x2e, 0x32, 0xcf, 0xf7][..]);
        assert!(is_proof(&secret, b"Hi There", &proof));
        assert!(!is_proof(&secret, b"Hi there", &proof));
        proof[31] ^= 1;
        assert!(!is_proof(&secret, b"Hi There", &proof));
    }
}
