// SPDX-License-Identifier: GPL-2.0-only
//! Nodes: the one check of their structure, and reading them.
//!
//! `verify` is called once, when a node has been read from the device. All that is found wrong there is an error; what
//! is read of a [`Node`] afterwards cannot fail and is not checked again.

use core::ops::Range;

use scoutfs_env::Arc;
use scoutfs_format::block::MAGIC_NODE;
use scoutfs_format::geometry::Geometry;
use scoutfs_format::tree::{ITEM_DELETION, ITEM_FLAGS, ItemHeader, MAX_VALUE_LEN, NODE_SPACE, NodeHeader};
use scoutfs_format::{BLOCK_SIZE, BlockRef, Key};
use zerocopy::FromBytes;

use super::{Item, Place};
use crate::block::{Block, BlockCache};
use crate::{CorruptKind, Error};

/// Byte offset of the first item.
pub(super) const ITEMS_START: usize = size_of::<NodeHeader>();
/// Bytes of an item without its value.
pub(super) const ITEM_SIZE: usize = size_of::<ItemHeader>();
/// Most items that fit into a node.
const MAX_ITEMS: usize = NODE_SPACE / ITEM_SIZE;

/// The items in the bytes of a node. The structure is known to be sound.
#[derive(Clone, Copy)]
pub(super) struct Items<'a> {
    bytes: &'a [u8],
    headers: &'a [ItemHeader],
}

impl<'a> Items<'a> {
    /// The first `nr_items` of a node that was verified or is being built.
    pub(super) fn new(bytes: &'a [u8], nr_items: usize) -> Self {
        let headers = bytes
            .get(ITEMS_START..ITEMS_START + nr_items * ITEM_SIZE)
            .and_then(|bytes| <[ItemHeader]>::ref_from_bytes(bytes).ok())
            .unwrap_or_default();
        Items { bytes, headers }
    }

    pub(super) fn headers(&self) -> &'a [ItemHeader] {
        self.headers
    }

    pub(super) fn len(&self) -> usize {
        self.headers.len()
    }

    pub(super) fn key(&self, index: usize) -> Key {
        self.headers[index].key.get()
    }

    /// Bytes that an item takes, its value included.
    pub(super) fn size(header: &ItemHeader) -> usize {
        ITEM_SIZE + usize::from(header.val_len.get())
    }

    pub(super) fn value(&self, index: usize) -> &'a [u8] {
        let header = &self.headers[index];
        let start = usize::from(header.val_off.get());
        let len = usize::from(header.val_len.get());
        self.bytes.get(start..start + len).unwrap_or_default()
    }

    pub(super) fn get(&self, index: usize) -> Item<'a> {
        let header = &self.headers[index];
        Item {
            key: header.key.get(),
            version: header.version.get(),
            deletion: header.flags & ITEM_DELETION != 0,
            value: self.value(index),
        }
    }

    /// The bytes `range` of the block.
    pub(super) fn bytes(&self, range: Range<usize>) -> &'a [u8] {
        self.bytes.get(range).unwrap_or_default()
    }

    /// The first index of `from..` whose key is at or above `key`.
    pub(super) fn lower_bound(&self, from: usize, key: &Key) -> usize {
        let tail = self.headers.get(from..).unwrap_or_default();
        // Dense changes meet each item in turn.
        if tail.first().is_none_or(|header| header.key.get() >= *key) {
            return from;
        }
        from + tail.partition_point(|header| header.key.get() < *key)
    }
}

/// What descending through a node needs first, kept with its block so that it takes no look into the node itself.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Summary {
    nr_items: u32,
    value_bytes: u32,
    level: u8,
    /// Key of the first item.
    first: Key,
    /// Key of the last item.
    last: Key,
}

impl Summary {
    /// Of a node that was verified or has been built.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let Ok((header, _)) = NodeHeader::ref_from_prefix(bytes) else {
            return Summary::default();
        };
        let nr_items = header.nr_items.get();
        let headers = Items::new(bytes, nr_items as usize).headers;
        let key = |header: Option<&ItemHeader>| header.map_or(Key::MIN, |header| header.key.get());
        Summary {
            nr_items,
            value_bytes: header.value_bytes.get(),
            level: header.level,
            first: key(headers.first()),
            last: key(headers.last()),
        }
    }
}

/// A node of a tree, in memory, its structure verified. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Node {
    block: Arc<Block>,
}

impl Node {
    /// Reads the node at the root of a place and checks that it is what its parents say: of that level, and with no
    /// item outside of its range. As ranges of siblings do not overlap and no node is empty, no block can be
    /// reached in two ways, so whatever visits all nodes of a tree comes to an end.
    pub fn read(cache: &BlockCache, place: &Place) -> Result<Self, Error> {
        let block = cache.read(&place.block, MAGIC_NODE)?;
        let node = Node { block };
        node.check_place(place).map_err(|kind| Error::corrupt(place.block.blkno.get(), kind))?;
        Ok(node)
    }

