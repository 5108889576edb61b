// SPDX-License-Identifier: GPL-2.0-only
//! Tests of the block cache.

use std::vec::Vec;

use scoutfs_format::BlockRef;
use scoutfs_format::block::MAGIC_SPACE_LIST;

use crate::testing::Volume;
use crate::{BlockSpace, Error, NewBlock, StaleBlock};

use super::WriteBatch;

const MAGIC: u32 = MAGIC_SPACE_LIST;

fn block(byte: u8) -> NewBlock {
    let mut block = NewBlock::new().unwrap();
    block.bytes_mut()[100] = byte;
    block
}

fn write(volume: &Volume, blkno: u64, counter: u32) -> BlockRef {
    let reference = BlockRef::new(blkno, 1, counter);
    volume.cache.write_new(block(counter as u8), MAGIC, &reference).unwrap();
    reference
}

fn byte(volume: &Volume, reference: &BlockRef) -> Result<u8, Error> {
    let block = volume.cache.read(reference, MAGIC)?;
    assert_eq!(block.reference(), reference);
    Ok(block.bytes()[100])
}

#[test]
fn a_written_block_is_found_in_memory_and_on_the_device() {
    let volume = Volume::new(64, 8);
    let first = volume.geometry.first_meta_block();
    let reference = write(&volume, first, 7);
    assert_eq!(byte(&volume, &reference), Ok(7));
    assert_eq!(volume.cache.stats().misses, 0);
    volume.cache.drop_block(first);
    assert_eq!(byte(&volume, &reference), Ok(7));
    assert_eq!(byte(&volume, &reference), Ok(7));
    assert_eq!((volume.cache.stats().hits, volume.cache.stats().misses), (2, 1));
}

#[test]
fn a_block_that_was_written_again_is_stale_and_its_successor_is_not() {
    let volume = Volume::new(64, 8);
    let first = volume.geometry.first_meta_block();
    let old = write(&volume, first, 1);
    // Another mount frees it and writes it again; this one has the old block in memory.
    let other = volume.fork(8);
    let new = write(&other, first, 2);
    other.cache.drop_block(first);
    assert_eq!(byte(&other, &new), Ok(2));
    let stale = |volume: &Volume, reference| match byte(volume, reference) {
        Err(Error::Stale { found: StaleBlock::Other { counter, .. }, .. }) => counter,
        result => panic!("{result:?}"),
    };
    assert_eq!(stale(&other, &old), 2);
    assert_eq!(byte(&other, &new), Ok(2), "a stale read throws nothing out");
    assert_eq!(stale(&volume, &new), 1);
    assert_eq!(byte(&volume, &old), Ok(1));
}

#[test]
fn a_torn_block_is_stale() {
    let volume = Volume::new(64, 8);
    let first = volume.geometry.first_meta_block();
    let reference = write(&volume, first, 1);
    volume.tamper(first, |bytes| bytes[60_000] ^= 1);
    assert_eq!(byte(&volume, &reference), Ok(1), "the checksum was made right");
    volume.tamper(first, |bytes| bytes[60_000] ^= 1);
    let mut torn = scoutfs_env::IoBuf::zeroed(4096).unwrap();
    torn.fill(1);
    let device = volume.cache.device();
    device.write(first * 65536 + 61440, &torn).unwrap();
    let torn = byte(&volume, &reference);
    assert!(matches!(torn, Err(Error::Stale { found: StaleBlock::Checksum { .. }, .. })));
}

#[test]
fn blocks_are_given_back_that_nobody_uses_and_those_last_that_were_used() {
    let volume = Volume::new(64, 40);
    let first = volume.geometry.first_meta_block();
    let all: Vec<_> = (0..30).map(|n| write(&volume, first + n, n as u32 + 1)).collect();
    assert_eq!(volume.cache.blocks(), 30);
    volume.cache.drop_block(first + 29);
    volume.cache.drop_block(first + 29);
    assert_eq!(volume.cache.blocks(), 29);
    let held = volume.cache.read(&all[0], MAGIC).unwrap();
    for reference in &all[1..10] {
        byte(&volume, reference).unwrap();
    }
    // 19 were not used. The sets are those of a clock each, so all are looked at.
    let before = volume.cache.stats();
    assert_eq!(volume.cache.reclaim(5), 5);
    assert_eq!(volume.cache.blocks(), 24);
    assert_eq!(volume.cache.reclaim(14), 14);
    for reference in &all[1..10] {
        byte(&volume, reference).unwrap();
    }
    assert_eq!(volume.cache.stats().misses, before.misses, "one that was used went before one that was not");
    // Nobody can have the memory of one that is in use.
    assert_eq!(volume.cache.reclaim(usize::MAX), 9);
    assert_eq!((volume.cache.blocks(), volume.cache.reclaim(1)), (1, 0));
    drop(held);
    assert_eq!((volume.cache.reclaim(1), volume.cache.blocks()), (1, 0));
    assert_eq!(byte(&volume, &all[3]), Ok(4), "it is on the device");
    assert_eq!(volume.cache.blocks(), 1);
}

