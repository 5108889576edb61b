// SPDX-License-Identifier: GPL-2.0-only
//! The tree: finding a place, inserting with splits, removing with merges, and spare nodes.
//!
//! Nothing here compares keys but the searches, which change nothing; so a comparison that panics cannot leave
//! the tree half changed.

use core::cmp::Ordering;
use core::marker::PhantomData;

use super::node::{CAPACITY, MIN_LEN, Node, Position};
use crate::memory::AllocError;

/// A full node is split around this entry.
const MIDDLE: usize = CAPACITY / 2;
/// Two neighbours are merged when they and the entry between them are no more than this; else they are balanced.
const MERGED_MAX: usize = 15;
/// A node that was split, merged or balanced holds at most `MERGED_MAX` entries, so it takes at least this many
/// insertions before it is split (again). [`Tree::reserve`] builds on it.
const INSERTS_PER_SPLIT: usize = CAPACITY + 1 - MERGED_MAX;

const _: () = {
    // The results of a split, after the insertion that caused it.
    assert!(MIDDLE < MERGED_MAX && CAPACITY - MIDDLE <= MERGED_MAX);
    // The results of balancing: a node that is too small with a full one, and the least that is not merged.
    assert!((MIN_LEN - 1 + CAPACITY).div_ceil(2) <= MERGED_MAX);
    assert!(MIDDLE >= MIN_LEN && MERGED_MAX / 2 >= MIN_LEN);
};

/// Owns its nodes, but not what is in them: who drops a tree has taken out or dropped the entries.
pub(super) struct Tree<K, V> {
    /// Once there, it stays: an empty tree may have an empty leaf.
    pub(super) root: Option<Node<K, V>>,
    spare_leaves: Spare<K, V>,
    spare_internals: Spare<K, V>,
    owns: PhantomData<(K, V)>,
}

// SAFETY: the tree owns its nodes and what is in them.
unsafe impl<K: Send, V: Send> Send for Tree<K, V> {}
// SAFETY: as above; a shared tree gives shared access to keys and values only.
unsafe impl<K: Sync, V: Sync> Sync for Tree<K, V> {}

/// Nodes in reserve, chained by their parent pointers.
struct Spare<K, V> {
    first: Option<Node<K, V>>,
    count: usize,
}

impl<K, V> Spare<K, V> {
    const EMPTY: Self = Self { first: None, count: 0 };

    fn fill(&mut self, count: usize, level: usize) -> Result<(), AllocError> {
        while self.count < count {
            self.put(Node::new(level)?);
        }
        Ok(())
    }

    fn put(&mut self, node: Node<K, V>) {
        // SAFETY: the node has just been made, or taken out of the tree; it is ours alone.
        unsafe { node.set_parent(self.first) };
        self.first = Some(node);
        self.count += 1;
    }

    fn take(&mut self) -> Option<Node<K, V>> {
        let node = self.first?;
        // SAFETY: spare nodes are live and ours alone.
        unsafe {
            self.first = node.parent();
            node.set_parent(None);
            node.set_len(0);
        }
        self.count -= 1;
        Some(node)
    }

    fn release(&mut self) {
        while let Some(node) = self.take() {
            // SAFETY: it was ours alone and holds nothing.
            unsafe { node.free() };
        }
    }
}

/// Where a key is, or where it would go.
pub(super) enum Place<K, V> {
    Found(Position<K, V>),
    /// Before this entry of a leaf, which may be one past its last.
    Gap(Position<K, V>),
    /// The tree has no root yet.
    Nowhere,
}

// SAFETY of the blocks below: all nodes that are reached from the root are live, linked both ways, and have as
// many entries and children as they say; the tree is borrowed as the method needs it.
#[allow(clippy::undocumented_unsafe_blocks)]
impl<K, V> Tree<K, V> {
    pub(super) const fn new() -> Self {
        Self { root: None, spare_leaves: Spare::EMPTY, spare_internals: Spare::EMPTY, owns: PhantomData }
    }

