// SPDX-License-Identifier: GPL-2.0-only
//! The inodes that are in use on this mount.
//!
//! An entry counts the references that the front end's kernel has from look-ups, the open files, and the operations
//! at work (pins), and it stays while writes to it are gathered, unless it is to be deleted. With the last of them it leaves the table; if the inode was unlinked, whoever
//! took that last reference away deletes it, alone: until that is done the entry says so and nobody can
//! take a new reference, so no handle revives an unlinked inode.
//!
//! An inode that is open on another mount stays on the volume, and that mount deletes it: on the last close of a file whose lock
//! was away meanwhile it looks whether the inode has lost its links. References from look-ups alone do not keep what another
//! mount has unlinked.
//!
//! The attributes are not kept here: the item cache is their cache, and what cluster locks invalidate there cannot be
//! stale here. What is kept is the lock under which this mount's threads take turns, and what helps writing.
//!
//! # Locking
//!
//! The shards' mutexes are leaves but for those of the lists of open inodes. [`MemInode::data`] is taken after the cluster locks and before the
//! transaction, by inode number where there are several. A [`Pin`] may delete an inode when it is
//! dropped, so it must be dropped after all locks are: declare pins before locks.

use core::ops::Deref;

use scoutfs_env::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use scoutfs_env::sync::{Mutex, RwLock, RwLockWriteGuard};
use scoutfs_env::{AllocError, Arc, OrdMap, Vec, time};
use scoutfs_lock::LockName;

use crate::data::changed::ChangedPages;
use crate::data::delayed::Delayed;
use crate::data::state::DataState;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::record::Inode;
use crate::store::{LockMode, Locks};

const NR_SHARDS: usize = 16;

/// Most inodes that one operation changes.
pub(crate) const MAX_OP_INODES: usize = 4;

/// An inode in use: there are as many as the kernel caches. In a kernel without debugging, with the counts of an [`Arc`], 240 bytes; its
/// allocator gives 256, or else 512.
pub(crate) struct MemInode {
    pub ino: u64,
    /// Threads of this mount that read the inode's items share it; those that change them are alone.
    pub data: RwLock<DataState>,
    /// Seen with no links: whoever drops the last reference looks whether to delete it.
    unlinked: AtomicBool,
    /// An unnamed temporary file that may be given a name.
    linkable: AtomicBool,
    /// The kernel may keep pages below this offset.
    pub pages_end: AtomicU64,
    /// Open files through which the kernel can change pages without asking.
    unseen_writers: AtomicU64,
    /// Pages that were changed through such files, which are closed, may be still to be written.
    left_dirty: AtomicBool,
    /// Writes that were answered and are not done, see [`Behind`](crate::data::behind::Behind). The next may be answered before the
    /// one before is counted as done.
    pub written_behind: AtomicU64,
    /// Small writes that are gathered, see [`DelayedWrites`](crate::data::delayed::DelayedWrites).
    pub delayed: Delayed,
    /// What attributes are shown with of pages that are not written.
    pub changed: ChangedPages,
    /// Blocks without data of which programs have changed pages, or some more: for each the mount owes items.
    pub owed_blocks: AtomicU64,
    /// [`Store::note_data_written`](crate::store::Store) when pages were written last, which no commit may make durable, or when the inode
    /// came into the table.
    pub data_written: AtomicU64,
    /// Count of such writes that failed, above the errno of the last.
    lost_writes: AtomicU64,
    /// The kernel did not know the inode when its attributes were to be forgotten.
    pub attributes_unsure: AtomicBool,
    /// [`LockTable::refresh`](crate::store::LockTable::refresh) when the inode was opened: until it changes nobody else can have
    /// unlinked it.
    opened_at: AtomicU64,
    /// When its name was last looked up, in nanoseconds of the monotonic clock.
    pub looked_up_at: AtomicU64,
    /// Of a directory: the inode that was last found in it, 0 none or when a name was not found since. Whoever has lost the directory to
    /// a node that makes files in it has most likely lost that inode's group, too.
    last_child: AtomicU64,
}

