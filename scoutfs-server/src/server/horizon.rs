// SPDX-License-Identifier: GPL-2.0-only
//! Horizons: how far the change index is complete.
//!
//! A round notes the seq counter, asks every mount that has a seq below it open or in hand to commit it or to give it
//! back, and is over when all have. Then no item with a lower version can still appear. A walk must see all that was
//! synced before it asked, so a request that comes while a round goes on waits for the next one, which serves all
//! who wait by then.
//!
//! A mount is asked one thing at a time, so that its answer is to what it was asked: the answer to an earlier round, in which
//! the mount needed no longer be waited for, says nothing of a later one.
//!
//! A mount that is gone or fenced has no seq any more: its records are frozen. A mount of which a new server does not
//! know what it has open is asked.

use scoutfs_env::Vec;
use scoutfs_format::le::{U32, U64};
use scoutfs_format::msg::{
    CommitBelow, CommitNumber, HorizonReply, MSG_COMMIT_BELOW, MSG_HORIZON, STATUS_OK,
};
use zerocopy::IntoBytes;

use super::{Answer, Handled, Outgoing, Server};
use crate::error::ServerError;

/// Who asked: rid and request id.
type Asker = (u64, u64);

/// See the module.
#[derive(Default)]
pub(crate) struct Horizon {
    round: Option<Round>,
    next: Vec<Asker>,
}

struct Round {
    horizon: u64,
    askers: Vec<Asker>,
}

impl Server {
    pub(super) fn horizon_request(&mut self, from: u64, id: u64) -> Handled {
        if !self.horizon.next.contains(&(from, id)) {
            self.horizon.next.push((from, id))?;
        }
        self.horizon_progress()?;
        Ok(Answer::Later)
    }

    /// A mount answered that it has committed or given back.
    pub(super) fn committed_below(
        &mut self,
        slot: u32,
        from: u64,
        commit: CommitNumber,
    ) -> Result<(), ServerError> {
        let Some(member) = self.members.get_mut(slot) else {
            return Ok(());
        };
        if commit.epoch != member.item.epoch || commit.slot.get() != slot || member.rid() != from {
            return Ok(());
        }
        member.note_commit(commit.commit_nr.get());
        let below = core::mem::take(&mut member.asked_below);
        self.close_seqs(slot, below)
    }

    /// Ends the round if all have answered, and begins the next one if somebody waits for it.
    pub(super) fn horizon_progress(&mut self) -> Result<(), ServerError> {
        loop {
            match self.horizon.round.take() {
                Some(round) if self.members.live().any(|m| m.may_use_below(round.horizon)) => {
                    let horizon = round.horizon;
                    self.horizon.round = Some(round);
                    return self.ask_below(horizon);
                }
                Some(round) => self.end_round(round)?,
                None if self.horizon.next.is_empty() => return Ok(()),
                None => {
                    let askers = core::mem::take(&mut self.horizon.next);
                    self.horizon.round = Some(Round { horizon: self.counters.next_seq, askers });
                }
            }
        }
    }

    /// Asks all that a round waits for and that were not asked, or have answered.
    fn ask_below(&mut self, horizon: u64) -> Result<(), ServerError> {
        let mut ask = Vec::new();
        for member in self.members.live() {
            if member.may_use_below(horizon) && member.asked_below == 0 {
                ask.push((member.slot, member.rid()))?;
            }
        }
        for (slot, to) in ask {
            self.request(to, MSG_COMMIT_BELOW, &CommitBelow { seq: U64::new(horizon) }, false)?;
            if let Some(member) = self.members.get_mut(slot) {
                member.asked_below = horizon;
            }
        }
        Ok(())
    }

    fn end_round(&mut self, round: Round) -> Result<(), ServerError> {
        let mut slots: Vec<CommitNumber> = Vec::new();
        for member in self.members.iter() {
            slots.push(CommitNumber {
                slot: U32::new(member.slot),
                pad: U32::ZERO,
                epoch: member.item.epoch,
                commit_nr: U64::new(member.commit_nr),
            })?;
        }
        let head = HorizonReply {
            horizon: U64::new(round.horizon),
            nr_slots: U32::new(slots.len() as u32),
            pad: U32::ZERO,
        };
        for (to, id) in round.askers {
            let mut payload = Vec::from_slice(head.as_bytes())?;
            payload.extend_from_slice(slots.as_bytes())?;
            let status = STATUS_OK;
            let message = Outgoing { to, kind: MSG_HORIZON, response: true, status, id, payload };
            self.send(message, false);
        }
        Ok(())
    }
}
