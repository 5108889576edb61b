// SPDX-License-Identifier: GPL-2.0-only
//! The transaction that is open now: who is in it, and what it is numbered.
//!
//! Operations enter ([`Trans::enter`]) and leave; a commit closes the transaction when nobody is in it, opens the
//! next one at once, and then writes the closed one while operations go on in the next.
//!
//! What must hold:
//!
//! - The versions of one key strictly increase in the order of its writes. An operation writes with the highest
//!   of the transaction's seq and every write version that the mount was granted; the next transaction's seq is
//!   above all of them, for a seq that was fetched before a grant is thrown away.
//! - Nobody waits for anything while in the transaction, so closing never waits long.
//!
//! Locking: one mutex, a leaf. It is never held over IO or messages.

use scoutfs_env::sync::{Condvar, Mutex};

use crate::error::{Error, Result};

/// See the module.
pub(crate) struct Trans {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Seq of the open transaction.
    seq: u64,
    /// Highest write version that was granted to this mount.
    granted: u64,
    /// Operations in the transaction.
    holders: u32,
    /// A commit waits for them; nobody enters.
    closing: bool,
    /// Bytes of items that the operations that are in it may still make.
    promised_bytes: usize,
    /// Somebody was asked to commit it before it is full.
    early: bool,
    /// Inodes made less deleted in it.
    inode_delta: i64,
    /// Whether an operation entered since it was opened.
    used: bool,
    /// All transactions with lower seqs are durable, and this one.
    durable_seq: u64,
    /// Set when the mount cannot go on.
    failed: Option<&'static str>,
}

/// What came of an attempt to enter.
pub(crate) enum Entered {
    /// The operation is in the transaction.
    In {
        /// Its seq.
        seq: u64,
        /// The version to write with.
        version: u64,
        /// It is half full, for the first time: a commit now spares the operations to come the waiting.
        half_full: bool,
    },
    /// There is no room: commit, then try again.
    Full,
}

/// A transaction that was closed.
pub(crate) struct Closed {
    /// Its seq.
    pub seq: u64,
    /// Highest version that was written in it.
    pub max_version: u64,
    /// Inodes made less deleted in it.
    pub inode_delta: i64,
}

impl Trans {
    /// Opens the first transaction.
    pub fn new(seq: u64) -> Self {
        Trans {
            state: Mutex::new(State {
                seq,
                granted: 0,
                holders: 0,
                closing: false,
                promised_bytes: 0,
                early: false,
                inode_delta: 0,
                used: false,
                durable_seq: 0,
                failed: None,
            }),
            changed: Condvar::new(),
        }
    }

    /// Enters the open transaction with the promise to make items of no more than `bytes`, waiting while one is being closed.
    /// `dirty_bytes` tells those that it has already.
    ///
    /// No transaction gets more than `limit_bytes`, but for a single operation that needs more.
    pub fn enter(
        &self,
        bytes: usize,
        limit_bytes: usize,
        dirty_bytes: impl Fn() -> usize,
    ) -> Result<Entered> {
        let mut state = self.state.lock();
        loop {
            if let Some(why) = state.failed {
                return Err(Error::Shutdown(why));
            }
            if !state.closing {
                break;
            }
            state = self.changed.wait(state);
        }
        let dirty = dirty_bytes();
        let before = state.promised_bytes.saturating_add(dirty);
        if before.saturating_add(bytes) > limit_bytes && before > 0 {
            return Ok(Entered::Full);
        }
        state.promised_bytes = state.promised_bytes.saturating_add(bytes);
        state.holders += 1;
        state.used = true;
        let half_full = dirty > limit_bytes / 2 && !core::mem::replace(&mut state.early, true);
        Ok(Entered::In { seq: state.seq, version: state.seq.max(state.granted), half_full })
    }

    /// Leaves the transaction, with the `bytes` that were promised when it was entered.
    pub fn leave(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.holders -= 1;
        state.promised_bytes = state.promised_bytes.saturating_sub(bytes);
        if state.holders == 0 && state.closing {
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Notes a write version that was granted; only then may the lock be used.
    pub fn note_granted(&self, version: u64) {
        let mut state = self.state.lock();
        state.granted = state.granted.max(version);
    }

    /// Whether `seq` may become the next transaction.
    pub fn accepts(&self, seq: u64) -> bool {
        let state = self.state.lock();
        seq > state.seq.max(state.granted)
    }

    /// A number above all that this mount has written with.
    pub fn unused_seq(&self) -> u64 {
        let state = self.state.lock();
        state.seq.max(state.granted).saturating_add(1)
    }

    /// Counts inodes; called by an operation in the transaction.
    pub fn add_inodes(&self, delta: i64) {
        let mut state = self.state.lock();
        state.inode_delta = state.inode_delta.saturating_add(delta);
    }

    /// Waits until nobody is in the transaction and keeps everybody out until [`Trans::open`] or [`Trans::reopen`].
    ///
    /// `next` is to be the seq of the transaction after this one. `None` says that it is too low by now, and that nothing
    /// was closed. A grant that comes later is as good as one that comes when the next transaction is open: nobody is in
    /// any until then.
    pub fn close(&self, next: u64) -> Option<Closed> {
        let mut state = self.state.lock();
        while state.closing {
            state = self.changed.wait(state);
        }
        state.closing = true;
        while state.holders > 0 {
            state = self.changed.wait(state);
        }
        let max_version = state.seq.max(state.granted);
        if next <= max_version {
            state.closing = false;
            drop(state);
            self.changed.notify_all();
            return None;
        }
        Some(Closed { seq: state.seq, max_version, inode_delta: state.inode_delta })
    }

    /// Opens the next transaction after [`Trans::close`], with the seq that was given there.
    pub fn open(&self, seq: u64) {
        let mut state = self.state.lock();
        state.seq = seq;
        state.closing = false;
        state.early = false;
        state.inode_delta = 0;
        state.used = false;
        drop(state);
        self.changed.notify_all();
    }

    /// Goes on with the same transaction after [`Trans::close`].
    pub fn reopen(&self) {
        self.state.lock().closing = false;
        self.changed.notify_all();
    }

    /// Seq of the open transaction.
    pub fn seq(&self) -> u64 {
        self.state.lock().seq
    }

    /// Whether an operation entered the open transaction.
    pub fn used(&self) -> bool {
        self.state.lock().used
    }

    /// The transaction `seq` and all before it are durable.
    pub fn note_durable(&self, seq: u64) {
        let mut state = self.state.lock();
        state.durable_seq = state.durable_seq.max(seq);
        drop(state);
        self.changed.notify_all();
    }

    /// Whether the transaction `seq` is durable.
    pub fn is_durable(&self, seq: u64) -> bool {
        self.state.lock().durable_seq >= seq
    }

    /// Seq of the newest durable transaction.
    pub fn durable_seq(&self) -> u64 {
        self.state.lock().durable_seq
    }

    /// Nothing may go on; everybody who waits learns it.
    pub fn fail(&self, why: &'static str) {
        let mut state = self.state.lock();
        if state.failed.is_none() {
            state.failed = Some(why);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Fails once the mount has.
    pub fn check(&self) -> Result<()> {
        match self.state.lock().failed {
            Some(why) => Err(Error::Shutdown(why)),
            None => Ok(()),
        }
    }
}
