// SPDX-License-Identifier: GPL-2.0-only
//! Freeing a whole tree, piece by piece.

use scoutfs_env::Vec;
use scoutfs_format::Key;
use scoutfs_format::tree::{MAX_TREE_HEIGHT, TreeRoot};

use super::{Node, Place};
use crate::Error;
use crate::block::{BlockCache, BlockSpace};

/// How far the freeing of a tree has come. All nodes that cover nothing at or above the position are free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreeCursor {
    position: Option<Key>,
}

impl FreeCursor {
    /// Nothing is freed yet.
    pub const START: FreeCursor = FreeCursor { position: Some(Key::MIN) };

    /// Goes on at a position that was stored.
    pub const fn at(position: Key) -> Self {
        FreeCursor { position: Some(position) }
    }

    /// Where to go on; `None` when all is freed.
    pub const fn position(&self) -> Option<Key> {
        self.position
    }
}

/// Frees blocks of a tree from where the cursor stands, until it is done (returns true) or at least `max_blocks` (no
/// less than one) are freed; it may free one more for each level. Each block is freed exactly once over all calls, a
/// parent together with its last child, so that what is left can always be reached. Leaves are not read.
///
/// On an error `cursor` is as before, and the caller rolls `space` back to what it was before the call.
pub fn free_tree(
    cache: &BlockCache,
    space: &mut dyn BlockSpace,
    root: &TreeRoot,
    cursor: &mut FreeCursor,
    max_blocks: u64,
) -> Result<bool, Error> {
    let Some(top) = Place::of_root(root)? else {
        cursor.position = None;
        return Ok(true);
    };
    let mut path: Vec<(Node, usize, Place)> = Vec::with_capacity(MAX_TREE_HEIGHT.into())?;
    let mut position = cursor.position;
    let mut freed = 0u64;
    while let Some(from) = position {
        // Down to the leaf that covers `from`.
        path.clear();
        let mut place = top;
        while place.level > 0 {
            let node = Node::read(cache, &place)?;
            let index = node.child_index(&from);
            let child = node.child(index, place.last);
            path.push((node, index, place))?;
            place = child;
        }
        // All leaves of its parent from there on, and the parents that end with them.
        loop {
            space.free_block(&place.block)?;
            freed = freed.saturating_add(1);
            position = place.last.next();
            let Some((node, index, parent)) = path.last_mut() else {
                break;
            };
            *index += 1;
            if *index < node.len() {
                if place.level > 0 || freed >= max_blocks {
                    break;
                }
                place = node.child(*index, parent.last);
            } else {
                place = *parent;
                path.pop();
            }
        }
        if freed >= max_blocks {
            break;
        }
    }
    cursor.position = position;
    Ok(position.is_none())
}
