// SPDX-License-Identifier: GPL-2.0-only
//! What is on the device. Where blocks refer to others, a device that gives the same bytes wherever one reads has them.

use std::mem::offset_of;
use std::sync::Mutex;

use scoutfs_btree::ring::parse_ring;
use scoutfs_btree::space::{SpaceKind, SpaceReplay, read_list};
use scoutfs_btree::{
    BlockCache, Error, ForestRoots, Node, Place, Visitor, leaf, lookup, next, read_range, walk,
};
use scoutfs_env::crc32c::{crc32c, crc32c_append};
use scoutfs_env::device::{BlockDevice, IoError};
use scoutfs_env::{Arc, Box, IoBuf, try_box};
use scoutfs_format::block::BlockHeader;
use scoutfs_format::geometry::RING_FRAMES;
use scoutfs_format::ring::FrameHeader;
use scoutfs_format::space::SpaceListRef;
use scoutfs_format::tree::{NodeHeader, TreeRoot};
use scoutfs_format::voter::{QuorumBlock, SuperBlock};
use scoutfs_format::{BLOCK_SIZE, Key, SECTOR_SIZE};
use scoutfs_net::VoterBlock;
use scoutfs_server::super_block::{read_copy, write_super};
use zerocopy::FromBytes;

use super::refused;
use crate::volume::{VOLUME_BYTES, geometry};

/// A device that has the same bytes everywhere, and keeps what was written last.
struct Same {
    bytes: Vec<u8>,
    written: Mutex<Vec<u8>>,
}

impl Same {
    fn new(bytes: &[u8], len: usize) -> Same {
        let mut bytes = bytes.to_vec();
        bytes.resize(len, 0);
        Same { bytes, written: Mutex::default() }
    }

    fn cache(self, fsid: u64) -> BlockCache {
        let device: Box<dyn BlockDevice> = try_box(self).expect("memory");
        let device = Arc::new(device).expect("memory");
        BlockCache::new(device, fsid, geometry(), 4).expect("memory")
    }
}

impl BlockDevice for Same {
    fn size_bytes(&self) -> u64 {
        VOLUME_BYTES
    }
    fn read_only(&self) -> bool {
        false
    }
    fn read(&self, _: u64, buf: &mut [u8]) -> Result<(), IoError> {
        for part in buf.chunks_mut(self.bytes.len()) {
            part.copy_from_slice(&self.bytes[..part.len()]);
        }
        Ok(())
    }
    fn write(&self, _: u64, buf: &[u8]) -> Result<(), IoError> {
        *self.written.lock().expect("no panic under it") = buf.to_vec();
        Ok(())
    }
    fn flush(&self) -> Result<(), IoError> {
        Ok(())
    }
}

/// The first bytes as a structure; zeros when there are not enough.
fn head<T: FromBytes>(bytes: &[u8]) -> T {
    T::read_from_prefix(bytes).map_or_else(|_| T::new_zeroed(), |(head, _)| head)
}

fn sign(bytes: &mut [u8], len: usize) {
    if let Some((crc, rest)) = bytes.split_first_chunk_mut::<4>() {
        let rest = &rest[..rest.len().min(len - 4)];
        // Bytes that are missing are zeros.
        let zeros = vec![0; len - 4 - rest.len()];
        *crc = crc32c_append(crc32c(rest), &zeros).to_le_bytes();
    }
}

pub fn sign_sector(bytes: &mut [u8]) {
    sign(bytes, SECTOR_SIZE);
}

pub fn sign_block(bytes: &mut [u8]) {
    sign(bytes, BLOCK_SIZE);
}

pub fn sign_ring(bytes: &mut [u8]) {
    for frame in bytes.chunks_mut(SECTOR_SIZE) {
        if frame.iter().any(|b| *b != 0) {
            sign(frame, SECTOR_SIZE);
        }
    }
}

pub fn sign_super(bytes: &mut [u8]) {
    let at = offset_of!(SuperBlock, crc);
    if bytes.len() >= at + 4 {
        bytes[at..at + 4].fill(0);
        let zeros = vec![0; SECTOR_SIZE - bytes.len().min(SECTOR_SIZE)];
        let crc = crc32c_append(crc32c(&bytes[..bytes.len().min(SECTOR_SIZE)]), &zeros);
        bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    }
}

pub fn super_block(bytes: &[u8]) -> String {
    let device = Same::new(bytes, SECTOR_SIZE);
    let found = match read_copy(&device, 0, 0) {
        Ok(found) => found,
        Err(e) => return refused(&e),
    };
    assert!(found.geometry.volume_bytes() <= VOLUME_BYTES, "larger than the device");
    assert_eq!(found.geometry.to_raw(), found.sb.geometry);
    let mut sb = found.sb;
    if sb.seq.get() < u64::MAX && write_super(&device, 0, &mut sb).is_ok() {
        let written = device.written.lock().expect("no panic under it").clone();
        let again = read_copy(&Same::new(&written, SECTOR_SIZE), 0, 0).expect("what was written");
        sb.crc = again.sb.crc;
        assert_eq!(again.sb, sb);
        assert_eq!(again.sb.seq.get(), found.sb.seq.get() + 1);
    }
    "ok".into()
}

