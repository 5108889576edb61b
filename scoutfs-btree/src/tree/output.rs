// SPDX-License-Identifier: GPL-2.0-only
//! The new nodes of all levels on their way out.
//!
//! Each level has a node that is being filled and, before it, perhaps one that is full but held back. A node that
//! is written becomes an item of the level above. Untouched nodes of the old tree enter at the level above
//! theirs, once all levels below are closed. To close a level whose last node came out small, that node shares the items of
//! the held one; when there is none, closing is refused, and the caller takes the next old node apart instead,
//! so that its items fill up the small node.

use scoutfs_env::Vec;
use scoutfs_format::block::MAGIC_NODE;
use scoutfs_format::tree::{MAX_TREE_HEIGHT, NODE_SPACE, TreeRoot};
use scoutfs_format::{BlockRef, Key};
use zerocopy::{FromBytes, IntoBytes};

use super::Item;
use super::builder::Builder;
use super::node::Items;
use crate::Error;
use crate::block::{BlockCache, BlockSpace, WriteBatch};

/// Bytes below which a node is joined with the one after it.
const QUARTER: usize = NODE_SPACE / 4;

/// One level of the new tree. When a node is held, one is being filled; that one is never empty.
#[derive(Default)]
struct Level {
    held: Option<Builder>,
    filling: Option<Builder>,
}

/// Where the items and nodes of a new tree go, from left to right.
pub(super) struct Output<'a> {
    space: &'a mut dyn BlockSpace,
    batch: WriteBatch<'a>,
    levels: Vec<Level>,
    /// Whether anything went out yet. What goes out first covers keys from [`Key::MIN`] on.
    begun: bool,
    /// Nodes written, and those held or being filled.
    nodes: u64,
    written: u64,
    freed: u64,
}

impl<'a> Output<'a> {
    pub(super) fn new(cache: &'a BlockCache, space: &'a mut dyn BlockSpace) -> Self {
        Output {
            space,
            batch: WriteBatch::new(cache),
            levels: Vec::new(),
            begun: false,
            nodes: 0,
            written: 0,
            freed: 0,
        }
    }

    /// Nodes that were written or will have to be.
    pub(super) fn nodes(&self) -> u64 {
        self.nodes
    }

    pub(super) fn written(&self) -> u64 {
        self.written
    }

    pub(super) fn freed(&self) -> u64 {
        self.freed
    }

    /// Frees a node of the old tree whose items go out anew.
    pub(super) fn free(&mut self, block: &BlockRef) -> Result<(), Error> {
        self.space.free_block(block)?;
        self.freed = self.freed.saturating_add(1);
        Ok(())
    }

    /// Puts out an item of a leaf, whose value is not too long.
    pub(super) fn push_item(&mut self, item: &Item<'_>) -> Result<(), Error> {
        self.push(0, item)
    }

    /// Puts out items of an old leaf, from `start` to before `end`.
    pub(super) fn push_items(&mut self, items: &Items<'_>, start: usize, end: usize) -> Result<(), Error> {
        self.push_run(0, items, start, end)
    }

    /// Keeps children of an old parent on `level`, from `start` to before `end`, not empty, as they are. Returns
    /// false, and has kept none, when they have to be taken apart.
    pub(super) fn keep(
        &mut self,
        level: usize,
        items: &Items<'_>,
        start: usize,
        end: usize,
    ) -> Result<bool, Error> {
        // A leaf does not know where its range begins, but a parent begins with that key.
        if !self.begun && level > 1 && items.key(start) != Key::MIN {
            return Ok(false);
        }
        for below in 0..level {
            if !self.close(below)? {
                return Ok(false);
            }
        }
        let mut start = start;
        if !self.begun {
            let mut first = items.get(start);
            first.key = Key::MIN;
            self.push(level, &first)?;
            start += 1;
        }
        self.push_run(level, items, start, end)?;
        Ok(true)
    }

