// SPDX-License-Identifier: GPL-2.0-only
//! Proof that a volume is sound: every structural invariant, offline, changing nothing.
//!
//! | module | what |
//! | --- | --- |
//! | this | [`check`], what it returns, and the order of things |
//! | `issue` | [`Issue`]: what can be wrong, as data |
//! | `parallel` | work in pieces by several threads, with results in order |
//! | `events` | what a thread found, for who asked |
//! | `owners` | who owns each block |
//! | `supers` | super block copies and quorum blocks |
//! | `trees` | every node of every tree |
//! | `space` | slots, the server's items, and whose space is whose |
//! | `take_overs` | blocks that leaders took who have not committed since |
//! | `forest` | the filesystem's items as a mount reads them |
//! | `cuts` | where the pass over all items is cut into pieces |
//! | `items` | the pass over all items, and the change index and orphans |
//! | `inode` | one inode and all of its items |
//! | `entry` | directory entries and back references |
//! | `xattr` | extended attributes and the search index |
//! | `acl` | access control lists |
//! | `reach` | whether directories can be reached from the root |
//!
//! # What must hold
//!
//! - No image, however hostile, makes it panic, loop, or recurse. Each block of a tree is visited once, and so is each
//!   item; a step of the proof that needs another item looks that one up.
//! - Memory does not grow with the number of inodes. It takes [`CACHE_BLOCKS`] blocks; about 64 bytes for each run of blocks
//!   with one owner (files that lie one after the other are one run, files between free blocks are not); 4 bytes for each leaf,
//!   to know what to do next, and at most 8 MiB of cuts; the directories on the way up from one whose parents have higher
//!   numbers; and for each thread what two pieces of work found, which for a sound volume is an entry of some 200 bytes
//!   for each leaf, directory, or run of blocks in them. A hundred million small files have 1.5 million leaves: 14 MiB, and the runs.
//! - The issues and their order depend on the volume alone, not on the number of threads or their luck.
//! - A torn write is not an issue: what a power failure may leave at any time is a sound volume.
//! - What cannot be known is not guessed: when a node is damaged, nothing is said of items and of blocks without
//!   owner, for they may be what the node knows of; see [`Summary`].
//!
//! # Threads
//!
//! Leaves of trees, and ranges of items with all that must be looked up for them, are read and checked by several threads
//! (`parallel`), which share the block cache and nothing else. What they find comes in order to the calling thread, which
//! alone knows the owners of blocks, calls `report` and `progress`, and joins inodes that were cut.
//!
//! It takes no locks of the volume. When the volume is changed meanwhile, the result means nothing; see [`Summary::changed`].

mod acl;
mod cuts;
mod entry;
mod events;
mod forest;
mod inode;
mod issue;
mod items;
mod owners;
mod parallel;
mod reach;
mod space;
mod supers;
mod take_overs;
mod trees;
mod xattr;

#[cfg(test)]
mod tests;

use scoutfs_btree::BlockCache;
use scoutfs_env::device::BlockDevice;
use scoutfs_env::{AllocError, Arc, Box};
use scoutfs_format::geometry::Geometry;
use scoutfs_format::voter::SuperBlock;
use scoutfs_server::super_block::{SuperError, ValidSuper, read_super_with_take_overs};

pub use issue::{Issue, IssueKind, Place, TreeId};
pub use owners::{FreeZones, Owner};
pub use supers::{QuorumState, read_quorum};

use cuts::Cuts;
use owners::{Finding, Owners};
use take_overs::TakeOvers;

/// Blocks that are kept in memory: 64 MiB.
const CACHE_BLOCKS: usize = 1024;

/// Threads that [`check`] uses.
const THREADS: usize = 4;

/// What a full progress bar counts.
pub const PROGRESS_TOTAL: u64 = 1000;

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// The volume.
    pub fsid: u64,
    /// Issues that were told.
    pub issues: u64,
    /// Nodes of all trees.
    pub nodes: u64,
    /// Items of the filesystem.
    pub items: u64,
    /// Inodes.
    pub inodes: u64,
    /// Directories among them.
    pub directories: u64,
    /// Blocks of files' data, 4 KiB each.
    pub data_blocks: u64,
    /// Blocks of the zones that hold something, in units of 4 KiB. Only known when `owners_checked`.
    pub used_blocks: u64,
    /// Whole zones that are free. Only known when `owners_checked`.
    pub free_zones: FreeZones,
    /// Writes that were torn, as a power failure may leave them.
    pub torn: u64,
    /// Whether the items were checked. They are not when a tree that holds some is damaged.
    pub items_checked: bool,
    /// Whether blocks without owner were looked for. They are not when something that may own them is damaged.
    pub owners_checked: bool,
    /// The volume was changed meanwhile: it is mounted, and the issues may not be real.
    pub changed: bool,
}