    pub(super) fn first(&self) -> Option<Position<K, V>> {
        unsafe { Position::first_below(self.root?) }
    }

    pub(super) fn last(&self) -> Option<Position<K, V>> {
        unsafe { Position::last_below(self.root?) }
    }

    /// Finds a key; `compare` says how an entry's key compares to it.
    pub(super) fn find(&self, compare: impl Fn(&K) -> Ordering) -> Place<K, V> {
        let Some(mut node) = self.root else {
            return Place::Nowhere;
        };
        unsafe {
            loop {
                match node.keys().binary_search_by(&compare) {
                    Ok(index) => return Place::Found(Position { node, index }),
                    Err(index) if node.level() == 0 => {
                        return Place::Gap(Position { node, index });
                    }
                    Err(index) => node = node.child(index),
                }
            }
        }
    }

    /// The first entry for whose key `before` is false. It must be true of all keys up to some point, and then
    /// false.
    pub(super) fn first_not(&self, before: impl Fn(&K) -> bool) -> Option<Position<K, V>> {
        let mut node = self.root?;
        let mut found = None;
        unsafe {
            loop {
                let index = node.keys().partition_point(&before);
                if index < node.len() {
                    found = Some(Position { node, index });
                }
                if node.level() == 0 {
                    return found;
                }
                node = node.child(index);
            }
        }
    }

    /// The last entry for whose key `before` is true, as in [`first_not`](Self::first_not).
    pub(super) fn last_before(&self, before: impl Fn(&K) -> bool) -> Option<Position<K, V>> {
        let mut node = self.root?;
        let mut found = None;
        unsafe {
            loop {
                let index = node.keys().partition_point(&before);
                if let Some(index) = index.checked_sub(1) {
                    found = Some(Position { node, index });
                }
                if node.level() == 0 {
                    return found;
                }
                node = node.child(index);
            }
        }
    }

    /// Inserts an entry at a gap (`None`: into a tree without root). On failure nothing has changed, but that
    /// some nodes may be spare.
    pub(super) fn insert(&mut self, gap: Option<Position<K, V>>, key: K, value: V) -> Result<(), AllocError> {
        let Position { node, index } = match gap {
            Some(gap) => gap,
            None => {
                self.spare_leaves.fill(1, 0)?;
                let node = self.spare_leaves.take().ok_or(AllocError)?;
                self.root = Some(node);
                Position { node, index: 0 }
            }
        };
        unsafe {
            self.prepare_splits(node)?;
            self.insert_splitting(node, index, (key, value))
        }
    }

    /// Makes sure of all nodes that inserting into this leaf takes.
    unsafe fn prepare_splits(&mut self, leaf: Node<K, V>) -> Result<(), AllocError> {
        unsafe {
            if leaf.len() < CAPACITY {
                return Ok(());
            }
            let mut internals = 0;
            let mut node = leaf;
            while node.len() == CAPACITY {
                match node.parent() {
                    Some(parent) if parent.len() < CAPACITY => break,
                    Some(parent) => node = parent,
                    None => {
                        // A new root.
                        internals += 1;
                        break;
                    }
                }
                internals += 1;
            }
            self.spare_leaves.fill(1, 0)?;
            self.spare_internals.fill(internals, 1)
        }
    }