#[test]
fn a_failed_write_or_read_keeps_nothing() {
    let volume = Volume::new(64, 8);
    let first = volume.geometry.first_meta_block();
    let old = write(&volume, first, 1);
    let new = BlockRef::new(first, 1, 2);
    volume.device.fail_after(0);
    assert!(matches!(volume.cache.write_new(block(2), MAGIC, &new), Err(Error::Io(_))));
    assert!(volume.device.heal());
    assert!(byte(&volume, &new).is_err());
    assert_eq!(byte(&volume, &old), Ok(1));
    volume.cache.drop_block(first);
    volume.device.fail_after(0);
    assert!(matches!(byte(&volume, &old), Err(Error::Io(_))));
    volume.device.heal();
    assert_eq!(byte(&volume, &old), Ok(1));
}

/// Invariant 66.
#[test]
fn the_cache_keeps_to_its_capacity_and_to_what_is_used() {
    for capacity in [1u64, 5, 16, 100] {
        let volume = Volume::new(64, capacity as usize);
        let first = volume.geometry.first_meta_block();
        let nr = 300;
        let hot = write(&volume, first, 0);
        let refs: std::vec::Vec<BlockRef> = (1..nr)
            .map(|n| {
                let reference = write(&volume, first + n, n as u32);
                assert_eq!(byte(&volume, &hot), Ok(0));
                reference
            })
            .collect();
        let misses = volume.cache.stats().misses;
        // With one slot the two push each other out; else what is used all the time stays.
        assert_eq!(misses, if capacity == 1 { nr - 1 } else { 0 });
        // How many are in memory: those that can be read while the device fails.
        let mut kept = 0;
        for reference in &refs {
            volume.device.fail_after(0);
            kept += u64::from(byte(&volume, reference).is_ok());
        }
        volume.device.heal();
        assert!(kept <= capacity && kept + 1 >= capacity / 2, "{kept} of {capacity}");
    }
}

#[test]
fn neighbours_are_written_at_once_and_others_apart() {
    let mut volume = Volume::new(64, 64);
    // Something in the way, so that numbers have a gap.
    for _ in 0..3 {
        volume.space.alloc_block().unwrap();
        volume.space.block_seq();
    }
    let hole = BlockRef::new(volume.geometry.first_meta_block() + 1, 1, 1);
    volume.space.free_block(&hole).unwrap();
    volume.space.commit();
    let mut batch = WriteBatch::new(&volume.cache);
    let refs: std::vec::Vec<BlockRef> =
        (0..20).map(|n| batch.add(&mut volume.space, block(n), MAGIC).unwrap()).collect();
    batch.finish().unwrap();
    // The hole, sixteen, three.
    assert_eq!(volume.writes(), 3);
    for (n, reference) in (0..).zip(&refs) {
        assert_eq!(byte(&volume, reference), Ok(n));
        volume.cache.drop_block(reference.blkno.get());
        assert_eq!(byte(&volume, reference), Ok(n));
    }
}

#[test]
fn threads_read_and_write_side_by_side() {
    let volume = Volume::new(64, 20);
    let first = volume.geometry.first_meta_block();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let volume = &volume;
            scope.spawn(move || {
                let refs: std::vec::Vec<BlockRef> =
                    (0..30).map(|n| write(volume, first + thread * 30 + n, n as u32)).collect();
                for _ in 0..50 {
                    for (n, reference) in (0..).zip(&refs) {
                        assert_eq!(byte(volume, reference), Ok(n));
                    }
                }
            });
        }
    });
}
