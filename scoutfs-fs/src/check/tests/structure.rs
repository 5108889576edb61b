// SPDX-License-Identifier: GPL-2.0-only
//! Damage to everything below the filesystem's items.

use std::vec::Vec;

use scoutfs_btree::ring::RingError;
use scoutfs_btree::space::{Extent, SpaceError, SpaceKind};
use scoutfs_btree::{Error as TreeError, StaleBlock};
use scoutfs_env::crc32c::crc32c;
use scoutfs_env::device::{BlockDevice, IoError, IoOp};
use scoutfs_env::{Arc, Box, IoBuf, try_box};
use scoutfs_format::geometry::super_offset;
use scoutfs_format::server_item::{
    FreeItem, HandOverExtent, MEMBER_GONE, MemberItem, MergeItem, QuarantineItem,
};
use scoutfs_format::space::*;
use scoutfs_format::tree::TreeRoot;
use scoutfs_format::voter::{MAGIC_QUORUM, QuorumBlock, SuperBlock, TakeOver, VOTER_OWNED};
use scoutfs_format::{BLOCK_SIZE, BlockRef, Key, SECTOR_SIZE};
use scoutfs_server::error::SlotProblem;
use scoutfs_server::super_block::{SuperError, write_super};
use zerocopy::{FromBytes, IntoBytes};

use super::super::{CheckError, IssueKind as K, Owner, Place, TreeId, check};
use super::hostile::sign_super;
use super::volume::{Built, DATA_BLOCKS, FSID, Volume, entry};
use super::{check_device, damaged, planted, server_item};

/// Changes a part of a device.
pub fn edit(device: &dyn BlockDevice, offset: u64, len: usize, change: impl FnOnce(&mut [u8])) {
    let mut buf = IoBuf::zeroed(len).unwrap();
    device.read(offset, &mut buf).unwrap();
    change(&mut buf);
    device.write(offset, &buf).unwrap();
}

/// The issues of a sound volume that was changed on the device.
fn damaged_device(change: impl FnOnce(&Built, &Volume)) -> Vec<(K, Place)> {
    let volume = Volume::new();
    let built = volume.build();
    change(&built, &volume);
    let (issues, _) = check_device(&built.device);
    planted::saw(&issues);
    issues.into_iter().map(|issue| (issue.kind, issue.place)).collect()
}

fn blocks(kind: SpaceKind, start: u64, len: u64) -> Place {
    Place::Blocks { kind, start, len }
}

fn free(len: u64) -> Vec<u8> {
    FreeItem { len: len.into() }.as_bytes().to_vec()
}

fn node(tree: TreeId, root: &TreeRoot) -> Place {
    Place::Node { tree, block: root.block, first: Key::MIN, last: Key::MAX }
}

#[test]
fn a_device_without_a_volume_cannot_be_checked() {
    let device = Volume::new().build().device;
    for copy in 0..2 {
        edit(&**device, super_offset(0, copy), SECTOR_SIZE, |bytes| bytes.fill(0));
    }
    let result = check(&device, &mut |_| (), &mut |_, _| ());
    assert_eq!(result, Err(CheckError::Super(SuperError::NotScoutfs)));
}

#[test]
fn another_format_is_refused_with_both_hashes() {
    let device = Volume::new().build().device;
    for copy in 0..2 {
        edit(&**device, super_offset(0, copy), SECTOR_SIZE, |bytes| bytes[24] ^= 1);
    }
    let error = check(&device, &mut |_| (), &mut |_, _| ()).unwrap_err();
    let text = std::format!("{error}");
    let ours = scoutfs_format::FORMAT_HASH;
    for hash in [ours, ours ^ 1] {
        assert!(text.contains(&std::format!("{hash:016x}")), "{text}");
    }
}

#[test]
fn one_torn_super_block_copy_is_what_a_power_failure_leaves() {
    let device = Volume::new().build().device;
    edit(&**device, super_offset(0, 1), SECTOR_SIZE, |bytes| bytes[600] ^= 1);
    let (issues, summary) = check_device(&device);
    assert_eq!((issues, summary.torn), (Vec::new(), 1));
}