    fn check_place(&self, place: &Place) -> Result<(), CorruptKind> {
        let Summary { level, first, last, .. } = *self.block.summary();
        if level != place.level {
            return Err(CorruptKind::Level { expected: place.level, found: level });
        }
        if level > 0 && first != place.first {
            return Err(CorruptKind::FirstKey { expected: place.first, found: first });
        }
        for key in [first, last] {
            if key < place.first || key > place.last {
                return Err(CorruptKind::KeyOutside { key, first: place.first, last: place.last });
            }
        }
        Ok(())
    }

    /// The block that holds the node.
    pub fn reference(&self) -> &BlockRef {
        self.block.reference()
    }

    /// 0 is a leaf.
    pub fn level(&self) -> u8 {
        self.block.summary().level
    }

    /// Number of items, at least 1.
    pub fn len(&self) -> usize {
        self.block.summary().nr_items as usize
    }

    /// Never: a tree without items has no nodes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that headers and values of the items take, at most [`NODE_SPACE`].
    pub fn used_bytes(&self) -> usize {
        self.len() * ITEM_SIZE + self.block.summary().value_bytes as usize
    }

    /// Key of an item. Panics when `index` is not below [`len`](Self::len).
    pub fn key(&self, index: usize) -> Key {
        self.items().key(index)
    }

    /// An item; in a parent its value is the child's [`BlockRef`]. Panics when `index` is not below
    /// [`len`](Self::len).
    pub fn item(&self, index: usize) -> Item<'_> {
        self.items().get(index)
    }

    pub(super) fn items(&self) -> Items<'_> {
        Items::new(self.block.bytes(), self.len())
    }

    /// Index of the child that covers `key`, which lies in the range of this parent.
    pub(super) fn child_index(&self, key: &Key) -> usize {
        let above = self.items().headers.partition_point(|header| header.key.get() <= *key);
        above.saturating_sub(1)
    }

    /// A child of this parent, whose own last key is `last`. Panics when `index` is not below [`len`](Self::len).
    pub fn child(&self, index: usize, last: Key) -> Place {
        let items = self.items();
        Place {
            block: BlockRef::read_from_bytes(items.value(index)).unwrap_or(BlockRef::NONE),
            level: self.level().saturating_sub(1),
            first: items.key(index),
            last: match items.headers.get(index + 1) {
                Some(next) => next.key.get().saturating_prev(),
                None => last,
            },
        }
    }
}

/// Checks the structure of a node: all that can be said without its parents.
pub(crate) fn verify(bytes: &[u8], geometry: &Geometry) -> Result<(), CorruptKind> {
    let empty = CorruptKind::ItemCount { found: 0, max: MAX_ITEMS as u32 };
    let Ok((header, _)) = NodeHeader::ref_from_prefix(bytes) else {
        return Err(empty);
    };
    let found = header.nr_items.get();
    if found == 0 || found as usize > MAX_ITEMS {
        return Err(CorruptKind::ItemCount { found, max: MAX_ITEMS as u32 });
    }
    let nr_items = found as usize;
    let items = Items::new(bytes, nr_items);
    let items_end = ITEMS_START + nr_items * ITEM_SIZE;
    let mut values_start = BLOCK_SIZE;
    let mut previous: Option<Key> = None;
    for (index, item) in (0u32..).zip(items.headers) {
        let key = item.key.get();
        if let Some(previous) = previous
            && key <= previous
        {
            return Err(CorruptKind::KeyOrder { index, previous, key });
        }
        previous = Some(key);
        verify_state(index, item, header.level)?;
        let len = usize::from(item.val_len.get());
        let free = values_start.saturating_sub(items_end);
        if len > free {
            return Err(CorruptKind::ValueSpace { index, len: len as u32, free: free as u32 });
        }
        values_start -= len;
        let expected = if len == 0 { 0 } else { values_start };
        if usize::from(item.val_off.get()) != expected {
            return Err(CorruptKind::ValueOffset {
                index,
                expected: expected as u32,
                found: item.val_off.get().into(),
            });
        }
        if header.level > 0 {
            verify_child(index, items.value(index as usize), geometry)?;
        }
    }
    let found = (BLOCK_SIZE - values_start) as u32;
    if header.value_bytes.get() != found {
        return Err(CorruptKind::ValueBytes { counted: header.value_bytes.get(), found });
    }
    Ok(())
}

fn verify_state(index: u32, item: &ItemHeader, level: u8) -> Result<(), CorruptKind> {
    let len = u32::from(item.val_len.get());
    if len as usize > MAX_VALUE_LEN {
        return Err(CorruptKind::ValueLen { index, len, max: MAX_VALUE_LEN as u32 });
    }
    let sound = if level > 0 {
        item.flags == 0 && item.version.get() == 0 && len as usize == size_of::<BlockRef>()
    } else {
        item.flags & !ITEM_FLAGS == 0 && (item.flags & ITEM_DELETION == 0 || len == 0)
    };
    if sound {
        return Ok(());
    }
    Err(CorruptKind::ItemState { index, level, flags: item.flags, version: item.version.get(), len })
}

