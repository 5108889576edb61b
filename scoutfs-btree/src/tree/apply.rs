// SPDX-License-Identifier: GPL-2.0-only
//! Applying a sorted batch of changes to a tree.
//!
//! The old tree is passed once from left to right. Runs of children without a change are kept as they are; nodes with
//! a change are freed and their items go out anew, merged with the changes. A change belongs to the leaf that covers
//! its key, so those beyond all items belong to the last leaf.

use scoutfs_env::Vec;
use scoutfs_format::Key;
use scoutfs_format::tree::{ITEM_DELETION, MAX_VALUE_LEN, TreeRoot};

use super::change::{Batch, Winner};
use super::node::Items;
use super::output::Output;
use super::{ChangeSource, Item, Limit, Node, Place, Rule};
use crate::Error;
use crate::block::{BlockCache, BlockSpace};

/// The new tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Its root. The old root was freed, unless nothing was changed.
    pub root: TreeRoot,
    /// Key of the first change that was not applied because of the limit.
    pub next: Option<Key>,
    /// What was done.
    pub stats: ApplyStats,
}

/// What was done to a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ApplyStats {
    /// Changes taken from the source, those that lost against a higher version included.
    pub changes: u64,
    /// Items in the new tree less items in the old one, deletions included.
    pub items_delta: i64,
    /// Deletions in the new tree less deletions in the old one.
    pub tombstones_delta: i64,
    /// Nodes written.
    pub blocks_written: u64,
    /// Nodes freed.
    pub blocks_freed: u64,
}

/// Applies changes to a tree and returns the new one, whose nodes are written but not durable.
///
/// The old tree stays readable as long as nobody uses its freed blocks again. On an error the old root stands, and
/// the caller rolls `space` back to what it was before the call.
///
/// Nodes are allocated and written from left to right, children before parents.
pub fn apply(
    cache: &BlockCache,
    space: &mut dyn BlockSpace,
    root: &TreeRoot,
    changes: &mut dyn ChangeSource,
    rule: &Rule,
    limit: Limit,
) -> Result<Applied, Error> {
    let batch = Batch::new(changes, limit)?;
    if batch.key().is_none() {
        return Ok(Applied { root: *root, next: None, stats: ApplyStats::default() });
    }
    let mut pass = Pass { cache, rule, batch, out: Output::new(cache, space), stats: ApplyStats::default() };
    match Place::of_root(root)? {
        Some(top) => pass.tree(&top)?,
        None => pass.leaf(&Items::new(&[], 0), Key::MAX)?,
    }
    let root = pass.out.finish()?;
    let mut stats = pass.stats;
    stats.changes = pass.batch.taken();
    stats.blocks_written = pass.out.written();
    stats.blocks_freed = pass.out.freed();
    Ok(Applied { root, next: pass.batch.rest(), stats })
}

/// One pass over the old tree.
struct Pass<'a> {
    cache: &'a BlockCache,
    rule: &'a Rule,
    batch: Batch<'a>,
    out: Output<'a>,
    stats: ApplyStats,
}

/// A parent that is being taken apart.
struct Parent {
    node: Node,
    /// The child to look at next.
    index: usize,
    /// Last key that the parent covers.
    last: Key,
}

impl Pass<'_> {
    fn tree(&mut self, top: &Place) -> Result<(), Error> {
        let mut path = Vec::with_capacity(top.level.into())?;
        self.enter(top, &mut path)?;
        while let Some(parent) = path.last_mut() {
            if parent.index >= parent.node.len() {
                path.pop();
            } else if !self.keep(parent)? {
                let child = parent.node.child(parent.index, parent.last);
                parent.index += 1;
                self.enter(&child, &mut path)?;
            }
        }
        Ok(())
    }

    /// Takes a node of the old tree apart.
    fn enter(&mut self, place: &Place, path: &mut Vec<Parent>) -> Result<(), Error> {
        let node = Node::read(self.cache, place)?;
        self.out.free(&place.block)?;
        if place.level == 0 {
            return self.leaf(&node.items(), place.last);
        }
        path.push(Parent { node, index: 0, last: place.last })?;
        Ok(())
    }

    /// Keeps the children up to the one with the next change. Returns false when none could be kept.
    fn keep(&mut self, parent: &mut Parent) -> Result<bool, Error> {
        let items = parent.node.items();
        let end = match self.batch.key() {
            Some(key) if key <= parent.last => parent.node.child_index(&key),
            _ => items.len(),
        };
        if end <= parent.index {
            return Ok(false);
        }
        let level = parent.node.level().into();
        let kept = self.out.keep(level, &items, parent.index, end)?;
        if kept {
            parent.index = end;
        }
        Ok(kept)
    }

    /// Merges the items of a leaf that covers keys up to `last` with their changes.
    fn leaf(&mut self, items: &Items<'_>, last: Key) -> Result<(), Error> {
        let mut index = 0;
        while let Some(key) = self.batch.key().filter(|key| *key <= last) {
            let found = items.lower_bound(index, &key);
            self.keep_items(items, index, found)?;
            index = found;
            let old = (index < items.len() && items.key(index) == key).then(|| items.get(index));
            if old.is_some() {
                index += 1;
            }
            self.change(old.as_ref())?;
            self.batch.advance(self.out.nodes())?;
        }
        self.keep_items(items, index, items.len())
    }

    /// Puts out what becomes of the next change and the item with its key.
    fn change(&mut self, old: Option<&Item<'_>>) -> Result<(), Error> {
        let Some(mut change) = self.batch.peek()? else {
            return Ok(());
        };
        if change.value.len() > MAX_VALUE_LEN {
            return Err(Error::ValueTooLong { key: change.key, len: change.value.len() });
        }
        if *self.rule == Rule::Plain {
            change.version = 0;
        }
        let new = match self.rule.decide(old, &change) {
            Winner::Old => old,
            Winner::Change => Some(&change),
            Winner::Neither => None,
        };
        let stats = &mut self.stats;
        stats.items_delta += i64::from(new.is_some()) - i64::from(old.is_some());
        let tombstone = |item: Option<&Item<'_>>| i64::from(item.is_some_and(|i| i.deletion));
        stats.tombstones_delta += tombstone(new) - tombstone(old);
        match new {
            Some(item) => self.out.push_item(item),
            None => Ok(()),
        }
    }

    /// Puts out items of a leaf that no change meets, but for deletions that nobody needs any more.
    fn keep_items(&mut self, items: &Items<'_>, start: usize, end: usize) -> Result<(), Error> {
        let mut kept = start;
        if self.rule.sweeps() {
            for index in start..end {
                let header = &items.headers()[index];
                if header.flags & ITEM_DELETION != 0 && self.rule.drops_deletion(header.version.get()) {
                    self.out.push_items(items, kept, index)?;
                    kept = index + 1;
                    self.stats.items_delta -= 1;
                    self.stats.tombstones_delta -= 1;
                }
            }
        }
        self.out.push_items(items, kept, end)
    }
}