#[test]
pub fn super_block_copies_that_disagree_are_found() {
    let issues = damaged_device(|built, volume| {
        let mut sb = built.sb;
        sb.secret = [9; 32];
        sb.seq = 0.into();
        write_super(&**built.device, 0, &mut sb).unwrap();
        let mut sb = volume.sb;
        (sb.fs_root, sb.server_root, sb.work) = (built.sb.fs_root, built.sb.server_root, built.sb.work);
        sb.seq = 7.into();
        write_super(&**built.device, 0, &mut sb).unwrap();
        let mut old = IoBuf::zeroed(SECTOR_SIZE).unwrap();
        sb.secret = [9; 32];
        // Copy 1 gets another secret.
        built.device.read(super_offset(0, 0), &mut old).unwrap();
        write_super(&**built.device, 0, &mut sb).unwrap();
        built.device.write(super_offset(0, 0), &old).unwrap();
    });
    assert_eq!(issues, [(K::SuperDiffers { field: "secret" }, Place::Super { voter: 0, copy: 0 })]);
}

#[test]
pub fn a_super_block_copy_of_another_format_is_found() {
    let issues = damaged_device(|built, _| {
        edit(&**built.device, super_offset(0, 1), SECTOR_SIZE, |bytes| bytes[24] ^= 1);
    });
    assert_eq!(issues.len(), 1);
    assert!(matches!(
        issues[0],
        (K::SuperCopy { error: SuperError::OtherFormat { .. } }, Place::Super { voter: 0, copy: 1 })
    ));
}

#[test]
pub fn two_super_blocks_that_claim_to_be_one_state_are_found() {
    let mut seq = 0;
    let issues = damaged_device(|built, _| {
        seq = built.sb.seq.get();
        edit(&**built.device, super_offset(0, 1), SECTOR_SIZE, |bytes| {
            bytes[core::mem::offset_of!(SuperBlock, inodes)] ^= 1;
            sign_super(bytes);
        });
    });
    assert_eq!(issues, [(K::SuperTie { term: 1, seq }, Place::Super { voter: 0, copy: 1 })]);
}

/// A device that cannot read one sector.
struct BadSector(Arc<Box<dyn BlockDevice>>, u64);

impl BlockDevice for BadSector {
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }
    fn read_only(&self) -> bool {
        true
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        if (offset..offset + buf.len() as u64).contains(&self.1) {
            return Err(IoError { op: IoOp::Read, offset, len: buf.len(), errno: 5 });
        }
        self.0.read(offset, buf)
    }
    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.0.write(offset, buf)
    }
    fn flush(&self) -> Result<(), IoError> {
        self.0.flush()
    }
}

#[test]
pub fn what_the_device_cannot_read_is_found() {
    let volume = Volume::new();
    let g = volume.geometry;
    let places = [
        (g.quorum_block_offset(0, 1), Place::Quorum { voter: 0, copy: 1 }),
        (g.slot_offset(0) + SECTOR_SIZE as u64, Place::Slot { slot: 0 }),
    ];
    for (bad, place) in places {
        let device: Box<dyn BlockDevice> = try_box(BadSector(volume.build().device, bad)).unwrap();
        let (issues, summary) = check_device(&Arc::new(device).unwrap());
        planted::saw(&issues);
        assert_eq!(issues.len(), 1, "{issues:?}");
        assert!(matches!(issues[0].kind, K::Io { error: IoError { errno: 5, .. } }));
        let of_slot = matches!(place, Place::Slot { .. });
        assert_eq!(issues[0].place, place);
        // What else the mount owns is not guessed.
        assert_eq!((summary.items_checked, summary.owners_checked), (!of_slot, !of_slot));
    }
}

