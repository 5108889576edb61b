// SPDX-License-Identifier: GPL-2.0-only
//! The inodes that are in use on this mount.
//!
//! An entry counts the references that the front end's kernel has from look-ups, the open files, and the operations
//! at work (pins). With the last of them it leaves the table; if the inode was unlinked, whoever
//! took that last reference away deletes it, alone: until that is done the entry says so and nobody can
//! take a new reference, so no handle revives an unlinked inode.
//!
//! The attributes are not kept here: the item cache is their cache, and what cluster locks invalidate there cannot be
//! stale here. What is kept is the lock under which this mount's threads take turns, and what helps writing.
//!
//! # Locking
//!
//! The shards' mutexes are leaves. [`MemInode::data`] is taken after the cluster locks and before the
//! transaction, by inode number where there are several. A [`Pin`] may delete an inode when it is
//! dropped, so it must be dropped after all locks are: declare pins before locks.

use core::ops::Deref;

use scoutfs_env::sync::atomic::{AtomicBool, Ordering};
use scoutfs_env::sync::{Mutex, RwLock, RwLockWriteGuard};
use scoutfs_env::{Arc, OrdMap};

use crate::data::state::DataState;
use crate::error::{Error, Result};
use crate::fs::Fs;

const NR_SHARDS: usize = 16;

/// Most inodes that one operation changes.
pub(crate) const MAX_OP_INODES: usize = 4;

/// An inode in use.
pub(crate) struct MemInode {
    pub ino: u64,
    /// Threads of this mount that read the inode's items share it; those that change them are alone.
    pub data: RwLock<DataState>,
    /// Seen with no links: whoever drops the last reference looks whether to delete it.
    unlinked: AtomicBool,
    /// An unnamed temporary file that may be given a name.
    linkable: AtomicBool,
}

impl MemInode {
    pub fn set_unlinked(&self, unlinked: bool) {
        self.unlinked.store(unlinked, Ordering::Relaxed);
    }

    pub fn linkable(&self) -> bool {
        self.linkable.load(Ordering::Relaxed)
    }

    pub fn set_linkable(&self, linkable: bool) {
        self.linkable.store(linkable, Ordering::Relaxed);
    }
}

struct Entry {
    inode: Arc<MemInode>,
    lookups: u64,
    opens: u64,
    pins: u64,
    /// The last reference is gone and the inode is being deleted.
    dying: bool,
}

impl Entry {
    fn in_use(&self) -> bool {
        self.lookups != 0 || self.opens != 0 || self.pins != 0
    }
}

/// See the module.
pub(crate) struct InodeTable {
    shards: [Mutex<OrdMap<u64, Entry>>; NR_SHARDS],
}

impl InodeTable {
    pub fn new() -> Self {
        InodeTable { shards: core::array::from_fn(|_| Mutex::new(OrdMap::new())) }
    }

    fn shard(&self, ino: u64) -> &Mutex<OrdMap<u64, Entry>> {
        // The remainder is below the length.
        &self.shards[(ino % NR_SHARDS as u64) as usize]
    }

    /// Changes the counts of an entry that somebody holds.
    fn count(&self, ino: u64, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.shard(ino).lock().get_mut(&ino) {
            change(entry);
        }
    }

    /// Whether anybody uses the inode.
    pub fn contains(&self, ino: u64) -> bool {
        self.shard(ino).lock().contains_key(&ino)
    }

    /// Calls `f` with the state of each inode whose lock is free right now.
    pub fn for_each_idle(&self, mut f: impl FnMut(&mut DataState)) {
        for shard in &self.shards {
            for entry in shard.lock().values() {
                if let Some(mut state) = entry.inode.data.try_write() {
                    f(&mut state);
                }
            }
        }
    }
}

/// Keeps an inode in the table while an operation works on it.
pub(crate) struct Pin<'a> {
    fs: &'a Fs,
    inode: Arc<MemInode>,
}

impl Pin<'_> {
    /// Takes a reference for the front end's kernel.
    pub fn add_lookup(&self) {
        self.fs.table.count(self.ino, |e| e.lookups = e.lookups.saturating_add(1));
    }

    fn add_open(&self) {
        self.fs.table.count(self.ino, |e| e.opens = e.opens.saturating_add(1));
    }
}

impl Deref for Pin<'_> {
    type Target = MemInode;

    fn deref(&self) -> &MemInode {
        &self.inode
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.fs.put(self.inode.ino, |e| e.pins = e.pins.saturating_sub(1));
    }
}