    unsafe fn insert_splitting(
        &mut self,
        mut node: Node<K, V>,
        mut index: usize,
        mut entry: (K, V),
    ) -> Result<(), AllocError> {
        let mut child = None;
        unsafe {
            loop {
                if node.len() < CAPACITY {
                    node.insert(index, entry, child);
                    return Ok(());
                }
                let level = node.level();
                let spare = if level == 0 { &mut self.spare_leaves } else { &mut self.spare_internals };
                // Never an error: the nodes were prepared.
                let right = spare.take().ok_or(AllocError)?;
                let moved = CAPACITY - MIDDLE - 1;
                node.move_entries(MIDDLE + 1, right, 0, moved);
                if level != 0 {
                    right.set_level(level);
                    node.move_children(MIDDLE + 1, right, 0, moved + 1);
                }
                right.set_len(moved);
                let middle = node.read_entry(MIDDLE);
                node.set_len(MIDDLE);
                if index <= MIDDLE {
                    node.insert(index, entry, child);
                } else {
                    right.insert(index - MIDDLE - 1, entry, child);
                }
                // The middle entry goes up, with the new node at its right.
                entry = middle;
                child = Some(right);
                (node, index) = match node.parent() {
                    Some(parent) => (parent, node.index_in(parent)),
                    None => {
                        let root = self.spare_internals.take().ok_or(AllocError)?;
                        root.set_level(level + 1);
                        root.set_child(0, node);
                        self.root = Some(root);
                        (root, 0)
                    }
                };
            }
        }
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, Position { node, index }: Position<K, V>) -> (K, V) {
        unsafe {
            if node.level() == 0 {
                let entry = node.remove(index);
                self.refill(node);
                return entry;
            }
            // The entry before it takes its place; that one is the last of a leaf.
            let mut leaf = node.child(index);
            while leaf.level() != 0 {
                leaf = leaf.child(leaf.len());
            }
            let previous = leaf.remove(leaf.len() - 1);
            let entry = node.read_entry(index);
            node.write_entry(index, previous);
            self.refill(leaf);
            entry
        }
    }

    /// Makes a node that has lost an entry large enough again, and then what that made too small.
    unsafe fn refill(&mut self, mut node: Node<K, V>) {
        unsafe {
            while node.len() < MIN_LEN {
                let Some(parent) = node.parent() else {
                    if node.len() == 0 && node.level() != 0 {
                        let child = node.child(0);
                        child.set_parent(None);
                        self.root = Some(child);
                        // Kept, so that a tree whose root comes and goes does not eat up a reserve.
                        self.spare_internals.put(node);
                    }
                    return;
                };
                let between = node.index_in(parent).saturating_sub(1);
                let (left, right) = (parent.child(between), parent.child(between + 1));
                if left.len() + 1 + right.len() > MERGED_MAX {
                    balance(left, parent, between, right);
                    return;
                }
                let (len, moved) = (left.len(), right.len());
                left.write_entry(len, parent.remove(between));
                right.move_entries(0, left, len + 1, moved);
                if right.level() != 0 {
                    right.move_children(0, left, len + 1, moved + 1);
                }
                left.set_len(len + 1 + moved);
                right.free();
                node = parent;
            }
        }
    }

    /// Makes sure of the nodes that `count` insertions take, wherever they go and whatever is removed between
    /// them. `len` is the number of entries now.
    ///
    /// Of the nodes that a level has now, each may be full and be split by its next insertion; any other split
    /// takes `INSERTS_PER_SPLIT` insertions into its level, and each split is one insertion into the level above.
    /// A level has at most a (MIN_LEN + 1)-th of the nodes of the one below it.
    pub(super) fn reserve(&mut self, len: usize, count: usize) -> Result<(), AllocError> {
        let levels = self.root.map_or(0, |root| unsafe { root.level() } + 1);
        let (mut leaves, mut internals) = (0, 0);
        let mut inserts = count;
        // Between any two leaves stands an entry.
        let mut nodes = len + 1;
        let mut level = 0;
        while inserts > 0 {
            let later_splits = inserts / INSERTS_PER_SPLIT;
            nodes /= MIN_LEN + 1;
            // A level that is not there yet begins with one node.
            let made = inserts.min(nodes.max(1) + later_splits);
            if level == 0 {
                leaves = made;
            } else {
                internals += made;
            }
            inserts = if level < levels { made } else { later_splits };
            level += 1;
        }
        self.spare_leaves.fill(leaves, 0)?;
        self.spare_internals.fill(internals, 1)
    }

