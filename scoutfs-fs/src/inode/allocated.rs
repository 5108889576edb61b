// SPDX-License-Identifier: GPL-2.0-only
//! Which inode numbers are in use.

use scoutfs_env::Vec;
use scoutfs_format::Key;
use scoutfs_lock::LockName;

use crate::error::Result;
use crate::fs::Fs;
use crate::store::LockMode;

impl Fs {
    /// The inode numbers in use from `start` on, ascending, up to `max` and no further than the group of `start`: one lock
    /// covers them, so that between the first and the last one they are what was there at one moment. Inodes that
    /// are being deleted are among them.
    pub fn allocated_inos(&self, start: u64, max: usize) -> Result<Vec<u64>> {
        let mut found = Vec::new();
        let Some((_, end)) = LockName::group_of(start).inodes() else {
            return Ok(found);
        };
        let locks = self.store().lock(&[(start, LockMode::Read)])?;
        let mut from = Key::inode(start);
        while found.len() < max
            && let Some(key) = locks.next(from, Key::inode_last(end), |key, _| key)?
        {
            let ino = key.first;
            if key == Key::inode(ino) {
                found.push(ino)?;
            }
            if ino >= end {
                break;
            }
            from = Key::inode(ino + 1);
        }
        Ok(found)
    }
}