    /// Writes what is left and returns the root. When the top level has one item only, that is the root.
    pub(super) fn finish(&mut self) -> Result<TreeRoot, Error> {
        let mut level = 0;
        while let Some(this) = self.levels.get_mut(level) {
            let held = this.held.take();
            let filling = this.filling.take();
            let above = self.levels.get(level + 1..).unwrap_or_default();
            let is_top = above.iter().all(|level| level.filling.is_none());
            let height = level as u8;
            match (held, filling) {
                (None, Some(top)) if is_top => {
                    let items = top.items();
                    if level > 0 && items.len() == 1 {
                        let child = BlockRef::read_from_bytes(items.value(0));
                        self.batch.finish()?;
                        return Ok(root(child.unwrap_or(BlockRef::NONE), height));
                    }
                    let block = self.write(level, top)?;
                    self.batch.finish()?;
                    return Ok(root(block, height + 1));
                }
                (held, filling) => {
                    for node in [held, filling].into_iter().flatten() {
                        self.write_child(level, node)?;
                    }
                }
            }
            level += 1;
        }
        Ok(TreeRoot::EMPTY)
    }

    fn push(&mut self, level: usize, item: &Item<'_>) -> Result<(), Error> {
        let filling = self.levels.get_mut(level).and_then(|l| l.filling.as_mut());
        if filling.is_some_and(|node| node.push(item)) {
            return Ok(());
        }
        // The longest item fits into an empty node.
        self.begin(level, item.key)?.push(item);
        Ok(())
    }

    fn push_run(&mut self, level: usize, items: &Items<'_>, start: usize, end: usize) -> Result<(), Error> {
        let mut index = start;
        if let Some(node) = self.levels.get_mut(level).and_then(|l| l.filling.as_mut()) {
            index = node.push_run(items, index, end);
        }
        while index < end {
            let node = self.begin(level, items.key(index))?;
            index = node.push_run(items, index, end);
        }
        Ok(())
    }

    /// Begins a node: the one that was being filled is full and is held back, the one that was held is written.
    fn begin(&mut self, level: usize, first: Key) -> Result<&mut Builder, Error> {
        if level >= usize::from(MAX_TREE_HEIGHT) {
            return Err(Error::TreeTooHigh { max: MAX_TREE_HEIGHT });
        }
        while self.levels.len() <= level {
            self.levels.push(Level::default())?;
        }
        let first = if self.begun { first } else { Key::MIN };
        let node = Builder::new(first)?;
        self.begun = true;
        self.nodes = self.nodes.saturating_add(1);
        let full = self.levels[level].filling.take();
        let done = match full {
            Some(full) => self.levels[level].held.replace(full),
            None => None,
        };
        if let Some(done) = done {
            self.write_child(level, done)?;
        }
        Ok(self.levels[level].filling.insert(node))
    }

    /// Writes all nodes of a level. Returns false, and has done nothing, when the last one is too small.
    fn close(&mut self, level: usize) -> Result<bool, Error> {
        let Some(this) = self.levels.get_mut(level) else {
            return Ok(true);
        };
        if let Some(filling) = &mut this.filling
            && filling.used() < QUARTER
        {
            match &mut this.held {
                None => return Ok(false),
                Some(held) => share(held, filling)?,
            }
        }
        let nodes = [this.held.take(), this.filling.take()];
        for node in nodes.into_iter().flatten() {
            self.write_child(level, node)?;
        }
        Ok(true)
    }

    /// Writes a node and makes it an item of the level above. Goes up as far as nodes are full.
    fn write_child(&mut self, level: usize, node: Builder) -> Result<(), Error> {
        let first = node.first();
        let block = self.write(level, node)?;
        let child = Item { key: first, version: 0, deletion: false, value: block.as_bytes() };
        self.push(level + 1, &child)
    }

    fn write(&mut self, level: usize, node: Builder) -> Result<BlockRef, Error> {
        let block = node.finish(level as u8);
        let reference = self.batch.add(self.space, block, MAGIC_NODE)?;
        self.written = self.written.saturating_add(1);
        Ok(reference)
    }
}

/// Moves items from the end of a full node to the start of the small one after it, so that both are about half full.
fn share(full: &mut Builder, small: &mut Builder) -> Result<(), Error> {
    let half = (full.used() + small.used()) / 2;
    let items = full.items();
    let mut used = 0;
    let stay = items
        .headers()
        .iter()
        .take_while(|header| {
            used += Items::size(header);
            used <= half
        })
        .count();
    if stay == 0 || stay == items.len() {
        return Ok(());
    }
    let mut node = Builder::new(items.key(stay))?;
    node.push_run(&items, stay, items.len());
    let items = small.items();
    node.push_run(&items, 0, items.len());
    full.truncate(stay);
    *small = node;
    Ok(())
}

fn root(block: BlockRef, height: u8) -> TreeRoot {
    TreeRoot { block, height, pad: [0; 7] }
}