#[test]
pub fn damaged_quorum_blocks_are_found_unless_only_one_is_torn() {
    let write = |built: &Built, volume: &Volume, copy, change: &dyn Fn(&mut QuorumBlock)| {
        let mut block = QuorumBlock {
            magic: MAGIC_QUORUM.into(),
            fsid: FSID.into(),
            state: VOTER_OWNED.into(),
            term: 4.into(),
            ..QuorumBlock::default()
        };
        change(&mut block);
        let offset = volume.geometry.quorum_block_offset(0, copy);
        edit(&**built.device, offset, SECTOR_SIZE, |bytes| {
            bytes[..size_of::<QuorumBlock>()].copy_from_slice(block.as_bytes());
            let crc = if block.crc.get() == 0 { crc32c(&bytes[4..]) } else { 1 };
            bytes[..4].copy_from_slice(&crc.to_le_bytes());
        });
    };
    let place = |copy| Place::Quorum { voter: 0, copy };
    let issues = damaged_device(|built, volume| {
        write(built, volume, 0, &|_| ());
        write(built, volume, 1, &|block| block.crc = 1.into());
    });
    assert_eq!(issues, []);
    let issues = damaged_device(|built, volume| {
        write(built, volume, 0, &|block| block.crc = 1.into());
        write(built, volume, 1, &|block| block.crc = 1.into());
    });
    assert_eq!(issues.len(), 2);
    assert!(matches!(issues[0], (K::QuorumChecksum { stored: 1, .. }, Place::Quorum { voter: 0, copy: 0 })));
    let issues = damaged_device(|built, volume| {
        write(built, volume, 0, &|block| (block.vote_term, block.state) = (5.into(), 7.into()));
        write(built, volume, 1, &|block| block.voter = 3.into());
    });
    assert_eq!(
        issues,
        [
            (K::QuorumState { state: 7 }, place(0)),
            (K::QuorumTerms { term: 4, vote_term: 5, leader_term: 0 }, place(0)),
            (K::QuorumIdentity { magic: MAGIC_QUORUM, fsid: FSID, voter: 3 }, place(1)),
        ]
    );
}

#[test]
fn a_torn_newest_record_is_what_a_power_failure_leaves() {
    // The record before it stands, and the orphan of the newest one was never made.
    let mut volume = Volume::new();
    volume.tail.clear();
    volume.header.inode_delta = 0.into();
    let key = Key::orphan(super::volume::FILE);
    volume.remove(key);
    let built = volume.build();
    let second = volume.geometry.slot_offset(0) + SECTOR_SIZE as u64;
    edit(&**built.device, second, SECTOR_SIZE, |bytes| bytes[3000] ^= 1);
    assert_eq!(check_device(&built.device).0, []);
}

#[test]
pub fn a_record_that_the_newest_builds_on_must_be_there() {
    let issues = damaged_device(|built, volume| {
        let offset = volume.geometry.slot_offset(0);
        edit(&**built.device, offset, SECTOR_SIZE, |bytes| bytes[100] ^= 1);
    });
    let problem = SlotProblem::Ring(RingError::Missing { commit_nr: 2, missing: 1 });
    assert_eq!(issues, [(K::Slot { problem }, Place::Slot { slot: 0 })]);
}

#[test]
pub fn a_damaged_node_is_found_and_nothing_is_guessed_of_what_it_hid() {
    for tree in [TreeId::Fs, TreeId::Server, TreeId::Log { slot: 0, nr: 1 }] {
        let mut root = TreeRoot::EMPTY;
        let issues = damaged_device(|built, _| {
            root = match tree {
                TreeId::Fs => built.sb.fs_root,
                TreeId::Server => built.sb.server_root,
                TreeId::Log { .. } => built.log_root,
            };
            let offset = root.block.blkno.get() * BLOCK_SIZE as u64;
            edit(&**built.device, offset, SECTOR_SIZE, |bytes| bytes[2000] ^= 1);
        });
        assert_eq!(issues.len(), 1);
        let K::Node { error } = &issues[0].0 else { panic!("{issues:?}") };
        assert!(matches!(error, TreeError::Stale { found: StaleBlock::Checksum { .. }, .. }));
        assert_eq!(issues[0].1, node(tree, &root));
    }
}

