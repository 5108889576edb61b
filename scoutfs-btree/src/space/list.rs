// SPDX-License-Identifier: GPL-2.0-only
//! Lists of space on the device: blocks of entries, each naming the next.

use scoutfs_env::Vec;
use scoutfs_format::BlockRef;
use scoutfs_format::block::MAGIC_SPACE_LIST;
use scoutfs_format::le::U32;
use scoutfs_format::space::{SPACE_LIST_ENTRIES, SpaceEntry, SpaceListHeader, SpaceListRef};
use zerocopy::{FromBytes, IntoBytes};

use super::{Extent, ExtentSet};
use crate::{BlockCache, CorruptKind, Error, NewBlock};

/// Bytes of the header that the block's own writing fills in.
const HEADER: usize = size_of::<SpaceListHeader>();

/// Blocks that a list of `entries` entries takes.
pub const fn list_blocks(entries: usize) -> usize {
    entries.div_ceil(SPACE_LIST_ENTRIES)
}

/// Writes entries to the blocks at `places`, which the caller has allocated and given seqs. They are written, but not
/// durable, when this returns.
///
/// [`Error::NoSpace`] when there are more entries than the blocks hold.
pub fn write_list(
    cache: &BlockCache,
    places: &[BlockRef],
    entries: &[SpaceEntry],
) -> Result<SpaceListRef, Error> {
    let (Some(first), Ok(nr_blocks)) = (places.first(), u32::try_from(places.len())) else {
        return if entries.is_empty() { Ok(SpaceListRef::default()) } else { Err(Error::NoSpace) };
    };
    if list_blocks(entries.len()) > places.len() {
        return Err(Error::NoSpace);
    }
    let mut chunks = entries.chunks(SPACE_LIST_ENTRIES);
    for (index, place) in places.iter().enumerate() {
        let part = chunks.next().unwrap_or_default();
        let header = SpaceListHeader {
            next: places.get(index + 1).copied().unwrap_or(BlockRef::NONE),
            nr_entries: U32::new(part.len() as u32),
            ..SpaceListHeader::default()
        };
        let mut block = NewBlock::new()?;
        let (head, body) = block.bytes_mut().split_at_mut(HEADER);
        head.copy_from_slice(header.as_bytes());
        for (to, entry) in body.chunks_exact_mut(size_of::<SpaceEntry>()).zip(part) {
            to.copy_from_slice(entry.as_bytes());
        }
        cache.write_new(block, MAGIC_SPACE_LIST, place)?;
        // Nobody reads it soon.
        cache.drop_block(place.blkno.get());
    }
    Ok(SpaceListRef { first: *first, nr_blocks: U32::new(nr_blocks), pad: U32::ZERO })
}

