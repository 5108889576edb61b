// SPDX-License-Identifier: GPL-2.0-only
//! Nodes of the tree and moves of entries within and between them.
//!
//! All is done through raw pointers, and references are made only to single entries or to the keys of a node.
//! So a reference to one value (as `range_mut` gives out) stays valid while the tree is walked.

use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use crate::memory::{AllocError, allocate, release};

/// Most entries of a node.
pub(super) const CAPACITY: usize = 23;
/// Fewest entries of a node that is not the root.
pub(super) const MIN_LEN: usize = 5;

/// A node without children, and the first part of one with children.
#[repr(C)]
struct Leaf<K, V> {
    parent: Option<Node<K, V>>,
    len: u16,
    /// Distance from the leaves.
    level: u16,
    keys: [MaybeUninit<K>; CAPACITY],
    values: [MaybeUninit<V>; CAPACITY],
}

/// A node with one child more than it has entries; entry `i` lies between children `i` and `i + 1`.
#[repr(C)]
struct Internal<K, V> {
    leaf: Leaf<K, V>,
    children: [MaybeUninit<Node<K, V>>; CAPACITY + 1],
}

/// Points to a [`Leaf`], which is the beginning of an [`Internal`] when its level is not 0.
///
/// # Safety
///
/// All methods ask that the node is live and, unless they only read, that nobody else uses the part that
/// they change; indexes are those of existing entries or children, and no node gets more than it has room for.
pub(super) struct Node<K, V>(NonNull<Leaf<K, V>>);

impl<K, V> Clone for Node<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Node<K, V> {}

impl<K, V> PartialEq for Node<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

// SAFETY of the blocks below: the contract of `Node`, which each caller keeps, and places of a live node are
// reached by plain field access through its pointer.
#[allow(clippy::undocumented_unsafe_blocks)]
impl<K, V> Node<K, V> {
    /// A node without entries, parent or children; `level` may be changed later, but not to or from 0.
    pub(super) fn new(level: usize) -> Result<Self, AllocError> {
        let memory: NonNull<Leaf<K, V>> =
            if level == 0 { allocate()? } else { allocate::<Internal<K, V>>()?.cast() };
        let node = Self(memory);
        // SAFETY: fresh memory for at least a leaf. Field by field: a node may be too large for the stack.
        unsafe {
            (&raw mut (*memory.as_ptr()).parent).write(None);
            (&raw mut (*memory.as_ptr()).len).write(0);
            (&raw mut (*memory.as_ptr()).level).write(level as u16);
        }
        Ok(node)
    }

    /// Gives the memory back; entries and children have been taken out or dropped.
    pub(super) unsafe fn free(self) {
        unsafe {
            if self.level() == 0 {
                release(self.0);
            } else {
                release(self.0.cast::<Internal<K, V>>());
            }
        }
    }

    pub(super) unsafe fn len(self) -> usize {
        unsafe { (*self.0.as_ptr()).len.into() }
    }

    pub(super) unsafe fn set_len(self, len: usize) {
        // At most CAPACITY.
        unsafe { (*self.0.as_ptr()).len = len as u16 };
    }

    pub(super) unsafe fn level(self) -> usize {
        unsafe { (*self.0.as_ptr()).level.into() }
    }

    pub(super) unsafe fn set_level(self, level: usize) {
        // Far below 2^16: every level has at least six times the nodes of the one above it.
        unsafe { (*self.0.as_ptr()).level = level as u16 };
    }

    pub(super) unsafe fn parent(self) -> Option<Self> {
        unsafe { (*self.0.as_ptr()).parent }
    }

    pub(super) unsafe fn set_parent(self, parent: Option<Self>) {
        unsafe { (*self.0.as_ptr()).parent = parent };
    }

    pub(super) unsafe fn key(self, index: usize) -> *mut K {
        unsafe { (&raw mut (*self.0.as_ptr()).keys).cast::<K>().add(index) }
    }

    pub(super) unsafe fn value(self, index: usize) -> *mut V {
        unsafe { (&raw mut (*self.0.as_ptr()).values).cast::<V>().add(index) }
    }

    pub(super) unsafe fn keys<'a>(self) -> &'a [K] {
        unsafe { core::slice::from_raw_parts(self.key(0), self.len()) }
    }

    unsafe fn child_place(self, index: usize) -> *mut Self {
        let internal = self.0.cast::<Internal<K, V>>().as_ptr();
        unsafe { (&raw mut (*internal).children).cast::<Self>().add(index) }
    }

