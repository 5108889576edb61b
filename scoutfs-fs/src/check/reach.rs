// SPDX-License-Identifier: GPL-2.0-only
//! Whether directories can be reached from the root.
//!
//! Directories come in the order of their numbers. From each we go up until a number that is lower (that directory was
//! looked at before) or one that an earlier way passed. A way that comes to a directory of its own is a loop, and told
//! once. So each directory is passed once, and remembered only until its turn comes; as parents mostly have lower
//! numbers than what is made in them, that is few.

use scoutfs_env::OrdMap;
use scoutfs_format::item::ROOT_INO;

use super::CheckError;
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
}

impl Pass<'_, '_> {
    /// Goes up from a directory.
    pub fn check_reach(&mut self, start: u64, parent: u64) -> Result<(), CheckError> {
        while self.reach.passed.first_key_value().is_some_and(|(&ino, _)| ino < start) {
            self.reach.passed.pop_first();
        }
        if self.reach.passed.contains_key(&start) {
            self.is_directory(start, parent)?;
            return Ok(());
        }
        self.reach.passed.insert(start, start)?;
        let (mut at, mut next) = (start, parent);
        loop {
            // A parent that is none is told when it is the turn of its child.
            let up = if at == start { self.is_directory(at, next)? } else { self.parent_of(next)? };
            let Some(up) = up else { return Ok(()) };
            match self.reach.passed.get(&next) {
                Some(&began) if began == start => {
                    let place = Place::Inode { ino: start };
                    self.check.issue(IssueKind::DirLoop { through: next }, place);
                    return Ok(());
                }
                Some(_) => return Ok(()),
                None if next < start || next == ROOT_INO => return Ok(()),
                None => {}
            }
            self.reach.passed.insert(next, start)?;
            (at, next) = (next, up);
        }
    }

    /// The parent of a directory; `None` when it is no directory, or one that is deleted.
    fn parent_of(&mut self, ino: u64) -> Result<Option<u64>, CheckError> {
        Ok(self.forest.inode(ino)?.and_then(|item| {
            let is_dir = FileType::of_mode(item.mode.get()) == Some(FileType::Directory);
            (is_dir && item.nlink.get() != 0).then(|| item.parent.get())
        }))
    }

    /// As [`parent_of`](Self::parent_of) for the parent of `child`, and tells when it is none.
    fn is_directory(&mut self, child: u64, parent: u64) -> Result<Option<u64>, CheckError> {
        let up = self.parent_of(parent)?;
        if up.is_none() {
            self.check.issue(IssueKind::ParentNotDirectory { parent }, Place::Inode { ino: child });
        }
        Ok(up)
    }
}
