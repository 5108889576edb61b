// SPDX-License-Identifier: GPL-2.0-only
//! The filesystem that front ends call.
//!
//! [`Fs`] has one method for each operation; they are written in the folders of what they work on (`inode`,
//! `dir`, `xattr`, `acl`, `data`). Any number of threads may call them. The caller has checked permissions.

use scoutfs_env::sync::Mutex;
use scoutfs_env::sync::atomic::{AtomicBool, Ordering};
use scoutfs_env::{Arc, Box};

use crate::counters::Counter;
use crate::data::behind::Behind;
use crate::data::delayed::DelayedWrites;
use crate::error::{Error, Result};
use crate::inode::passing::Passing;
use crate::inode::record::Inode;
use crate::inode::table::InodeTable;
use crate::store::{LockMode, StatFs, Store};

pub use caches::KernelCaches;

/// A mounted filesystem.
///
/// # References
///
/// `lookup`, `lookup_ino`, `readdir_plus` and the operations that make something return attributes and take a reference
/// of that inode, which [`Fs::forget`] gives back. An inode without links lives until its last reference and
/// open file are gone.
pub struct Fs {
    store: Arc<Store>,
    pub(crate) table: InodeTable,
    /// Directories change their parents one at a time: this mount's part of the rename lock, taken after its
    /// cluster lock and before those of inodes.
    pub(crate) rename: Mutex<()>,
    /// Writes that were answered before they are done.
    pub(crate) behind: Behind,
    /// Writes that are gathered in memory.
    pub(crate) delayed: DelayedWrites,
    /// There may be inodes that show more than their items have, of pages that were written while nobody looked.
    pub(crate) changed_unseen: AtomicBool,
    /// Inodes that are open because they were just looked up.
    pub(crate) passing: Passing,
    /// Access control lists are on.
    acls: bool,
    /// What the front end's kernel keeps.
    pub(crate) caches: Mutex<Option<Arc<Box<dyn KernelCaches>>>>,
}

impl Fs {
    /// Generation of every inode, for file handles: numbers are never reused.
    pub const GENERATION: u64 = 0;

    /// A filesystem on a mounted store; `acls` as in [`MountOptions::acl`](crate::MountOptions::acl).
    pub(crate) fn new(store: Arc<Store>, table: InodeTable, acls: bool) -> Fs {
        let (behind, delayed) = (Behind::new(), DelayedWrites::new());
        let (passing, caches) = (Passing::default(), Mutex::new(None));
        let changed_unseen = AtomicBool::new(false);
        Fs { store, table, rename: Mutex::new(()), behind, delayed, changed_unseen, passing, acls, caches }
    }

    /// Whether access control lists are on.
    pub(crate) fn acls(&self) -> bool {
        self.acls
    }

    /// What it stands on.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The same, to be kept.
    pub(crate) fn shared_store(&self) -> Arc<Store> {
        self.store.clone()
    }

    /// Fails on a read-only mount.
    pub(crate) fn writable(&self) -> Result<()> {
        if self.store.read_only() { Err(Error::ReadOnly) } else { Ok(()) }
    }

    /// Makes durable all that was done before.
    ///
    /// # Errors
    ///
    /// [`Error::LostWrite`], once, when a write was lost since it was answered; all else is durable.
    pub fn sync(&self) -> Result<()> {
        self.count(Counter::Sync);
        let _held_off = self.write_all_delayed()?;
        self.take_over_all_changes()?;
        let lost = self.behind.wait_for_all();
        self.store.sync()?;
        lost
    }

    /// Makes durable what was done to an inode before: its data, attributes and entries. No IO if it is already. Whether a write
    /// was lost before, [`Fs::lost_writes`] tells.
    pub fn fsync(&self, ino: u64) -> Result<()> {
        self.count(Counter::Fsync);
        self.write_delayed_of(ino)?;
        self.take_over_changes(ino, false)?;
        self.settle(ino);
        let written = self.table.get(ino).map(|inode| inode.data_written.load(Ordering::Acquire));
        let written = written.unwrap_or_else(|| self.store.data_writes.written());
        // Every change of an inode notes its version there, and that is never below its transaction's seq.
        let seq = {
            let locks = self.store.lock(&[(ino, LockMode::Read)])?;
            Inode::load(&locks, ino)?.map(|inode| inode.item.meta_seq.get())
        };
        match seq {
            Some(seq) if self.store.trans.is_durable(seq) => self.store.sync_seq(seq)?,
            Some(seq) => {
                let _held_off = self.write_all_delayed()?;
                self.store.sync_seq(seq)?;
            }
            None => return Err(Error::StaleHandle),
        }
        self.store.sync_data(written)
    }

    /// Space and inodes of the volume.
    pub fn statfs(&self) -> Result<StatFs> {
        self.store.statfs()
    }

    /// Entries of a change index, see [`Store::walk_index`].
    pub fn walk_index(
        &self,
        kind: u8,
        first: (u64, u64),
        last: (u64, u64),
        max: usize,
        f: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<u64> {
        self.store.walk_index(kind, first, last, max, f)
    }

    /// Gives back the data blocks that are set aside for files that grow. For unmount, and when space is short.
    pub fn drop_reservations(&self) {
        self.table.for_each_idle(|state| self.drop_reservation(state));
    }
}

mod caches;
#[cfg(test)]
mod fault;
#[cfg(test)]
pub(crate) mod testing;
