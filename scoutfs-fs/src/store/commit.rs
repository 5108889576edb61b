// SPDX-License-Identifier: GPL-2.0-only
//! Closing a transaction and making it durable.
//!
//! The steps: the transaction is closed; its dirty items become a tail that readers see; the next one is opened; the closed
//! one is written (see `slot`). Only the last step does IO, and operations go on meanwhile.
//!
//! # Running out of memory
//!
//! Up to the closing nothing has happened: the transaction stays open. Closing (items and space together) is one step that
//! happens or does not. From then on the closed transaction is a batch in the slot, which is never forgotten: what
//! cannot go on for want of memory stays there ([`Slot::closed`]), the caller gets an errno, and the next commit, or
//! the worker's next round, goes on with it before anything else. So it is with who was killed while the leader was to confirm the
//! lease.
//!
//! | batch | left to do |
//! | --- | --- |
//! | not durable | a record, or a checkpoint, which is undone when it cannot be finished |
//! | durable | the lease is checked, readers are shown the new log trees, space becomes free |

use core::sync::atomic::Ordering;

use scoutfs_btree::space::CommitToken;
use scoutfs_btree::{OwnedItem, Tail};
use scoutfs_env::fault::{Fault, planted};
use scoutfs_env::{Arc, Vec, thread};

use super::slot::{Batch, Slot};
use super::trans::Entered;
use super::{Need, Store};
use crate::counters::Counter;
use crate::error::{Error, Result};

