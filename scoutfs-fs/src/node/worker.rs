// SPDX-License-Identifier: GPL-2.0-only
//! What goes on in the background of a mount.
//!
//! The session's thread takes the server's messages and must never wait for an answer itself; what takes longer is queued for the
//! worker, which commits by time, gets space and seqs ahead of need, and carries out what the server asks.
//!
//! Locking: one mutex over the worker's queue, a leaf.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use scoutfs_env::sync::{Condvar, Mutex};
use scoutfs_env::thread::{self, JoinHandle};
use scoutfs_env::time::{self, Mono};
use scoutfs_env::{Arc, Vec};
use scoutfs_format::le::{U32, U64};
use scoutfs_format::msg::{
    CommitBelow, CommitNumber, JoinReply, MSG_COMMIT_BELOW, MSG_FILE_LOCK, MSG_FILE_LOCK_REPORT,
    MSG_FINALIZE, MSG_JOIN, MSG_LOCK, MSG_LOCK_REPORT, MSG_MERGED, MSG_OPENS_REPORT, MSG_RECOVERED,
    MSG_SPACE_RECALL, STATUS_INVALID, STATUS_NOT_MEMBER, STATUS_OK, SpaceRecall,
};
use zerocopy::{FromBytes, IntoBytes};

use super::client::{MEMORY_PAUSE, Order, OrderOf};
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::store::{Store, Wish};

/// The worker looks after things this often.
const ROUND: Duration = Duration::from_millis(200);

/// After so many rounds in a row in which the device failed the mount shuts down.
const MAX_FAILURES: u32 = 5;

/// How long changes may stay in memory, and logs unmerged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Intervals {
    /// An open transaction is committed after this long.
    pub commit: Duration,
    /// The open log tree is finalized when nothing changed for this long.
    pub idle: Duration,
}

/// The worker's queue.
pub(crate) struct Worker {
    orders: Mutex<Vec<Order>>,
    arrived: Condvar,
    stop: AtomicBool,
    /// The open transaction is half full.
    early: AtomicBool,
    /// Logs may be merged.
    merged: AtomicBool,
}

impl Worker {
    pub fn new() -> Self {
        Worker {
            orders: Mutex::new(Vec::new()),
            arrived: Condvar::new(),
            stop: AtomicBool::new(false),
            early: AtomicBool::new(false),
            merged: AtomicBool::new(false),
        }
    }

    /// Has the worker commit now, so that nobody has to who is in a hurry.
    pub fn commit_early(&self) {
        self.early.store(true, Ordering::Release);
        self.arrived.notify_all();
    }

    /// Has the worker look which of the mount's logs are merged: a server that is gone may not have told.
    pub fn look_for_merged(&self) {
        self.merged.store(true, Ordering::Release);
        self.wake();
    }

    /// Has the worker look now.
    pub fn wake(&self) {
        let orders = self.orders.lock();
        drop(orders);
        self.arrived.notify_all();
    }

    /// Ends the worker.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }
}

/// Starts the worker.
pub(crate) fn start_worker(fs: &Arc<Fs>, intervals: Intervals) -> Result<JoinHandle> {
    let fs = fs.clone();
    thread::spawn("scoutfs-work", move || work(&fs, intervals)).map_err(|_| Error::NoMemory)
}

/// Handles a message or hands it on to the worker. After [`Error::NoMemory`] it can be tried again.
pub(super) fn dispatch(store: &Store, order: &mut Option<Order>) -> Result<()> {
    match order {
        Some(Order { kind: MSG_LOCK, of: OrderOf::Answer(STATUS_OK), payload }) => {
            store.lock_table.granted(store, payload)
        }
        Some(Order { kind: MSG_FILE_LOCK, of: OrderOf::Answer(STATUS_OK), payload }) => {
            store.file_locks.answered(payload)
        }
        Some(Order { kind: MSG_JOIN, of: OrderOf::Answer(status), payload }) => {
            let stands = *status == STATUS_OK
                && JoinReply::read_from_bytes(payload).is_ok_and(|reply| {
                    (reply.slot.get(), reply.epoch.get()) == (store.identity.slot, store.identity.epoch)
                });
            if stands { Ok(()) } else { Err(Error::Shutdown("the mount was fenced")) }
        }
        Some(Order {
            kind: MSG_LOCK_REPORT | MSG_OPENS_REPORT | MSG_FILE_LOCK_REPORT | MSG_RECOVERED,
            of: OrderOf::Answer(STATUS_OK),
            ..
        }) => Ok(()),
        // It was told for a mount that was only just joining, and had been asked to join again later: a full volume first takes
        // back what others have left. Whether the mount is a member, the answer to the request to join says.
        Some(Order { kind: MSG_RECOVERED, of: OrderOf::Answer(STATUS_NOT_MEMBER), .. }) => Ok(()),
        Some(Order { of: OrderOf::Answer(status), .. }) => Err(Error::Server(*status)),
        Some(Order { kind: MSG_LOCK, of: OrderOf::Request(id), payload }) => {
            store.lock_table.revoked(store, *id, payload)
        }
        _ => {
            let mut orders = store.worker.orders.lock();
            orders.reserve(1)?;
            if let Some(order) = order.take() {
                orders.push(order)?;
            }
            drop(orders);
            store.worker.arrived.notify_all();
            Ok(())
        }
    }
}