#[test]
pub fn wrong_counters_of_the_super_block_are_found() {
    let issues = damaged(|v| v.sb.tombstones = 3.into());
    let place = Place::Tree { tree: TreeId::Fs };
    assert_eq!(issues, [(K::TombstoneCount { counted: 3, found: 0 }, place)]);
    let issues = damaged(|v| v.sb.meta_zones = 3.into());
    assert_eq!(issues, [(K::MetaZoneCount { counted: 3, found: 2 }, Place::Volume)]);
    let issues = damaged(|v| v.header.inode_delta = 2.into());
    assert_eq!(issues, [(K::InodeCount { counted: 6, found: 5 }, Place::Volume)]);
}

#[test]
pub fn lost_blocks_are_found() {
    let mut start = 0;
    let issues = damaged(|v| {
        start = v.data() + DATA_BLOCKS + 10;
        v.space.push(entry(SPACE_DATA, ENTRY_USED, start, 5, 0));
    });
    assert_eq!(issues, [(K::NoOwner, blocks(SpaceKind::Data, start, 5))]);
    let issues = damaged(|v| {
        start = v.meta(2) - 1;
        v.space.push(entry(SPACE_META, ENTRY_USED, start, 1, 0));
    });
    assert_eq!(issues, [(K::NoOwner, blocks(SpaceKind::Meta, start, 1))]);
    // Whole zones, which hold nothing.
    let issues = damaged(|v| {
        let zones = v.geometry.nr_zones() - 4;
        start = v.geometry.first_data_block() + 3 * v.geometry.zone_data_blocks();
        v.server.remove(&Key::free(SPACE_ZONES, 3));
        v.server.insert(Key::free(SPACE_ZONES, 4), free(zones));
    });
    assert_eq!(issues, [(K::NoOwner, blocks(SpaceKind::Data, start, 256))]);
}

#[test]
pub fn blocks_that_are_used_and_free_are_found() {
    let mut start = 0;
    let issues = damaged(|v| {
        start = v.data();
        v.space.push(entry(SPACE_DATA, ENTRY_FREE, start, 2, 0));
    });
    let kind = K::OwnedTwice { first: Owner::MountFree { slot: 0 }, second: Owner::Files };
    assert_eq!(issues, [(kind, blocks(SpaceKind::Data, start, 2))]);
    // The root of the log tree, free for the server.
    let issues = damaged(|v| {
        start = v.meta(1);
        v.server.insert(Key::free(SPACE_META, start), free(1));
    });
    let log = Owner::Tree(TreeId::Log { slot: 0, nr: 1 });
    let kind = K::OwnedTwice { first: Owner::ServerFree, second: log };
    assert_eq!(issues, [(kind, blocks(SpaceKind::Meta, start, 1))]);
}

#[test]
fn quarantine_is_an_owner() {
    let mut start = 0;
    let issues = damaged(|v| {
        start = v.meta(2) - 1;
        let item = QuarantineItem { len: 1.into(), ..QuarantineItem::default() };
        v.server.insert(Key::quarantine(SPACE_META, start), item.as_bytes().to_vec());
    });
    let kind = K::OwnedTwice { first: Owner::Quarantine, second: Owner::MountFree { slot: 0 } };
    assert_eq!(issues, [(kind, blocks(SpaceKind::Meta, start, 1))]);
}

fn take_over(at: usize, start: u64, len: u32) -> impl FnOnce(&mut Volume) {
    move |v| {
        let leader = TakeOver { term: 1.into(), rid: 77.into(), voter: 0.into(), ..TakeOver::default() };
        v.take_overs.resize(v.take_overs.len().max(at + 1), TakeOver::default());
        v.take_overs[at] = TakeOver { start: start.into(), len: len.into(), ..leader };
    }
}

