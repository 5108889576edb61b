// SPDX-License-Identifier: GPL-2.0-only
//! The thread that gives locks back: has the front end's kernel drop what it keeps, commits, and drops the items.
//!
//! A thread of its own, because a kernel that drops pages may wait for requests, which may need the worker.

use core::sync::atomic::Ordering;

use scoutfs_env::fault::{Fault, planted};
use scoutfs_env::thread::{self, JoinHandle};
use scoutfs_env::{Arc, time};
use scoutfs_lock::Mode;

use super::client::MEMORY_PAUSE;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::store::{Revoke, Wish};

/// Starts the thread.
pub(super) fn start_revoker(fs: &Arc<Fs>) -> Result<JoinHandle> {
    let fs = fs.clone();
    thread::spawn("scoutfs-locks", move || run(&fs)).map_err(|_| Error::NoMemory)
}

fn run(fs: &Fs) {
    let store = fs.store();
    while let Some(count) = store.lock_table.wait_for_revokes(store) {
        match give_back(fs, count) {
            Ok(()) => {}
            Err(Error::NoMemory) => time::sleep(MEMORY_PAUSE),
            Err(e) => {
                if store.trans.check().is_ok() {
                    scoutfs_env::error!("giving locks back: {}", store.verdict(e));
                    store.fail("a lock could not be given back");
                }
            }
        }
    }
    if store.trans.check().is_err() {
        // Nothing may be believed any more.
        fs.drop_kernel_caches((0, u64::MAX), Mode::Write, Mode::Null);
        store.kernel_knows.store(true, Ordering::Release);
    }
}

/// Gives the first `count` locks back that must go, with one commit. Can be called again when it failed for want of memory.
fn give_back(fs: &Fs, count: usize) -> Result<()> {
    let store = fs.store();
    for n in 0..count {
        if let Some(Revoke { name, held, keep }) = store.lock_table.revoke(n)
            && let Some(inodes) = name.inodes()
        {
            fs.drop_kernel_caches(inodes, held, keep);
        }
    }
    let commit_nr = if planted(Fault::RevokeWithoutCommit) {
        store.commit_nr.load(Ordering::Acquire)
    } else {
        store.commit(Wish::default())?
    };
    for _ in 0..count {
        let Some(Revoke { name, keep, .. }) = store.lock_table.revoke(0) else { break };
        if keep == Mode::Null && !planted(Fault::KeepCacheOnRevoke) {
            let (first, last) = name.range();
            store.items.invalidate(first, last)?;
        }
        store.lock_table.invalidated(store, commit_nr)?;
    }
    Ok(())
}
