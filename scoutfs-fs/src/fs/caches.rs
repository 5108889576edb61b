// SPDX-License-Identifier: GPL-2.0-only
//! What a front end's kernel keeps of inodes, and dropping it when locks go back.

use scoutfs_env::sync::atomic::Ordering;
use scoutfs_env::{Arc, Box, time};
use scoutfs_lock::Mode;

use super::Fs;
use crate::inode::table::MemInode;

/// A kernel that keeps names, attributes and pages. Called by threads that serve no request.
pub trait KernelCaches: Send + Sync {
    /// Has each name looked up again before it is believed. Must not wait for requests.
    fn forget_names(&self);

    /// Has an inode's attributes read again before they are believed. Must not wait for requests. False when the kernel does not
    /// know the inode, or not yet: it may be about to learn of it from an answer that was given already.
    fn forget_attributes(&self, ino: u64) -> bool;

    /// Writes the changed pages in bytes `first..end` of an inode, and drops all. May wait for reads, writes and truncations of
    /// these bytes, and for nothing else.
    fn forget_pages(&self, ino: u64, first: u64, end: u64);

    /// Data of an inode that a program has written, and was told so, are lost. Called by threads that serve requests, too. For front ends
    /// that do not look at [`Fs::lost_writes`] themselves.
    fn note_lost(&self, _ino: u64, _errno: i32) {}
}

impl Fs {
    /// From now on this kernel is told what it must drop.
    pub fn set_kernel_caches(&self, caches: Arc<Box<dyn KernelCaches>>) {
        *self.caches.lock() = Some(caches);
    }

    /// The lock of the inodes from `first` to `last` goes back, which was `held`; `keep` is what stays of it. Drops what the kernel
    /// may not keep, and what is kept in memory for writing.
    pub(crate) fn drop_kernel_caches(&self, (first, last): (u64, u64), held: Mode, keep: Mode) {
        let caches = self.caches.lock().clone();
        if keep == Mode::Null
            && let Some(caches) = &caches
        {
            caches.forget_names();
        }
        let now = time::mono_now();
        self.table.for_each_in(first, last, |inode| {
            if held == Mode::Write && keep < Mode::Write {
                self.write_delayed_for_revoke(inode);
            }
            if let Some(caches) = &caches {
                self.drop_pages(&***caches, inode, held, keep);
            }
            if keep < Mode::Write {
                self.end_changes_for_revoke(inode);
            }
            if keep == Mode::Null
                && let Some(caches) = &caches
                && !caches.forget_attributes(inode.ino)
            {
                inode.attributes_unsure.store(true, Ordering::Release);
            }
            if keep == Mode::Null {
                self.keep_passing(inode, now);
                let mut state = inode.data.write();
                state.forget_tail();
                self.drop_reservation(&mut state);
            }
        });
    }

    /// The inode is opened: from now on its attributes are used without looking up its name. What the kernel learned of them by an
    /// answer that crossed with the end of a lock is not believed.
    pub(crate) fn renew_attributes(&self, inode: &MemInode) {
        if inode.attributes_unsure.swap(false, Ordering::AcqRel)
            && let Some(caches) = self.caches.lock().clone()
        {
            caches.forget_attributes(inode.ino);
        }
    }

    /// Drops the pages that the lock covers. While others may read, pages may stay that cannot be changed.
    ///
    /// Of an inode whose pages the kernel can change they went when the lock for writing did: under one for reading there are none. There
    /// may be requests that have pages locked and wait for a lock for writing. To drop their pages would be to wait for them, and they
    /// could not come in as guests.
    fn drop_pages(&self, caches: &dyn KernelCaches, inode: &MemInode, held: Mode, keep: Mode) {
        match inode.may_be_dirtied() {
            true if held < Mode::Write => return,
            false if keep > Mode::Null => return,
            _ => {}
        }
        let end = inode.pages_end.load(Ordering::Acquire);
        if end > 0 {
            let ino = inode.ino;
            self.store.lock_table.flush(ino, (0, end), |(first, end)| caches.forget_pages(ino, first, end));
            inode.pages_end.store(0, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests;
