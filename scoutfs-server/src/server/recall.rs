// SPDX-License-Identifier: GPL-2.0-only
//! Recalls: before anybody is told that there is no space, mounts give back what they do not use.
//!
//! Who lacks a kind of space begins a *round*: all mounts are asked for what they have of it. Nobody waits for them here: who
//! lacks it asks again until the round is over, which it is when each has answered, has left or was fenced. A mount answers
//! when the server has what it gave.
//!
//! That a round gave nothing proves that there is nothing only for whom it was begun, or who asked before it was: what somebody else
//! frees and syncs before an operation begins must be found by it. So each who waits notes the first round that counts
//! for him, and one that comes while a round is out waits for the next. A round proves nothing either when something
//! was given since it began, when a merge went on that may have given blocks back to mounts, or when a mount keeps blocks
//! for operations that wait there.
//!
//! A round that gave nothing is followed by one in which mounts finalize what is not merged and give the other kind as well:
//! zones that get empty can become this kind. Only when that gives nothing there is nothing.
//!
//! While somebody waits nobody gets space ahead of need, or what was given would go back where it came from.
//!
//! A new server knows of no rounds; whoever lacks space asks it again.

use core::time::Duration;

use scoutfs_btree::space::SpaceKind;
use scoutfs_env::time::Mono;
use scoutfs_env::{OrdMap, Vec};
use scoutfs_format::le::{U32, U64};
use scoutfs_format::msg::{FreeBlocks, MSG_SPACE_RECALL, SpaceRecall, SpaceRecalled};
use zerocopy::FromBytes;

use super::Server;
use crate::error::ServerError;

/// Who has not asked for so long does not wait any more. Who waits asks every few milliseconds.
const FORGOTTEN: Duration = Duration::from_secs(2);
/// Who wants to join waits for others no longer than this.
const JOIN_PATIENCE: Duration = Duration::from_secs(20);

/// See the module. By kind.
#[derive(Default)]
pub(crate) struct Recalls([Recall; 2]);

/// The rounds of one kind.
#[derive(Default)]
struct Recall {
    /// The round that is out, or was last.
    round: Round,
    /// Who lacks space, by rid.
    waiting: OrdMap<u64, Wait>,
}

#[derive(Default)]
struct Round {
    number: u64,
    /// Blocks that it asks for.
    blocks: u64,
    /// The other kind is given as well.
    all: bool,
    /// Slots of those that were asked and have not answered.
    unanswered: Vec<u32>,
    /// Slots of those that keep blocks for operations of their own.
    keep: Vec<u32>,
    /// Something was given since it began.
    gained: bool,
    /// [`Server::pieces`] when it began.
    pieces: u64,
}

#[derive(Clone, Copy)]
struct Wait {
    /// The first round that counts.
    round: u64,
    since: Mono,
    /// When it was asked last.
    asked: Mono,
}

/// Who lacks space.
#[derive(Clone, Copy)]
pub(super) struct Needy {
    pub rid: u64,
    /// `None` of who only wants to join.
    pub slot: Option<u32>,
    /// It has not said so before.
    pub first: bool,
}

impl Round {
    fn is_out(&self) -> bool {
        !self.unanswered.is_empty()
    }
}

impl Recalls {
    fn of(&mut self, kind: SpaceKind) -> &mut Recall {
        &mut self.0[kind as usize]
    }

    /// Whether somebody waits for a kind.
    pub fn is_wanted(&self, kind: SpaceKind, now: Mono) -> bool {
        let waiting = &self.0[kind as usize].waiting;
        waiting.values().any(|wait| now.saturating_duration_since(wait.asked) < FORGOTTEN)
    }

    /// A mount has what it wanted.
    pub fn served(&mut self, kind: SpaceKind, rid: u64) {
        self.of(kind).waiting.remove(&rid);
    }

    /// More blocks of a kind can be had than before.
    pub fn gained(&mut self, kind: SpaceKind) {
        self.of(kind).round.gained = true;
    }

    /// A mount is one no more.
    pub fn ended(&mut self, slot: u32, rid: u64) {
        for recall in &mut self.0 {
            recall.waiting.remove(&rid);
            recall.round.unanswered.retain(|&asked| asked != slot);
            recall.round.keep.retain(|&keeps| keeps != slot);
        }
    }
}

