// SPDX-License-Identifier: GPL-2.0-only
//! Merging one finalized log tree into the fs tree.
//!
//! Any finalized tree can be merged at any time, alone and in pieces, and again: versions decide what stays. So an item
//! that is already in the fs tree under a newer version, from a log that was merged before, is never replaced
//! by an older one, and one that is newer in a log that is still open stays the newest for every reader, who looks there, too.

use scoutfs_format::Key;
use scoutfs_format::tree::TreeRoot;

use crate::Error;
use crate::block::{BlockCache, BlockSpace};
use crate::forest::{Tail, TailSource};
use crate::tree::{ApplyStats, ChangeSource, Cursor, Item, Limit, Rule, apply};

/// One piece of a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MergeStep {
    /// Root of the fs tree with the piece merged.
    pub fs_root: TreeRoot,
    /// Where the next piece begins; `None` when the log is merged completely.
    pub next: Option<Key>,
    /// Deletions in the new fs tree less deletions in the old one.
    pub tombstones_delta: i64,
    /// What was done to the fs tree.
    pub stats: ApplyStats,
}

/// Merges items of one finalized log tree, and of the tail of the records that followed it if its mount died, from `from`
/// on into the fs tree, as many as the limit allows.
///
/// A deletion with a version below `tombstone_floor` leaves nothing behind. The caller keeps the floor at or below the lowest
/// version that any log may hold that is not known, durably and to everyone, to be merged completely; this
/// very log counts as one of those until it is.
///
/// On an error the old root stands, and the caller rolls `space` back to what it was before the call.
// Where the items are, where they go, and how many: none of them follows from another.
#[allow(clippy::too_many_arguments)]
pub fn merge_step(
    cache: &BlockCache,
    space: &mut dyn BlockSpace,
    fs_root: &TreeRoot,
    log_root: &TreeRoot,
    tail: Option<&Tail>,
    from: Key,
    tombstone_floor: u64,
    limit: Limit,
) -> Result<MergeStep, Error> {
    let mut source = LogAndTail {
        log: Cursor::new(cache, *log_root, from),
        tail: tail.map(|tail| TailSource::new(tail, from)),
        log_is_next: false,
        tail_is_next: false,
    };
    let rule = Rule::Merge { tombstone_floor };
    let applied = apply(cache, space, fs_root, &mut source, &rule, limit)?;
    Ok(MergeStep {
        fs_root: applied.root,
        next: applied.next,
        tombstones_delta: applied.stats.tombstones_delta,
        stats: applied.stats,
    })
}

/// The items of a log tree and of its tail as one sorted source; of a key that is in both, the one to keep.
struct LogAndTail<'a> {
    log: Cursor<'a>,
    tail: Option<TailSource<'a>>,
    /// What the last item that was peeked at stands for, and the next advance moves past.
    log_is_next: bool,
    tail_is_next: bool,
}

impl ChangeSource for LogAndTail<'_> {
    fn peek(&mut self) -> Result<Option<Item<'_>>, Error> {
        let log = self.log.peek()?;
        let tail = match &mut self.tail {
            Some(tail) => tail.peek()?,
            None => None,
        };
        let (use_log, use_tail) = match (&log, &tail) {
            (Some(log), Some(tail)) => (log.key <= tail.key, tail.key <= log.key),
            (log, tail) => (log.is_some(), tail.is_some()),
        };
        self.log_is_next = use_log;
        self.tail_is_next = use_tail;
        Ok(match (log, tail) {
            (Some(log), Some(tail)) if use_log && use_tail => {
                // The tail is the later write when versions are equal.
                Some(if log.version > tail.version { log } else { tail })
            }
            (Some(log), _) if use_log => Some(log),
            (_, tail) => tail,
        })
    }

    fn advance(&mut self) {
        if self.log_is_next {
            self.log.advance();
        }
        if self.tail_is_next
            && let Some(tail) = &mut self.tail
        {
            tail.advance();
        }
        self.log_is_next = false;
        self.tail_is_next = false;
    }
}

#[cfg(test)]
mod tests;
