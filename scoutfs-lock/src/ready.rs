// SPDX-License-Identifier: GPL-2.0-only
//! A list of the locks that have something to say.
//!
//! The links are in the locks themselves, so that adding to the list needs no memory: a lock can always be
//! released, invalidated and answered for.

use scoutfs_env::OrdMap;

use crate::LockName;

/// A lock's place in the list.
#[derive(Debug, Default)]
pub(crate) struct Link {
    queued: bool,
    next: Option<LockName>,
}

/// What can be in the list.
pub(crate) trait Linked {
    fn link(&mut self) -> &mut Link;
}

/// First in, first out; each lock at most once. A lock in the list must not be removed from its map.
#[derive(Debug, Default)]
pub(crate) struct ReadyList {
    first: Option<LockName>,
    last: Option<LockName>,
}

impl ReadyList {
    /// An empty list.
    pub const fn new() -> Self {
        ReadyList { first: None, last: None }
    }

    /// The lock whose turn it is.
    pub fn first(&self) -> Option<LockName> {
        self.first
    }

    /// Adds a lock that is in the map, if it is not in the list.
    pub fn push<L: Linked>(&mut self, locks: &mut OrdMap<LockName, L>, name: LockName) {
        let Some(link) = locks.get_mut(&name).map(L::link) else {
            return;
        };
        if core::mem::replace(&mut link.queued, true) {
            return;
        }
        match self.last.replace(name) {
            None => self.first = Some(name),
            Some(last) => {
                if let Some(lock) = locks.get_mut(&last) {
                    lock.link().next = Some(name);
                }
            }
        }
    }

    /// Takes the first lock out of the list.
    pub fn pop<L: Linked>(&mut self, locks: &mut OrdMap<LockName, L>) {
        let Some(lock) = self.first.and_then(|name| locks.get_mut(&name)) else {
            return;
        };
        let link = core::mem::take(lock.link());
        self.first = link.next;
        if self.first.is_none() {
            self.last = None;
        }
    }
}
