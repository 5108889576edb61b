// SPDX-License-Identifier: GPL-2.0-only
//! Reading one tree.

use scoutfs_format::Key;
use scoutfs_format::tree::TreeRoot;

use super::{Item, Node, Place};
use crate::Error;
use crate::block::BlockCache;

/// A leaf, or the emptiness of an empty tree, and the range of keys that it covers: a key of the range without an item here
/// is nowhere in the tree.
#[derive(Debug, Clone)]
pub struct Leaf {
    node: Option<Node>,
    first: Key,
    last: Key,
}

impl Leaf {
    /// First key that the leaf covers; [`Key::MIN`] in the first leaf.
    pub fn first(&self) -> Key {
        self.first
    }

    /// Last key that the leaf covers; [`Key::MAX`] in the last leaf.
    pub fn last(&self) -> Key {
        self.last
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.node.as_ref().map_or(0, Node::len)
    }

    /// Whether there are no items, which is so only in an empty tree.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An item in key order.
    pub fn get(&self, index: usize) -> Option<Item<'_>> {
        self.node.as_ref().filter(|node| index < node.len()).map(|node| node.item(index))
    }

    /// Index of the first item at or above `key`; [`len`](Self::len) when there is none.
    pub fn lower_bound(&self, key: &Key) -> usize {
        self.node.as_ref().map_or(0, |node| node.items().lower_bound(0, key))
    }

    /// The item with this very key.
    pub fn find(&self, key: &Key) -> Option<Item<'_>> {
        self.get(self.lower_bound(key)).filter(|item| item.key == *key)
    }

    /// Items in `first..=last`, in key order.
    pub fn range(&self, first: &Key, last: Key) -> impl Iterator<Item = Item<'_>> {
        (self.lower_bound(first)..self.len())
            .map_while(|index| self.get(index))
            .take_while(move |item| item.key <= last)
    }

    /// All items in key order.
    pub fn iter(&self) -> impl Iterator<Item = Item<'_>> {
        (0..self.len()).map_while(|index| self.get(index))
    }
}

/// An item that keeps its node in memory.
#[derive(Debug, Clone)]
pub struct ItemGuard {
    node: Node,
    index: usize,
}

impl ItemGuard {
    /// The item.
    pub fn item(&self) -> Item<'_> {
        self.node.item(self.index)
    }

    /// The leaf that holds it.
    pub fn node(&self) -> &Node {
        &self.node
    }
}

/// The leaf of a tree that covers `key`. An empty tree has an empty leaf that covers everything.
pub fn leaf(cache: &BlockCache, root: &TreeRoot, key: &Key) -> Result<Leaf, Error> {
    let Some(mut place) = Place::of_root(root)? else {
        return Ok(Leaf { node: None, first: Key::MIN, last: Key::MAX });
    };
    loop {
        let node = Node::read(cache, &place)?;
        if place.level == 0 {
            return Ok(Leaf { node: Some(node), first: place.first, last: place.last });
        }
        // One level down each time: `Node::read` refuses a node of any other level.
        place = node.child(node.child_index(key), place.last);
    }
}

/// The item with this very key, a deletion included. Allocates nothing when all nodes are in the cache.
pub fn lookup(cache: &BlockCache, root: &TreeRoot, key: &Key) -> Result<Option<ItemGuard>, Error> {
    let leaf = leaf(cache, root, key)?;
    let index = leaf.lower_bound(key);
    Ok(leaf
        .node
        .filter(|node| index < node.len() && node.key(index) == *key)
        .map(|node| ItemGuard { node, index }))
}

/// The first item at or above `from`, a deletion included.
pub fn next(cache: &BlockCache, root: &TreeRoot, from: &Key) -> Result<Option<ItemGuard>, Error> {
    let mut cursor = Cursor::new(cache, *root, *from);
    cursor.peek()?;
    let index = cursor.index;
    Ok(cursor.leaf.and_then(|leaf| leaf.node).map(|node| ItemGuard { node, index }))
}

/// Reads the items of a tree in key order, deletions included. Holds one leaf at a time.
pub struct Cursor<'a> {
    cache: &'a BlockCache,
    root: TreeRoot,
    /// Where to go on when there is no leaf; `None` at the end.
    from: Option<Key>,
    leaf: Option<Leaf>,
    index: usize,
}

impl<'a> Cursor<'a> {
    /// Begins at the first item at or above `from`.
    pub fn new(cache: &'a BlockCache, root: TreeRoot, from: Key) -> Self {
        Cursor { cache, root, from: Some(from), leaf: None, index: 0 }
    }

    /// The item that the cursor is at, `None` behind the last one.
    pub fn peek(&mut self) -> Result<Option<Item<'_>>, Error> {
        self.settle()?;
        let index = self.index;
        Ok(self.leaf.as_ref().and_then(|leaf| leaf.get(index)))
    }

    /// Moves on from the item that [`peek`](Self::peek) gave.
    pub fn advance(&mut self) {
        if self.leaf.is_some() {
            self.index = self.index.saturating_add(1);
        }
    }

    /// Makes sure that there is an item in `leaf` at `index`, or that there is no leaf and the cursor is at its end.
    fn settle(&mut self) -> Result<(), Error> {
        loop {
            if let Some(current) = &self.leaf {
                if self.index < current.len() {
                    return Ok(());
                }
                // Progress: each leaf covers the keys that follow those of the one before.
                self.from = current.last.next();
                self.leaf = None;
            }
            let Some(from) = self.from else {
                return Ok(());
            };
            let next = leaf(self.cache, &self.root, &from)?;
            self.index = next.lower_bound(&from);
            self.leaf = Some(next);
        }
    }
}
