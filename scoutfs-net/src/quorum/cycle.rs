// SPDX-License-Identifier: GPL-2.0-only
//! What a [`Voter`] decides in a cycle, after all blocks were read.

use core::time::Duration;

use scoutfs_env::fault::{Fault, planted};
use scoutfs_env::time::Mono;

use super::slots::Slot;
use super::voter::{Io, Leader, Own, Phase, Voter};
use super::{Beating, OtherVoter, VoterBlock};

impl Voter {
    fn quorum(&self) -> usize {
        self.config.nr_voters as usize / 2 + 1
    }

    /// splitmix64.
    fn random(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Up to three beats, so that candidates do not stand at the same time; nothing when there can only be one.
    fn jitter(&mut self) -> Duration {
        if self.config.nr_voters == 1 {
            return Duration::ZERO;
        }
        let most = self.config.timing.beat_ms.saturating_mul(3);
        Duration::from_millis(self.random() % most.saturating_add(1))
    }

    pub(super) fn hurry(&mut self, now: Mono) {
        if matches!(self.io, Io::Idle) {
            self.next_read = now;
            self.handle_timeout(now);
        } else {
            self.next_read = self.next_read.min(now);
        }
    }

    /// Becomes a follower; what was won is laid down at `lay_down_at`.
    pub(super) fn follow_from(&mut self, lay_down_at: Mono) {
        self.phase = Phase::Follower;
        self.lay_down_at = lay_down_at;
        self.stand_at = None;
    }

    pub(super) fn stand_back(&mut self, now: Mono) {
        self.stand_back_until = now.saturating_add(self.config.timing.dead() * 2);
    }

    /// Without a slot: takes one that is free, or waits for one.
    pub(super) fn look(&mut self, since: Mono) {
        let timing = self.config.timing;
        let mut free = 0u64;
        let mut found: Option<(VoterBlock, bool)> = None;
        let mut takeable: Option<(VoterBlock, bool)> = None;
        let pick = self.random();
        for slot in self.slots.iter() {
            let (Some(block), Some(silence)) = (slot.current(), slot.silence(since)) else {
                continue;
            };
            if !block.owned {
                // Any of the free ones, so that two who look at once seldom meet.
                free += 1;
                if pick.is_multiple_of(free) {
                    found = Some((*block, false));
                }
                continue;
            }
            // A slot that this very mount has lost is not written by it any more.
            if slot.is_confirmed_dead() || block.rid == self.config.rid {
                if silence >= timing.confirmed() {
                    takeable.get_or_insert((*block, false));
                } else if let Some(from) = slot.unchanged_since() {
                    self.next_read = self.next_read.min(from.saturating_add(timing.confirmed()));
                }
            } else if timing.presumed().is_some_and(|presumed| silence >= presumed) {
                takeable.get_or_insert((*block, true));
            }
        }
        match found.or(takeable) {
            Some((block, careful)) => self.claim(since, block, careful),
            None => self.standby = true,
        }
    }

    fn claim(&mut self, since: Mono, seen: VoterBlock, careful: bool) {
        let mut nonce = self.random();
        if nonce == seen.nonce || nonce == 0 {
            nonce = nonce.wrapping_add(2);
        }
        let block = VoterBlock {
            owned: true,
            write_nr: seen.write_nr.saturating_add(1),
            nonce,
            rid: self.config.rid,
            leader_term: 0,
            address: Some(self.config.address),
            process: self.config.process,
            connected_term: self.connected_term,
            ..seen
        };
        self.own = Some(Own { block, durable: false, failed: false, beat_at: since, from: since });
        self.phase = Phase::Claiming { over: (seen.nonce, seen.write_nr), careful };
        self.standby = false;
        self.io = Io::WriteWanted { since };
    }

    /// With a slot: one cycle, after the reading that began at `since`.
    pub(super) fn act(&mut self, now: Mono, since: Mono, own: Own) {
        let me = own.block.voter;
        let Some(seen) = self.slots.get(me).and_then(Slot::current).copied() else {
            // Nothing may be written over what cannot be read.
            return;
        };
        let claimed_over = matches!(self.phase, Phase::Claiming { over, .. }
            if over == (seen.nonce, seen.write_nr));
        if seen.nonce != own.block.nonce && !claimed_over {
            self.own = None;
            self.phase = if self.leave.is_some() { Phase::Done } else { Phase::Looking };
            return;
        }
        self.watch_for_rivals(now, me);
        if !own.durable {
            if seen.copy() == own.block.copy() && seen.write_nr != own.block.write_nr {
                // The write of an earlier owner came late and took the place of ours: the newest valid block is
                // now where this one should go, and must not be written over.
                self.write(since, own.block, own, &seen);
            } else {
                self.io = Io::WriteWanted { since };
            }
            return;
        }
        let mut next = own.block;
        next.connected_term = self.connected_term;
        let at_once = self.step(now, since, own, &mut next);
        // Who claimed late shows nothing but the claim until he knows that it stands.
        let watching = matches!(self.phase, Phase::Settling { careful: true, .. });
        let beat_due = !watching && since >= own.beat_at.saturating_add(self.config.timing.beat());
        if at_once || beat_due || (!watching && next != own.block) {
            self.write(since, next, own, &seen);
        }
    }

    /// Numbers a block and has it written, to the copy that does not hold the newest valid one.
    fn write(&mut self, since: Mono, mut block: VoterBlock, own: Own, seen: &VoterBlock) {
        block.write_nr = own.block.write_nr.saturating_add(1);
        if block.copy() == seen.copy() {
            block.write_nr = block.write_nr.saturating_add(1);
            if let Phase::Winner { shown, .. } = &mut self.phase {
                *shown = 0;
            }
        }
        self.own = Some(Own { block, durable: false, failed: false, from: since, ..own });
        self.io = Io::WriteWanted { since };
    }

    /// Highest term that is known to be in use.
    fn highest_term(&self, next: &VoterBlock) -> u64 {
        let seen = self.slots.iter().filter_map(|s| s.last().map(|b| b.term)).max();
        next.term.max(self.term_floor).max(seen.unwrap_or(0))
    }

    /// A higher term, or another winner, ends a leader and a winner.
    fn watch_for_rivals(&mut self, now: Mono, me: u32) {
        let (term, lay_down_at) = match (&self.phase, &self.own) {
            // Until its lease has ended, others must be able to see that it had one.
            (Phase::Leader(leader), _) => (leader.term, leader.lease_until),
            (Phase::Winner { .. }, Some(own)) => (own.block.leader_term, now),
            _ => return,
        };
        let rival = |b: &VoterBlock| b.term > term || b.leader_term >= term;
        if self.slots.others(me).filter_map(Slot::last).any(rival) {
            self.follow_from(lay_down_at);
        }
    }

    /// Whether enough is readable to know all terms in which votes were given.
    fn knows_terms(&self, me: u32, careful: bool) -> bool {
        let others = self.slots.others(me).filter(|s| s.current().is_some()).count();
        let needed = if careful {
            // Without the own slot, whose newest vote may be lost.
            self.quorum().min(self.config.nr_voters as usize - 1)
        } else {
            self.quorum() - 1
        };
        others >= needed
    }

    fn votes(&self, me: u32, term: u64) -> usize {
        let blocks = self.slots.iter().filter_map(Slot::current);
        blocks.filter(|b| b.vote_term == term && b.vote_for == me).count()
    }

    /// The rules for each phase: changes the block that is to be written next, and says whether it must be written
    /// even if it has not changed and no beat is due.
    fn step(&mut self, now: Mono, since: Mono, own: Own, next: &mut VoterBlock) -> bool {
        let (me, beat_at) = (own.block.voter, own.beat_at);
        let soon = since.saturating_add(self.config.timing.beat() / 4);
        let mut at_once = false;
        if let Phase::Settling { until, careful } = self.phase {
            if self.leave.is_some() {
                self.free(next);
                return true;
            }
            if since < until {
                self.next_read = self.next_read.min(until);
                return false;
            }
            if !self.knows_terms(me, careful) {
                return false;
            }
            self.vote_floor = self.highest_term(next);
            self.follow_from(now);
        }
        if let Phase::Winner { serve_at: Some(serve_at), prompt, shown } = self.phase {
            self.next_read = self.next_read.min(soon).min(serve_at.max(now));
            let term = next.leader_term;
            let timing = self.config.timing;
            let (over, confirmed) = (timing.lease_and_margin(), timing.confirmed());
            let free = self.slots.others(me).all(|s| s.is_without_lease(since, over, confirmed));
            if self.votes(me, term) < self.quorum() {
                if since >= serve_at.saturating_add(self.config.timing.dead()) {
                    self.follow_from(now);
                }
            } else if shown < 2 {
                at_once = true;
            } else if since >= serve_at || (prompt && free) || planted(Fault::ServeAtOnce) {
                self.led = true;
                self.phase = Phase::Leader(Leader {
                    term,
                    lease_until: beat_at.saturating_add(timing.lease()),
                    confirmed_at: beat_at,
                    isolated_since: None,
                    grace_until: now.saturating_add(self.config.timing.dead()),
                });
            }
        }
        if let Phase::Candidate { until } = self.phase {
            self.next_read = self.next_read.min(soon);
            if self.highest_term(next) > next.vote_term || since >= until {
                self.follow_from(now);
                self.stand_at = Some(now.saturating_add(self.jitter()));
            } else if self.votes(me, next.vote_term) >= self.quorum() {
                next.leader_term = next.vote_term;
                self.phase = Phase::Winner { serve_at: None, prompt: false, shown: 0 };
            }
        }
        match self.phase {
            Phase::Follower => self.follow(now, since, me, next),
            Phase::Leader(leader) => {
                at_once = true;
                self.lead(now, since, me, beat_at, leader);
            }
            _ => {}
        }
        at_once
    }

    /// The voters that beat, as a reading from `since` has shown them to the leader of a term.
    pub(super) fn beating_at(&self, since: Mono, me: u32, term: u64) -> Beating {
        let others = self.slots.others(me).filter_map(|s| s.beating(since, self.config.timing.dead()));
        let others = others.map(|b| OtherVoter { rid: b.rid, connected: b.connected_term == term });
        Beating::new(self.quorum(), others)
    }

    fn lead(&mut self, now: Mono, since: Mono, me: u32, beat_at: Mono, mut leader: Leader) {
        let timing = self.config.timing;
        // A majority of votes for another would show in one of these.
        let readable = self.slots.iter().filter(|s| s.current().is_some()).count();
        if readable >= self.quorum() {
            // Nobody had won when that beat was durable, so every winner sees it.
            leader.confirmed_at = leader.confirmed_at.max(beat_at);
            leader.lease_until = leader.lease_until.max(beat_at.saturating_add(timing.lease()));
        }
        let beating = self.beating_at(since, me, leader.term);
        if !beating.lacks(|other| other.connected) || now < leader.grace_until {
            leader.isolated_since = None;
        } else {
            let from = *leader.isolated_since.get_or_insert(now);
            if now.saturating_duration_since(from) >= timing.isolation() {
                self.follow_from(leader.lease_until);
                self.stand_back(now);
                return;
            }
        }
        self.phase = Phase::Leader(leader);
    }

    fn follow(&mut self, now: Mono, since: Mono, me: u32, next: &mut VoterBlock) {
        let timing = self.config.timing;
        if now >= self.lay_down_at {
            next.leader_term = 0;
        }
        let highest = self.highest_term(next);
        let has_leader =
            self.slots.others(me).any(|s| s.has_leader(since, timing.patience(), timing.confirmed()));
        let beating = self.slots.others(me).filter_map(|s| s.beating(since, timing.dead()));
        let electable = beating.count() + 1 >= self.quorum() && self.config.nr_voters > 1;
        if let Some(leave) = &self.leave
            && next.leader_term == 0
            && (has_leader || !leave.hand_over || !electable || now >= leave.until)
        {
            self.free(next);
            return;
        }
        next.term = highest;
        if has_leader {
            self.stand_at = None;
            return;
        }
        let candidate = self
            .slots
            .others(me)
            .filter_map(|s| s.beating(since, timing.dead()))
            .find(|b| b.vote_for == b.voter && b.vote_term == highest);
        if let Some(candidate) = candidate
            && (highest > next.vote_term || planted(Fault::VoteTwice))
            && highest > self.vote_floor
        {
            next.vote_term = highest;
            next.vote_for = candidate.voter;
            let patience = timing.beat() * 4 + self.jitter();
            self.stand_at = Some(now.saturating_add(patience));
            return;
        }
        // A term that is not laid down yet would keep the others from voting.
        if self.leave.is_some()
            || next.leader_term != 0
            || now < self.stand_back_until
            || !(electable || self.config.nr_voters == 1)
        {
            self.stand_at = None;
            return;
        }
        let stand_at = match self.stand_at {
            Some(at) => at,
            None => {
                // Somebody may be about to win whom this slot may not vote for, because its vote of the term is not known.
                let others_turn = candidate.is_some_and(|c| c.leader_term == 0) && highest > next.vote_term;
                let patience = if others_turn { timing.beat() * 4 } else { Duration::ZERO };
                let at = now.saturating_add(patience + self.jitter());
                *self.stand_at.insert(at)
            }
        };
        if now < stand_at {
            self.next_read = self.next_read.min(stand_at);
            return;
        }
        next.term = highest.saturating_add(u64::from(highest == 0 || !planted(Fault::VoteTwice)));
        next.vote_term = next.term;
        next.vote_for = me;
        self.stand_at = None;
        if self.quorum() == 1 {
            // The vote makes the majority, and is durable with the win.
            next.leader_term = next.term;
            self.phase = Phase::Winner { serve_at: None, prompt: false, shown: 0 };
        } else {
            let until = now.saturating_add(timing.beat() * 4 + self.jitter());
            self.phase = Phase::Candidate { until };
        }
    }

    /// Leaves the slot with what it has voted.
    fn free(&mut self, next: &mut VoterBlock) {
        *next = VoterBlock {
            nonce: next.nonce,
            term: next.term,
            vote_term: next.vote_term,
            vote_for: next.vote_for,
            ..VoterBlock::free(next.voter, next.write_nr)
        };
        self.phase = Phase::Leaving;
    }
}