impl Server {
    /// Somebody lacks blocks of a kind, and the server has none. Says whether others may still give some.
    pub(super) fn recall(&mut self, kind: SpaceKind, needy: Needy, blocks: u64) -> Result<bool, ServerError> {
        let (now, pieces) = (self.now, self.pieces);
        let others = self.members.live().any(|m| Some(m.slot) != needy.slot);
        let Recall { round, waiting } = self.recalls.of(kind);
        if !others {
            waiting.remove(&needy.rid);
            return Ok(false);
        }
        let known = waiting.get_mut(&needy.rid);
        let known = known.filter(|wait| now.saturating_duration_since(wait.asked) < FORGOTTEN);
        let wait = match known {
            Some(wait) => {
                wait.asked = now;
                if needy.first {
                    wait.round = round.number + 1;
                }
                *wait
            }
            None => {
                let wait = Wait { round: round.number + 1, since: now, asked: now };
                waiting.insert(needy.rid, wait)?;
                wait
            }
        };
        let joins = needy.slot.is_none();
        if joins && now.saturating_duration_since(wait.since) >= JOIN_PATIENCE {
            waiting.remove(&needy.rid);
            return Ok(false);
        }
        if round.is_out() {
            return Ok(true);
        }
        let kept = round.keep.iter().any(|&slot| Some(slot) != needy.slot);
        let in_vain = wait.round <= round.number && !round.gained && round.pieces == pieces && !kept;
        if in_vain && round.all {
            if joins {
                waiting.remove(&needy.rid);
            }
            return Ok(false);
        }
        self.begin_recall(kind, in_vain, blocks)?;
        Ok(true)
    }

    fn begin_recall(&mut self, kind: SpaceKind, all: bool, blocks: u64) -> Result<(), ServerError> {
        let mut unanswered = Vec::new();
        for member in self.members.live() {
            unanswered.push(member.slot)?;
        }
        let (now, pieces) = (self.now, self.pieces);
        let Recall { round, waiting } = self.recalls.of(kind);
        waiting.retain(|_, wait| now.saturating_duration_since(wait.asked) < FORGOTTEN);
        let number = round.number + 1;
        *round = Round { number, blocks, all, unanswered, pieces, ..Round::default() };
        for n in 0.. {
            let Some(&slot) = self.recalls.of(kind).round.unanswered.get(n) else { break };
            self.send_recall(kind, slot)?;
        }
        Ok(())
    }

    fn send_recall(&mut self, kind: SpaceKind, slot: u32) -> Result<(), ServerError> {
        let Some(to) = self.members.get(slot).map(|m| m.rid()) else { return Ok(()) };
        let Recall { round, waiting } = &self.recalls.0[kind as usize];
        let first = waiting.keys().filter_map(|&rid| self.members.live_slot(rid)).min();
        let recall = SpaceRecall {
            round: U64::new(round.number),
            blocks: U64::new(round.blocks),
            kind: U32::new(kind.to_raw().into()),
            slot: U32::new(first.unwrap_or(u32::MAX)),
            all: U32::new(round.all.into()),
            pad: U32::ZERO,
        };
        // Behind what it is told of its logs, whose blocks it can give then.
        let after_commit = self.dirty();
        self.request(to, MSG_SPACE_RECALL, &recall, after_commit)
    }

    /// A member has begun another session: what it was asked before is not answered any more.
    pub(super) fn recall_again(&mut self, slot: u32) -> Result<(), ServerError> {
        for kind in SpaceKind::ALL {
            if self.recalls.of(kind).round.unanswered.contains(&slot) {
                self.send_recall(kind, slot)?;
            }
        }
        Ok(())
    }

    /// A member has given what it does not use.
    pub(super) fn recalled(&mut self, slot: u32, answer: SpaceRecalled) -> Result<(), ServerError> {
        let kind = u8::try_from(answer.kind.get()).ok().and_then(SpaceKind::from_raw);
        let Some(Recall { round, .. }) = kind.map(|kind| self.recalls.of(kind)) else { return Ok(()) };
        if answer.round.get() != round.number || !round.unanswered.contains(&slot) {
            return Ok(());
        }
        if answer.kept.get() != 0 {
            round.keep.push(slot)?;
        }
        round.unanswered.retain(|&asked| asked != slot);
        Ok(())
    }

    /// A member says what it has. Without a payload, or with another one, it says nothing.
    pub(super) fn note_free(&mut self, slot: u32, payload: &[u8]) {
        if let (Some(member), Ok(free)) = (self.members.get_mut(slot), FreeBlocks::read_from_bytes(payload)) {
            member.free = [free.meta.get(), free.data.get()];
        }
    }

    /// Free blocks of a kind that all members but one have besides their reserves, as far as is known.
    pub(super) fn others_free(&self, slot: u32, kind: SpaceKind) -> u64 {
        let reserve = match kind {
            SpaceKind::Meta => self.reserve_blocks(),
            SpaceKind::Data => 0,
        };
        let others = self.members.live().filter(|m| m.slot != slot);
        others.fold(0, |sum, m| sum.saturating_add(m.free[kind as usize].saturating_sub(reserve)))
    }
}
