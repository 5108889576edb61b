// SPDX-License-Identifier: GPL-2.0-only
//! The machine that claims a slot, votes, stands, leads and leaves.

use core::net::SocketAddr;
use core::time::Duration;

use scoutfs_env::AllocError;
use scoutfs_env::time::Mono;
use scoutfs_format::geometry::MAX_VOTERS;
use scoutfs_format::voter::ProcessId;

use super::slots::Slots;
use super::{Beating, Timing, TimingError, VoterBlock};

/// What a [`Voter`] must know.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Number of voter slots: odd.
    pub nr_voters: u32,
    /// This mount, not 0.
    pub rid: u64,
    /// Where its server listens.
    pub address: SocketAddr,
    /// Its process.
    pub process: ProcessId,
    /// From the host's random source: claims of different mounts must not get the same nonces.
    pub seed: u64,
    /// The same on all nodes.
    pub timing: Timing,
}

/// Why there is no [`Voter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not a number of slots that a volume can have.
    #[error("a volume has an odd number of voters up to {MAX_VOTERS}, not {found}")]
    Voters {
        /// As given.
        found: u32,
    },
    /// Times that do not go together.
    #[error(transparent)]
    Timing(#[from] TimingError),
    /// No memory.
    #[error(transparent)]
    NoMemory(#[from] AllocError),
}

/// What the host of a [`Voter`] must do or know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Read both quorum blocks of all voters, then call [`Voter::handle_blocks`], or
    /// [`Voter::handle_io_error`] when nothing could be read.
    ReadAll,
    /// Flush the device, so that what was read before and is built upon is durable; write this block to its copy;
    /// make it durable; then call [`Voter::handle_written`], or [`Voter::handle_io_error`].
    Write(VoterBlock),
    /// A slot is owned.
    SlotOwned {
        /// Which.
        voter: u32,
    },
    /// Somebody else has the slot.
    SlotLost {
        /// Which.
        voter: u32,
    },
    /// No slot is free. [`Voter::slots`] tells who has them. The machine goes on looking.
    Standby,
    /// Serve while [`Voter::lease_until`] has not passed, until [`Output::LostLeadership`]. The term is above that of every super
    /// block; the server makes sure of it and resigns if it is not.
    BecameLeader {
        /// The term.
        term: u64,
    },
    /// Stop serving at once.
    LostLeadership {
        /// The term.
        term: u64,
    },
    /// After [`Voter::leave`]: the slot was left cleanly, or there was none. Nothing follows.
    Left,
}