    /// Gives back all spare nodes.
    pub(super) fn release_spare(&mut self) {
        self.spare_leaves.release();
        self.spare_internals.release();
    }
}

/// Moves entries between two neighbours, through the entry between them in their parent, until they have the same
/// number.
///
/// # Safety
///
/// `left` and `right` are the children of `parent` on both sides of its entry `between`, and differ in their
/// numbers of entries by two or more.
unsafe fn balance<K, V>(left: Node<K, V>, parent: Node<K, V>, between: usize, right: Node<K, V>) {
    // SAFETY: by the contract. Every entry is read once and written once before lengths are set, and nothing
    // here can panic.
    unsafe {
        let (left_len, right_len) = (left.len(), right.len());
        let left_new = (left_len + right_len) / 2;
        let right_new = left_len + right_len - left_new;
        let internal = left.level() != 0;
        if left_len < left_new {
            let count = left_new - left_len;
            left.write_entry(left_len, parent.read_entry(between));
            right.move_entries(0, left, left_len + 1, count - 1);
            parent.write_entry(between, right.read_entry(count - 1));
            right.move_entries(count, right, 0, right_new);
            if internal {
                right.move_children(0, left, left_len + 1, count);
                right.move_children(count, right, 0, right_new + 1);
            }
        } else {
            let count = left_len - left_new;
            right.move_entries(0, right, count, right_len);
            right.write_entry(count - 1, parent.read_entry(between));
            left.move_entries(left_new + 1, right, 0, count - 1);
            parent.write_entry(between, left.read_entry(left_new));
            if internal {
                right.move_children(0, right, count, right_len + 1);
                left.move_children(left_new + 1, right, 0, count);
            }
        }
        left.set_len(left_new);
        right.set_len(right_new);
    }
}

impl<K, V> Drop for Tree<K, V> {
    fn drop(&mut self) {
        self.release_spare();
        if let Some(root) = self.root {
            // SAFETY: the tree owns its nodes, and nobody uses it any more.
            unsafe { free_below(root) };
        }
    }
}

/// # Safety
///
/// `node` and all below it are live and not used again; their entries have been taken out or dropped.
unsafe fn free_below<K, V>(node: Node<K, V>) {
    // SAFETY: by the contract. The recursion is as deep as the tree is high.
    unsafe {
        if node.level() != 0 {
            for index in 0..=node.len() {
                free_below(node.child(index));
            }
        }
        node.free();
    }
}

#[cfg(test)]
impl<K: Ord, V> Tree<K, V> {
    /// Asserts all that must hold of the tree's shape, and returns how many entries it has.
    pub(super) fn check(&self) -> usize {
        // SAFETY: a shared tree is not changed meanwhile.
        unsafe fn below<K: Ord, V>(
            node: Node<K, V>,
            parent: Option<Node<K, V>>,
            above: (Option<&K>, Option<&K>),
        ) -> usize {
            // SAFETY: as above.
            unsafe {
                assert!(node.parent() == parent);
                let (len, keys) = (node.len(), node.keys());
                assert!(len <= CAPACITY);
                assert!(parent.is_none() || len >= MIN_LEN);
                assert!(node.level() == 0 || len >= 1);
                assert!(keys.is_sorted_by(|a, b| a < b));
                assert!(above.0.is_none_or(|low| keys.first().unwrap() > low));
                assert!(above.1.is_none_or(|high| keys.last().unwrap() < high));
                let mut count = len;
                if node.level() != 0 {
                    for index in 0..=len {
                        let child = node.child(index);
                        assert_eq!(child.level() + 1, node.level());
                        let low = index.checked_sub(1).map(|low| &keys[low]).or(above.0);
                        let high = keys.get(index).or(above.1);
                        count += below(child, Some(node), (low, high));
                    }
                }
                count
            }
        }
        // SAFETY: as above.
        self.root.map_or(0, |root| unsafe { below(root, None, (None, None)) })
    }
}
