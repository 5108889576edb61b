// SPDX-License-Identifier: GPL-2.0-only
//! Merging finalized log trees into the fs tree.
//!
//! Any finalized tree can be merged at any time, alone or with others, in pieces, and again: versions decide what stays. So an item
//! that is already in the fs tree under a newer version, from a log that was merged before, is never replaced
//! by an older one, and one that is newer in a log that is still open stays the newest for every reader, who looks there, too.

use scoutfs_format::Key;
use scoutfs_format::tree::TreeRoot;

use crate::Error;
use crate::block::{BlockCache, BlockSpace};
use crate::forest::{Tail, Union};
use crate::tree::{ApplyStats, Limit, Rule, apply};

/// One piece of a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MergeStep {
    /// Root of the fs tree with the piece merged.
    pub fs_root: TreeRoot,
    /// Where the next piece begins; `None` when the logs are merged completely.
    pub next: Option<Key>,
    /// Deletions in the new fs tree less deletions in the old one.
    pub tombstones_delta: i64,
    /// What was done to the fs tree.
    pub stats: ApplyStats,
}

/// Merges items of finalized log trees of one mount, oldest first, and of the tail of the records that followed them if the
/// mount died, from `from` on into the fs tree, as many as the limit allows. Several at once cost as many blocks of the
/// fs tree as one that holds all of their items.
///
/// A deletion with a version below `tombstone_floor` leaves nothing behind. The caller keeps the floor at or below the lowest
/// version that any log may hold that is not known, durably and to everyone, to be merged completely; these
/// very logs count among those until they are.
///
/// On an error the old root stands, and the caller rolls `space` back to what it was before the call.
// Where the items are, where they go, and how many: none of them follows from another.
#[allow(clippy::too_many_arguments)]
pub fn merge_step(
    cache: &BlockCache,
    space: &mut dyn BlockSpace,
    fs_root: &TreeRoot,
    logs: &[TreeRoot],
    tail: Option<&Tail>,
    from: Key,
    tombstone_floor: u64,
    limit: Limit,
) -> Result<MergeStep, Error> {
    let mut source = Union::new(cache, logs, tail, from)?;
    let rule = Rule::Merge { tombstone_floor };
    let applied = apply(cache, space, fs_root, &mut source, &rule, limit)?;
    Ok(MergeStep {
        fs_root: applied.root,
        next: applied.next,
        tombstones_delta: applied.stats.tombstones_delta,
        stats: applied.stats,
    })
}

#[cfg(test)]
mod tests;
