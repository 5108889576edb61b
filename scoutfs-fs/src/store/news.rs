// SPDX-License-Identifier: GPL-2.0-only
//! What other mounts have committed, as far as this one must see it.
//!
//! A grant of a lock, and the horizon of the index, name the newest commit of each other mount that this one was not told of yet.
//! Before anything is read under the lock, the slots are read up to there.
//!
//! What must hold: what is noted is noted before the lock can be used ([`News::note`], by the thread that receives); who got a
//! lock calls [`Store::catch_up`] before he reads.
//!
//! Locking: one mutex over the numbers, a leaf.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use scoutfs_env::fault::{Fault, planted};
use scoutfs_env::sync::Mutex;
use scoutfs_env::{OrdMap, time};
use scoutfs_format::msg::CommitNumber;
use scoutfs_format::server_item::MEMBER_FREE;
use zerocopy::FromBytes;

use super::Store;
use crate::error::{Error, Result};

/// How often, and in which intervals, a slot is read again that does not show what was promised. A commit that was told of is
/// durable, so this is for devices that are slow to show it.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// See the module.
pub(crate) struct News {
    /// By slot: epoch and number of the newest commit that must be seen.
    promised: Mutex<OrdMap<u32, (u64, u64)>>,
    /// Counts what was noted.
    noted: AtomicU64,
    /// Of that, what was read.
    read: AtomicU64,
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
            let promise = (number.epoch.get(), number.commit_nr.get());
            let mut promised = self.promised.lock();
            if promised.get(&number.slot.get()).is_none_or(|known| *known < promise) {
                promised.insert(number.slot.get(), promise)?;
                self.noted.fetch_add(1, Ordering::AcqRel);
            }
        }
        Ok(())
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
            let seen = self.reader.refresh_until(|roots| {
                news.promised.lock().iter().all(|(&slot, &(epoch, commit_nr))| {
                    // All that a former owner of the slot has left is in the merged tree.
                    let owned = roots.member(slot).is_some_and(|member| {
                        member.epoch.get() == epoch && member.state.get() != MEMBER_FREE
                    });
                    // Commit 0 is that of a new owner who has not committed yet: it stands for what is merged.
                    !owned
                        || commit_nr == 0
                        || roots.slot(slot).is_some_and(|state| state.commit_nr() >= commit_nr)
                })
            })?;
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