impl MemInode {
    /// The inode that will most likely be wanted after this directory.
    pub fn likely_child(&self) -> Option<u64> {
        Some(self.last_child.load(Ordering::Relaxed)).filter(|&ino| ino != 0)
    }

    /// A name was looked up in this directory.
    pub fn note_child(&self, found: Option<u64>) {
        self.last_child.store(found.unwrap_or(0), Ordering::Relaxed);
    }

    /// The kernel may keep pages that it gets or writes below this offset.
    pub fn note_pages(&self, end: u64) {
        if self.pages_end.load(Ordering::Relaxed) < end {
            self.pages_end.fetch_max(end, Ordering::AcqRel);
        }
    }

    /// Whether the kernel can change pages without asking: they are kept under a lock for writing only.
    pub fn may_be_dirtied(&self) -> bool {
        self.unseen_writers.load(Ordering::Acquire) > 0 || self.left_dirty.load(Ordering::Acquire)
    }

    /// No page is left that was changed, of what was open.
    pub fn end_dirty(&self) {
        self.left_dirty.store(false, Ordering::Release);
    }

    /// The lock for giving the kernel pages.
    fn page_mode(&self) -> LockMode {
        if self.may_be_dirtied() { LockMode::Write } else { LockMode::Read }
    }

    /// A write of the inode failed after it had been answered.
    pub fn note_lost_write(&self, errno: i32) {
        let more = |lost: u64| Some(((lost >> 32) + 1) << 32 | u64::from(errno.unsigned_abs()));
        let _ = self.lost_writes.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
    }

    /// How many writes were lost so, and the errno of the last.
    pub fn lost_writes(&self) -> (u32, i32) {
        let lost = self.lost_writes.load(Ordering::Acquire);
        // Each half is put together above.
        ((lost >> 32) as u32, (lost as u32).cast_signed())
    }

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
    /// Open files, and one more when it is open in passing.
    opens: u64,
    /// See [`Passing`](super::passing::Passing).
    passing: bool,
    pins: u64,
    /// Something is gathered, which is to be written, unless the inode is deleted.
    delayed: bool,
    /// Another mount has unlinked it: look-ups do not keep it.
    unlinked_elsewhere: bool,
    /// The last reference is gone and the inode is being deleted.
    dying: bool,
}

impl Entry {
    fn in_use(&self) -> bool {
        let unlinked_here = !self.unlinked_elsewhere && self.inode.unlinked.load(Ordering::Relaxed);
        // What this mount unlinks is kept by look-ups, as long as there is one.
        let opens = self.opens.saturating_sub(u64::from(self.passing && unlinked_here));
        let delayed = self.delayed && !self.inode.unlinked.load(Ordering::Relaxed);
        (self.lookups != 0 && !self.unlinked_elsewhere) || opens != 0 || self.pins != 0 || delayed
    }
}

/// See the module.
pub(crate) struct InodeTable {
    /// [`NR_SHARDS`] of them, made one by one where they stay: together they are too much for a kernel's stack.
    shards: Vec<Mutex<OrdMap<u64, Entry>>>,
}

