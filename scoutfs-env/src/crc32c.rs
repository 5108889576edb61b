// SPDX-License-Identifier: GPL-2.0-only
//! CRC-32C (Castagnoli, reflected, initial value and final xor all ones), on the host's fastest code.

use crate::backend::crc32c;

/// The checksum of `data`.
#[inline]
pub fn crc32c(data: &[u8]) -> u32 {
    crc32c_append(0, data)
}

/// The checksum of the bytes whose checksum is `crc`, followed by `data`. The checksum of nothing is 0.
#[inline]
pub fn crc32c_append(crc: u32, data: &[u8]) -> u32 {
    crc32c::append(crc, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_published_check_values() {
        // The check value of the catalogue, and three of RFC 3720, B.4.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        let rising: [u8; 32] = core::array::from_fn(|i| i as u8);
        assert_eq!(crc32c(&rising), 0x46dd_794e);
        assert_eq!(crc32c(b""), 0);
    }

    #[test]
    fn appending_equals_one_pass_at_every_split() {
        let data: [u8; 100] = core::array::from_fn(|i| (i * 7) as u8);
        for at in 0..=data.len() {
            let (a, b) = data.split_at(at);
            assert_eq!(crc32c_append(crc32c(a), b), crc32c(&data));
        }
    }
}
