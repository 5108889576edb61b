// SPDX-License-Identifier: GPL-2.0-only
//! A reader that refreshes what it knows sees what one sees who reads all anew.

use std::vec;

use scoutfs_btree::BlockCache;
use scoutfs_btree::space::SpaceKind;
use scoutfs_format::Key;

use super::mount::*;
use super::rig::*;
use crate::roots::read_roots;
use crate::server::{LEASE, LEASE_MARGIN};
use crate::super_block::read_super;

/// Whether commits are small or checkpoints, many or few since the last look, and wherever the ring's end lies.
#[test]
fn refreshed_slots_show_what_all_slots_show() {
    let mut rig = Rig::smallest();
    let mut mounts = [SimMount::start(&mut rig, 7), SimMount::start(&mut rig, 8)];
    let dev = rig.dev.clone();
    let geometry = read_super(&dev).unwrap().geometry;
    let cache = BlockCache::new(dev.boxed(), FSID, geometry, 512).unwrap();
    let mut roots = read_roots(&dev, &cache, &geometry).unwrap();
    let mut random = 1u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) % below
    };
    let mut followed = 0;
    for round in 0..300 {
        let mut changed = scoutfs_env::Vec::new();
        for mount in &mut mounts {
            let commits = [0, 1, 1, 2, 5][next(5) as usize];
            for _ in 0..commits {
                for _ in 0..next(4) {
                    let key = Key::inode(100 * mount.rid + next(40));
                    if next(4) == 0 {
                        mount.delete(key)
                    } else {
                        mount.put(key, &vec![round as u8; next(900) as usize])
                    }
                }
                // Before the ring is full of small ones.
                let checkpoint = next(9) == 0 || mount.ring_is_full();
                mount.commit(&mut rig, checkpoint);
            }
            if commits > 0 {
                changed.push(mount.slot).unwrap();
            }
        }
        // The server tells of each commit.
        let mut told = scoutfs_env::Vec::new();
        for mount in mounts.iter().filter(|mount| changed.contains(&mount.slot)) {
            let commit = mount.commit_number();
            told.push((mount.slot, commit.epoch.get(), commit.commit_nr.get())).unwrap();
        }
        if round % 2 == 0 && roots.follow(&dev, &cache, &told).unwrap() {
            followed += 1;
        } else {
            roots.refresh(&dev, &cache, &changed).unwrap();
        }
        let all = read_roots(&dev, &cache, &geometry).unwrap();
        for mount in &mounts {
            let (seen, there) = (roots.slot(mount.slot).unwrap(), all.slot(mount.slot).unwrap());
            assert_eq!((seen.epoch(), seen.commit_nr()), (there.epoch(), there.commit_nr()), "round {round}");
            assert_eq!(seen.ring.records().len(), there.ring.records().len());
            assert!(seen.logs().eq(there.logs()) && seen.tails.len() <= 9);
        }
        assert_eq!(items_of(&cache, &roots), items_of(&cache, &all), "round {round}");
    }
    assert!((30..140).contains(&followed), "{followed} times nothing but records was read");
}

/// A log tree that was merged meanwhile is not looked for in an older super block.
#[test]
fn a_checkpoint_is_not_followed_without_the_super_block() {
    let mut rig = Rig::smallest();
    let mut mount = SimMount::start(&mut rig, 7);
    mount.commit(&mut rig, true);
    let dev = rig.dev.clone();
    let geometry = read_super(&dev).unwrap().geometry;
    let cache = BlockCache::new(dev.boxed(), FSID, geometry, 512).unwrap();
    let mut roots = read_roots(&dev, &cache, &geometry).unwrap();
    let told = |mount: &SimMount| {
        let commit = mount.commit_number();
        [(mount.slot, commit.epoch.get(), commit.commit_nr.get())]
    };
    mount.put(Key::inode(1), b"small");
    mount.commit(&mut rig, false);
    let small = told(&mount);
    assert!(roots.follow(&dev, &cache, &small).unwrap());
    assert!(items_of(&cache, &roots).contains_key(&Key::inode(1)));
    assert!(!roots.follow(&dev, &cache, &small).unwrap(), "nothing is new");
    mount.put(Key::inode(2), b"large");
    mount.commit(&mut rig, true);
    assert!(!roots.follow(&dev, &cache, &told(&mount)).unwrap());
    assert_eq!(roots.slot(mount.slot).unwrap().commit_nr(), small[0].2, "nothing has changed");
    roots.refresh(&dev, &cache, &scoutfs_env::Vec::from_slice(&[mount.slot]).unwrap()).unwrap();
    assert!(items_of(&cache, &roots).contains_key(&Key::inode(2)));
}

/// What comes behind the records that are known costs little to read.
#[test]
fn a_commit_that_is_looked_for_is_found_with_few_bytes() {
    let mut rig = Rig::smallest();
    let mut mount = SimMount::start(&mut rig, 7);
    mount.commit(&mut rig, true);
    let dev = rig.dev.clone();
    let geometry = read_super(&dev).unwrap().geometry;
    let cache = BlockCache::new(dev.boxed(), FSID, geometry, 512).unwrap();
    let mut roots = read_roots(&dev, &cache, &geometry).unwrap();
    mount.put(Key::inode(1), b"news");
    mount.commit(&mut rig, false);
    let before = dev.bytes_read();
    roots.refresh(&dev, &cache, &scoutfs_env::Vec::from_slice(&[mount.slot]).unwrap()).unwrap();
    let read = dev.bytes_read() - before;
    assert!(roots.slot(mount.slot).unwrap().commit_nr() == mount.commit_number().commit_nr.get());
    assert!(read <= 32 << 10, "{read} bytes");
}

/// A record that a fenced mount wrote late lies just where its next one would, and does not count.
#[test]
fn a_late_record_is_not_followed() {
    let mut rig = Rig::smallest();
    let mut late = SimMount::start(&mut rig, 7);
    assert!(late.get_space(&mut rig, SpaceKind::Data, 50) > 0);
    late.put(Key::inode(1), b"counts");
    late.commit(&mut rig, true);
    let dev = rig.dev.clone();
    let geometry = read_super(&dev).unwrap().geometry;
    let cache = BlockCache::new(dev.boxed(), FSID, geometry, 512).unwrap();
    let mut roots = read_roots(&dev, &cache, &geometry).unwrap();
    let slot = late.slot;
    rig.advance(LEASE + LEASE_MARGIN);
    rig.settle();
    let before = late.commit_number();
    late.write_late_record(&mut rig);
    // Those who know nothing of the fence are told of no more than what counts.
    for told in [before.commit_nr.get(), before.commit_nr.get() + 5] {
        assert!(!roots.follow(&dev, &cache, &[(slot, before.epoch.get(), told)]).unwrap());
    }
    roots.refresh(&dev, &cache, &scoutfs_env::Vec::from_slice(&[slot]).unwrap()).unwrap();
    let late = late.commit_number().commit_nr.get();
    assert!(roots.slot(slot).is_none_or(|state| state.commit_nr() < late), "the late record is shown");
    let seen = items_of(&cache, &roots);
    assert!(!seen.contains_key(&Key::inode(666)), "{seen:?}");
    assert!(seen.contains_key(&Key::inode(1)));
}
