// SPDX-License-Identifier: GPL-2.0-only
//! Reading with roots that get old.

use core::cell::Cell;

use scoutfs_btree::{BlockCache, Error as TreeError, ForestRoots, StaleBlock, Tail};
use scoutfs_env::device::{BlockDevice, MemDevice};
use scoutfs_env::{Arc, Box, Vec};
use scoutfs_format::BlockRef;
use scoutfs_format::tree::TreeRoot;
use scoutfs_server::super_block::read_super;

use super::{Reader, RootsCell};

/// A reader of a new volume that knows an older fs tree than there is.
fn behind() -> (Reader, TreeRoot) {
    let device: Box<dyn BlockDevice> = Box::new(MemDevice::new(64 << 20));
    let device = Arc::new(device).unwrap();
    crate::mkfs::mkfs(&device, &crate::mkfs::Options { quorum: 1, force: true }).unwrap();
    let newest = read_super(&**device).unwrap();
    let (fsid, geometry) = (newest.sb.id.fsid.get(), newest.geometry);
    let cache = Arc::new(BlockCache::new(device.clone(), fsid, geometry, 64).unwrap()).unwrap();
    let old = ForestRoots { fs_root: TreeRoot::EMPTY, logs: Vec::new(), tails: Vec::new() };
    let reader = Reader::new(device, cache, geometry, 0, RootsCell::new(old).unwrap());
    assert_ne!(newest.sb.fs_root, TreeRoot::EMPTY);
    (reader, newest.sb.fs_root)
}

fn stale() -> TreeError {
    let found = StaleBlock::Other { blkno: 1, trans_seq: 2, counter: 3 };
    TreeError::Stale { expected: BlockRef::default(), found }
}

/// Commits of this mount while a read is under way change the roots, but not those of the tree that is stale.
#[test]
fn a_stale_block_is_looked_for_from_fresh_roots_whatever_was_committed_meanwhile() {
    let (reader, newest) = behind();
    let reads = Cell::new(0);
    let read = reader.with_roots(|roots| {
        reads.set(reads.get() + 1);
        if roots.forest.fs_root == newest {
            return Ok(());
        }
        reader.roots.push_tail(Some(Arc::new(Tail::new())?), || Ok(())).unwrap();
        Err(stale())
    });
    assert_eq!((read, reads.get()), (Ok(()), 2));
}

/// The tail that a commit adds is not what makes a block sound that stays stale.
#[test]
fn a_block_that_is_stale_from_the_newest_roots_is_corrupt() {
    let (reader, newest) = behind();
    let reads = Cell::new(0);
    let read = reader.with_roots(|roots| {
        reads.set(reads.get() + 1);
        assert_eq!(roots.forest.fs_root == newest, reads.get() == 2);
        Err::<(), _>(stale())
    });
    assert!(matches!(read, Err(TreeError::Corrupt(_))), "{read:?}");
    assert_eq!(reads.get(), 2);
}
