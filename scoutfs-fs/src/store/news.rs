// SPDX-License-Identifier: GPL-2.0-only
//! What other mounts have committed, as far as this one must see it.
//!
//! A grant of a lock, and the horizon of the index, name the newest commit of each other mount that this one was not told of yet.
//! Before anything is read under the lock, these slots are read up to there, and no others.
//!
//! What must hold: what is noted is noted before the lock can be used ([`News::note`], by the thread that receives); who got a
//! lock calls [`Store::catch_up`] before he reads.
//!
//! Locking: one mutex over the numbers, a leaf.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use scoutfs_env::fault::{Fault, planted};
use scoutfs_env::sync::Mutex;
use scoutfs_env::{OrdMap, Vec, time};
use scoutfs_format::msg::CommitNumber;
use scoutfs_format::server_item::MEMBER_FREE;
use scoutfs_server::roots::Roots;
use zerocopy::FromBytes;

use super::Store;
use crate::error::{Error, Result};

/// How often, and in which intervals, a slot is read again that does not show what was promised. A commit that was told of is
/// durable, so this is for devices that are slow to show it.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// See the module.
pub(crate) struct News {
    /// By slot, the newest commit that must be seen.
    promised: Mutex<OrdMap<u32, Promise>>,
    /// Counts what was noted.
    noted: AtomicU64,
    /// Of that, what was read.
    read: AtomicU64,
}

/// A commit of another mount that must be seen.
#[derive(Clone, Copy)]
struct Promise {
    /// Epoch and number.
    commit: (u64, u64),
    /// It was: the roots that readers are shown have it.
    seen: bool,
}

impl Promise {
    fn is_in(&self, slot: u32, roots: &Roots) -> bool {
        let (epoch, commit_nr) = self.commit;
        // All that a former owner of the slot has left is in the merged tree.
        let owned = roots
            .member(slot)
            .is_some_and(|member| member.epoch.get() == epoch && member.state.get() != MEMBER_FREE);
        // Commit 0 is that of a new owner who has not committed yet: it stands for what is merged.
        !owned || commit_nr == 0 || roots.slot(slot).is_some_and(|state| state.commit_nr() >= commit_nr)
    }
}

impl News {
    pub fn new() -> Self {
        News { promised: Mutex::new(OrdMap::new()), noted: AtomicU64::new(0), read: AtomicU64::new(0) }
    }

    /// The server names commits of other mounts: `bytes` are [`CommitNumber`]s. On an error some may be noted; it can be
    /// called again.
    pub fn note(&self, bytes: &[u8], own_slot: u32) -> Result<()> {
        let numbers = <[CommitNumber]>::ref_from_bytes(bytes)
            .map_err(|_| Error::Shutdown("an answer of the server has a wrong length"))?;
        for number in numbers.iter().filter(|n| n.slot.get() != own_slot) {
            let commit = (number.epoch.get(), number.commit_nr.get());
            let mut promised = self.promised.lock();
            if promised.get(&number.slot.get()).is_none_or(|known| known.commit < commit) {
                promised.insert(number.slot.get(), Promise { commit, seen: false })?;
                self.noted.fetch_add(1, Ordering::AcqRel);
            }
        }
        Ok(())
    }

    /// Commits that must be seen and were not: slot, epoch and number.
    fn unseen(&self) -> Result<Vec<(u32, u64, u64)>> {
        let promised = self.promised.lock();
        let unseen = promised.iter().filter(|(_, promise)| !promise.seen);
        let mut told = Vec::new();
        told.try_extend(unseen.map(|(&slot, &Promise { commit: (epoch, nr), .. })| (slot, epoch, nr)))?;
        Ok(told)
    }

    /// Readers are shown these roots. Says whether they have all that must be seen.
    fn look(&self, roots: &Roots) -> bool {
        let mut all = true;
        for (&slot, promise) in self.promised.lock().iter_mut() {
            promise.seen |= promise.is_in(slot, roots);
            all &= promise.seen;
        }
        all
    }
}

impl Store {
    /// Sees to it that what is read from now on shows all commits of others that were named until now.
    pub(super) fn catch_up(&self) -> Result<()> {
        if planted(Fault::IgnoreNews) {
            return Ok(());
        }
        let news = &self.news;
        let mut tries = 0;
        loop {
            let noted = news.noted.load(Ordering::Acquire);
            if news.read.load(Ordering::Acquire) >= noted {
                return Ok(());
            }
            // When somebody else has seen all of it meanwhile there is nothing to read.
            let told = news.unseen()?;
            let seen = told.is_empty() || self.reader.refresh_slots(&told, |roots| news.look(roots))?;
            if seen {
                news.read.fetch_max(noted, Ordering::AcqRel);
                continue;
            }
            tries += 1;
            if tries == TRIES {
                return Err(Error::Shutdown("a commit of another mount is not where it should be"));
            }
            time::sleep(PAUSE);
        }
    }
}