/// Bytes of stack that a commit without a checkpoint takes.
const COMMIT_STACK: usize = 5 << 10;

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
            let limit = self.ensure_meta(need.total_bytes(), need.privileged)?;
            match self.trans.enter(need.total_bytes(), limit, || self.items.dirty_bytes())? {
                Entered::In { seq, version, half_full } => {
                    if half_full {
                        self.worker.commit_early();
                    }
                    return Ok((seq, version));
                }
                Entered::Full => drop(self.commit(Wish::default())?),
                Entered::Unnumbered => self.number_trans()?,
            }
        }
    }

    /// Makes durable all that was done before the call.
    pub fn sync(&self) -> Result<()> {
        let (seq, written) = (self.trans.seq(), self.data_writes.written());
        self.sync_seq(seq)?;
        self.sync_data(written)
    }

    /// Makes durable the data that were written by the time of a [`Store::note_data_written`], without a commit. No IO when they are.
    pub(crate) fn sync_data(&self, written: u64) -> Result<()> {
        if self.data_writes.is_flushed(written) {
            return Ok(());
        }
        let written = self.data_writes.written();
        if !planted(Fault::SkipDataFlush) {
            self.device().flush()?;
        }
        // What is durable was written while it was this mount's to write.
        self.check_lease()?;
        self.data_writes.note_flushed(written);
        Ok(())
    }

    /// Waits until the transaction with this seq is durable, committing it if it is still open. No IO when it is.
    pub fn sync_seq(&self, seq: u64) -> Result<()> {
        if self.trans.is_durable(seq) {
            return self.trans.check();
        }
        let mut slot = self.client.lock_unless_killed(&self.slot)?;
        // Whoever had the lock may have committed it; or nobody did anything since the last commit.
        if self.trans.is_durable(seq) || (!self.trans.used() && slot.closed.is_none()) {
            return self.trans.check();
        }
        self.commit_locked(&mut slot, Wish::default()).map(|_| ())
    }

    /// Commits what is in the open transaction. Gives the number of the newest durable record.
    pub(crate) fn commit(&self, wish: Wish) -> Result<u64> {
        let mut slot = self.client.lock_unless_killed(&self.slot)?;
        self.commit_locked(&mut slot, wish)
    }

    /// Commits, or gives back, every seq below `seq`. Gives the number of the newest durable record.
    pub(crate) fn commit_below(&self, seq: u64) -> Result<u64> {
        let mut slot = self.client.lock_unless_killed(&self.slot)?;
        // One that could not be finished is below.
        if self.trans.raise_floor(seq) || slot.closed.is_some() {
            self.commit_locked(&mut slot, Wish::default())?;
        }
        Ok(slot.commit_nr())
    }

    /// Number of the record that nothing follows, once it counts.
    pub(crate) fn left(&self) -> Option<u64> {
        let slot = self.slot.lock();
        (slot.left() && slot.closed.is_none()).then(|| slot.commit_nr())
    }

    /// Goes on with a commit that could not be finished.
    pub(crate) fn retry_commit(&self) -> Result<()> {
        if self.commit_waits.load(Ordering::Acquire) {
            self.commit(Wish::default())?;
        }
        Ok(())
    }

    pub(crate) fn commit_locked(&self, slot: &mut Slot, wish: Wish) -> Result<u64> {
        self.trans.check()?;
        let done = thread::with_room(COMMIT_STACK, || self.try_commit(slot, wish));
        let result = done.map_err(|e| self.verdict(e));
        self.commit_waits.store(slot.closed.is_some(), Ordering::Release);
        match &result {
            Err(e) if slot.closed.is_some() && !matches!(e, Error::NoMemory | Error::Interrupted) => {
                scoutfs_env::error!("a commit failed, the mount shuts down: {e}");
                self.trans.fail("a commit failed");
            }
            Err(Error::NoMemory) => scoutfs_env::warn!("no memory for a commit, it will be tried again"),
            _ => {}
        }
        result
    }

    fn try_commit(&self, slot: &mut Slot, wish: Wish) -> Result<u64> {
        self.finish(slot)?;
        if slot.left() {
            // It may be what had to be finished.
            return if wish.leave {
                Ok(slot.commit_nr())
            } else {
                Err(Error::Shutdown("the mount has left"))
            };
        }
        self.close(slot, wish)?;
        self.finish(slot)?;
        Ok(slot.commit_nr())
    }

    /// Closes the open transaction, which the slot has then, and opens the next one. On an error it is open as before.
    fn close(&self, slot: &mut Slot, wish: Wish) -> Result<()> {
        let closed = self.trans.close();
        match self.items.take_dirty(|batch| self.publish(batch)) {
            Ok((token, items)) => {
                slot.closed = Some(slot.batch(&closed, items, token, wish));
                self.trans.open(self.numbers.take_seq());
                Ok(())
            }
            Err(e) => {
                self.trans.reopen();
                if !matches!(e, Error::NoMemory) {
                    self.trans.fail("a transaction could not be closed");
                }
                Err(e)
            }
        }
    }

    /// Makes the closed transaction durable, if there is one. On an error the slot still has it.
    fn finish(&self, slot: &mut Slot) -> Result<()> {
        let Some(mut batch) = slot.closed.take() else { return Ok(()) };
        let done = self.finish_batch(slot, &mut batch);
        if done.is_err() {
            slot.closed = Some(batch);
        }
        done
    }

    fn finish_batch(&self, slot: &mut Slot, batch: &mut Batch) -> Result<()> {
        if batch.written.is_none() {
            if self.is_idle(slot, batch)? {
                self.space.lock().commit_done(batch.token)?;
                slot.note_blocks(batch);
                self.trans.note_durable(batch.max_version);
                return Ok(());
            }
            let tail = || self.reader.roots.own_tail();
            slot.write(self.device(), &self.reader.cache, &self.space, batch, &self.data_writes, tail)?;
            self.count_commit(slot, batch);
        }
        slot.note_blocks(batch);
        let Some(written) = &batch.written else {
            return Err(Error::Shutdown("a commit wrote nothing"));
        };
        self.check_lease()?;
        if let Some(logs) = &written.logs {
            self.reader.roots.checkpointed(logs)?;
        }
        let extents = {
            let mut space = self.space.lock();
            space.commit_done(batch.token)?;
            space.list_entries()
        };
        *self.inode_delta.lock() += batch.inode_delta;
        self.checkpoint_need.store(slot.checkpoint_blocks(extents), Ordering::Relaxed);
        self.unmerged_bytes.store(slot.unmerged_bytes(), Ordering::Relaxed);
        self.commit_nr.store(slot.commit_nr(), Ordering::Release);
        self.trans.note_durable(batch.max_version);
        // What the server must hear is sent by the worker: nobody waits for it here.
        self.numbers.note_committed(batch.token.taken(), written.finalized);
        Ok(())
    }

    fn count_commit(&self, slot: &Slot, batch: &Batch) {
        self.counters.inc(Counter::Commit);
        self.counters.add(Counter::RecordBytes, slot.record_bytes());
        self.counters.add(Counter::CommitItems, batch.items.len() as u64);
        let Some(written) = &batch.written else { return };
        if written.logs.is_some() {
            self.counters.inc(Counter::Checkpoint);
        }
        if written.finalized {
            self.counters.inc(Counter::Finalize);
        }
    }

    /// Whether there is nothing to write.
    fn is_idle(&self, slot: &Slot, batch: &Batch) -> Result<bool> {
        let wish = &batch.wish;
        if !batch.items.is_empty() || batch.inode_delta != 0 || wish.leave || wish.always {
            return Ok(false);
        }
        if slot.has_merged() || slot.finalizes(batch) {
            return Ok(false);
        }
        Ok(self.space.lock().trans_entries(batch.token)?.is_empty())
    }

    /// The items of a closed transaction become the newest layer of this mount's log, before they count as clean, and its
    /// space is closed with them.
    fn publish(&self, batch: Vec<OwnedItem>) -> Result<(CommitToken, Vec<OwnedItem>)> {
        let tail = if batch.is_empty() {
            None
        } else {
            let mut tail = Tail::new();
            tail.merge_in(batch.iter().map(OwnedItem::borrow))?;
            Some(Arc::new(tail)?)
        };
        let token = self.reader.roots.push_tail(tail, || Ok(self.space.lock().close_trans()?))?;
        Ok((token, batch))
    }
}
