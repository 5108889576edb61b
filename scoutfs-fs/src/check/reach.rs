// SPDX-License-Identifier: GPL-2.0-only
//! Whether directories can be reached from the root.
//!
//! Directories come in the order of their numbers, from whichever thread read them. From each we go up until a number that is lower (that directory was
//! looked at before) or one that an earlier way passed. A way that comes to a directory of its own is a loop, and told
//! once. So each directory is passed once, and remembered only until its turn comes; as parents mostly have lower
//! numbers than what is made in them, that is few.

use scoutfs_env::OrdMap;
use scoutfs_format::item::ROOT_INO;

use super::CheckError;
use super::events::Event;
use super::forest::Forest;
use super::issue::{IssueKind, Place};
use super::items::Pass;
use crate::inode::kind::FileType;

/// Directories that were passed before their turn: number -> where the way began.
pub(super) struct Reach {
    passed: OrdMap<u64, u64>,
}

impl Reach {
    pub const fn new() -> Self {
        Reach { passed: OrdMap::new() }
    }

    /// Goes up from a directory whose parent is a directory, and has itself the parent `up`. Gives a directory that is on
    /// the loop when it comes to one that was not told yet.
    pub fn go_up(
        &mut self,
        forest: &Forest<'_>,
        start: u64,
        parent: u64,
        up: u64,
    ) -> Result<Option<u64>, CheckError> {
        while self.passed.first_key_value().is_some_and(|(&ino, _)| ino < start) {
            self.passed.pop_first();
        }
        if self.passed.contains_key(&start) {
            return Ok(None);
        }
        self.passed.insert(start, start)?;
        let (mut next, mut up) = (parent, up);
        loop {
            match self.passed.get(&next) {
                Some(&began) if began == start => return Ok(Some(next)),
                Some(_) => return Ok(None),
                None if next < start || next == ROOT_INO => return Ok(None),
                None => {}
            }
            self.passed.insert(next, start)?;
            next = up;
            // A parent that is none is told when it is the turn of its child.
            match parent_of(forest, next)? {
                Some(parent) => up = parent,
                None => return Ok(None),
            }
        }
    }
}

/// The parent of a directory; `None` when it is no directory, or one that is deleted.
fn parent_of(forest: &Forest<'_>, ino: u64) -> Result<Option<u64>, CheckError> {
    Ok(forest.inode(ino)?.and_then(|item| {
        let is_dir = FileType::of_mode(item.mode.get()) == Some(FileType::Directory);
        (is_dir && item.nlink.get() != 0).then(|| item.parent.get())
    }))
}

impl Pass<'_> {
    /// Tells when the parent of a directory is none; else the way up from there is looked at when it is its turn.
    pub fn check_parent(&mut self, ino: u64, parent: u64) -> Result<(), CheckError> {
        match parent_of(&self.forest, parent)? {
            Some(up) => self.events.push(Event::Directory { ino, parent, up }),
            None => self.events.issue(IssueKind::ParentNotDirectory { parent }, Place::Inode { ino }),
        }
        Ok(())
    }
}
