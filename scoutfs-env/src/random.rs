// SPDX-License-Identifier: GPL-2.0-only
//! Random bytes, good enough for keys and nonces. State machines do not call this; they are given their
//! random numbers, so that a simulation repeats.

use crate::backend::random;

/// Fills `buf` with random bytes. Never fails; early in the boot of a machine it may wait.
pub fn fill(buf: &mut [u8]) {
    random::fill(buf);
}

/// A random number, every value equally likely.
pub fn u64() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    #[test]
    fn fills_the_whole_buffer() {
        let mut seen = [0u8; 64];
        for _ in 0..64 {
            let mut buf = [0u8; 64];
            super::fill(&mut buf);
            for (seen, byte) in seen.iter_mut().zip(buf) {
                *seen |= byte;
            }
        }
        assert!(seen.iter().all(|&byte| byte != 0));
        assert_ne!(super::u64(), super::u64());
    }
}
