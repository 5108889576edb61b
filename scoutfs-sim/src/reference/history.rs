// SPDX-License-Identifier: GPL-2.0-only
//! What a crash may leave.
//!
//! A mount commits whole transactions in their order, and no call's change of names or attributes is ever in two of them. So a
//! crash leaves the tree as it was after some call, and none before the last that was acknowledged: `sync` and `syncfs` acknowledge
//! all calls before it, `fsync` all up to the last one that changed the inode. Three things are not as simple as that:
//!
//! - Files that were open and had no name are gone.
//! - Calls that change the contents of a file work block by block, so the newest of them may be there in part: of a write the
//!   first so many blocks, of an allocation the first so many of its steps.
//! - What is written to blocks that the file has is written in place, at once. So in a block that is written in the tree as
//!   it was left, each byte may also be any that the file had there after a later call; a byte behind the end
//!   of the file is zero. In all other blocks, nothing of later calls may show.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::apply::parts;
use super::call::Call;
use super::names::Nodes;
use super::node::{BLOCK, Content, Node, Seen};

/// All inodes that have names, as they were found.
pub type Found = BTreeMap<u64, Seen>;

/// The states since the last crash or unmount.
pub struct History {
    /// The first state, then each call with the state that it led to.
    states: Vec<(Option<Call>, Nodes)>,
    /// The first state that a crash may leave.
    durable: usize,
    /// The state that the last change of each inode led to.
    changed: BTreeMap<u64, usize>,
}

impl History {
    /// Begins with a state that is durable.
    pub fn new(nodes: &Nodes) -> History {
        History { states: vec![(None, nodes.clone())], durable: 0, changed: BTreeMap::new() }
    }

    /// Notes a call that has returned, what it changed, and the state after it.
    pub fn note(&mut self, call: &Call, touched: impl Iterator<Item = u64>, nodes: &Nodes) {
        let now = self.states.len();
        self.states.push((Some(call.clone()), nodes.clone()));
        self.changed.extend(touched.map(|ino| (ino, now)));
        match call {
            Call::Sync | Call::Syncfs => self.durable = now,
            Call::Fsync(ino) => self.durable = self.durable.max(*self.changed.get(ino).unwrap_or(&0)),
            _ => {}
        }
    }

    /// The state that a crash left, if it is one that it may leave; as the inodes are now.
    ///
    /// # Errors
    ///
    /// What is different from the nearest ones.
    pub fn explain(&self, found: &Found) -> Result<Nodes, String> {
        for at in (self.durable..self.states.len()).rev() {
            let nodes = &self.states[at].1;
            if self.difference(at, nodes, None, found).is_none() {
                return Ok(adopt(nodes, found));
            }
            // The next call in part.
            let Some((Some(call), _)) = self.states.get(at + 1) else { continue };
            for (ino, node) in parts(call, nodes) {
                let mut nodes = nodes.clone();
                nodes.insert(ino, Arc::new(node));
                if self.difference(at, &nodes, Some(ino), found).is_none() {
                    return Ok(adopt(&nodes, found));
                }
            }
        }
        let mut text = format!("states {} to {} are allowed:", self.durable, self.states.len() - 1);
        for at in self.durable..self.states.len() {
            let (call, nodes) = &self.states[at];
            let difference = self.difference(at, nodes, None, found).unwrap_or_default();
            let _ = write!(text, "\n  {at}: after {call:?}: {difference}");
        }
        Err(text)
    }

    /// What is not as in a state, or as a later one has written in place. Times of an inode that is there in part are not known.
    fn difference(&self, at: usize, nodes: &Nodes, part: Option<u64>, found: &Found) -> Option<String> {
        let named = nodes.iter().filter(|(_, node)| node.seen.stat.nlink > 0);
        let named: Nodes = named.map(|(ino, node)| (*ino, node.clone())).collect();
        if !named.keys().eq(found.keys()) {
            return Some(format!("found inodes {:?}, not {:?}", found.keys(), named.keys()));
        }
        found.iter().find_map(|(ino, seen)| {
            let node = &named[ino];
            let mut want = node.seen.stat;
            if part == Some(*ino) {
                want.times = seen.stat.times;
            }
            if want != seen.stat || node.seen.xattrs != seen.xattrs {
                return Some(format!("inode {ino} is {:?}, not {:?}", seen, node.seen));
            }
            match (&seen.content, &node.seen.content) {
                (Content::File(found), Content::File(_)) => {
                    let at = self.wrong_byte(at, *ino, node, found)?;
                    Some(format!("byte {at} of inode {ino} is {:#x}", found[at]))
                }
                (found, want) if found == want => None,
                (found, want) => Some(format!("inode {ino} holds {found:?}, not {want:?}")),
            }
        })
    }

    /// The first byte of a file that is neither as in a state nor written in place later: to a block that was written before, not by
    /// the part of the next call that `node` may have.
    fn wrong_byte(&self, at: usize, ino: u64, node: &Node, found: &[u8]) -> Option<usize> {
        let want = node.file()?;
        let before = self.states[at].1.get(&ino);
        let later: Vec<&Vec<u8>> =
            self.states[at..].iter().filter_map(|(_, nodes)| nodes.get(&ino)?.file()).collect();
        (0..found.len()).find(|i| {
            let in_place = before.is_some_and(|n| n.blocks.get(&((i / BLOCK) as u64)) == Some(&true));
            let is_later = || later.iter().any(|file| file.get(*i).copied().unwrap_or(0) == found[*i]);
            found[*i] != want[*i] && !(in_place && is_later())
        })
    }
}

/// A state with what was found of it.
fn adopt(nodes: &Nodes, found: &Found) -> Nodes {
    let node = |(ino, seen): (&u64, &Seen)| {
        let node = Node { seen: seen.clone(), blocks: nodes[ino].blocks.clone() };
        (*ino, Arc::new(node))
    };
    found.iter().map(node).collect()
}
