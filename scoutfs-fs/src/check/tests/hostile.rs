// SPDX-License-Identifier: GPL-2.0-only
//! Whatever is on the device, a check ends, with an answer.

use proptest::prelude::*;
use scoutfs_env::crc32c::{crc32c, crc32c_append};
use scoutfs_format::geometry::super_offset;
use scoutfs_format::voter::SuperBlock;
use scoutfs_format::{BLOCK_SIZE, SECTOR_SIZE};
use std::vec::Vec;

use super::super::check;
use super::structure::edit;
use super::volume::Volume;

/// Corrects the checksum that begins a block.
fn sign(bytes: &mut [u8]) {
    let crc = crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
}

/// Corrects the checksum of a super block.
pub fn sign_super(bytes: &mut [u8]) {
    let at = core::mem::offset_of!(SuperBlock, crc);
    let crc = crc32c_append(crc32c_append(crc32c(&bytes[..at]), &[0; 4]), &bytes[at + 4..]);
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// A change of some bytes: where, counted in parts of the whole, and to what.
type Change = (usize, usize, Vec<u8>);

fn change() -> impl Strategy<Value = Change> {
    let value = prop_oneof![
        proptest::collection::vec(any::<u8>(), 1..9),
        Just(Vec::from([0; 8])),
        Just(Vec::from([0xff; 8])),
    ];
    // Mostly in headers, keys and the newest items.
    (0usize..8, prop_oneof![0usize..600, 0usize..4096], value)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn any_change_with_right_checksums_is_survived(changes in proptest::collection::vec(change(), 1..4)) {
        let volume = Volume::new();
        let built = volume.build();
        let g = volume.geometry;
        let block = |blkno: u64| (blkno * BLOCK_SIZE as u64, BLOCK_SIZE);
        for (which, at, value) in &changes {
            let (offset, len) = match which {
                0 => (super_offset(0, 0), SECTOR_SIZE),
                1 => (g.slot_offset(0), SECTOR_SIZE),
                2 => (g.slot_offset(0) + SECTOR_SIZE as u64, SECTOR_SIZE),
                3 => block(built.sb.server_root.block.blkno.get()),
                4 => block(built.sb.work.first.blkno.get()),
                5 => block(built.log_root.block.blkno.get()),
                6 => block(built.log_root.block.blkno.get() + 1),
                _ => block(built.sb.fs_root.block.blkno.get()),
            };
            edit(&**built.device, offset, len, |bytes| {
                // Values grow down from the end of a block.
                let at = if at % 3 == 0 { (len - 8).saturating_sub(*at) } else { *at };
                let end = (at + value.len()).min(len);
                bytes[at..end].copy_from_slice(&value[..end - at]);
                if *which == 0 { sign_super(bytes) } else { sign(bytes) }
            });
        }
        let mut nr = 0u64;
        if let Ok(summary) = check(&built.device, &mut |issue| {
            nr += 1;
            assert!(!std::format!("{issue}").is_empty());
        }, &mut |_, _| ()) {
            prop_assert_eq!(summary.issues, nr);
        }
    }
}
