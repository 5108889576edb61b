// SPDX-License-Identifier: GPL-2.0-only
//! Writes that are answered before the device has the data, as a page cache does, so that who writes a stream makes the next
//! piece ready meanwhile.
//!
//! Such a write keeps its cluster lock and the inode's local lock until it is done, so whoever reads or changes the inode waits for
//! it anyway, here and on other mounts. Those who only read its attributes under the cluster lock take no local lock; they wait
//! here. So do those who make things durable. One that fails after it was answered is told of by the next `fsync` of each open
//! file ([`Fs::lost_writes`]), and by the next sync of all.
//!
//! Only a write that cannot fail for want of space is answered early. The order of what reaches the device is as ever: data
//! first, and then the items that name them.
//!
//! Locking: one mutex, a leaf. Who waits may hold any lock but those of a transaction: a write that was answered waits for
//! no lock.

use scoutfs_env::sync::atomic::Ordering;
use scoutfs_env::sync::{Condvar, Mutex};
use scoutfs_env::{Arc, Vec};

use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::table::MemInode;

/// The writes that were answered and are not done.
pub(crate) struct Behind {
    state: Mutex<State>,
    done: Condvar,
}

struct State {
    /// Of the write that was answered last.
    number: u64,
    /// Numbers of those that are not done.
    open: Vec<u64>,
    /// Why one failed, until somebody is told who syncs all.
    lost: Option<i32>,
}

/// A write that may be answered early: the front end's kernel is told how much was written.
pub(crate) struct Answer<'a, 'f> {
    answer: &'f mut dyn FnMut(usize),
    /// Once that is done.
    answered: Option<Answered<'a>>,
}

/// Until it is dropped the write is not done.
struct Answered<'a> {
    behind: &'a Behind,
    inode: Arc<MemInode>,
    number: u64,
}

/// See [`Behind::begin_known`].
pub(crate) struct Known<'a> {
    behind: &'a Behind,
    inode: &'a MemInode,
}

impl Behind {
    pub fn new() -> Self {
        Behind { state: Mutex::new(State { number: 0, open: Vec::new(), lost: None }), done: Condvar::new() }
    }

    /// Waits until no write of the inode that was answered is on its way.
    pub fn wait_for(&self, inode: &MemInode) {
        let is_behind = || inode.written_behind.load(Ordering::Acquire) > 0;
        if !is_behind() {
            return;
        }
        let mut state = self.state.lock();
        while is_behind() {
            state = self.done.wait(state);
        }
    }

    /// Waits until all writes that were answered before are done. Fails if one of them was lost, once.
    pub fn wait_for_all(&self) -> Result<()> {
        let mut state = self.state.lock();
        let last = state.number;
        while state.open.iter().any(|number| *number <= last) {
            state = self.done.wait(state);
        }
        state.lost.take().map_or(Ok(()), |errno| Err(Error::LostWrite { errno }))
    }

    /// What a program has written, and was told so, cannot be written.
    pub fn lost(&self, inode: &MemInode, error: &Error) {
        let errno = error.errno();
        scoutfs_env::error!("inode {}: data that were to be written are lost: {error}", inode.ino);
        inode.note_lost_write(errno);
        self.state.lock().lost = Some(errno);
    }

    /// Until the answer is dropped, a write is on its way that was answered before and that those who make things durable find otherwise.
    pub fn begin_known<'a>(&'a self, inode: &'a MemInode) -> Known<'a> {
        inode.written_behind.fetch_add(1, Ordering::AcqRel);
        Known { behind: self, inode }
    }

    /// None without memory: then the write is not answered early.
    fn begin(&self, inode: &Arc<MemInode>) -> Option<Answered<'_>> {
        let mut state = self.state.lock();
        let number = state.number + 1;
        state.open.push(number).ok()?;
        state.number = number;
        inode.written_behind.fetch_add(1, Ordering::AcqRel);
        Some(Answered { behind: self, inode: inode.clone(), number })
    }
}

impl<'a, 'f> Answer<'a, 'f> {
    pub fn new(answer: &'f mut dyn FnMut(usize)) -> Self {
        Answer { answer, answered: None }
    }

    /// Answers that `len` bytes were written, all that was wanted, if the volume has room for what is still to be done.
    pub fn now(&mut self, fs: &'a Fs, inode: &Arc<MemInode>, len: usize) {
        if self.answered.is_none() && fs.store().has_room() {
            self.answered = fs.behind.begin(inode);
            if self.answered.is_some() {
                (self.answer)(len);
            }
        }
    }

    /// Whether it was answered.
    pub fn is_given(&self) -> bool {
        self.answered.is_some()
    }

    /// The write has failed after that.
    pub fn lost(&self, error: &Error) {
        if let Some(Answered { behind, inode, .. }) = &self.answered {
            behind.lost(inode, error);
        }
    }
}

impl Drop for Known<'_> {
    fn drop(&mut self) {
        // Not without the mutex: somebody may be about to wait.
        let state = self.behind.state.lock();
        self.inode.written_behind.fetch_sub(1, Ordering::AcqRel);
        drop(state);
        self.behind.done.notify_all();
    }
}

impl Drop for Answered<'_> {
    fn drop(&mut self) {
        let mut state = self.behind.state.lock();
        state.open.retain(|number| *number != self.number);
        self.inode.written_behind.fetch_sub(1, Ordering::AcqRel);
        drop(state);
        self.behind.done.notify_all();
    }
}

impl Fs {
    /// How many writes of an inode were lost after they had been answered, and the errno of the last. A front end remembers the number for each open
    /// file and fails one `fsync` of each when it has changed. 0 for an inode that nobody uses.
    pub fn lost_writes(&self, ino: u64) -> (u32, i32) {
        self.table.get(ino).map_or((0, 0), |inode| inode.lost_writes())
    }

    /// Waits until an inode's attributes hold what was answered.
    pub(crate) fn settle(&self, ino: u64) {
        if let Some(inode) = self.table.get(ino) {
            self.behind.wait_for(&inode);
        }
    }
}