/// The locks of several inodes, taken in the order of their numbers.
pub(crate) struct WriteGuards<'a> {
    guards: [Option<(u64, RwLockWriteGuard<'a, DataState>)>; MAX_OP_INODES],
}

impl<'a> WriteGuards<'a> {
    /// Locks one more inode if that takes no waiting, in which case its place in the order does not matter. False if it is not locked.
    pub fn add(&mut self, inode: &'a MemInode) -> bool {
        if self.guards.iter().flatten().any(|(ino, _)| *ino == inode.ino) {
            return true;
        }
        let Some(free) = self.guards.iter_mut().find(|guard| guard.is_none()) else {
            return false;
        };
        *free = inode.data.try_write().map(|guard| (inode.ino, guard));
        free.is_some()
    }
}

/// Locks up to [`MAX_OP_INODES`] inodes for changing; the same inode may be named twice.
pub(crate) fn write_all<'a>(inodes: [Option<&'a MemInode>; MAX_OP_INODES]) -> WriteGuards<'a> {
    let mut sorted = inodes;
    sorted.sort_unstable_by_key(|inode| inode.map_or(u64::MAX, |i| i.ino));
    let mut last = None;
    let guards = sorted.map(|inode| {
        let inode = inode?;
        if last.replace(inode.ino) == Some(inode.ino) {
            return None;
        }
        Some((inode.ino, inode.data.write()))
    });
    WriteGuards { guards }
}

impl Fs {
    /// Keeps the inode in the table; it need not exist on the volume.
    ///
    /// # Errors
    ///
    /// [`Error::StaleHandle`] when it is being deleted.
    pub(crate) fn pin(&self, ino: u64) -> Result<Pin<'_>> {
        let mut shard = self.table.shard(ino).lock();
        if let Some(entry) = shard.get_mut(&ino) {
            if entry.dying {
                return Err(Error::StaleHandle);
            }
            entry.pins = entry.pins.saturating_add(1);
            let inode = entry.inode.clone();
            return Ok(Pin { fs: self, inode });
        }
        let inode = Arc::new(MemInode {
            ino,
            data: RwLock::new(DataState::default()),
            unlinked: AtomicBool::new(false),
            linkable: AtomicBool::new(false),
        })?;
        let entry = Entry { inode: inode.clone(), lookups: 0, opens: 0, pins: 1, dying: false };
        shard.insert(ino, entry)?;
        Ok(Pin { fs: self, inode })
    }

    /// As [`Fs::pin`], but `None` when the inode is being deleted.
    pub(crate) fn pin_live(&self, ino: u64) -> Result<Option<Pin<'_>>> {
        match self.pin(ino) {
            Ok(pin) => Ok(Some(pin)),
            Err(Error::StaleHandle) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes references away. With the last one the inode leaves the table, and is deleted if it has no links.
    fn put(&self, ino: u64, change: impl FnOnce(&mut Entry)) {
        let mut shard = self.table.shard(ino).lock();
        let Some(entry) = shard.get_mut(&ino) else {
            return;
        };
        change(entry);
        if entry.in_use() || entry.dying {
            return;
        }
        if entry.inode.unlinked.load(Ordering::Relaxed) && !self.store().read_only() {
            entry.dying = true;
            drop(shard);
            if let Err(error) = self.delete_unlinked(ino) {
                // The orphan item is still there: the next scan tries again.
                scoutfs_env::log::warn!("unlinked inode {ino} was not deleted: {error}");
            }
            shard = self.table.shard(ino).lock();
        }
        let gone = shard.remove(&ino);
        drop(shard);
        if let Some(entry) = gone {
            self.drop_reservation(&mut entry.inode.data.write());
        }
    }

    /// The front end's kernel has forgotten `count` references from look-ups (and from operations that return the
    /// attributes of what they made).
    pub fn forget(&self, ino: u64, count: u64) {
        self.put(ino, |e| e.lookups = e.lookups.saturating_sub(count));
    }

    /// Counts an open file. Finishes a truncation that a crash interrupted.
    pub fn open(&self, ino: u64) -> Result<()> {
        let pin = self.pin(ino)?;
        self.finish_truncate(&pin)?;
        pin.add_open();
        Ok(())
    }

    /// Counts an open file less.
    pub fn release(&self, ino: u64) {
        let mut last = None;
        self.put(ino, |e| {
            e.opens = e.opens.saturating_sub(1);
            if e.opens == 0 {
                last = Some(e.inode.clone());
            }
        });
        if let Some(inode) = last {
            let mut state = inode.data.write();
            state.forget_tail();
            self.drop_reservation(&mut state);
        }
    }

    /// Deletes the inode if it has no links and nobody uses it.
    pub(crate) fn delete_if_unused(&self, ino: u64) -> Result<()> {
        if !self.table.contains(ino) {
            self.pin(ino)?.set_unlinked(true);
        }
        Ok(())
    }
}
