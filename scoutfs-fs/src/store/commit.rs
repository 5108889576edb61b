// SPDX-License-Identifier: GPL-2.0-only
//! Closing a transaction and making it durable.
//!
//! The steps: the seq of the next transaction is fetched first, so that no message is needed while nobody can enter; the
//! transaction is closed; its dirty items become a tail that readers see; the next one is opened; the closed
//! one is written (see `slot`). Only the last step does IO, and operations go on meanwhile.

use core::sync::atomic::Ordering;

use scoutfs_btree::{OwnedItem, Tail};
use scoutfs_env::{Arc, Vec};

use super::slot::{Batch, Slot, Written};
use super::trans::Entered;
use super::{Need, Store};
use crate::counters::Counter;
use crate::error::{Error, Result};

/// What a commit is to do besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Finalize all log trees that are not.
    pub finalize: bool,
    /// Say that nothing follows.
    pub leave: bool,
    /// Write a record even when nothing changed.
    pub always: bool,
}

impl Store {
    /// Enters the transaction for an operation; see [`super::Locks::hold`].
    pub(super) fn enter(&self, need: Need) -> Result<(u64, u64)> {
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        loop {
            self.trans.check()?;
            self.ensure_meta(need.total_bytes(), need.privileged)?;
            let limit = self.tuning.max_trans_bytes;
            match self.trans.enter(need.total_bytes(), limit, || self.items.dirty_bytes())? {
                Entered::In { seq, version, half_full } => {
                    if half_full {
                        self.worker.commit_early();
                    }
                    return Ok((seq, version));
                }
                Entered::Full => self.commit(Wish::default())?,
            };
        }
    }

    /// Makes durable all that was done before the call.
    pub fn sync(&self) -> Result<()> {
        let seq = self.trans.seq();
        self.sync_seq(seq)
    }

    /// Waits until the transaction with this seq is durable, committing it if it is still open. No IO when it is.
    pub fn sync_seq(&self, seq: u64) -> Result<()> {
        if self.trans.is_durable(seq) {
            return self.trans.check();
        }
        let mut slot = self.slot.lock();
        // Whoever had the lock may have committed it; or nobody did anything since the last commit.
        if self.trans.is_durable(seq) || !self.trans.used() {
            return self.trans.check();
        }
        self.commit_locked(&mut slot, Wish::default()).map(|_| ())
    }

    /// Commits what is in the open transaction. Gives the number of the newest durable record.
    pub(crate) fn commit(&self, wish: Wish) -> Result<u64> {
        let mut slot = self.slot.lock();
        self.commit_locked(&mut slot, wish)
    }

    /// Commits, or gives back, every seq below `seq`. Gives the number of the newest durable record.
    pub(crate) fn commit_below(&self, seq: u64) -> Result<u64> {
        let mut slot = self.slot.lock();
        self.numbers.drop_seq_below(seq);
        if self.trans.seq() < seq {
            self.commit_locked(&mut slot, Wish::default())?;
        }
        Ok(slot.commit_nr())
    }

    pub(crate) fn commit_locked(&self, slot: &mut Slot, wish: Wish) -> Result<u64> {
        self.trans.check()?;
        let result = self.try_commit(slot, wish);
        match &result {
            Ok(_) => {}
            // Nothing was closed: the transaction is open as before.
            Err(Stop::Before(_)) => {}
            Err(Stop::After(e)) => {
                scoutfs_env::error!("a commit failed, the mount shuts down: {e}");
                self.trans.fail("a commit failed");
            }
        }
        result.map_err(|stop| match stop {
            Stop::Before(e) | Stop::After(e) => e,
        })
    }

    fn try_commit(&self, slot: &mut Slot, wish: Wish) -> core::result::Result<u64, Stop> {
        let mut next = self.next_seq().map_err(Stop::Before)?;
        let closed = self.trans.close();
        let taken = (|| -> Result<_> {
            let token = self.space.lock().close_trans()?;
            let items = self.items.take_dirty(|batch| self.publish(batch))?;
            Ok((token, items))
        })();
        let (token, items) = match taken {
            Ok(taken) => taken,
            Err(e) => {
                self.trans.reopen();
                // The space may be closed and the items not: they cannot be brought together again.
                return Err(Stop::After(e));
            }
        };
        // A lock may be granted at any moment.
        while !self.trans.open(next) {
            next = self.fetch_seq().map_err(Stop::After)?;
        }
        let batch = Batch {
            seq: closed.seq,
            max_version: closed.max_version,
            next_min_version: next,
            items: &items,
            token,
            inode_delta: closed.inode_delta,
            finalize: wish.finalize && (slot.has_items() || !items.is_empty()),
            leave: wish.leave,
        };
        let entries = self.space.lock().trans_entries(token).map_err(|e| Stop::After(e.into()))?;
        let idle = items.is_empty() && entries.is_empty() && closed.inode_delta == 0;
        if idle && !batch.finalize && !batch.leave && !wish.always && !slot.has_merged() {
            self.space.lock().commit_done(token).map_err(|e| Stop::After(e.into()))?;
            self.trans.note_durable(closed.max_version);
            return Ok(slot.commit_nr());
        }
        let written = slot
            .write(self.device(), &self.reader.cache, &self.space, &batch, &self.data_written, || {
                self.reader.roots.own_tail()
            })
            .map_err(Stop::After)?;
        self.count_commit(slot, &written, items.len());
        self.check_lease().map_err(Stop::After)?;
        let finish = || -> Result<()> {
            if let Some(logs) = written.logs {
                self.reader.roots.checkpointed(logs)?;
            }
            self.space.lock().commit_done(token)?;
            Ok(())
        };
        finish().map_err(Stop::After)?;
        *self.inode_delta.lock() += closed.inode_delta;
        self.checkpoint_need.store(slot.checkpoint_blocks(0), Ordering::Relaxed);
        self.unmerged_bytes.store(slot.unmerged_bytes(), Ordering::Relaxed);
        self.commit_nr.store(written.commit_nr, Ordering::Release);
        self.trans.note_durable(closed.max_version);
        // What the server must hear is sent by the worker: nobody waits for it here.
        self.numbers.note_committed(token.taken(), written.finalized);
        Ok(written.commit_nr)
    }

    fn count_commit(&self, slot: &Slot, written: &Written, items: usize) {
        self.counters.inc(Counter::Commit);
        self.counters.add(Counter::RecordBytes, slot.record_bytes());
        self.counters.add(Counter::CommitItems, items as u64);
        if written.logs.is_some() {
            self.counters.inc(Counter::Checkpoint);
        }
        if written.finalized {
            self.counters.inc(Counter::Finalize);
        }
    }

    /// The items of a closed transaction become the newest layer of this mount's log, before they count as clean.
    fn publish(&self, batch: Vec<OwnedItem>) -> Result<Vec<OwnedItem>> {
        if !batch.is_empty() {
            let mut tail = Tail::new();
            tail.merge_in(batch.iter().map(OwnedItem::borrow))?;
            self.reader.roots.push_tail(Arc::new(tail)?)?;
        }
        Ok(batch)
    }
}

/// Where a commit failed.
enum Stop {
    /// The transaction is open as before.
    Before(Error),
    /// The transaction is lost.
    After(Error),
}
