// SPDX-License-Identifier: GPL-2.0-only
//! Which lock, and what it covers.

use core::fmt;

use scoutfs_format::Key;
use scoutfs_format::key::ZONE_LOCK;
use scoutfs_format::le::U64;
use scoutfs_format::msg::{LOCK_INODES, LOCK_RENAME, LockId};

use crate::LockError;

/// A group has `2^GROUP_ORDER` inode numbers. One size for all, so that no two locks overlap.
pub const GROUP_ORDER: u8 = 10;

/// Names a lock. The order of names is the order in which one operation takes several locks: the rename lock
/// first, then groups by inode number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockName(Inner);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Inner {
    Rename,
    /// By the group's first inode number.
    Inodes(u64),
}

impl LockName {
    /// The lock of renames of directories.
    pub const RENAME: LockName = LockName(Inner::Rename);

    /// The lock of the group to which an inode belongs.
    pub const fn group_of(ino: u64) -> LockName {
        LockName(Inner::Inodes(ino >> GROUP_ORDER << GROUP_ORDER))
    }

    /// The first and the last key that the lock covers.
    pub const fn range(self) -> (Key, Key) {
        match self.0 {
            Inner::Rename => {
                let key = Key::new(ZONE_LOCK, 0, LOCK_RENAME, 0, 0, 0);
                (key, key)
            }
            Inner::Inodes(_) => {
                let (first, last) = match self.inodes() {
                    Some(range) => range,
                    None => (0, 0),
                };
                (Key::inode_first(first), Key::inode_last(last))
            }
        }
    }

    /// The first and the last inode number of a group; `None` for the rename lock.
    pub const fn inodes(self) -> Option<(u64, u64)> {
        match self.0 {
            Inner::Rename => None,
            Inner::Inodes(start) => Some((start, start | ((1 << GROUP_ORDER) - 1))),
        }
    }

    /// Checks a received name.
    pub fn parse(raw: &LockId) -> Result<LockName, LockError> {
        if raw.pad != [0; 6] {
            return Err(LockError::Stray);
        }
        let (kind, order, start) = (raw.kind, raw.order, raw.start.get());
        let (name, expected) = match kind {
            LOCK_INODES => (LockName::group_of(start), GROUP_ORDER),
            LOCK_RENAME => (LockName::RENAME, 0),
            found => return Err(LockError::Kind { found }),
        };
        if order != expected {
            return Err(LockError::Order { kind, found: order, expected });
        }
        if name.to_raw().start.get() != start {
            return Err(LockError::Start { kind, order, start });
        }
        Ok(name)
    }

    /// As it is sent.
    pub const fn to_raw(self) -> LockId {
        let (kind, order, start) = match self.0 {
            Inner::Rename => (LOCK_RENAME, 0, 0),
            Inner::Inodes(start) => (LOCK_INODES, GROUP_ORDER, start),
        };
        LockId { start: U64::new(start), kind, order, pad: [0; 6] }
    }
}

impl fmt::Display for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.inodes() {
            None => f.write_str("the rename lock"),
            Some((first, last)) => write!(f, "the lock of inodes {first} to {last}"),
        }
    }
}

impl fmt::Debug for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_group_covers_its_inodes_and_no_others(ino: u64) {
            let name = LockName::group_of(ino);
            let (first, last) = name.inodes().unwrap();
            prop_assert!(first <= ino && ino <= last && last - first == 1023);
            let (low, high) = name.range();
            prop_assert!(low <= Key::inode_first(ino) && Key::inode_last(ino) <= high);
            if let Some(after) = last.checked_add(1) {
                prop_assert!(high < Key::inode_first(after));
                prop_assert!(LockName::group_of(after) > name);
            }
            prop_assert!(LockName::RENAME < name);
            prop_assert_eq!(LockName::parse(&name.to_raw()), Ok(name));
        }
    }

    #[test]
    fn the_rename_lock_covers_no_item_of_a_file() {
        let (low, high) = LockName::RENAME.range();
        assert!(low == high && low > Key::inode_last(u64::MAX));
        assert_eq!(LockName::parse(&LockName::RENAME.to_raw()), Ok(LockName::RENAME));
    }

    #[test]
    fn names_that_could_overlap_others_are_refused() {
        let with = |change: fn(&mut LockId)| {
            let mut raw = LockName::group_of(5000).to_raw();
            change(&mut raw);
            LockName::parse(&raw)
        };
        assert_eq!(with(|r| r.kind = 9), Err(LockError::Kind { found: 9 }));
        assert_eq!(with(|r| r.pad[5] = 1), Err(LockError::Stray));
        assert!(matches!(with(|r| r.order = 9), Err(LockError::Order { found: 9, .. })));
        assert!(matches!(with(|r| r.start = U64::new(4097)), Err(LockError::Start { start: 4097, .. })));
        assert!(matches!(
            with(|r| (r.kind, r.order) = (LOCK_RENAME, 0)),
            Err(LockError::Start { start: 4096, .. })
        ));
    }
}