/// The tree has the blocks as free, loose or in empty zones; but they are not, and the zones hold metadata.
#[test]
fn what_a_leader_took_over_is_cut_out_of_the_free_space() {
    let issues = damaged(|v| {
        // Zones 3 and 4 are loose metadata, the others empty.
        let (zones, blocks) = (v.geometry.nr_zones(), v.geometry.zone_meta_blocks());
        v.server.remove(&Key::free(SPACE_ZONES, 3));
        v.server.insert(Key::free(SPACE_ZONES, 5), free(zones - 5));
        v.server.insert(Key::free(SPACE_META, v.meta(3)), free(blocks + 4));
        v.server.insert(Key::free(SPACE_META, v.meta(4) + 4), free(blocks - 4));
        v.sb.meta_zones = 4.into();
        // The last of the empty zones, two neighbours of which one is taken wholly, and a hole in the loose blocks.
        take_over(0, v.meta(zones - 1), 2)(v);
        take_over(1, v.meta(6) + 3, blocks as u32)(v);
        take_over(2, v.meta(4) + 2, 5)(v);
    });
    assert_eq!(issues, []);
}

#[test]
pub fn what_a_leader_took_over_must_have_been_free() {
    let mut start = 0;
    let (mut units, mut end) = (0, 0);
    let issues = damaged(|v| {
        // The root of the log tree, and one block behind the last zone.
        start = v.meta(1);
        units = v.geometry.zone_data_blocks() / v.geometry.zone_meta_blocks();
        take_over(0, start, 1)(v);
        end = v.meta(v.geometry.nr_zones());
        take_over(1, end - 1, 2)(v);
        take_over(2, v.meta(5), 3)(v);
    });
    let log = Owner::Tree(TreeId::Log { slot: 0, nr: 1 });
    let outside = blocks(SpaceKind::Meta, end - 1, 2);
    let taken = K::TakenOver { taken: 4 * units, free: 3 * units };
    assert_eq!(issues[0], (K::OutsideZones { owner: Owner::Quarantine }, outside));
    assert_eq!(issues[1], (taken, Place::Volume));
    let twice = K::OwnedTwice { first: Owner::Quarantine, second: log };
    assert_eq!(issues[2..], [(twice, blocks(SpaceKind::Meta, start, 1))]);
}

/// A hand-over of the last data blocks of zone 2 to the mount.
fn hand_over(v: &mut Volume, number: u64) -> u64 {
    let start = v.data() + 250;
    let extent = HandOverExtent { start: start.into(), len: 6.into(), kind: SPACE_DATA, pad: [0; 3] };
    v.server.insert(Key::hand_over(0, number, 0), extent.as_bytes().to_vec());
    start
}

#[test]
pub fn a_hand_over_belongs_to_its_taker_once_that_names_it() {
    // Given and not yet taken: the mount does not have the blocks.
    let untaken = |v: &mut Volume| {
        let start = hand_over(v, 3);
        v.member.down_given = 3.into();
        v.space.push(entry(SPACE_DATA, ENTRY_USED, start, 6, 0));
    };
    assert_eq!(damaged(untaken), []);
    // Taken, and not yet forgotten by the server.
    let taken = |v: &mut Volume| {
        hand_over(v, 3);
        v.member.down_given = 3.into();
        v.header.taken = 3.into();
    };
    assert_eq!(damaged(taken), []);
    // Taken by the mount, which did not say so.
    let mut start = 0;
    let issues = damaged(|v| {
        start = hand_over(v, 3);
        v.member.down_given = 3.into();
    });
    let first = Owner::HandOverDown { slot: 0, number: 3 };
    let kind = K::OwnedTwice { first, second: Owner::MountFree { slot: 0 } };
    assert_eq!(issues, [(kind, blocks(SpaceKind::Data, start, 6))]);
    // Never given.
    let issues = damaged(|v| {
        hand_over(v, 3);
        v.header.taken = 3.into();
    });
    assert_eq!(
        issues,
        [
            (K::HandOverNumber { number: 3, forgotten: 2, given: 2 }, server_item(Key::hand_over(0, 3, 0))),
            (K::TakenNotGiven { taken: 3, given: 2 }, Place::Slot { slot: 0 }),
        ]
    );
}

