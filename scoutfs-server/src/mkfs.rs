// SPDX-License-Identifier: GPL-2.0-only
//! Making a volume.
//!
//! Order is all: old super blocks are destroyed first, durably, and the new ones are written last, so a device on which
//! this was interrupted holds no volume, neither the old one nor half of the new one.

use scoutfs_btree::space::{Extent, list_blocks, write_list};
use scoutfs_btree::tree::SliceSource;
use scoutfs_btree::{BlockCache, BlockSpace, Error, Limit, OwnedItem, Rule, apply};
use scoutfs_env::device::BlockDevice;
use scoutfs_env::{Arc, Box, IoBuf, Vec};
use scoutfs_format::geometry::{Geometry, RESERVED_BYTES};
use scoutfs_format::le::{U32, U64};
use scoutfs_format::server_item::FreeItem;
use scoutfs_format::space::{SPACE_META, SPACE_ZONES};
use scoutfs_format::voter::{LeaderId, SUPER_CLEAN, SuperBlock};
use scoutfs_format::{BlockRef, Key, SECTOR_SIZE};
use scoutfs_net::quorum::VoterBlock;

use crate::error::ServerError;
use crate::server::work_entry;
use crate::super_block::{invalidate_supers, super_id, write_super};

/// What a new volume is to be.
pub struct NewVolume {
    /// Where its regions are.
    pub geometry: Geometry,
    /// Its number, random and not 0.
    pub fsid: u64,
    /// Its UUID.
    pub uuid: [u8; 16],
    /// Random; whoever can read the device may join.
    pub secret: [u8; 32],
    /// The first items of the fs tree, keys ascending, versions below [`FIRST_SEQ`].
    pub fs_items: Vec<OwnedItem>,
    /// The first inode number that the server may give out.
    pub ino_bound: u64,
    /// Inodes in `fs_items`.
    pub inodes: u64,
}

/// The first seq that a server of the volume may give out; the versions of the first items are below.
pub const FIRST_SEQ: u64 = 2;
/// Seq of the first blocks.
const MKFS_SEQ: u64 = 1;
/// Blocks of the first metadata zones, of which the working set gets what the first trees leave, but for the rest of
/// the last zone.
const FIRST_BLOCKS: u64 = 64;
/// Blocks of the first working set. The server takes what it lacks when it is first opened.
const WORK_BLOCKS: u64 = 48;
/// Bytes that are wiped at once.
const WIPE_BYTES: usize = 1 << 20;

/// Blocks of the first metadata zones, in order.
struct FirstBlocks {
    next: u64,
    end: u64,
    counter: u32,
}

impl BlockSpace for FirstBlocks {
    fn alloc_block(&mut self) -> Result<u64, Error> {
        if self.next == self.end {
            return Err(Error::NoSpace);
        }
        self.next += 1;
        Ok(self.next - 1)
    }

    fn free_block(&mut self, block: &BlockRef) -> Result<(), Error> {
        // Each tree is made in one go from nothing.
        Err(Error::corrupt(block.blkno.get(), scoutfs_btree::CorruptKind::OutsideZones))
    }

    fn block_seq(&mut self) -> (u64, u32) {
        self.counter += 1;
        (MKFS_SEQ, self.counter)
    }
}

/// Makes all voter slots free, in both copies.
fn free_voters(dev: &dyn BlockDevice, g: &Geometry, fsid: u64) -> Result<(), ServerError> {
    let mut sector = IoBuf::zeroed(SECTOR_SIZE)?;
    for voter in 0..g.nr_voters() {
        for copy in 0..2 {
            // Fails for a buffer of another size alone.
            if VoterBlock::free(voter, copy.into()).encode(fsid, &mut sector).is_ok() {
                dev.write(g.quorum_block_offset(voter, copy), &sector)?;
            }
        }
    }
    Ok(())
}

