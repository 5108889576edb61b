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
    /// Nonce and number of the first block of the newest claim that was seen.
    first: (u64, u64),
    /// Since when the slot shows another's block that is older than what was seen.
    doubted_since: Option<Mono>,
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
        let is_none = |b: &VoterBlock| b.leader_term == 0 && (!b.owned || self.has_beaten());
        self.current().is_some_and(|b| is_none(b) || self.silence(since).is_some_and(|s| s >= over))
    }

    /// Whether its owner has written again since the claim. A claim that was on its way for long may be over a leader, whose beat over
    /// the other copy is torn just now; but who claims late watches for a dead time before he writes again.
    fn has_beaten(&self) -> bool {
        self.last.as_ref().is_some_and(|b| self.first.0 == b.nonce && self.first.1 < b.write_nr)
    }

    /// Whether a block is what an earlier claim wrote, which was late and has hidden newer ones. Numbers only grow, so such a block
    /// says nothing; but nothing is doubted for longer than `dead`, lest a slot is of no use for ever.
    fn is_late(&mut self, now: Mono, block: &VoterBlock, dead: Duration) -> bool {
        let late = self.last.as_ref().is_some_and(|l| l.nonce != block.nonce && l.write_nr > block.write_nr);
        if !late {
            self.doubted_since = None;
            return false;
        }
        let since = *self.doubted_since.get_or_insert(now);
        now.saturating_duration_since(since) < dead
    }

    /// Whether the death of the owner is confirmed.
    pub fn is_confirmed_dead(&self) -> bool {
        self.last.as_ref().is_some_and(|b| b.owned && self.confirmed == Some(b.nonce))
    }

    fn observe(&mut self, now: Mono, block: Option<&VoterBlock>, dead: Duration) {
        let Some(block) = block.filter(|block| !self.is_late(now, block, dead)) else {
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
        if self.first.0 != block.nonce {
            self.first = (block.nonce, block.write_nr);
        }
        self.doubted_since = None;
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

    /// All slots were read, and the reading ended at `now`. Within `dead` each write that is on its way lands.
    pub fn observe(&mut self, now: Mono, blocks: &[Option<VoterBlock>], dead: Duration) {
        for (i, slot) in self.0.iter_mut().enumerate() {
            // A block in the wrong place is none.
            let block = blocks.get(i).and_then(|b| b.as_ref());
            slot.observe(now, block.filter(|b| b.voter as usize == i), dead);
        }
    }

    /// A reading has failed.
    pub fn observe_nothing(&mut self) {
        for slot in &mut self.0 {
            slot.observe(Mono::ZERO, None, Duration::ZERO);
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

#[cfg(test)]
mod tests {
    use super::*;

    const DEAD: Duration = Duration::from_secs(3);

    fn at(ms: u64) -> Mono {
        Mono::from_ns(ms * 1_000_000)
    }

    fn block(nonce: u64, write_nr: u64, leader_term: u64) -> VoterBlock {
        VoterBlock { owned: true, nonce, leader_term, ..VoterBlock::free(0, write_nr) }
    }

    #[test]
    fn an_older_block_of_another_claim_is_not_believed_for_the_dead_time() {
        let mut slot = Slot::default();
        slot.observe(at(0), Some(&block(1, 10, 5)), DEAD);
        // The owner's own older block is what the leader showed just before.
        slot.observe(at(10), Some(&block(1, 9, 5)), DEAD);
        assert!(slot.current().is_some());
        slot.observe(at(20), Some(&block(1, 10, 5)), DEAD);
        for ms in [30, 3029] {
            slot.observe(at(ms), Some(&block(2, 7, 0)), DEAD);
            assert!(slot.current().is_none() && slot.last().unwrap().leader_term == 5, "{ms}");
        }
        slot.observe(at(3030), Some(&block(2, 7, 0)), DEAD);
        assert_eq!(slot.current().unwrap().nonce, 2);
        // One that is newer is believed at once.
        slot.observe(at(3040), Some(&block(3, 8, 0)), DEAD);
        assert_eq!(slot.current().unwrap().nonce, 3);
    }

    #[test]
    fn a_claim_alone_does_not_show_that_nobody_leads() {
        let without = |slot: &Slot, ms| {
            slot.is_without_lease(at(ms), Duration::from_millis(2500), Duration::from_millis(600))
        };
        let mut slot = Slot::default();
        slot.observe(at(0), Some(&block(1, 7, 0)), DEAD);
        assert!(!without(&slot, 100));
        assert!(without(&slot, 2500), "a leader would have beaten again, or its lease is over");
        slot.observe(at(200), Some(&block(1, 8, 0)), DEAD);
        assert!(without(&slot, 300));
        slot.observe(at(400), Some(&VoterBlock::free(0, 9)), DEAD);
        assert!(without(&slot, 500));
    }
}