    pub(super) unsafe fn child(self, index: usize) -> Self {
        unsafe { self.child_place(index).read() }
    }

    /// Makes `child` the one at `index`, replacing what was there.
    pub(super) unsafe fn set_child(self, index: usize, child: Self) {
        unsafe {
            self.child_place(index).write(child);
            child.set_parent(Some(self));
        }
    }

    /// Which child of `parent` this is. A scan of at most three cache lines; keeping the number in each child
    /// instead would touch all of them whenever children move.
    pub(super) unsafe fn index_in(self, parent: Self) -> usize {
        unsafe {
            let mut index = 0;
            while parent.child(index) != self {
                index += 1;
            }
            index
        }
    }

    /// Moves `count` entries of this node to another place, in this or another node. Lengths stay.
    pub(super) unsafe fn move_entries(self, from: usize, to: Self, at: usize, count: usize) {
        unsafe {
            ptr::copy(self.key(from), to.key(at), count);
            ptr::copy(self.value(from), to.value(at), count);
        }
    }

    /// Moves `count` children of this node to another place, in this or another node.
    pub(super) unsafe fn move_children(self, from: usize, to: Self, at: usize, count: usize) {
        unsafe {
            ptr::copy(self.child_place(from), to.child_place(at), count);
            if to != self {
                for index in at..at + count {
                    to.child(index).set_parent(Some(to));
                }
            }
        }
    }

    pub(super) unsafe fn read_entry(self, index: usize) -> (K, V) {
        unsafe { (self.key(index).read(), self.value(index).read()) }
    }

    pub(super) unsafe fn write_entry(self, index: usize, (key, value): (K, V)) {
        unsafe {
            self.key(index).write(key);
            self.value(index).write(value);
        }
    }

    /// Inserts an entry, and the child to its right if this is not a leaf.
    pub(super) unsafe fn insert(self, index: usize, entry: (K, V), right: Option<Self>) {
        unsafe {
            let len = self.len();
            self.move_entries(index, self, index + 1, len - index);
            self.write_entry(index, entry);
            if let Some(right) = right {
                self.move_children(index + 1, self, index + 2, len - index);
                self.set_child(index + 1, right);
            }
            self.set_len(len + 1);
        }
    }

    /// Takes an entry out, and forgets the child to its right if this is not a leaf.
    pub(super) unsafe fn remove(self, index: usize) -> (K, V) {
        unsafe {
            let len = self.len();
            let entry = self.read_entry(index);
            self.move_entries(index + 1, self, index, len - index - 1);
            if self.level() != 0 {
                self.move_children(index + 2, self, index + 1, len - index - 1);
            }
            self.set_len(len - 1);
            entry
        }
    }
}

/// An entry of a tree.
pub(super) struct Position<K, V> {
    pub(super) node: Node<K, V>,
    pub(super) index: usize,
}

impl<K, V> Clone for Position<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Position<K, V> {}

impl<K, V> PartialEq for Position<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.node == other.node && self.index == other.index
    }
}

// SAFETY of the blocks below: as for `Node`.
#[allow(clippy::undocumented_unsafe_blocks)]
impl<K, V> Position<K, V> {
    /// The first entry below `node`; none only in an empty root.
    pub(super) unsafe fn first_below(mut node: Node<K, V>) -> Option<Self> {
        unsafe {
            while node.level() != 0 {
                node = node.child(0);
            }
            (node.len() != 0).then_some(Self { node, index: 0 })
        }
    }

    /// The last entry below `node`; none only in an empty root.
    pub(super) unsafe fn last_below(mut node: Node<K, V>) -> Option<Self> {
        unsafe {
            while node.level() != 0 {
                node = node.child(node.len());
            }
            let index = node.len().checked_sub(1)?;
            Some(Self { node, index })
        }
    }

    pub(super) unsafe fn next(self) -> Option<Self> {
        let Self { mut node, index } = self;
        unsafe {
            if node.level() != 0 {
                return Self::first_below(node.child(index + 1));
            }
            let mut index = index + 1;
            while index == node.len() {
                let parent = node.parent()?;
                index = node.index_in(parent);
                node = parent;
            }
            Some(Self { node, index })
        }
    }

    pub(super) unsafe fn previous(self) -> Option<Self> {
        let Self { mut node, index } = self;
        unsafe {
            if node.level() != 0 {
                return Self::last_below(node.child(index));
            }
            let mut index = index;
            while index == 0 {
                let parent = node.parent()?;
                index = node.index_in(parent);
                node = parent;
            }
            Some(Self { node, index: index - 1 })
        }
    }
}
