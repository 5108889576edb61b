// SPDX-License-Identifier: GPL-2.0-only
//! Where the pass over all items is cut into pieces.
//!
//! The cuts are where leaves of any tree begin, every so many leaves, so that pieces take about as long. They depend on
//! the volume alone, never on the number of threads. A cut may go through an inode (a large directory has most items of
//! a volume), but not through the names of one hash or the parts of one attribute, which are compared with each other.

use scoutfs_env::{AllocError, Vec};
use scoutfs_format::Key;
use scoutfs_format::key::{KIND_DIRENT, KIND_INODE, KIND_XATTR, ZONE_FS};

/// Leaves between cuts in a small volume.
const LEAVES: u64 = 8;
/// Most cuts; with more, every other one goes. They take 8 MiB.
const MAX_CUTS: usize = 1 << 18;

pub(super) struct Cuts {
    keys: Vec<Key>,
    /// Leaves from one cut to the next, and those seen.
    leaves: u64,
    seen: u64,
}

impl Cuts {
    pub fn new() -> Cuts {
        Cuts { keys: Vec::new(), leaves: LEAVES, seen: 0 }
    }

    #[cfg(test)]
    pub fn every_leaf() -> Cuts {
        Cuts { leaves: 1, ..Cuts::new() }
    }

    /// Adds leaves, by their first keys.
    pub fn add(&mut self, first_keys: &[Key]) -> Result<(), AllocError> {
        for key in first_keys {
            self.seen += 1;
            if self.seen.is_multiple_of(self.leaves) {
                self.keys.push(rounded(*key))?;
            }
            if self.keys.len() >= MAX_CUTS {
                let mut keep = false;
                self.keys.retain(|_| {
                    keep = !keep;
                    keep
                });
                self.leaves *= 2;
            }
        }
        Ok(())
    }

    /// The first keys of all pieces, in order.
    pub fn finish(mut self) -> Result<Vec<Key>, AllocError> {
        self.keys.push(Key::MIN)?;
        self.keys.sort_unstable();
        self.keys.dedup();
        Ok(self.keys)
    }
}

/// The nearest key at or below one that may be cut at.
fn rounded(key: Key) -> Key {
    match (key.zone, key.kind) {
        (ZONE_FS, KIND_INODE) => Key::inode(key.first),
        (ZONE_FS, KIND_DIRENT) => Key::dirent(key.first, key.second, 0),
        (ZONE_FS, KIND_XATTR) => Key::xattr(key.first, key.second, 0, 0),
        _ => key,
    }
}

/// The inode that the first key of a piece goes through.
pub(super) fn inside(first: &Key) -> Option<u64> {
    (first.zone == ZONE_FS && *first != Key::inode(first.first)).then_some(first.first)
}
