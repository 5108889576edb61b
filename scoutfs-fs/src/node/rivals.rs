// SPDX-License-Identifier: GPL-2.0-only
//! What a mount that wants to lead sees of the other owners of voter slots, while it waits.
//!
//! An owner is *alive* when its block changed while this mount was looking. What an owner that is gone left behind never
//! changes, so nobody is refused on account of the dead.

use core::net::SocketAddr;
use core::time::Duration;

use scoutfs_env::Vec;
use scoutfs_env::time::Mono;
use scoutfs_net::quorum::{Voter, VoterBlock};

use crate::error::{Error, Result};

/// After this long without a leader it is said what is waited for, and what can never come is refused.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// What of an owner is compared: its claim and the number of its write.
type Beat = (u64, u64);

/// See the module.
pub(crate) struct Rivals {
    rid: u64,
    /// Votes that make a majority.
    quorum: usize,
    began: Mono,
    /// What each owner showed first.
    first: Vec<Option<Beat>>,
    told: bool,
}

impl Rivals {
    pub fn new(rid: u64, nr_voters: usize, began: Mono) -> Result<Self> {
        let mut first = Vec::new();
        first.resize(nr_voters, None)?;
        Ok(Rivals { rid, quorum: nr_voters / 2 + 1, began, first, told: false })
    }

    /// Whether an owner was seen to beat.
    fn is_alive(&self, block: &VoterBlock) -> bool {
        let first = self.first.get(block.voter as usize).copied().flatten();
        block.owned
            && block.rid != self.rid
            && first.is_some_and(|first| first != (block.nonce, block.write_nr))
    }

    /// Looks at the slots again. Fails when this mount would wait for nothing: a mount without a network joins no other, so one
    /// that leads, or that all together have all slots, keeps this one out as long as they live; and a
    /// majority of slots that cannot be read stays unread.
    pub fn look(&mut self, now: Mono, has_slot: bool, machine: &Voter) -> Result<()> {
        let blocks = || machine.slots().filter_map(|slot| slot.block);
        for block in blocks().filter(|b| b.owned) {
            if let Some(first) = self.first.get_mut(block.voter as usize) {
                first.get_or_insert((block.nonce, block.write_nr));
            }
        }
        let patient = now.saturating_duration_since(self.began) <= PATIENCE;
        let in_use = |block: &VoterBlock| Error::InUse { rid: block.rid, address: block.address };
        if !has_slot
            && blocks().filter(|b| self.is_alive(b)).count() == self.first.len()
            && let Some(block) = blocks().max_by_key(|b| b.leader_term)
        {
            return Err(in_use(block));
        }
        if patient || self.told {
            return Ok(());
        }
        if let Some(leader) = blocks().find(|b| b.leader_term != 0 && self.is_alive(b)) {
            return Err(in_use(leader));
        }
        let readable = machine.slots().filter(|slot| slot.readable).count();
        if readable < self.quorum {
            return Err(Error::Voters { readable, needed: self.quorum, slots: self.first.len() });
        }
        self.told = true;
        let present = blocks().filter(|b| self.is_alive(b)).count() + usize::from(has_slot);
        scoutfs_env::info!("waiting for a leader: {present} of {} needed voters are present", self.quorum);
        Ok(())
    }
}

/// For messages.
pub(crate) fn shown(address: &Option<SocketAddr>) -> impl core::fmt::Display + '_ {
    struct Shown<'a>(&'a Option<SocketAddr>);
    impl core::fmt::Display for Shown<'_> {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            match self.0 {
                Some(address) => address.fmt(f),
                None => f.write_str("an unknown address"),
            }
        }
    }
    Shown(address)
}