impl InodeTable {
    pub fn new() -> Result<Self> {
        let mut shards = Vec::with_capacity(NR_SHARDS)?;
        for _ in 0..NR_SHARDS {
            shards.push(Mutex::new(OrdMap::new()))?;
        }
        Ok(InodeTable { shards })
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

    /// An inode that somebody uses.
    pub fn get(&self, ino: u64) -> Option<Arc<MemInode>> {
        self.shard(ino).lock().get(&ino).map(|entry| entry.inode.clone())
    }

    /// Whether anybody uses the inode.
    pub fn contains(&self, ino: u64) -> bool {
        self.shard(ino).lock().contains_key(&ino)
    }

    /// Whether an inode is open on this mount.
    pub fn is_open(&self, ino: u64) -> bool {
        self.shard(ino).lock().get(&ino).is_some_and(|entry| entry.opens > 0)
    }

    /// Calls `f` with each inode from `first` to `last` that was in the table before, and may have left it since.
    pub fn for_each_in(&self, first: u64, last: u64, mut f: impl FnMut(&MemInode)) {
        for shard in self.shards.iter() {
            let mut from = Some(first);
            while let Some(inode) = from.and_then(|from| {
                let shard = shard.lock();
                let (ino, entry) = shard.ceiling(&from)?;
                (*ino <= last).then(|| entry.inode.clone())
            }) {
                f(&inode);
                from = inode.ino.checked_add(1);
            }
        }
    }

    /// Calls `f` with the state of each inode whose lock is free right now.
    pub fn for_each_idle(&self, mut f: impl FnMut(&mut DataState)) {
        for shard in self.shards.iter() {
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

    /// Its name was looked up for the front end's kernel.
    pub fn note_looked_up(&self) {
        self.add_lookup();
        self.inode.looked_up_at.store(time::mono_now().as_ns(), Ordering::Relaxed);
    }

    /// Counts an open file if there is another: the inode cannot go, whatever this mount has to wait for.
    fn join_open(&self) -> bool {
        let mut joined = false;
        self.fs.table.count(self.ino, |entry| {
            joined = entry.opens > 0;
            entry.opens += u64::from(joined);
        });
        joined
    }

    /// Counts an open file. The caller holds the inode's cluster lock.
    fn add_open(&self, unseen_writer: bool) -> Result<()> {
        let mut shard = self.fs.table.shard(self.ino).lock();
        // It is pinned.
        let Some(entry) = shard.get_mut(&self.ino) else { return Err(Error::StaleHandle) };
        if entry.opens == 0 {
            self.fs.store().opens.insert(self.ino)?;
        }
        entry.opens = entry.opens.saturating_add(1);
        if unseen_writer {
            self.inode.unseen_writers.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Counts an open file less; true if it was the last.
    fn remove_open(&self, unseen_writer: bool) -> bool {
        let mut last = false;
        self.fs.table.count(self.ino, |entry| {
            last = entry.opens == 1;
            entry.opens = entry.opens.saturating_sub(1);
            if unseen_writer {
                let less = |writers: u64| writers.checked_sub(1);
                let _ = self.inode.unseen_writers.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
            }
            if last {
                self.fs.store().opens.remove(self.ino);
            }
        });
        last
    }
}

impl Pin<'_> {
    /// To be kept for longer than the pin.
    pub fn shared(&self) -> &Arc<MemInode> {
        &self.inode
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
    /// What is kept of one of the inodes.
    pub fn state(&mut self, ino: u64) -> Option<&mut DataState> {
        self.guards.iter_mut().flatten().find(|(other, _)| *other == ino).map(|(_, state)| &mut **state)
    }

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
    let (mut last, mut nth) = (None, 0);
    let guards = sorted.map(|inode| {
        let inode = inode?;
        if last.replace(inode.ino) == Some(inode.ino) {
            return None;
        }
        let guard = inode.data.write_nested(nth);
        nth += 1;
        Some((inode.ino, guard))
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
            pages_end: AtomicU64::new(0),
            unseen_writers: AtomicU64::new(0),
            left_dirty: AtomicBool::new(false),
            written_behind: AtomicU64::new(0),
            delayed: Delayed::default(),
            changed: ChangedPages::default(),
            owed_blocks: AtomicU64::new(0),
            data_written: AtomicU64::new(self.store().data_writes.written()),
            lost_writes: AtomicU64::new(0),
            attributes_unsure: AtomicBool::new(false),
            opened_at: AtomicU64::new(0),
            looked_up_at: AtomicU64::new(0),
            last_child: AtomicU64::new(0),
        })?;
        let entry = Entry {
            inode: inode.clone(),
            lookups: 0,
            opens: 0,
            passing: false,
            pins: 1,
            delayed: false,
            unlinked_elsewhere: false,
            dying: false,
        };
        shard.insert(ino, entry)?;
        Ok(Pin { fs: self, inode })
    }

    /// Keeps a pinned inode in the table until [`Fs::end_keeping`], or until it is to be deleted.
    pub(crate) fn keep_delayed(&self, pin: &Pin<'_>) {
        self.table.count(pin.ino, |entry| entry.delayed = true);
    }

    /// Lets go of it. No lock may be held.
    pub(crate) fn end_keeping(&self, ino: u64) {
        self.put(ino, |entry| entry.delayed = false);
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
            let delayed = entry.delayed.then(|| entry.inode.clone());
            drop(shard);
            if let Some(inode) = delayed {
                self.drop_delayed(&inode);
            }
            if let Err(error) = self.delete_unlinked(ino) {
                // The orphan item is still there: the next scan tries again.
                let error = self.store().verdict(error);
                scoutfs_env::log::warn!("unlinked inode {ino} was not deleted: {error}");
            }
            shard = self.table.shard(ino).lock();
        }
        let gone = shard.remove(&ino);
        drop(shard);
        if let Some(entry) = gone {
            if entry.opens > 0 {
                self.store().opens.remove(ino);
            }
            self.drop_reservation(&mut entry.inode.data.write());
            self.pay_all(&entry.inode);
        }
    }

    /// The front end's kernel has forgotten `count` references from look-ups (and from operations that return the
    /// attributes of what they made).
    pub fn forget(&self, ino: u64, count: u64) {
        self.put(ino, |e| e.lookups = e.lookups.saturating_sub(count));
    }

    /// Counts an open file. Finishes a truncation that a crash interrupted. `unseen_writer`: the kernel can change pages of the
    /// file without asking (a shared mapping over FUSE); [`Fs::release`] must get the same.
    ///
    /// # Errors
    ///
    /// [`Error::StaleHandle`] when the inode is gone.
    pub fn open(&self, ino: u64, unseen_writer: bool) -> Result<()> {
        let pin = self.pin(ino)?;
        let joined = pin.join_open();
        let opened = self.open_pinned(&pin, unseen_writer, joined);
        if joined && opened.is_err() {
            // The writer is counted last.
            self.release(ino, false);
        }
        opened
    }

    fn open_pinned(&self, pin: &Pin<'_>, unseen_writer: bool, joined: bool) -> Result<()> {
        self.finish_truncate(pin)?;
        let mode = if unseen_writer { LockMode::Write } else { LockMode::Read };
        let locks = self.store().lock(&[(pin.ino, mode)])?;
        self.load(&locks, pin.ino)?;
        if joined {
            // Under the lock for writing: pages that were kept under one for reading go with that.
            pin.unseen_writers.fetch_add(u64::from(unseen_writer), Ordering::AcqRel);
        } else {
            pin.add_open(unseen_writer)?;
            pin.opened_at.store(self.refresh_of(pin.ino), Ordering::Relaxed);
        }
        self.renew_attributes(pin);
        Ok(())
    }

    fn refresh_of(&self, ino: u64) -> u64 {
        self.store().lock_table.refresh(LockName::group_of(ino)).unwrap_or(0)
    }

    /// Opens an inode that is in the table, has links as far as is known, and is not open. Its lock is held. `note` remembers to close it.
    pub(super) fn open_passing(&self, ino: u64, note: impl FnOnce() -> core::result::Result<(), AllocError>) {
        let refresh = self.refresh_of(ino);
        self.table.count(ino, |entry| {
            let unlinked = entry.unlinked_elsewhere || entry.inode.unlinked.load(Ordering::Relaxed);
            if entry.opens > 0 || entry.dying || unlinked || self.store().opens.insert(ino).is_err() {
                return;
            }
            match note() {
                Ok(()) => {
                    entry.opens = 1;
                    entry.passing = true;
                    entry.inode.opened_at.store(refresh, Ordering::Relaxed);
                }
                Err(AllocError) => self.store().opens.remove(ino),
            }
        });
    }

    /// The lock for reading bytes of a file, into pages that the kernel may keep.
    pub(crate) fn lock_pages(&self, inode: &MemInode, first: u64, end: u64) -> Result<Locks<'_>> {
        // Also before: who drops pages must know of this request, which may hold some already.
        inode.note_pages(end);
        loop {
            let mode = inode.page_mode();
            let locks = self.store().lock_bytes_to_read(inode.ino, mode, first, end)?;
            inode.note_pages(end);
            if inode.page_mode() == mode || mode == LockMode::Write {
                return Ok(locks);
            }
        }
    }

    /// Counts an open file less. Of one that was opened with `unseen_writer` no page that was changed is still to be written.
    pub fn release(&self, ino: u64, unseen_writer: bool) {
        self.close(ino, unseen_writer, false);
    }

    /// The same of one that was opened with `unseen_writer`, while pages may be still to be written: until all of them are, or the lock goes
    /// back, the inode counts as one that may change.
    pub fn release_dirty(&self, ino: u64) {
        self.close(ino, true, true);
    }

    fn close(&self, ino: u64, unseen_writer: bool, dirty: bool) {
        // It is in the table, so no memory is needed.
        let Ok(pin) = self.pin(ino) else { return };
        if dirty {
            pin.left_dirty.store(true, Ordering::Release);
        } else if unseen_writer
            && pin.unseen_writers.load(Ordering::Acquire) == 1
            && self.take_over_changes(ino, true).is_err()
        {
            scoutfs_env::log::debug!("closing inode {ino}: its times stay a little older");
        }
        let last = pin.remove_open(unseen_writer);
        if unseen_writer && !dirty && pin.unseen_writers.load(Ordering::Acquire) == 0 {
            pin.end_dirty();
            self.pay_all(&pin);
        }
        if !last {
            return;
        }
        {
            let mut state = pin.data.write();
            state.forget_tail();
            self.drop_reservation(&mut state);
        }
        let refresh = self.store().lock_table.refresh(LockName::group_of(ino));
        let was_away = refresh != Some(pin.opened_at.load(Ordering::Relaxed));
        if was_away && !pin.unlinked.load(Ordering::Relaxed) && !self.store().read_only() {
            match self.is_unlinked(ino) {
                Ok(true) => {
                    pin.set_unlinked(true);
                    self.table.count(ino, |entry| entry.unlinked_elsewhere = true);
                }
                Ok(false) => {}
                // The next scan finds it.
                Err(error) => {
                    let error = self.store().verdict(error);
                    scoutfs_env::log::warn!("closing inode {ino}: {error}");
                }
            }
        }
    }

    /// Ends what [`open_passing`](Self::open_passing) began, if the inode has not gone since.
    pub(super) fn release_passing(&self, ino: u64) {
        let mut passing = false;
        self.table.count(ino, |entry| passing = core::mem::take(&mut entry.passing));
        if passing {
            self.release(ino, false);
        }
    }

    /// Whether an inode is there and has no links.
    fn is_unlinked(&self, ino: u64) -> Result<bool> {
        let locks = self.store().lock(&[(ino, LockMode::Read)])?;
        Ok(Inode::load(&locks, ino)?.is_some_and(|inode| inode.nlink() == 0))
    }

    /// Deletes the inode if it has no links and nobody uses it.
    pub(crate) fn delete_if_unused(&self, ino: u64) -> Result<()> {
        if !self.table.contains(ino) {
            self.pin(ino)?.set_unlinked(true);
        }
        Ok(())
    }
}