fn verify_child(index: u32, value: &[u8], geometry: &Geometry) -> Result<(), CorruptKind> {
    let child = BlockRef::read_from_bytes(value).unwrap_or(BlockRef::NONE);
    let blkno = child.blkno.get();
    if geometry.has_meta_block(blkno) { Ok(()) } else { Err(CorruptKind::Child { index, blkno }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scoutfs_format::le::{U16, U32, U64};
    use scoutfs_format::tree::MAX_VALUE_LEN;
    use std::vec::Vec;
    use zerocopy::{FromZeros, IntoBytes};

    fn geometry() -> Geometry {
        Geometry::new(64 << 20, 1).unwrap()
    }

    /// A node whose values have these lengths, laid out as they have to be; in a parent they are all the same child.
    fn node(level: u8, lens: &[usize], change: impl FnOnce(&mut NodeHeader, &mut [ItemHeader])) -> Vec<u8> {
        let mut bytes = std::vec![0; BLOCK_SIZE];
        let mut header = NodeHeader::new_zeroed();
        header.nr_items = U32::new(lens.len() as u32);
        header.value_bytes = U32::new(lens.iter().sum::<usize>() as u32);
        header.level = level;
        let child = BlockRef::new(geometry().first_meta_block(), 1, 1);
        let mut end = BLOCK_SIZE;
        let mut items = Vec::new();
        for (n, len) in (0..).zip(lens) {
            let mut item = ItemHeader::new_zeroed();
            item.key = Key::inode(n).to_raw();
            item.val_len = U16::new(*len as u16);
            if *len > 0 && *len <= end {
                end -= len;
                item.val_off = U16::new(end as u16);
                if level > 0 {
                    bytes[end..end + len].copy_from_slice(&child.as_bytes()[..*len]);
                }
            }
            items.push(item);
        }
        change(&mut header, &mut items);
        bytes[..ITEMS_START].copy_from_slice(header.as_bytes());
        let end = ITEMS_START + items.len() * ITEM_SIZE;
        bytes[ITEMS_START..end].copy_from_slice(items.as_bytes());
        bytes
    }

    #[test]
    fn sound_nodes_are_accepted() {
        for node in [
            node(0, &[0], |_, _| ()),
            node(0, &[10, 0, 4096], |_, _| ()),
            node(0, &[0; MAX_ITEMS], |_, _| ()),
            node(0, &[MAX_VALUE_LEN; 15], |_, _| ()),
            node(1, &[24; 909], |_, _| ()),
            node(0, &[0], |_, items| items[0].flags = ITEM_DELETION),
        ] {
            assert_eq!(verify(&node, &geometry()), Ok(()));
        }
    }

    #[test]
    fn each_broken_invariant_is_named() {
        let max = MAX_ITEMS as u32;
        let state =
            |level, flags, version, len| CorruptKind::ItemState { index: 0, level, flags, version, len };
        for (node, kind) in [
            (node(0, &[], |_, _| ()), CorruptKind::ItemCount { found: 0, max }),
            (
                node(0, &[1], |header, _| header.nr_items = U32::new(max + 1)),
                CorruptKind::ItemCount { found: max + 1, max },
            ),
            (
                node(0, &[1, 1], |_, items| items[1].key = items[0].key),
                CorruptKind::KeyOrder { index: 1, previous: Key::inode(0), key: Key::inode(0) },
            ),
            (
                node(0, &[1, 1], |_, items| items[1].val_off = items[0].val_off),
                CorruptKind::ValueOffset { index: 1, expected: 65534, found: 65535 },
            ),
            (
                node(0, &[0], |_, items| items[0].val_off = U16::new(9)),
                CorruptKind::ValueOffset { index: 0, expected: 0, found: 9 },
            ),
            (node(0, &[4097], |_, _| ()), CorruptKind::ValueLen { index: 0, len: 4097, max: 4096 }),
            (
                node(0, &[MAX_VALUE_LEN; 17], |_, _| ()),
                CorruptKind::ValueSpace { index: 15, len: 4096, free: 3216 },
            ),
            (
                node(0, &[3], |header, _| header.value_bytes = U32::new(4)),
                CorruptKind::ValueBytes { counted: 4, found: 3 },
            ),
            (node(0, &[1], |_, items| items[0].flags = ITEM_DELETION), state(0, 1, 0, 1)),
            (node(0, &[1], |_, items| items[0].flags = 2), state(0, 2, 0, 1)),
            (node(1, &[24], |_, items| items[0].flags = ITEM_DELETION), state(1, 1, 0, 24)),
            (node(1, &[24], |_, items| items[0].version = U64::new(3)), state(1, 0, 3, 24)),
            (node(1, &[23], |_, _| ()), state(1, 0, 0, 23)),
        ] {
            assert_eq!(verify(&node, &geometry()), Err(kind));
        }
        let mut outside = node(1, &[24], |_, _| ());
        outside[BLOCK_SIZE - 24] = 1;
        assert_eq!(verify(&outside, &geometry()), Err(CorruptKind::Child { index: 0, blkno: 1 }));
    }
}
