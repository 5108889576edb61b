// SPDX-License-Identifier: GPL-2.0-only
//! What the operations of the filesystem stand on: cluster locks, the transaction, items and space.
//!
//! An operation goes through the same steps, always in this order, so that nothing can wait in a circle:
//!
//! 1. [`Store::lock`]: the cluster locks of all inodes that it touches (the rename lock first, then by inode
//!    number), giving [`Locks`], through which items are read.
//! 2. the operation's own in-memory inode locks, by inode number.
//! 3. [`Locks::hold`]: it enters the transaction with what it [`Need`]s reserved; nothing in it waits for a lock, a
//!    message or space. Items are changed through [`Hold`]. Dropping it leaves the transaction.
//!
//! On a shortage `hold` itself waits for space *before* it enters; it fails only with a true ENOSPC.
//!
//! | module | what |
//! | --- | --- |
//! | `locks` | [`Locks`]: what an operation holds, and reading under it |
//! | `lock_table` | the cluster locks of this mount |
//! | `file_locks` | locks that programs have on files |
//! | `flush` | pages that a kernel drops while their lock goes back |
//! | `opens` | which inodes are open here |
//! | `fences` | which data blocks a mount that was fenced may still write |
//! | `hold` | [`Hold`]: being in the transaction |
//! | `trans` | the open transaction: who is in it |
//! | `commit` | closing a transaction and making it durable |
//! | `slot` | this mount's ring and log trees: records and checkpoints |
//! | `runs` | which log trees a checkpoint writes anew |
//! | `space` | this mount's free space, as operations use it |
//! | `recall` | giving back space that is not used |
//! | `news` | what other mounts have committed, as far as this one must see it |
//! | `owed` | items that are to be written later, without fail |
//! | `shortage` | what is done before a volume is said to be full |
//! | `supply` | getting space, seqs and inode numbers from the server |
//! | `roots` | the roots that this mount reads from |
//! | `reader` | reading committed items |
//! | `index` | walking the change index and the orphans |
//!
//! # Locking
//!
//! The commit lock ([`Store`]'s slot) is taken by who commits, never while in a transaction, and is held over IO. All others
//! are leaves.

mod commit;
mod data_writes;
mod fences;
mod file_locks;
mod flush;
mod hold;
mod index;
mod lock_table;
mod locks;
mod news;
mod opens;
mod owed;
mod reader;
mod recall;
mod roots;
mod runs;
mod shortage;
mod slot;
mod space;
mod supply;
mod trans;

use core::sync::atomic::{AtomicBool, AtomicU64};
use core::time::Duration;

use scoutfs_env::device::BlockDevice;
use scoutfs_env::sync::Mutex;
use scoutfs_env::time::{self, Timespec};
use scoutfs_env::{Arc, Box};
use scoutfs_format::geometry::Geometry;
use scoutfs_item::ItemCache;

pub use hold::{Hold, Need};
pub use locks::{LockMode, Locks};
pub use space::DataRun;
pub use supply::StatFs;

pub(crate) use commit::Wish;
pub(crate) use data_writes::DataWrites;
pub(crate) use fences::KnownFences;
pub(crate) use file_locks::FileLocks;
use lock_table::Pages;
pub(crate) use lock_table::{LockTable, Revoke};
pub(crate) use opens::OpenInodes;
pub(crate) use owed::Owed;
pub(crate) use reader::Reader;
pub(crate) use roots::RootsCell;
pub(crate) use slot::{Identity, Slot};
pub(crate) use space::SpaceCell;
pub(crate) use trans::Trans;

use crate::counters::Counters;
use crate::error::{Error, Result};
use crate::node::{Client, Worker};
pub(crate) use news::News;
pub(crate) use supply::Numbers;

/// How much a mount gathers before it commits, checkpoints or finalizes by itself.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Bytes of items in one transaction.
    pub max_trans_bytes: usize,
    /// Bytes of items in all log trees that are not finalized, from which on they are.
    pub max_log_bytes: u64,
}

impl Tuning {
    /// Fit for a volume of this size: a log tree takes a small part of it.
    pub fn for_volume(geometry: &Geometry) -> Self {
        let part = geometry.volume_bytes() / 256;
        Tuning {
            max_trans_bytes: part.clamp(256 << 10, 8 << 20) as usize,
            max_log_bytes: part.clamp(256 << 10, 32 << 20),
        }
    }
}