#[test]
pub fn a_hand_over_to_the_server_belongs_to_it_once_it_was_taken() {
    let give = |v: &mut Volume| {
        let start = v.meta(2) - 2;
        v.space.push(entry(SPACE_META, ENTRY_USED, start, 2, 0));
        v.space.push(entry(SPACE_META, ENTRY_GIVEN, start, 2, 1));
        v.header.given = 1.into();
        start
    };
    assert_eq!(
        damaged(|v| {
            give(v);
        }),
        []
    );
    let take = |v: &mut Volume| {
        let start = give(v);
        v.server.insert(Key::free(SPACE_META, start), free(2));
    };
    let taken = damaged(|v| {
        take(v);
        v.member.up_taken = 1.into();
    });
    assert_eq!(taken, []);
    let issues = damaged(take);
    let second = Owner::HandOverUp { slot: 0, number: 1 };
    assert!(
        matches!(&issues[..], [(K::OwnedTwice { first: Owner::ServerFree, second: s }, _)] if *s == second)
    );
    let issues = damaged(|v| v.member.up_taken = 4.into());
    assert_eq!(issues, [(K::ServerTookNotGiven { taken: 4, given: 0 }, Place::Slot { slot: 0 })]);
}

#[test]
pub fn records_of_space_that_contradict_each_other_are_found() {
    let mut start = 0;
    let issues = damaged(|v| {
        start = v.data();
        v.space.push(entry(SPACE_DATA, ENTRY_USED, start, 1, 0));
    });
    let error = SpaceError::NotInSet { start, len: 1 };
    assert_eq!(issues, [(K::SlotSpace { error }, Place::Slot { slot: 0 })]);
    let issues = damaged(|v| {
        start = v.data() + 100;
        v.space.push(entry(SPACE_DATA, ENTRY_FREE, start, 1, 0));
    });
    let error = SpaceError::Overlap { start, len: 1, with: Extent::new(start - 93, 249) };
    assert_eq!(issues.len(), 1, "{issues:?} {error}");
    assert!(matches!(issues[0].0, K::SlotSpace { error: SpaceError::Overlap { .. } }));
}

#[test]
pub fn a_zone_of_metadata_and_data_is_found() {
    let issues = damaged(|v| {
        // The last blocks of the data zone as metadata.
        let start = v.meta(3) - 1;
        v.space.push(entry(SPACE_DATA, ENTRY_USED, start * 16, 16, 0));
        v.space.push(entry(SPACE_META, ENTRY_FREE, start, 1, 0));
        v.sb.meta_zones = 3.into();
    });
    assert_eq!(issues, [(K::ZoneOfTwoKinds, Place::Zone { zone: 2 })]);
}

#[test]
pub fn impossible_items_of_the_server_are_found() {
    let key = Key::free(SPACE_META, 1);
    let issues = damaged(|v| drop(v.server.insert(key, free(1))));
    assert_eq!(issues, [(K::OutsideZones { owner: Owner::ServerFree }, server_item(key))]);
    let key = Key::free(9, 1);
    let issues = damaged(|v| drop(v.server.insert(key, free(1))));
    assert_eq!(issues, [(K::UnknownSpaceKind { kind: 9 }, server_item(key))]);
    let key = Key::member(4000);
    let issues = damaged(|v| drop(v.server.insert(key, MemberItem::default().as_bytes().to_vec())));
    assert_eq!(issues, [(K::Member { slot: 4000, state: 0 }, server_item(key))]);
    let key = Key { kind: 77, ..Key::member(0) };
    let issues = damaged(|v| drop(v.server.insert(key, Vec::new())));
    assert_eq!(issues, [(K::UnknownKey, server_item(key))]);
    let key = Key::merge(5, 1);
    let issues = damaged(|v| drop(v.server.insert(key, MergeItem::default().as_bytes().to_vec())));
    assert_eq!(issues, [(K::UnknownKey, server_item(key))]);
}

