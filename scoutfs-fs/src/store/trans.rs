// SPDX-License-Identifier: GPL-2.0-only
//! The transaction that is open now: who is in it, and what it is numbered.
//!
//! Operations enter ([`Trans::enter`]) and leave; a commit closes the transaction when nobody is in it, opens the
//! next one at once, and then writes the closed one while operations go on in the next.
//!
//! A transaction is numbered when the first operation enters it, or before, when a seq is at hand: one that was fetched ahead, or the
//! version of a lock that was just granted for writing, which nobody else has. So a commit asks the server for
//! nothing, who got a lock to write asks it for nothing more, and what is in a transaction can be made durable when there is no server. What is committed before the next one is
//! numbered (space that was taken, the record with which a mount leaves) goes under the number of the last.
//!
//! What must hold:
//!
//! - The versions of one key strictly increase in the order of its writes. An operation writes with the highest
//!   of the transaction's seq and every write version that the mount was granted; the next transaction's seq is
//!   above all of them, for a seq that was fetched before a grant is thrown away. The version of a grant is a number only at the
//!   moment it comes, of a transaction that nobody has entered.
//! - After a horizon was promised no transaction gets a lower number.
//! - Nobody waits for anything while in the transaction, so closing never waits long.
//!
//! Locking: one mutex, a leaf. It is never held over IO or messages.

use scoutfs_env::probe::{self, Event};
use scoutfs_env::sync::{Condvar, Mutex};

use crate::error::{Error, Result};

/// See the module.
pub(crate) struct Trans {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Seq of the open transaction, or of the last one that had a number.
    seq: u64,
    /// Whether it is that of the open one.
    numbered: bool,
    /// No transaction gets a lower number any more.
    floor: u64,
    /// Seq of the transaction that is closed and not durable.
    closed: Option<u64>,
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
    /// It needs a number: [`Trans::number`], then try again.
    Unnumbered,
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

impl State {
    fn accepts(&self, seq: u64) -> bool {
        seq > self.seq.max(self.granted) && seq >= self.floor
    }

