// SPDX-License-Identifier: GPL-2.0-only
//! Seqs and inode numbers.
//!
//! Both are counters whose bound is in the super block: no number at or above the durable bound is given out, and a new
//! server begins at the bound, so none is ever given out twice. Bounds are raised well before they are reached, so that
//! nobody waits for it.

use scoutfs_env::Vec;
use scoutfs_format::item::INO_GROUP;
use scoutfs_format::le::U64;
use scoutfs_format::msg::{InosReply, SeqClosed, SeqReply, SeqRequest};
use scoutfs_format::voter::SuperBlock;

use super::{Answer, Handled, Server, bytes_of};
use crate::error::ServerError;

/// By how much the seq bound is raised, and when fewer than a quarter of them are left.
const SEQ_STEP: u64 = 65_536;
/// The same for inode numbers.
const INO_STEP: u64 = 64 * INO_GROUP;

/// The next numbers.
pub(crate) struct Counters {
    pub next_seq: u64,
    pub next_ino: u64,
}

impl Counters {
    /// Begins where nobody has been.
    pub fn new(sb: &SuperBlock) -> Self {
        Counters { next_seq: sb.seq_bound.get(), next_ino: sb.ino_bound.get().next_multiple_of(INO_GROUP) }
    }

    /// Raises the bounds of the next super block if few numbers are left below them; says whether it did.
    pub fn raise_bounds(&self, sb: &mut SuperBlock) -> bool {
        let mut raised = false;
        if sb.seq_bound.get().saturating_sub(self.next_seq) < SEQ_STEP / 4 {
            sb.seq_bound = U64::new(self.next_seq.saturating_add(SEQ_STEP));
            raised = true;
        }
        if sb.ino_bound.get().saturating_sub(self.next_ino) < INO_STEP / 4 {
            sb.ino_bound = U64::new(self.next_ino.saturating_add(INO_STEP));
            raised = true;
        }
        raised
    }
}

impl Server {
    /// How many seqs can be taken before the bound must be raised.
    pub(super) fn seqs_left(&self) -> u64 {
        self.durable.seq_bound.get().saturating_sub(self.counters.next_seq)
    }

    /// A seq that was never given out and that no later server will give out.
    pub(super) fn take_seq(&mut self) -> Result<u64, ServerError> {
        if self.counters.next_seq >= self.durable.seq_bound.get() {
            self.super_dirty = true;
            self.commit()?;
        }
        let seq = self.counters.next_seq;
        self.counters.next_seq += 1;
        Ok(seq)
    }

    /// The next seq of a mount. It stays open until the mount says otherwise.
    pub(super) fn seq(&mut self, slot: u32, request: SeqRequest) -> Handled {
        self.close_seqs(slot, request.closed_below.get())?;
        let seq = self.take_seq()?;
        if let Some(member) = self.members.get_mut(slot) {
            member.open_seqs.push(seq)?;
        }
        Ok(Answer::Now(bytes_of(&SeqReply { seq: U64::new(seq) })?))
    }

    pub(super) fn seq_closed(&mut self, slot: u32, closed: SeqClosed) -> Handled {
        if let Some(member) = self.members.get_mut(slot) {
            member.note_commit(closed.commit_nr.get());
        }
        self.close_seqs(slot, closed.below.get())?;
        Ok(Answer::Now(Vec::new()))
    }

    /// The mount has no seq below this one open or in hand.
    pub(super) fn close_seqs(&mut self, slot: u32, below: u64) -> Result<(), ServerError> {
        if let Some(member) = self.members.get_mut(slot) {
            member.close_below(below);
        }
        self.horizon_progress()
    }

    /// A group of inode numbers.
    pub(super) fn inos(&mut self) -> Handled {
        if self.counters.next_ino + INO_GROUP > self.durable.ino_bound.get() {
            self.super_dirty = true;
            self.commit()?;
        }
        let first = self.counters.next_ino;
        self.counters.next_ino += INO_GROUP;
        let reply = InosReply { first: U64::new(first), count: U64::new(INO_GROUP) };
        Ok(Answer::Now(bytes_of(&reply)?))
    }
}