/// Why a volume could not be checked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// There is no volume, or one that another program must check.
    #[error(transparent)]
    Super(#[from] SuperError),
    /// A node that was sound was not when it was read again, or the device failed.
    #[error("the volume changed while it was checked, or the device failed: {0}")]
    Tree(scoutfs_btree::Error),
    /// No memory.
    #[error("out of memory")]
    NoMemory,
}

impl From<AllocError> for CheckError {
    fn from(_: AllocError) -> Self {
        CheckError::NoMemory
    }
}

impl From<scoutfs_btree::Error> for CheckError {
    fn from(e: scoutfs_btree::Error) -> Self {
        match e {
            scoutfs_btree::Error::NoMemory => CheckError::NoMemory,
            other => CheckError::Tree(other),
        }
    }
}

/// Checks a volume that nobody has mounted, in a few threads.
///
/// Tells each issue as it is found, and now and then how much is done (of [`PROGRESS_TOTAL`]).
pub fn check(
    dev: &Arc<Box<dyn BlockDevice>>,
    report: &mut dyn FnMut(Issue),
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary, CheckError> {
    check_with(dev, THREADS, report, progress)
}

/// As [`check`], with a number of threads. What is reported does not depend on it; with 1 the calling thread does all.
pub fn check_with(
    dev: &Arc<Box<dyn BlockDevice>>,
    threads: usize,
    report: &mut dyn FnMut(Issue),
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary, CheckError> {
    check_in_pieces(dev, threads, Cuts::new(), report, progress)
}

/// As [`check_with`], with some cuts to begin with.
fn check_in_pieces(
    dev: &Arc<Box<dyn BlockDevice>>,
    threads: usize,
    cuts: Cuts,
    report: &mut dyn FnMut(Issue),
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary, CheckError> {
    let (found, take_overs) = read_super_with_take_overs(&***dev)?;
    let fsid = found.sb.id.fsid.get();
    let cache = Arc::new(BlockCache::new(dev.clone(), fsid, found.geometry, CACHE_BLOCKS)?)?;
    let mut checker = Checker {
        dev,
        cache,
        threads,
        sb: found.sb,
        geometry: found.geometry,
        owners: Owners::new(found.geometry),
        report,
        progress,
        summary: Summary { fsid, items_checked: true, owners_checked: true, ..Summary::default() },
        take_overs: TakeOvers::default(),
        shared_nodes: 0,
        tree_items: 0,
        cuts,
    };
    checker.take_overs(&take_overs)?;
    checker.run(found)?;
    Ok(checker.summary)
}

/// The state of a check.
struct Checker<'a> {
    dev: &'a Arc<Box<dyn BlockDevice>>,
    cache: Arc<BlockCache>,
    threads: usize,
    sb: SuperBlock,
    geometry: Geometry,
    owners: Owners,
    report: &'a mut dyn FnMut(Issue),
    progress: &'a mut dyn FnMut(u64, u64),
    summary: Summary,
    /// Claimed before all others.
    take_overs: TakeOvers,
    /// Nodes that have another owner as well.
    shared_nodes: u64,
    /// Items of the filesystem in all trees and records, all versions and deletions included.
    tree_items: u64,
    /// Where the pass over them is cut.
    cuts: Cuts,
}

impl Checker<'_> {
    fn run(&mut self, found: ValidSuper) -> Result<(), CheckError> {
        let before = self.fingerprint()?;
        self.check_supers()?;
        self.check_quorum_blocks()?;
        let roots = self.check_space(found)?;
        if self.summary.items_checked {
            self.check_items(roots)?;
        } else {
            self.summary.owners_checked = false;
        }
        if self.summary.owners_checked {
            self.summary.used_blocks = self.owners.used_blocks();
            self.summary.free_zones = self.owners.free_zones();
            self.check_gaps();
        }
        self.summary.changed = self.fingerprint()? != before;
        (self.progress)(PROGRESS_TOTAL, PROGRESS_TOTAL);
        Ok(())
    }

    fn issue(&mut self, kind: IssueKind, place: Place) {
        self.summary.issues += 1;
        (self.report)(Issue { kind, place });
    }

    /// Blocks without owner, and what zones hold.
    fn check_gaps(&mut self) {
        let Checker { owners, report, summary, .. } = self;
        let found = owners.finish(&mut |finding| {
            let (kind, place) = match finding {
                Finding::Lost { kind, start, len } => {
                    (IssueKind::NoOwner, Place::Blocks { kind, start, len })
                }
                Finding::TwoKinds { zone } => (IssueKind::ZoneOfTwoKinds, Place::Zone { zone }),
            };
            summary.issues += 1;
            report(Issue { kind, place });
        });
        let counted = self.sb.meta_zones.get().saturating_add(self.take_overs.zones);
        if found != counted {
            self.issue(IssueKind::MetaZoneCount { counted, found }, Place::Volume);
        }
    }
}