    fn lowest_open(&self) -> Option<u64> {
        self.closed.or(self.numbered.then_some(self.seq))
    }
}

impl Trans {
    /// Opens the first transaction.
    pub fn new(seq: u64) -> Self {
        Trans {
            state: Mutex::new(State {
                seq,
                numbered: true,
                floor: 0,
                closed: None,
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
        if !state.numbered {
            return Ok(Entered::Unnumbered);
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

    /// Notes a write version that was granted; only then may the lock be used. It becomes the open transaction's number, if
    /// that has none.
    pub fn note_granted(&self, version: u64) {
        let mut state = self.state.lock();
        if !state.numbered && !state.closing && state.accepts(version) {
            state.numbered = true;
            state.seq = version;
        }
        state.granted = state.granted.max(version);
    }

    /// Numbers the open transaction with a seq of the server, if it has no number. False when the seq is too low by now.
    pub fn number(&self, seq: u64) -> bool {
        let mut state = self.state.lock();
        if state.numbered {
            return true;
        }
        state.numbered = state.accepts(seq);
        if state.numbered {
            state.seq = seq;
        }
        state.numbered
    }

    /// Whether the open transaction has a number.
    pub fn is_numbered(&self) -> bool {
        self.state.lock().numbered
    }

    /// No transaction gets a number below `seq` any more. Says whether the open one has such a number.
    pub fn raise_floor(&self, seq: u64) -> bool {
        let mut state = self.state.lock();
        state.floor = state.floor.max(seq);
        state.numbered && state.seq < seq
    }

    /// The lowest seq that is not durable, and `None` when all are.
    pub fn lowest_open(&self) -> Option<u64> {
        self.state.lock().lowest_open()
    }

    /// All seqs below are closed.
    pub fn closed_below(&self) -> u64 {
        let state = self.state.lock();
        state.lowest_open().unwrap_or(state.seq.max(state.granted).saturating_add(1))
    }

    /// Counts inodes; called by an operation in the transaction.
    pub fn add_inodes(&self, delta: i64) {
        let mut state = self.state.lock();
        state.inode_delta = state.inode_delta.saturating_add(delta);
    }

    /// Waits until nobody is in the transaction and keeps everybody out until [`Trans::open`] or [`Trans::reopen`].
    pub fn close(&self) -> Closed {
        let mut state = self.state.lock();
        while state.closing {
            state = self.changed.wait(state);
        }
        state.closing = true;
        while state.holders > 0 {
            state = self.changed.wait(state);
        }
        Closed { seq: state.seq, max_version: state.seq.max(state.granted), inode_delta: state.inode_delta }
    }

    /// Opens the next transaction after [`Trans::close`], with this number if it is still good. A grant that came meanwhile is as
    /// good as one that comes later: nobody was in any transaction.
    pub fn open(&self, seq: Option<u64>) {
        let mut state = self.state.lock();
        if state.numbered {
            state.closed = Some(state.seq);
        }
        let next = seq.filter(|&seq| state.accepts(seq));
        state.numbered = next.is_some();
        state.seq = next.unwrap_or(state.seq);
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

    /// Seq of the open transaction, or of the last one that had a number when nobody has entered it.
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
        state.closed = state.closed.filter(|&closed| closed > seq);
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
        probe::tell(Event::Ended);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(trans: &Trans) -> Option<u64> {
        match trans.enter(10, 1000, || 0).unwrap() {
            Entered::In { version, .. } => {
                trans.leave(10);
                Some(version)
            }
            Entered::Unnumbered => None,
            Entered::Full => panic!("full"),
        }
    }

    /// Closes and opens, and gives the seq that was closed.
    fn turn(trans: &Trans, next: Option<u64>) -> u64 {
        let closed = trans.close();
        trans.open(next);
        closed.seq
    }

    #[test]
    fn a_transaction_without_a_number_is_entered_when_it_has_one() {
        let trans = Trans::new(5);
        assert_eq!(enter(&trans), Some(5));
        assert_eq!(turn(&trans, None), 5);
        assert_eq!((enter(&trans), trans.used()), (None, false));
        assert_eq!(turn(&trans, None), 5, "what is committed meanwhile goes under the last number");
        assert!(!trans.number(5) && trans.number(7) && trans.number(6));
        assert_eq!(enter(&trans), Some(7));
    }

    #[test]
    fn a_number_from_before_a_grant_or_below_a_promised_horizon_is_refused() {
        let trans = Trans::new(5);
        assert!(!trans.raise_floor(5) && trans.raise_floor(6));
        // It has a number, so this is the version of what is written in it.
        trans.note_granted(8);
        assert_eq!(turn(&trans, Some(8)), 5);
        assert_eq!(enter(&trans), None);
        assert!(!trans.number(8));
        assert!(!trans.raise_floor(20), "it has none");
        assert!(!trans.number(19) && trans.number(20));
        assert_eq!(enter(&trans), Some(20));
    }

    #[test]
    fn a_write_version_numbers_a_transaction_that_nobody_has_entered_and_none_that_comes_later() {
        let trans = Trans::new(5);
        turn(&trans, None);
        assert_eq!((enter(&trans), trans.closed_below()), (None, 5));
        trans.note_granted(8);
        assert_eq!((enter(&trans), trans.seq()), (Some(8), 8));
        // Written with in this one, so no number of the next, nor is one of before.
        trans.note_granted(11);
        assert_eq!(enter(&trans), Some(11));
        assert_eq!(turn(&trans, Some(11)), 8);
        trans.note_granted(11);
        trans.note_granted(9);
        assert_eq!(enter(&trans), None);
        trans.note_granted(12);
        assert_eq!(enter(&trans), Some(12));
    }

    #[test]
    fn a_write_version_that_comes_while_a_transaction_is_closed_or_below_a_horizon_is_no_number() {
        let trans = Trans::new(5);
        turn(&trans, None);
        trans.note_durable(5);
        trans.close();
        trans.note_granted(8);
        trans.open(None);
        assert_eq!((enter(&trans), trans.lowest_open()), (None, None));
        // What was granted is below what nobody uses any more.
        assert_eq!(trans.closed_below(), 9);
        trans.raise_floor(20);
        trans.note_granted(19);
        assert_eq!(enter(&trans), None);
        trans.note_granted(20);
        assert_eq!(enter(&trans), Some(20));
    }

    /// The horizon of the change index waits for what is not durable.
    #[test]
    fn a_seq_is_closed_when_it_is_durable_and_not_when_the_next_one_is_open() {
        let trans = Trans::new(5);
        assert_eq!((trans.lowest_open(), trans.closed_below()), (Some(5), 5));
        turn(&trans, Some(9));
        assert_eq!((trans.lowest_open(), trans.closed_below()), (Some(5), 5));
        trans.note_durable(6);
        assert_eq!((trans.lowest_open(), trans.closed_below()), (Some(9), 9));
        turn(&trans, None);
        trans.note_durable(9);
        assert_eq!((trans.lowest_open(), trans.closed_below()), (None, 10));
    }
}