/// One mounted node, as operations see it.
pub struct Store {
    // Boxes where it is large: on a kernel's stack there is no room for all of it.
    pub(crate) reader: Box<Reader>,
    pub(crate) items: Box<ItemCache>,
    pub(crate) trans: Box<Trans>,
    pub(crate) space: SpaceCell,
    pub(crate) lock_table: Box<LockTable>,
    pub(crate) file_locks: Box<FileLocks>,
    pub(crate) opens: OpenInodes,
    /// The front end's kernel has dropped what it kept, since the mount has failed.
    pub(crate) kernel_knows: AtomicBool,
    /// Mounts that were fenced.
    pub(crate) fences: KnownFences,
    pub(crate) client: Arc<Client>,
    pub(crate) worker: Worker,
    /// What others have committed.
    pub(crate) news: News,
    /// The commit lock, and what it protects.
    pub(crate) slot: Mutex<Box<Slot>>,
    /// A closed transaction waits in the slot, because there was no memory to commit it.
    pub(crate) commit_waits: AtomicBool,
    pub(crate) identity: Identity,
    pub(crate) tuning: Tuning,
    /// Metadata blocks that a checkpoint could need now, the slot's [`Slot::checkpoint_blocks`], to be read without the commit
    /// lock.
    pub(crate) checkpoint_need: AtomicU64,
    /// The slot's [`Slot::unmerged_bytes`], to be read without the commit lock.
    pub(crate) unmerged_bytes: AtomicU64,
    /// What is still to be written of pages that programs have changed.
    pub(crate) owed: Owed,
    /// What data were written, and flushed.
    pub(crate) data_writes: DataWrites,
    /// Number of the newest durable record.
    pub(crate) commit_nr: AtomicU64,
    /// The seq for the next transaction and the inode numbers that were fetched ahead.
    pub(crate) numbers: Arc<Numbers>,
    /// Inodes made less deleted by this mount.
    pub(crate) inode_delta: Mutex<i64>,
    pub(crate) read_only: bool,
    pub(crate) counters: Arc<Counters>,
}