pub fn quorum_block(bytes: &[u8]) -> String {
    let sector = Same::new(bytes, SECTOR_SIZE).bytes;
    let raw: QuorumBlock = head(&sector);
    let (fsid, voter) = (raw.fsid.get(), raw.voter.get());
    let copy = (raw.write_nr.get() & 1) as u32;
    let block = match VoterBlock::parse(&sector, fsid, voter, 3, copy) {
        Ok(block) => block,
        Err(e) => return refused(&e),
    };
    let mut encoded = vec![0xa5; SECTOR_SIZE];
    block.encode(fsid, &mut encoded).expect("a sector");
    assert_eq!(VoterBlock::parse(&encoded, fsid, voter, 3, copy), Ok(block));
    // All that is parsed is there again; what follows it is not looked at.
    let len = size_of::<QuorumBlock>();
    assert_eq!(encoded[4..len], sector[4..len]);
    let other = VoterBlock::parse(&sector, fsid, voter, 3, 1 - copy);
    assert!(other.is_err(), "a block that is both copies");
    "ok".into()
}

struct Count {
    nodes: usize,
    items: usize,
    broken: String,
}

impl Visitor for Count {
    fn node(&mut self, _: &Place, node: &Node) -> Result<(), Error> {
        self.nodes += 1;
        let mut before = None;
        for index in 0..node.len() {
            let item = node.item(index);
            assert!(before < Some(item.key), "keys ascend");
            before = Some(item.key);
            assert!(!item.deletion || item.value.is_empty());
            self.items += 1;
        }
        Ok(())
    }

    fn broken(&mut self, _: &Place, error: Error) -> Result<(), Error> {
        self.broken = refused(&error);
        Ok(())
    }
}

pub fn node(bytes: &[u8]) -> String {
    let raw: NodeHeader = head(bytes);
    let cache = Same::new(bytes, BLOCK_SIZE).cache(raw.block.fsid.get());
    let root = TreeRoot { block: raw.block.to_ref(), height: raw.level.wrapping_add(1), pad: [0; 7] };
    let mut count = Count { nodes: 0, items: 0, broken: String::new() };
    walk(&cache, &root, &mut count).expect("the visitor gives no errors");
    let from_start = next(&cache, &root, &Key::MIN).map(|found| found.map(|guard| guard.item().key));
    if count.nodes == 0 {
        assert_eq!(count.items, 0);
        return count.broken;
    }
    if raw.level > 0 {
        // Children are the node itself, which must be refused.
        assert!(count.nodes == 1 && from_start.is_err());
        return format!("ok parent {}", count.broken);
    }
    let whole = leaf(&cache, &root, &Key::MIN).expect("it was sound");
    assert_eq!(whole.len(), count.items);
    assert_eq!(from_start, Ok(whole.get(0).map(|item| item.key)));
    for item in whole.iter() {
        let found = lookup(&cache, &root, &item.key).expect("it was sound").expect("it is there");
        assert_eq!(found.item(), item);
    }
    let roots = ForestRoots { fs_root: root, logs: scoutfs_env::Vec::new(), tails: scoutfs_env::Vec::new() };
    let (mut from, mut read) = (Some(Key::MIN), 0);
    while let Some(key) = from {
        let piece = read_range(&cache, &roots, key, key, Key::MAX).expect("it was sound");
        read += piece.items.len();
        from = piece.last.next();
    }
    assert_eq!(read, whole.iter().filter(|item| !item.deletion).count());
    "ok leaf".into()
}

pub fn space_list(bytes: &[u8]) -> String {
    let raw: BlockHeader = head(bytes);
    let cache = Same::new(bytes, BLOCK_SIZE).cache(raw.fsid.get());
    let mut answer = String::new();
    for nr_blocks in [1u32, 2, u32::MAX] {
        let list = SpaceListRef { first: raw.to_ref(), nr_blocks: nr_blocks.into(), pad: 0.into() };
        let mut replay = SpaceReplay::new(geometry());
        let mut space = None;
        let read = read_list(&cache, &list, |entry| {
            if space.is_none() {
                space = replay.list_entry(entry).or_else(|_| replay.record_entry(entry)).err();
            }
            Ok(())
        });
        match read {
            Ok(blocks) => {
                assert_eq!(blocks.len() as u64, u64::from(nr_blocks));
                answer += "ok";
            }
            Err(e) => answer += &refused(&e),
        }
        match space {
            Some(e) => answer += &refused(&e),
            None => {
                let _ = replay.check(7);
                let free = SpaceKind::ALL.map(|kind| replay.free(kind).iter().map(|e| e.len).sum::<u64>());
                assert!(free.iter().all(|blocks| *blocks <= VOLUME_BYTES / 4096), "more than there is");
            }
        }
    }
    answer
}

pub fn ring(bytes: &[u8]) -> String {
    let mut ring = IoBuf::zeroed(RING_FRAMES as usize * SECTOR_SIZE).expect("memory");
    let len = bytes.len().min(ring.len());
    ring[..len].copy_from_slice(&bytes[..len]);
    let first: FrameHeader = head(bytes);
    let mut answer = String::new();
    for epoch in [None, Some(1), Some(2)] {
        match parse_ring(&ring, first.fsid.get(), first.slot.get(), epoch) {
            Err(e) => answer += &refused(&e),
            Ok(None) => answer += "none",
            Ok(Some(state)) => {
                assert!(epoch.is_none_or(|epoch| epoch == state.epoch()));
                assert_eq!(state.newest().commit_nr(), state.commit_nr());
                assert!(state.records().first().is_some_and(|record| record.is_checkpoint()));
                let mut last = None;
                for record in state.records() {
                    assert!(last < Some(record.commit_nr()), "numbers ascend");
                    last = Some(record.commit_nr());
                    let mut bytes = record.logs().count() + record.space().count();
                    for item in record.items() {
                        bytes += item.value.len();
                        assert!(!item.deletion || item.value.is_empty());
                    }
                    assert!(bytes <= ring.len());
                }
                answer += "ok";
            }
        }
    }
    answer
}