/// Reads a list, calls `each` for all of its entries in order, and returns its blocks. An error of `each` ends it.
///
/// [`Error::Stale`] when a block is not the one that was referred to, and [`Error::Corrupt`] when the chain is not as long
/// as the reference says or a block counts more entries than it can hold.
pub fn read_list(
    cache: &BlockCache,
    list: &SpaceListRef,
    mut each: impl FnMut(&SpaceEntry) -> Result<(), Error>,
) -> Result<Vec<BlockRef>, Error> {
    let nr_blocks = list.nr_blocks.get();
    let mut blocks = Vec::new();
    let mut seen = ExtentSet::new();
    let mut next = list.first;
    for at in 0..nr_blocks {
        let blkno = next.blkno.get();
        let chain = || Error::corrupt(blkno, CorruptKind::ListChain { at, nr_blocks });
        if next.is_none() {
            return Err(chain());
        }
        let block = cache.read(&next, MAGIC_SPACE_LIST)?;
        cache.drop_block(blkno);
        // Without this a ring of blocks would keep us busy for as long as the reference likes.
        seen.reserve(1)?;
        seen.insert(Extent::new(blkno, 1)).map_err(|_| chain())?;
        blocks.push(next)?;
        // A block has a header.
        let (header, body) = SpaceListHeader::ref_from_prefix(block.bytes()).map_err(|_| chain())?;
        let found = header.nr_entries.get();
        let max = SPACE_LIST_ENTRIES as u32;
        if found > max {
            return Err(Error::corrupt(blkno, CorruptKind::ListEntries { found, max }));
        }
        let entries = body.chunks_exact(size_of::<SpaceEntry>()).take(found as usize);
        for entry in entries.filter_map(|bytes| SpaceEntry::ref_from_bytes(bytes).ok()) {
            each(entry)?;
        }
        next = header.next;
    }
    if !next.is_none() {
        let kind = CorruptKind::ListChain { at: nr_blocks, nr_blocks };
        return Err(Error::corrupt(next.blkno.get(), kind));
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use scoutfs_format::le::U64;
    use scoutfs_format::space::{ENTRY_FREE, SPACE_DATA};
    use std::vec::Vec;

    use super::*;
    use crate::StaleBlock;
    use crate::testing::Volume;

    fn entries(count: usize) -> Vec<SpaceEntry> {
        let entry = |n| SpaceEntry {
            start: U64::new(n * 2),
            len: U32::new(1),
            kind: SPACE_DATA,
            state: ENTRY_FREE,
            ..SpaceEntry::default()
        };
        (0..count as u64).map(entry).collect()
    }

    /// References to the first blocks of the volume, not side by side.
    fn places(volume: &Volume, count: u64) -> Vec<BlockRef> {
        let first = volume.geometry.first_meta_block();
        (0..count).map(|n| BlockRef::new(first + n * 2, 9, n as u32)).collect()
    }

    fn read(volume: &Volume, list: &SpaceListRef) -> Result<(Vec<SpaceEntry>, Vec<BlockRef>), Error> {
        let mut found = Vec::new();
        let blocks = read_list(&volume.cache, list, |entry| {
            found.push(*entry);
            Ok(())
        })?;
        Ok((found, blocks.to_vec()))
    }

    /// Writes a block of no entries that names another as the next.
    fn write_link(volume: &Volume, place: &BlockRef, next: BlockRef, nr_entries: u32) {
        let header = SpaceListHeader { next, nr_entries: U32::new(nr_entries), ..SpaceListHeader::default() };
        let mut block = NewBlock::new().unwrap();
        block.bytes_mut()[..HEADER].copy_from_slice(header.as_bytes());
        volume.cache.write_new(block, MAGIC_SPACE_LIST, place).unwrap();
    }

    fn list(first: BlockRef, nr_blocks: u32) -> SpaceListRef {
        SpaceListRef { first, nr_blocks: U32::new(nr_blocks), pad: U32::ZERO }
    }

    #[test]
    fn a_list_comes_back_as_it_was_written() {
        let volume = Volume::new(64, 16);
        for count in [0, 1, SPACE_LIST_ENTRIES, SPACE_LIST_ENTRIES + 1, 3 * SPACE_LIST_ENTRIES - 1] {
            for spare in 0..2 {
                let places = places(&volume, (list_blocks(count) + spare) as u64);
                let written = write_list(&volume.cache, &places, &entries(count)).unwrap();
                assert_eq!(written.nr_blocks.get() as usize, places.len());
                assert_eq!(read(&volume, &written), Ok((entries(count), places)));
            }
        }
    }

    #[test]
    fn entries_for_which_there_is_no_block_are_an_error() {
        let volume = Volume::new(64, 16);
        let places = places(&volume, 1);
        assert_eq!(write_list(&volume.cache, &[], &entries(1)), Err(Error::NoSpace));
        let too_many = entries(SPACE_LIST_ENTRIES + 1);
        assert_eq!(write_list(&volume.cache, &places, &too_many), Err(Error::NoSpace));
    }

    #[test]
    fn a_list_that_is_not_as_long_as_its_reference_says_is_corrupt() {
        let volume = Volume::new(64, 16);
        let places = places(&volume, 3);
        let written = write_list(&volume.cache, &places, &entries(3 * SPACE_LIST_ENTRIES)).unwrap();
        let chain =
            |blkno, at, nr_blocks| Err(Error::corrupt(blkno, CorruptKind::ListChain { at, nr_blocks }));
        assert_eq!(read(&volume, &list(written.first, 4)), chain(0, 3, 4));
        assert_eq!(read(&volume, &list(written.first, 2)), chain(places[2].blkno.get(), 2, 2));
        assert_eq!(read(&volume, &list(written.first, 0)), chain(places[0].blkno.get(), 0, 0));
    }

    #[test]
    fn a_list_that_bites_its_tail_ends() {
        let volume = Volume::new(64, 16);
        let places = places(&volume, 3);
        for (at, place) in places.iter().enumerate() {
            write_link(&volume, place, places[(at + 1) % 3], 0);
        }
        let kind = CorruptKind::ListChain { at: 3, nr_blocks: u32::MAX };
        let error = Error::corrupt(places[0].blkno.get(), kind);
        assert_eq!(read(&volume, &list(places[0], u32::MAX)), Err(error));
    }

    #[test]
    fn a_block_that_counts_too_many_entries_is_corrupt() {
        let volume = Volume::new(64, 16);
        let place = places(&volume, 1)[0];
        let (found, max) = (SPACE_LIST_ENTRIES as u32 + 1, SPACE_LIST_ENTRIES as u32);
        write_link(&volume, &place, BlockRef::NONE, found);
        let error = Error::corrupt(place.blkno.get(), CorruptKind::ListEntries { found, max });
        assert_eq!(read(&volume, &list(place, 1)), Err(error));
    }

    #[test]
    fn a_block_that_was_written_again_is_stale() {
        let volume = Volume::new(64, 16);
        let places = places(&volume, 2);
        let written = write_list(&volume.cache, &places, &entries(2 * SPACE_LIST_ENTRIES)).unwrap();
        let again = BlockRef::new(places[1].blkno.get(), 10, 0);
        write_link(&volume, &again, BlockRef::NONE, 0);
        let found = StaleBlock::Other { blkno: again.blkno.get(), trans_seq: 10, counter: 0 };
        assert_eq!(read(&volume, &written), Err(Error::Stale { expected: places[1], found }));
    }

    proptest! {
        #[test]
        fn hostile_chains_end(
            links in prop::collection::vec((0usize..5, 0u32..3), 4),
            nr_blocks in prop_oneof![0u32..6, any::<u32>()],
        ) {
            let volume = Volume::new(64, 16);
            let places = places(&volume, 4);
            for (place, &(next, nr_entries)) in places.iter().zip(&links) {
                let next = places.get(next).copied().unwrap_or(BlockRef::NONE);
                write_link(&volume, place, next, nr_entries);
            }
            if let Ok((_, blocks)) = read(&volume, &list(places[0], nr_blocks)) {
                prop_assert_eq!(blocks.len() as u32, nr_blocks);
            }
        }
    }
}
