// SPDX-License-Identifier: GPL-2.0-only
//! What one mount has seen of all voter slots.

use core::time::Duration;

use scoutfs_env::time::Mono;
use scoutfs_env::{AllocError, Vec};
use scoutfs_format::voter::ProcessId;

use super::VoterBlock;

/// What was seen of one slot.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// The newest state that was read.
    last: Option<VoterBlock>,
    /// Whether the newest reading succeeded.
    readable: bool,
    /// When it was last read.
    read_at: Mono,
    /// When this state was first read, all readings since having succeeded.
    unchanged_since: Option<Mono>,
    /// The claim whose owner is confirmed dead.
    confirmed: Option<u64>,
}

impl Slot {
    /// The state, when the newest reading succeeded.
    pub fn current(&self) -> Option<&VoterBlock> {
        self.last.as_ref().filter(|_| self.readable)
    }

    /// The newest state that was read.
    pub fn last(&self) -> Option<&VoterBlock> {
        self.last.as_ref()
    }

    /// When this state was first read, all readings since having succeeded.
    pub fn unchanged_since(&self) -> Option<Mono> {
        self.unchanged_since
    }

    /// How long the slot is known to be unchanged, up to a reading that began at `since`.
    pub fn silence(&self, since: Mono) -> Option<Duration> {
        self.unchanged_since.map(|from| since.saturating_duration_since(from))
    }

    /// The state of an owner that has beaten within `dead`.
    pub fn beating(&self, since: Mono, dead: Duration) -> Option<&VoterBlock> {
        let silence = self.silence(since)?;
        self.current().filter(|b| b.owned && silence < dead)
    }

    /// Whether a leader shows itself here that is to be left alone: it has beaten within `patience`, or within `confirmed`
    /// though its death is confirmed. A slot that cannot be read is given that time, too.
    pub fn has_leader(&self, since: Mono, patience: Duration, confirmed: Duration) -> bool {
        let silence = self.silence(since).unwrap_or_else(|| since.saturating_duration_since(self.read_at));
        let patience = if self.is_confirmed_dead() { confirmed } else { patience };
        self.last().is_some_and(|b| b.owned && b.leader_term != 0) && silence < patience
    }

    /// Whether a reading that began at `since` shows that nobody has a lease here who shows himself: nobody does, or he has
    /// not beaten for a lease and its margin, or for `confirmed` and is dead for certain.
    pub fn is_without_lease(&self, since: Mono, lease_and_margin: Duration, confirmed: Duration) -> bool {
        let over = if self.is_confirmed_dead() { confirmed.min(lease_and_margin) } else { lease_and_margin };
        self.current().is_some_and(|b| b.leader_term == 0 || self.silence(since).is_some_and(|s| s >= over))
    }

    /// Whether the death of the owner is confirmed.
    pub fn is_confirmed_dead(&self) -> bool {
        self.last.as_ref().is_some_and(|b| b.owned && self.confirmed == Some(b.nonce))
    }

    fn observe(&mut self, now: Mono, block: Option<&VoterBlock>) {
        let Some(block) = block else {
            self.readable = false;
            self.unchanged_since = None;
            return;
        };
        if !self.last.as_ref().is_some_and(|last| last.same_write(block)) {
            self.unchanged_since = None;
        }
        if self.confirmed != Some(block.nonce) {
            self.confirmed = None;
        }
        self.unchanged_since.get_or_insert(now);
        self.last = Some(*block);
        self.readable = true;
        self.read_at = now;
    }
}

/// What was seen of all slots.
#[derive(Debug)]
pub(super) struct Slots(Vec<Slot>);

impl Slots {
    /// Nothing was seen of `count` slots.
    pub fn new(count: u32) -> Result<Self, AllocError> {
        let mut slots = Vec::new();
        slots.try_extend((0..count).map(|_| Slot::default()))?;
        Ok(Slots(slots))
    }

    /// All slots were read, and the reading ended at `now`.
    pub fn observe(&mut self, now: Mono, blocks: &[Option<VoterBlock>]) {
        for (i, slot) in self.0.iter_mut().enumerate() {
            // A block in the wrong place is none.
            let block = blocks.get(i).and_then(|b| b.as_ref());
            slot.observe(now, block.filter(|b| b.voter as usize == i));
        }
    }

    /// A reading has failed.
    pub fn observe_nothing(&mut self) {
        for slot in &mut self.0 {
            slot.observe(Mono::ZERO, None);
        }
    }

    /// The owner of these slots is dead. Returns whether there are any.
    pub fn confirm_dead(&mut self, process: &ProcessId) -> bool {
        let mut any = false;
        for slot in &mut self.0 {
            if let Some(block) = &slot.last
                && block.owned
                && block.process == *process
            {
                slot.confirmed = Some(block.nonce);
                any = true;
            }
        }
        any
    }

    /// One slot.
    pub fn get(&self, voter: u32) -> Option<&Slot> {
        self.0.get(voter as usize)
    }

    /// All slots in order.
    pub fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.0.iter()
    }

    /// All slots but one.
    pub fn others(&self, voter: u32) -> impl Iterator<Item = &Slot> {
        self.0.iter().enumerate().filter(move |(i, _)| *i != voter as usize).map(|(_, s)| s)
    }
}
