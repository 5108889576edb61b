// SPDX-License-Identifier: GPL-2.0-only
//! Which inodes are open on this mount, by their groups, for those who must know: see [`scoutfs_lock::Opens`].
//!
//! What must hold: an inode is noted while its cluster lock is held, so that no holder for writing elsewhere misses it.
//!
//! Locking: one mutex, a leaf.

use scoutfs_env::OrdMap;
use scoutfs_env::sync::Mutex;
use scoutfs_lock::{LockName, Opens};

use crate::error::Result;

/// See the module.
pub(crate) struct OpenInodes {
    groups: Mutex<OrdMap<LockName, Opens>>,
}

impl OpenInodes {
    pub fn new() -> Self {
        OpenInodes { groups: Mutex::new(OrdMap::new()) }
    }

    /// An inode is opened for the first time.
    pub fn insert(&self, ino: u64) -> Result<()> {
        let name = LockName::group_of(ino);
        let mut groups = self.groups.lock();
        match groups.get_mut(&name) {
            Some(opens) => opens.insert(ino),
            None => {
                let mut opens = Opens::default();
                opens.insert(ino);
                groups.insert(name, opens)?;
            }
        }
        Ok(())
    }

    /// An inode is closed for the last time.
    pub fn remove(&self, ino: u64) {
        let name = LockName::group_of(ino);
        let mut groups = self.groups.lock();
        if let Some(opens) = groups.get_mut(&name) {
            opens.remove(ino);
            if opens.is_empty() {
                groups.remove(&name);
            }
        }
    }

    /// Those of one group.
    pub fn of(&self, name: LockName) -> Opens {
        self.groups.lock().get(&name).copied().unwrap_or_default()
    }

    /// The next group with open inodes.
    pub fn after(&self, name: Option<LockName>) -> Option<(LockName, Opens)> {
        let groups = self.groups.lock();
        let next = match name {
            Some(name) => groups.higher(&name),
            None => groups.first_key_value(),
        };
        next.map(|(name, opens)| (*name, *opens))
    }
}
