// SPDX-License-Identifier: GPL-2.0-only
//! Filling one new node in key order.

use scoutfs_format::le::{U16, U32, U64};
use scoutfs_format::tree::{ITEM_DELETION, ItemHeader, NODE_SPACE, NodeHeader};
use scoutfs_format::{BLOCK_SIZE, Key};
use zerocopy::{FromZeros, IntoBytes};

use super::Item;
use super::node::{ITEM_SIZE, ITEMS_START, Items};
use crate::Error;
use crate::block::NewBlock;

/// A node that is being filled. The bytes between its items and its values are zero.
#[derive(Debug)]
pub(super) struct Builder {
    block: NewBlock,
    nr_items: usize,
    /// Byte offset of the last value.
    values_start: usize,
    /// First key of the range that the node will cover.
    first: Key,
}

impl Builder {
    /// An empty node that covers keys from `first` on.
    pub(super) fn new(first: Key) -> Result<Self, Error> {
        Ok(Builder { block: NewBlock::new()?, nr_items: 0, values_start: BLOCK_SIZE, first })
    }

    pub(super) fn first(&self) -> Key {
        self.first
    }

    pub(super) fn items(&self) -> Items<'_> {
        Items::new(self.block.bytes(), self.nr_items)
    }

    /// Bytes that items and their values take.
    pub(super) fn used(&self) -> usize {
        self.nr_items * ITEM_SIZE + (BLOCK_SIZE - self.values_start)
    }

    fn free(&self) -> usize {
        NODE_SPACE - self.used()
    }

    /// Appends an item, whose key is above all others, if it fits.
    pub(super) fn push(&mut self, item: &Item<'_>) -> bool {
        let len = item.value.len();
        if ITEM_SIZE + len > self.free() {
            return false;
        }
        let mut header = ItemHeader::new_zeroed();
        header.key = item.key.to_raw();
        header.version = U64::new(item.version);
        header.flags = if item.deletion { ITEM_DELETION } else { 0 };
        let end = self.values_start;
        self.values_start -= len;
        let start = self.values_start;
        if len > 0 {
            // Both fit into 16 bits: they are within the block, and there is a header before them.
            header.val_off = U16::new(start as u16);
            header.val_len = U16::new(len as u16);
        }
        let at = ITEMS_START + self.nr_items * ITEM_SIZE;
        let bytes = self.block.bytes_mut();
        bytes[at..at + ITEM_SIZE].copy_from_slice(header.as_bytes());
        bytes[start..end].copy_from_slice(item.value);
        self.nr_items += 1;
        true
    }

    /// Appends items of another node from `start` to before `end`, as many as fit, and returns where it stopped. Their
    /// headers are adjusted and their values copied in one piece, since they lie side by side in the same order.
    pub(super) fn push_run(&mut self, from: &Items<'_>, start: usize, end: usize) -> usize {
        let mut free = self.free();
        let mut at = ITEMS_START + self.nr_items * ITEM_SIZE;
        let mut to = self.values_start;
        // The bytes of the run's values in the other node.
        let mut source_end = 0;
        let mut source_start = 0;
        let mut index = start;
        let bytes = self.block.bytes_mut();
        for header in from.headers().get(start..end).unwrap_or_default() {
            let len = usize::from(header.val_len.get());
            if ITEM_SIZE + len > free {
                break;
            }
            free -= ITEM_SIZE + len;
            let mut header = *header;
            if len > 0 {
                source_start = usize::from(header.val_off.get());
                if source_end == 0 {
                    source_end = source_start + len;
                }
                to -= len;
                header.val_off = U16::new(to as u16);
            }
            bytes[at..at + ITEM_SIZE].copy_from_slice(header.as_bytes());
            at += ITEM_SIZE;
            index += 1;
        }
        let end = self.values_start;
        bytes[to..end].copy_from_slice(from.bytes(source_start..source_end));
        self.values_start = to;
        self.nr_items += index - start;
        index
    }

    /// Keeps the first `nr_items` and makes the rest zero.
    pub(super) fn truncate(&mut self, nr_items: usize) {
        let items = self.items();
        let Some(dropped) = items.headers().get(nr_items..) else {
            return;
        };
        let dropped_bytes: usize = dropped.iter().map(|header| usize::from(header.val_len.get())).sum();
        let values_start = self.values_start + dropped_bytes;
        let (start, old) = (ITEMS_START + nr_items * ITEM_SIZE, ITEMS_START + self.nr_items * ITEM_SIZE);
        let bytes = self.block.bytes_mut();
        bytes[start..old].fill(0);
        bytes[self.values_start..values_start].fill(0);
        self.values_start = values_start;
        self.nr_items = nr_items;
    }

    /// The finished node, ready to be written.
    pub(super) fn finish(mut self, level: u8) -> NewBlock {
        let mut header = NodeHeader::new_zeroed();
        header.nr_items = U32::new(self.nr_items as u32);
        header.value_bytes = U32::new((BLOCK_SIZE - self.values_start) as u32);
        header.level = level;
        self.block.bytes_mut()[..ITEMS_START].copy_from_slice(header.as_bytes());
        self.block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(nr_items: u64) -> Builder {
        let mut node = Builder::new(Key::MIN).unwrap();
        for n in 0..nr_items {
            let value = [n as u8 + 1; 50];
            let item =
                Item { key: Key::inode(n), version: n, deletion: false, value: &value[..n as usize % 50] };
            assert!(node.push(&item));
        }
        node
    }

    /// No byte of an item that went elsewhere stays behind.
    #[test]
    fn a_shortened_node_is_one_that_was_never_longer() {
        for keep in [0, 1, 7, 100] {
            let mut node = filled(100);
            node.truncate(keep);
            assert_eq!(node.used(), filled(keep as u64).used());
            assert_eq!(node.finish(0).bytes(), filled(keep as u64).finish(0).bytes());
        }
    }

    #[test]
    fn a_run_of_items_is_the_same_as_each_item() {
        let all = filled(100);
        for (start, end) in [(0, 100), (0, 0), (50, 51), (51, 99), (99, 100)] {
            let mut one_by_one = filled(9);
            let mut at_once = filled(9);
            for index in start..end {
                assert!(one_by_one.push(&all.items().get(index)));
            }
            assert_eq!(at_once.push_run(&all.items(), start, end), end);
            assert_eq!(at_once.finish(0).bytes(), one_by_one.finish(0).bytes());
        }
    }
}