/// Makes a volume and returns its super block, whose leader has "left cleanly".
///
/// The device must be at least as large as the geometry says, and nobody may use it.
pub fn create_volume(dev: &Arc<Box<dyn BlockDevice>>, new: &NewVolume) -> Result<SuperBlock, ServerError> {
    let g = &new.geometry;
    invalidate_supers(&**dev)?;
    wipe(&**dev, RESERVED_BYTES, g.zones_offset())?;
    free_voters(&**dev, g, new.fsid)?;

    let cache = BlockCache::new(dev.clone(), new.fsid, *g, 64)?;
    let meta_zones = FIRST_BLOCKS.div_ceil(g.zone_meta_blocks());
    let mut space = FirstBlocks {
        next: g.first_meta_block(),
        end: g.first_meta_block() + meta_zones * g.zone_meta_blocks(),
        counter: 0,
    };
    let build = |space: &mut FirstBlocks, items: &[OwnedItem], rule: Rule| {
        let mut source = SliceSource::new(items);
        let empty = scoutfs_format::tree::TreeRoot::EMPTY;
        apply(&cache, space, &empty, &mut source, &rule, Limit::NONE).map(|applied| applied.root)
    };
    let fs_root = build(&mut space, &new.fs_items, Rule::Merge { tombstone_floor: 0 })?;

    // The working set is what is left of the first zones once the server's tree and the list have their blocks.
    let list_block = space.alloc_block()?;
    let tree_block = space.next;
    let work_start = tree_block + 1;
    let work = Extent::new(work_start, WORK_BLOCKS.min(space.end - work_start));
    let free_start = work.start + work.len;
    let mut items = Vec::new();
    let mut put = |key: Key, len: u64| -> Result<(), ServerError> {
        if len > 0 {
            let value = Vec::from_slice(zerocopy::IntoBytes::as_bytes(&FreeItem { len: U64::new(len) }))?;
            items.push(OwnedItem { key, version: 0, deletion: false, value })?;
        }
        Ok(())
    };
    put(Key::free(SPACE_META, free_start), space.end - free_start)?;
    put(Key::free(SPACE_ZONES, meta_zones), g.nr_zones() - meta_zones)?;
    let server_root = build(&mut space, &items, Rule::Plain)?;
    let (trans_seq, counter) = space.block_seq();
    let place = BlockRef::new(list_block, trans_seq, counter);
    let entries = [work_entry(work)?];
    debug_assert_eq!((space.next, list_blocks(entries.len())), (work_start, 1));
    let work = write_list(&cache, &[place], &entries)?;
    dev.flush()?;

    let mut sb = SuperBlock {
        id: super_id(new.fsid, new.uuid),
        crc: U32::ZERO,
        pad: U32::ZERO,
        term: U64::ZERO,
        seq: U64::ZERO,
        flags: U64::new(SUPER_CLEAN),
        geometry: g.to_raw(),
        secret: new.secret,
        seq_bound: U64::new(FIRST_SEQ),
        ino_bound: U64::new(new.ino_bound),
        fs_root,
        server_root,
        work,
        tombstones: U64::ZERO,
        inodes: U64::new(new.inodes),
        block_seq: U64::new(MKFS_SEQ),
        meta_zones: U64::new(meta_zones),
        work_leader: LeaderId::default(),
    };
    write_super(&**dev, 0, &mut sb)?;
    Ok(sb)
}

/// Overwrites a part of the device with zeros: rings, quorum blocks and super blocks of whatever was there before.
fn wipe(dev: &dyn BlockDevice, from: u64, to: u64) -> Result<(), ServerError> {
    let zeros = IoBuf::zeroed(WIPE_BYTES)?;
    let mut at = from;
    while at < to {
        let len = (to - at).min(WIPE_BYTES as u64);
        dev.write(at, zeros.get(..len as usize).unwrap_or_default())?;
        at += len;
    }
    Ok(dev.flush()?)
}
