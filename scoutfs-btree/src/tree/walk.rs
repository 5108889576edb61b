// SPDX-License-Identifier: GPL-2.0-only
//! Visiting every node of a tree, for check and print.

use scoutfs_env::Vec;
use scoutfs_format::Key;
use scoutfs_format::tree::{MAX_TREE_HEIGHT, TreeRoot};

use super::{Node, Place};
use crate::Error;
use crate::block::BlockCache;

/// What is told of each node. An error that a method returns ends the walk.
pub trait Visitor {
    /// A node, before its children.
    fn node(&mut self, place: &Place, node: &Node) -> Result<(), Error>;

    /// A node that could not be read, is stale or is corrupt; nothing below it is visited.
    fn broken(&mut self, place: &Place, error: Error) -> Result<(), Error>;
}

/// Visits all nodes of a tree in key order, parents before children, and goes on past broken ones.
pub fn walk(cache: &BlockCache, root: &TreeRoot, visitor: &mut dyn Visitor) -> Result<(), Error> {
    walk_down_to(cache, root, 0, visitor)
}

/// As [`walk`], but nodes of levels below `lowest` are not visited.
pub fn walk_down_to(
    cache: &BlockCache,
    root: &TreeRoot,
    lowest: u8,
    visitor: &mut dyn Visitor,
) -> Result<(), Error> {
    let top = match Place::of_root(root) {
        Ok(Some(top)) if top.level >= lowest => top,
        Ok(_) => return Ok(()),
        Err(error) => {
            let place = Place {
                block: root.block,
                level: root.height.saturating_sub(1),
                first: Key::MIN,
                last: Key::MAX,
            };
            return visitor.broken(&place, error);
        }
    };
    let mut path: Vec<(Node, usize, Key)> = Vec::with_capacity(MAX_TREE_HEIGHT.into())?;
    let mut next = Some(top);
    loop {
        if let Some(place) = next.take() {
            match Node::read(cache, &place) {
                Ok(node) => {
                    visitor.node(&place, &node)?;
                    if place.level > lowest {
                        path.push((node, 0, place.last))?;
                    }
                }
                Err(Error::NoMemory) => return Err(Error::NoMemory),
                Err(error) => visitor.broken(&place, error)?,
            }
        }
        let Some((node, index, last)) = path.last_mut() else {
            return Ok(());
        };
        if *index < node.len() {
            next = Some(node.child(*index, *last));
            *index += 1;
        } else {
            path.pop();
        }
    }
}
