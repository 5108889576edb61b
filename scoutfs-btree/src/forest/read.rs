// SPDX-License-Identifier: GPL-2.0-only
//! Reading a range of keys from all trees at once.

use core::cmp::Reverse;

use scoutfs_env::{Arc, Vec};
use scoutfs_format::Key;
use scoutfs_format::tree::TreeRoot;

use super::Tail;
use crate::Error;
use crate::block::BlockCache;
use crate::tree::{Item, Leaf, OwnedItem, leaf};

/// Most pieces without an item that one call passes over.
const MAX_EMPTY_PIECES: usize = 256;
/// Items of one tree or tail that a piece has at most before the key that is wanted, and from it on. Who scans reads pieces one after
/// the other; who looks one key up, and loses the lock again, pays for a piece.
const MAX_BEFORE: usize = 16;
const MAX_AFTER: usize = 64;

/// One consistent set of roots: all slots were read first, then the super block.
#[derive(Debug)]
pub struct ForestRoots {
    /// The merged tree.
    pub fs_root: TreeRoot,
    /// All log trees that the super block does not call merged.
    pub logs: Vec<LogSource>,
    /// The tails of all slots.
    pub tails: Vec<Arc<Tail>>,
}

/// A log tree to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSource {
    /// The mount slot that it belongs to.
    pub slot: u32,
    /// Its number in the slot.
    pub nr: u64,
    /// Its root.
    pub root: TreeRoot,
}

/// All that there is in a range of keys.
#[derive(Debug, PartialEq, Eq)]
pub struct RangeItems {
    /// First key of the range.
    pub first: Key,
    /// Last key of the range.
    pub last: Key,
    /// The newest version of each key that exists, in key order. What is not here does not exist.
    pub items: Vec<OwnedItem>,
}

/// Reads a range around `key`, which lies in `low..=high`: as large as the leaves around it allow, but of some dozens of items of each
/// tree and tail, and never beyond `low` and `high`. When nothing exists there it goes on upwards for a while.
///
/// [`Error::Stale`] when a block was freed and used again since the roots were read; begin again with fresh ones.
pub fn read_range(
    cache: &BlockCache,
    roots: &ForestRoots,
    key: Key,
    low: Key,
    high: Key,
) -> Result<RangeItems, Error> {
    let mut leaves = Vec::with_capacity(roots.logs.len() + 1)?;
    let mut range = read_piece(cache, roots, &mut leaves, key, low, high)?;
    for _ in 1..MAX_EMPTY_PIECES {
        if !range.items.is_empty() || range.last >= high {
            break;
        }
        let from = range.last.saturating_next();
        let piece = read_piece(cache, roots, &mut leaves, from, from, high)?;
        range.last = piece.last;
        range.items = piece.items;
    }
    Ok(range)
}

/// Narrows a range around `key` to a few of the `len` items of a source; `from` is the place of the first one at or above `key`.
fn narrow(
    (first, last): (Key, Key),
    len: usize,
    from: usize,
    key_at: impl Fn(usize) -> Option<Key>,
) -> (Key, Key) {
    let before = from.checked_sub(MAX_BEFORE + 1).and_then(&key_at);
    let after = Some(from + MAX_AFTER).filter(|at| *at < len).and_then(&key_at);
    let first = before.map_or(first, |key| first.max(key.saturating_next()));
    let last = after.map_or(last, |key| last.min(key.saturating_prev()));
    (first, last)
}

/// Reads the range that the leaves around `key` have in common, or a part of it around `key`.
fn read_piece(
    cache: &BlockCache,
    roots: &ForestRoots,
    leaves: &mut Vec<Leaf>,
    key: Key,
    low: Key,
    high: Key,
) -> Result<RangeItems, Error> {
    let (mut first, mut last) = (low, high);
    leaves.clear();
    let logs = roots.logs.iter().map(|log| &log.root);
    for root in logs.chain([&roots.fs_root]) {
        let leaf = leaf(cache, root, &key)?;
        first = first.max(leaf.first());
        last = last.min(leaf.last());
        let at = leaf.lower_bound(&key);
        (first, last) = narrow((first, last), leaf.len(), at, |at| leaf.get(at).map(|item| item.key));
        leaves.push(leaf)?;
    }
    for tail in &roots.tails {
        (first, last) = narrow((first, last), tail.len(), tail.lower_bound(&key), |at| tail.key_at(at));
    }
    let mut found = Vec::new();
    // Of equal versions a tail's goes first, then a log's, then the fs tree's. They are the same write.
    let mut source = 0usize;
    for tail in &roots.tails {
        found.try_extend(tail.range(first, last).map(|item| (item, source)))?;
        source += 1;
    }
    for leaf in leaves.iter() {
        found.reserve(leaf.lower_bound(&last).saturating_sub(leaf.lower_bound(&first)))?;
        found.try_extend(leaf.range(&first, last).map(|item| (item, source)))?;
        source += 1;
    }
    // In place: already sorted when only one tree has items here.
    scoutfs_env::sort::sort_by_key(&mut found, |(item, source)| (item.key, Reverse(item.version), *source));
    Ok(RangeItems { first, last, items: newest(&found)? })
}

/// Copies the first of each key unless it is a deletion.
fn newest(sorted: &[(Item<'_>, usize)]) -> Result<Vec<OwnedItem>, Error> {
    let mut items = Vec::with_capacity(sorted.len())?;
    let mut previous = None;
    for (item, _) in sorted {
        if previous.replace(item.key) != Some(item.key) && !item.deletion {
            items.push(item.to_owned()?)?;
        }
    }
    Ok(items)
}