/// What a mount has seen of a slot.
#[derive(Clone, Copy, Debug)]
pub struct SlotView<'a> {
    /// Which.
    pub voter: u32,
    /// Its newest known state.
    pub block: Option<&'a VoterBlock>,
    /// Whether the last reading of it succeeded.
    pub readable: bool,
    /// Since when it is unchanged.
    pub unchanged_since: Option<Mono>,
    /// Whether the death of its owner is confirmed.
    pub confirmed_dead: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Io {
    Idle,
    /// `since` is when the reading was wanted: it begins then or later.
    ReadWanted {
        since: Mono,
    },
    Reading {
        since: Mono,
    },
    /// `since` is that of the reading before.
    WriteWanted {
        since: Mono,
    },
    Writing {
        since: Mono,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    /// Without a slot.
    Looking,
    /// The claim is being written over what had this nonce and write number.
    Claiming {
        over: (u64, u64),
        careful: bool,
    },
    /// The claim is durable; it is watched.
    Settling {
        until: Mono,
        careful: bool,
    },
    Follower,
    /// Stands in its vote's term.
    Candidate {
        until: Mono,
    },
    /// Has won, and waits.
    Winner {
        /// When older leases have ended; `None` until the win is durable.
        serve_at: Option<Mono>,
        /// Whether its write was.
        prompt: bool,
        /// Copies of the slot that show the win, so that one late write of another cannot hide it.
        shown: u32,
    },
    Leader(Leader),
    /// The slot is being left.
    Leaving,
    /// Nothing more to do.
    Done,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Leader {
    pub(super) term: u64,
    pub(super) lease_until: Mono,
    /// Start of the newest reading that extended the lease.
    pub(super) confirmed_at: Mono,
    /// Too few voters are connected.
    pub(super) isolated_since: Option<Mono>,
    /// They need not be before.
    pub(super) grace_until: Mono,
}

/// The own slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    /// As written last, or as being written.
    pub(super) block: VoterBlock,
    pub(super) durable: bool,
    /// An attempt to write it has failed.
    pub(super) failed: bool,
    /// Start of the reading before the newest durable write: before the first attempt, which may have been seen although it failed.
    pub(super) beat_at: Mono,
    /// The same of the write that is being made.
    pub(super) from: Mono,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Leave {
    /// Not later.
    pub(super) until: Mono,
    /// It led, so it waits for another leader.
    pub(super) hand_over: bool,
}

/// What the host was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) slot: Option<u32>,
    pub(super) leader: Option<u64>,
    pub(super) standby: bool,
    pub(super) left: bool,
}

/// One mount's part in the election.
///
/// - `handle_*`: [`handle_blocks`](Self::handle_blocks), [`handle_written`](Self::handle_written),
///   [`handle_io_error`](Self::handle_io_error) end what [`Output::ReadAll`] and [`Output::Write`] asked for;
///   [`handle_timeout`](Self::handle_timeout) at [`next_wakeup`](Self::next_wakeup), or at any other time.
/// - Commands: [`set_confirmed_dead`](Self::set_confirmed_dead), [`set_connected`](Self::set_connected),
///   [`raise_term`](Self::raise_term), [`check`](Self::check), [`resign`](Self::resign), [`leave`](Self::leave).
/// - [`poll_output`](Self::poll_output) after each of them, until there is none.
/// - Getters: [`lease_until`](Self::lease_until), [`confirmed_at`](Self::confirmed_at), [`beating`](Self::beating),
///   [`slots`](Self::slots), [`next_wakeup`](Self::next_wakeup).
///
/// There is at most one reading or writing at a time. `now` is the host's clock, which counts suspend; it must be
/// read after the IO that is reported has ended. The host runs the machine on a thread and with buffers of its
/// own: it must not wait for memory or for other IO. Nothing here allocates after [`new`](Self::new).
#[derive(Debug)]
pub struct Voter {
    pub(super) config: Config,
    pub(super) slots: Slots,
    pub(super) phase: Phase,
    pub(super) own: Option<Own>,
    pub(super) io: Io,
    pub(super) next_read: Mono,
    /// Terms up to this one are taken, by what the host has read elsewhere.
    pub(super) term_floor: u64,
    /// No vote in terms up to this one.
    pub(super) vote_floor: u64,
    /// When to stand, if there is still no leader then.
    pub(super) stand_at: Option<Mono>,
    /// Not before: somebody else should have a chance.
    pub(super) stand_back_until: Mono,
    /// A term that was won is laid down then, not before.
    pub(super) lay_down_at: Mono,
    pub(super) connected_term: u64,
    pub(super) standby: bool,
    pub(super) leave: Option<Leave>,
    /// Has led.
    pub(super) led: bool,
    /// When the last reading began.
    pub(super) read_at: Mono,
    pub(super) told: Told,
    pub(super) chance: u64,
}

impl Voter {
    /// A mount that looks for a slot.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.timing.check()?;
        let found = config.nr_voters;
        if found > MAX_VOTERS || found.is_multiple_of(2) {
            return Err(ConfigError::Voters { found });
        }
        Ok(Voter {
            config,
            slots: Slots::new(config.nr_voters)?,
            phase: Phase::Looking,
            own: None,
            io: Io::Idle,
            next_read: Mono::ZERO,
            term_floor: 0,
            vote_floor: 0,
            stand_at: None,
            stand_back_until: Mono::ZERO,
            lay_down_at: Mono::ZERO,
            connected_term: 0,
            standby: false,
            leave: None,
            led: false,
            read_at: Mono::ZERO,
            told: Told::default(),
            chance: config.seed,
        })
    }

    /// The owner of some slots is dead for certain: the host has looked on this machine and the process (this very
    /// one, by boot id, number and start time) is gone, or the machine was seen to have booted since, or an agent
    /// or the administrator says so. Returns whether there is such a slot. A slot that is claimed anew is not
    /// meant by it.
    pub fn set_confirmed_dead(&mut self, now: Mono, process: &ProcessId) -> bool {
        let any = self.slots.confirm_dead(process);
        if any {
            self.hurry(now);
        }
        any
    }

    /// The mount is connected to the server of this term; 0 to none. It is told with the next beat.
    pub fn set_connected(&mut self, term: u64) {
        self.connected_term = term;
    }

    /// The host has seen this term elsewhere, in a super block above all: only higher ones will be won. To be called
    /// with the highest term of all super blocks after [`Output::SlotOwned`] at the latest.
    pub fn raise_term(&mut self, term: u64) {
        self.term_floor = self.term_floor.max(term);
    }

    /// Begins a cycle now, so that [`confirmed_at`](Self::confirmed_at) moves on soon.
    pub fn check(&mut self, now: Mono) {
        self.hurry(now);
    }

    /// Lays leadership down and stands back for a while. The server must have ended all its writes before, because
    /// another one may begin at once.
    pub fn resign(&mut self, now: Mono) {
        match self.phase {
            Phase::Candidate { .. } | Phase::Winner { .. } | Phase::Leader(_) => self.follow_from(now),
            _ => self.lay_down_at = self.lay_down_at.min(now),
        }
        self.stand_back(now);
        self.hurry(now);
    }

    /// Leaves the slot cleanly; the server must have ended all its writes. Who led hands over first: it still votes,
    /// until another leader is there, or nobody is left who could be elected, or two dead times have passed.
    /// [`Output::Left`] ends it.
    pub fn leave(&mut self, now: Mono) {
        if self.leave.is_some() {
            return;
        }
        let hand_over = self.led;
        let until = now.saturating_add(self.config.timing.dead() * 2);
        self.leave = Some(Leave { until, hand_over });
        self.resign(now);
        if self.own.is_none() {
            self.phase = Phase::Done;
        }
    }

    /// Until when the mount may act as leader. The server looks at the clock after each super write: it counts only when
    /// the lease was valid then. A lease that has ended may go on after the next reading, or leadership ends with
    /// [`Output::LostLeadership`]; until it is known which, the server does nothing. `None` when it does not lead.
    pub fn lease_until(&self) -> Option<Mono> {
        match &self.phase {
            Phase::Leader(leader) => Some(leader.lease_until),
            _ => None,
        }
    }

    /// The term in which the mount leads.
    pub fn leader_term(&self) -> Option<u64> {
        match &self.phase {
            Phase::Leader(leader) => Some(leader.term),
            _ => None,
        }
    }

    /// An owner that does not beat for so long is no longer counted upon.
    pub fn dead_time(&self) -> Duration {
        self.config.timing.dead()
    }

    /// The start of the newest reading of all voters that confirmed the leader, with a durable beat after it and another reading
    /// after that.
    pub fn confirmed_at(&self) -> Option<Mono> {
        match &self.phase {
            Phase::Leader(leader) => Some(leader.confirmed_at),
            _ => None,
        }
    }

    /// The voters that beat, while it leads: its server fences nobody when it hears too few of them.
    pub fn beating(&self) -> Option<Beating> {
        match (&self.phase, &self.own) {
            (Phase::Leader(leader), Some(own)) => {
                Some(self.beating_at(self.read_at, own.block.voter, leader.term))
            }
            _ => None,
        }
    }

    /// What was seen of all slots, in order: for messages, and to find owners whose death can be confirmed.
    pub fn slots(&self) -> impl Iterator<Item = SlotView<'_>> {
        self.slots.iter().zip(0..).map(|(slot, voter)| SlotView {
            voter,
            block: slot.last(),
            readable: slot.current().is_some(),
            unchanged_since: slot.unchanged_since(),
            confirmed_dead: slot.is_confirmed_dead(),
        })
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due; `None` when it need not come.
    pub fn next_wakeup(&self) -> Option<Mono> {
        match (&self.phase, &self.io) {
            (Phase::Done, _) => None,
            (_, Io::Idle) => Some(self.next_read),
            _ => None,
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Mono) {
        if matches!(self.io, Io::Idle) && now >= self.next_read && !matches!(self.phase, Phase::Done) {
            self.io = Io::ReadWanted { since: now };
        }
    }

    /// All voters' blocks were read; `None` for one whose state is not known ([`VoterBlock::newest`] says why).
    pub fn handle_blocks(&mut self, now: Mono, blocks: &[Option<VoterBlock>]) {
        let Io::Reading { since } = self.io else {
            return;
        };
        self.io = Io::Idle;
        if matches!(self.phase, Phase::Done) {
            return;
        }
        self.slots.observe(now, blocks, self.config.timing.dead());
        self.read_at = since;
        self.next_read = since.saturating_add(self.config.timing.beat());
        match self.own {
            None => self.look(since),
            Some(own) => self.act(now, since, own),
        }
        self.handle_timeout(now);
    }

    /// The block is durable.
    pub fn handle_written(&mut self, now: Mono) {
        let Io::Writing { since } = self.io else {
            return;
        };
        self.io = Io::Idle;
        let timing = self.config.timing;
        let Some(own) = &mut self.own else {
            return;
        };
        own.durable = true;
        own.beat_at = own.from;
        let prompt = !own.failed && now.saturating_duration_since(since) <= timing.prompt();
        match &mut self.phase {
            Phase::Claiming { careful, .. } => {
                let careful = *careful || !prompt;
                let watch = if careful { timing.dead() } else { timing.settle() };
                let until = now.saturating_add(watch);
                self.phase = Phase::Settling { until, careful };
                self.next_read = until.min(now.saturating_add(timing.beat()));
            }
            Phase::Winner { serve_at, prompt: was_prompt, shown } => {
                if serve_at.is_none() {
                    *serve_at = Some(now.saturating_add(timing.lease_and_margin()));
                    *was_prompt = prompt;
                }
                *shown += 1;
                if *shown <= 2 {
                    self.next_read = now;
                }
            }
            Phase::Leaving => {
                self.own = None;
                self.phase = Phase::Done;
            }
            _ => {}
        }
        self.handle_timeout(now);
    }

    /// The reading or writing has failed. What was read in part counts for nothing; what was written in part is
    /// written again, the same bytes to the same place.
    pub fn handle_io_error(&mut self, now: Mono) {
        match self.io {
            Io::Reading { .. } => self.slots.observe_nothing(),
            Io::Writing { .. } => {
                if let Some(own) = &mut self.own {
                    own.failed = true;
                }
            }
            _ => return,
        }
        self.io = Io::Idle;
        self.next_read = now.saturating_add(self.config.timing.beat() / 4);
    }

    /// What is to be done or known next. Changes of rank come before IO.
    pub fn poll_output(&mut self) -> Option<Output> {
        let leader = self.leader_term();
        if let Some(term) = self.told.leader
            && leader != Some(term)
        {
            self.told.leader = None;
            return Some(Output::LostLeadership { term });
        }
        let slot = match &self.phase {
            Phase::Claiming { .. } | Phase::Settling { .. } => None,
            _ => self.own.map(|own| own.block.voter),
        };
        let done = matches!(self.phase, Phase::Done);
        if let Some(voter) = self.told.slot
            && slot != Some(voter)
        {
            self.told.slot = None;
            if !done {
                return Some(Output::SlotLost { voter });
            }
        }
        if done {
            return (!core::mem::replace(&mut self.told.left, true)).then_some(Output::Left);
        }
        if let Some(voter) = slot
            && self.told.slot.is_none()
        {
            self.told.slot = slot;
            return Some(Output::SlotOwned { voter });
        }
        if let Some(term) = leader
            && self.told.leader.is_none()
        {
            self.told.leader = leader;
            return Some(Output::BecameLeader { term });
        }
        if self.standby != self.told.standby {
            self.told.standby = self.standby;
            if self.standby {
                return Some(Output::Standby);
            }
        }
        match (self.io, &self.own) {
            (Io::ReadWanted { since }, _) => {
                self.io = Io::Reading { since };
                Some(Output::ReadAll)
            }
            (Io::WriteWanted { since }, Some(own)) => {
                self.io = Io::Writing { since };
                Some(Output::Write(own.block))
            }
            _ => None,
        }
    }
}