#[test]
pub fn a_working_set_of_anything_but_free_metadata_is_found() {
    let issues = damaged_device(|built, _| {
        let offset = built.sb.work.first.blkno.get() * BLOCK_SIZE as u64;
        edit(&**built.device, offset, BLOCK_SIZE, |bytes| {
            let at = size_of::<SpaceListHeader>();
            let mut entry = SpaceEntry::read_from_prefix(&bytes[at..]).unwrap().0;
            entry.kind = SPACE_DATA;
            bytes[at..at + size_of::<SpaceEntry>()].copy_from_slice(entry.as_bytes());
            let crc = crc32c(&bytes[4..]);
            bytes[..4].copy_from_slice(&crc.to_le_bytes());
        });
    });
    assert!(matches!(issues[0], (K::WorkEntry { kind: SPACE_DATA, .. }, Place::WorkList)));
    assert!(matches!(issues[1], (K::NoOwner, Place::Blocks { kind: SpaceKind::Meta, .. })));
    assert_eq!(issues.len(), 2);
}

#[test]
pub fn a_broken_list_of_space_is_found() {
    let issues = damaged(|v| v.sb.work = SpaceListRef::default());
    assert_eq!(issues, [], "the working set is written anew");
    let issues = damaged_device(|built, _| {
        let mut sb = built.sb;
        sb.work.nr_blocks = 2.into();
        write_super(&**built.device, 0, &mut sb).unwrap();
    });
    assert_eq!(issues.len(), 1);
    assert!(matches!(issues[0], (K::List { .. }, Place::WorkList)));
}

#[test]
fn what_was_taken_back_of_a_mount_that_is_gone_is_the_servers() {
    let gone = |v: &mut Volume| {
        v.member.state = MEMBER_GONE.into();
        v.member.frozen_commit_nr = 2.into();
        v.member.merged_through = 1.into();
        // Its log is merged.
        let merged: Vec<_> = v.log.iter().chain(&v.tail).map(|(k, i)| (*k, i.clone())).collect();
        for (key, item) in merged {
            match item.1 {
                Some(_) => drop(v.fs.insert(key, item)),
                None => drop(v.fs.remove(&key)),
            }
        }
    };
    assert_eq!(damaged(gone), []);
    // The log tree is free already.
    let progress = |v: &mut Volume, nr, next: Key| {
        let item = MergeItem { next: next.to_raw() };
        v.server.insert(Key::merge(0, nr), item.as_bytes().to_vec());
    };
    let log_freed = |v: &mut Volume| {
        gone(v);
        progress(v, u64::MAX, Key::MIN);
        let log = v.meta(1);
        v.server.insert(Key::free(SPACE_META, log), free(1));
    };
    assert_eq!(damaged(log_freed), []);
    // And all of the free metadata.
    let meta_taken = |v: &mut Volume| {
        log_freed(v);
        let (log, end) = (v.meta(1), v.meta(2));
        progress(v, u64::MAX, Key::new(0, SPACE_META.into(), 0, end, 0, 0));
        v.server.insert(Key::free(SPACE_META, log + 2), free(end - log - 2));
    };
    assert_eq!(damaged(meta_taken), []);
    let issues = damaged(|v| {
        meta_taken(v);
        progress(v, u64::MAX, Key::MIN);
    });
    let kind = K::OwnedTwice { first: Owner::ServerFree, second: Owner::MountFree { slot: 0 } };
    assert_eq!(issues[0].0, kind);
    // Half of the log tree is free: all of its one node is left.
    let issues = damaged(|v| {
        gone(v);
        progress(v, 1, Key::inode(3));
    });
    assert_eq!(issues, []);
}

#[test]
fn trees_that_share_a_node_are_found() {
    let issues = damaged(|v| v.log_tree.nr = 5.into());
    assert_eq!(issues, []);
    let issues = damaged_device(|built, _| {
        let mut sb = built.sb;
        sb.fs_root = TreeRoot { block: BlockRef { ..built.log_root.block }, ..built.log_root };
        write_super(&**built.device, 0, &mut sb).unwrap();
    });
    let start = issues.iter().find_map(|issue| match issue {
        (K::OwnedTwice { second: Owner::Tree(TreeId::Fs), .. }, Place::Blocks { start, .. }) => Some(*start),
        _ => None,
    });
    assert!(start.is_some(), "{issues:?}");
}