impl Store {
    /// Cluster locks of these inodes. At most a handful: they are taken in inode order and kept until the result is
    /// dropped. Not to be called while holding other locks or in a transaction.
    pub fn lock(&self, inos: &[(u64, LockMode)]) -> Result<Locks<'_>> {
        Locks::acquire(self, false, inos, &|| None)
    }

    /// As [`Store::lock`]. Should that take waiting, the lock of the inode that is guessed is asked for as well, for reading.
    pub(crate) fn lock_and_guess(
        &self,
        inos: &[(u64, LockMode)],
        guess: &dyn Fn() -> Option<u64>,
    ) -> Result<Locks<'_>> {
        Locks::acquire(self, false, inos, guess)
    }

    /// The lock of one inode, if that takes no waiting.
    pub(crate) fn lock_now(&self, ino: u64, mode: LockMode) -> Result<Option<Locks<'_>>> {
        let mut locks = Locks::acquire(self, false, &[], &|| None)?;
        Ok(locks.add(ino, mode)?.then_some(locks))
    }

    /// The lock of one inode that goes back, for the thread that sees to that.
    pub(crate) fn lock_going_back(&self, ino: u64) -> Result<Locks<'_>> {
        Locks::going_back(self, ino)
    }

    /// The rename lock, then those of the inodes.
    pub fn lock_rename(&self, inos: &[(u64, LockMode)]) -> Result<Locks<'_>> {
        Locks::acquire(self, true, inos, &|| None)
    }

    /// The lock of one inode, for changing bytes `first..end` of it. A kernel that keeps pages, and makes requests for them, may do
    /// this while it is asked to drop them.
    pub fn lock_bytes(&self, ino: u64, first: u64, end: u64) -> Result<Locks<'_>> {
        let guest = LockMode::Write;
        Locks::acquire_for_pages(self, LockMode::Write, Pages { ino, range: (first, end), guest })
    }

    /// As [`Store::lock_bytes`], for reading them into pages that need a lock of `mode`.
    pub(crate) fn lock_bytes_to_read(
        &self,
        ino: u64,
        mode: LockMode,
        first: u64,
        end: u64,
    ) -> Result<Locks<'_>> {
        let guest = LockMode::Read;
        Locks::acquire_for_pages(self, mode, Pages { ino, range: (first, end), guest })
    }

    /// The device, for data.
    pub fn device(&self) -> &dyn BlockDevice {
        &**self.reader.device
    }

    /// Where the volume's regions are.
    pub fn geometry(&self) -> &Geometry {
        &self.reader.geometry
    }

    /// The volume's number.
    pub fn fsid(&self) -> u64 {
        self.reader.cache.fsid()
    }

    /// This mount's number.
    pub fn rid(&self) -> u64 {
        self.identity.rid
    }

    /// Seq of the newest transaction that is durable.
    pub fn committed_seq(&self) -> u64 {
        self.trans.durable_seq()
    }

    /// How long answers may still be believed without asking: what is left of the lease.
    pub fn lease_left(&self) -> Duration {
        self.numbers.lease_left(time::mono_now())
    }

    /// Whether the mount goes on.
    pub fn is_usable(&self) -> bool {
        self.trans.check().is_ok()
    }

    /// Has all who wait for the server look whether they were killed. For a process, where killing wakes nobody.
    pub fn wake_killed(&self) {
        self.client.wake();
        self.lock_table.wake();
        self.file_locks.wake();
    }

    /// What an operation has failed with, for who is told of it and for the log. Whoever had no valid lease any more, because it was held
    /// up while it was reading, may have found blocks that others use for something else by then, and new items beside old ones: that is no
    /// damage, and nobody need check the volume.
    pub fn verdict(&self, e: Error) -> Error {
        if !e.is_damage() {
            return e;
        }
        match self.trans.check() {
            Ok(()) if self.lease_left().is_zero() => Error::Shutdown("the mount's lease is over"),
            Ok(()) => e,
            Err(failed) => failed,
        }
    }

    /// Whether nothing may be changed.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// The wall clock, for timestamps.
    pub fn now(&self) -> Timespec {
        time::real_now()
    }

    /// Bytes of memory that [`Store::reclaim`] could give back, about.
    pub fn cached_bytes(&self) -> usize {
        let blocks = self.reader.cache.blocks().saturating_mul(scoutfs_format::BLOCK_SIZE);
        self.items.bytes().saturating_sub(self.items.dirty_bytes()).saturating_add(blocks)
    }

    /// Gives about so many bytes of clean items and blocks back, those first that were not used for long, and says how many. For whoever
    /// runs short of memory: waits for nothing, and so it may give back less.
    pub fn reclaim(&self, bytes: usize) -> usize {
        let items = self.items.reclaim(bytes / 2);
        let blocks = bytes.saturating_sub(items).div_ceil(scoutfs_format::BLOCK_SIZE);
        let blocks = self.reader.cache.reclaim(blocks).saturating_mul(scoutfs_format::BLOCK_SIZE);
        let left = bytes.saturating_sub(items).saturating_sub(blocks);
        let more = if left > 0 { self.items.reclaim(left) } else { 0 };
        items.saturating_add(blocks).saturating_add(more)
    }

    /// Data were written to the device: the next commit flushes before it. Returns a number for [`Store::sync_data`].
    pub(crate) fn note_data_written(&self) -> u64 {
        self.data_writes.note()
    }

    /// Nothing can go on; everybody who waits learns it.
    pub(crate) fn fail(&self, why: &'static str) {
        self.trans.fail(why);
        self.lock_table.wake();
        self.file_locks.wake();
        self.worker.wake();
    }

    /// The server merged log trees of this mount: they are read no more, and a checkpoint frees their blocks.
    pub(crate) fn logs_merged(&self) -> Result<()> {
        let through = self.reader.refresh()?;
        let mut slot = self.slot.lock();
        slot.note_merged(through);
        if slot.has_merged() {
            self.commit_locked(&mut slot, Wish::default())?;
        }
        Ok(())
    }

    /// Finalizes the log trees if they have items: nothing changes, so it can be merged.
    pub(crate) fn finalize_idle(&self) -> Result<()> {
        let mut slot = self.slot.lock();
        if slot.has_items() {
            self.commit_locked(&mut slot, Wish { finalize: true, ..Wish::default() })?;
        }
        Ok(())
    }

    /// Whether somebody who was fenced may still write to blocks of a file that this mount has locked: so many fences were known when
    /// the file got them.
    pub(crate) fn may_be_written(&self, ino: u64, fences: u32) -> bool {
        self.fences.may_be_written(fences) && fences < self.lock_table.fences_at_grant(ino)
    }

    /// Data blocks that a fenced mount might have written can be used again, when its death is confirmed.
    pub(crate) fn release_withheld(&self) -> Result<()> {
        if self.fences.any_unconfirmed() {
            return Ok(());
        }
        Ok(self.space.lock().release_withheld()?)
    }

    /// Gives a run back that was not used.
    pub fn unreserve_data(&self, run: DataRun) {
        if self.space.unreserve_data(run).is_err() {
            self.trans.fail("data space that was not reserved was given back");
        }
    }
}