fn work(fs: &Fs, intervals: Intervals) {
    let store = fs.store();
    let mut clock = Clock { opened: None, changed: time::mono_now(), seq: 0 };
    let mut orders = Vec::new();
    // How many of them are carried out.
    let mut carried = 0;
    // How often in a row the device failed.
    let mut failures = 0;
    while !store.worker.stop.load(Ordering::Acquire) {
        if carried == orders.len() {
            let mut arrived = store.worker.orders.lock();
            if arrived.is_empty() && !store.worker.early.load(Ordering::Acquire) {
                (arrived, _) = store.worker.arrived.wait_timeout(arrived, ROUND);
            }
            orders = core::mem::take(&mut *arrived);
            carried = 0;
        }
        match round(fs, &orders, &mut carried, &mut clock, &intervals) {
            Ok(()) => failures = 0,
            // The volume is full: nothing to get ahead of need.
            Err(Error::NoSpace) => {}
            // What was not done is done in the next round.
            Err(Error::NoMemory) => time::sleep(MEMORY_PAUSE),
            // A commit that could not be written has shut the mount down already.
            Err(Error::Io(e)) if failures < MAX_FAILURES && store.trans.check().is_ok() => {
                scoutfs_env::warn!("background work: {e}; trying again");
                failures += 1;
                time::sleep(ROUND);
            }
            // It waited for a server in vain, as a mount that is being left does for a while only. What is in memory is still to be
            // made durable, which needs no server.
            Err(Error::Shutdown(_)) if store.client.is_leaving() && store.trans.check().is_ok() => {
                time::sleep(ROUND);
            }
            Err(_) if store.worker.stop.load(Ordering::Acquire) => return,
            Err(e) => {
                if store.trans.check().is_ok() {
                    scoutfs_env::error!("background work: {}", store.verdict(e));
                    store.fail("background work failed");
                }
                return;
            }
        }
    }
}

fn round(
    fs: &Fs,
    orders: &[Order],
    carried: &mut usize,
    clock: &mut Clock,
    intervals: &Intervals,
) -> Result<()> {
    let store = fs.store();
    while let Some(order) = orders.get(*carried) {
        match carry_out(fs, order) {
            Err(e @ (Error::NoMemory | Error::Io(_))) => return Err(e),
            done => {
                *carried += 1;
                done?;
            }
        }
    }
    if store.worker.early.swap(false, Ordering::AcqRel) {
        commit(fs, Wish::default())?;
    }
    clock.round(fs, intervals)
}

/// Commits, and what was written before is in it.
fn commit(fs: &Fs, wish: Wish) -> Result<u64> {
    let _held_off = fs.write_all_delayed()?;
    fs.store().commit(wish)
}

/// Carries out what the server asked for.
fn carry_out(fs: &Fs, order: &Order) -> Result<()> {
    let store = fs.store();
    let OrderOf::Request(id) = order.of else { return Ok(()) };
    let commit_nr = match order.kind {
        MSG_COMMIT_BELOW => match CommitBelow::read_from_bytes(&order.payload) {
            Ok(below) => {
                let _held_off = fs.write_all_delayed()?;
                store.commit_below(below.seq.get())?
            }
            Err(_) => return store.client.answer(order.kind, id, STATUS_INVALID, &[]),
        },
        MSG_FINALIZE => commit(fs, Wish { finalize: true, ..Wish::default() })?,
        MSG_MERGED => {
            store.logs_merged()?;
            return store.client.answer(order.kind, id, STATUS_OK, &[]);
        }
        MSG_SPACE_RECALL => match SpaceRecall::read_from_bytes(&order.payload) {
            Ok(recall) => {
                let answer = store.give_recalled(&recall, fs.passing.keeps(), || fs.drop_reservations())?;
                return store.client.answer(order.kind, id, STATUS_OK, answer.as_bytes());
            }
            Err(_) => return store.client.answer(order.kind, id, STATUS_INVALID, &[]),
        },
        _ => return store.client.answer(order.kind, id, STATUS_INVALID, &[]),
    };
    let answer = CommitNumber {
        slot: U32::new(store.identity.slot),
        pad: U32::ZERO,
        epoch: U64::new(store.identity.epoch),
        commit_nr: U64::new(commit_nr),
    };
    store.client.answer(order.kind, id, STATUS_OK, answer.as_bytes())
}

/// When what was last done.
struct Clock {
    /// When the open transaction was first seen in use.
    opened: Option<Mono>,
    /// When something last changed.
    changed: Mono,
    seq: u64,
}

impl Clock {
    fn round(&mut self, fs: &Fs, intervals: &Intervals) -> Result<()> {
        let store = fs.store();
        let now = time::mono_now();
        store.retry_commit()?;
        store.release_withheld()?;
        if store.worker.merged.swap(false, Ordering::AcqRel)
            && let Err(e) = store.logs_merged()
        {
            store.worker.merged.store(true, Ordering::Release);
            return Err(e);
        }
        let seq = store.trans.seq();
        if seq != self.seq {
            self.seq = seq;
            self.opened = None;
        }
        if store.trans.used() {
            self.changed = now;
            let opened = *self.opened.get_or_insert(now);
            if now.saturating_duration_since(opened) >= intervals.commit {
                commit(fs, Wish::default())?;
            } else {
                store.prefetch_seq()?;
            }
        } else if now.saturating_duration_since(self.changed) >= intervals.idle {
            store.finalize_idle()?;
            store.give_back_unused()?;
            self.changed = now;
        }
        store.refill()
    }
}

#[cfg(test)]
mod tests;
