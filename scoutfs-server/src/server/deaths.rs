// SPDX-License-Identifier: GPL-2.0-only
//! Who is dead for certain: by what this machine knows, and by what members on other machines say of theirs.
//!
//! A machine knows of its own processes whether they are gone. The leader asks its own as often as the host likes. Of a member that
//! is not heard, or is fenced, it asks another member on the same machine, if there is one. So a mount that was killed is
//! taken back at once where its machine lives and has another mount, and after its lease where not. Of a machine that
//! never comes back nobody can know but the administrator, who says so by a command on any mount.
//!
//! Whoever can read the device is believed, but only of its own machine, and for the administrator.

use core::time::Duration;

use scoutfs_env::time::Mono;
use scoutfs_env::{Vec, log};
use scoutfs_format::le::U32;
use scoutfs_format::msg::{
    ConfirmDeath, DEATH_CONFIRMED, DEATH_OF_LIVE, DEATH_OF_UNKNOWN, Death, DeathConfirmed, MSG_DEATH,
};
use scoutfs_format::server_item::{MEMBER_FENCED, MEMBER_FREE, MEMBER_GONE, MEMBER_LIVE};
use scoutfs_format::voter::ProcessId;
use zerocopy::FromBytes;

use super::members::MemberState;
use super::{Answer, DeathOracle, Handled, LEASE, Server, Suspect, bytes_of};
use crate::error::ServerError;

/// A member that did not renew its lease for so long is asked about.
const LATE: Duration = Duration::from_millis(LEASE.as_millis() as u64 / 2);
/// How often to ask about those who are fenced: they may stay so for long.
const FENCED_CHECK: Duration = Duration::from_secs(5);

/// Knows of one death.
struct Told(ProcessId);

impl DeathOracle for Told {
    fn is_dead(&self, process: &ProcessId) -> bool {
        *process == self.0
    }
}

impl Server {
    /// Asks whether members, those who are fenced, and former leaders are dead by now; then what they held is taken back.
    #[inline(never)]
    pub fn recheck_deaths(&mut self, dead: &dyn DeathOracle) {
        self.finish_take_over();
        if !self.is_running() {
            return;
        }
        if let Err(e) = self.confirm_deaths(dead) {
            self.stop(e);
        }
    }

    pub(super) fn confirm_deaths(&mut self, dead: &dyn DeathOracle) -> Result<(), ServerError> {
        let mut confirmed = Vec::new();
        for member in self.members.iter().filter(|m| !m.broken) {
            let process = member.item.process;
            let gone = match member.item.state.get() {
                MEMBER_LIVE => dead.is_dead(&process),
                MEMBER_FENCED => dead.confirm(&Suspect { rid: member.rid(), process }),
                _ => false,
            };
            if gone {
                confirmed.push((member.slot, member.is(MEMBER_LIVE)))?;
            }
        }
        for (slot, live) in confirmed {
            if live {
                self.expel(slot, true)?;
                continue;
            }
            if let Some(member) = self.members.get_mut(slot) {
                member.item.state = U32::new(MEMBER_GONE);
            }
            self.note_member(slot)?;
        }
        self.release_quarantine(dead)
    }

    /// Asks members about those on the same machine that are not heard. `connected` says whether there is a stream to a mount.
    pub fn ask_about_deaths(&mut self, now: Mono, connected: impl Fn(u64) -> bool) {
        self.now = self.now.max(now);
        if !self.is_running() {
            return;
        }
        if let Err(e) = self.try_ask_about_deaths(now, connected) {
            self.stop(e);
        }
    }

    fn try_ask_about_deaths(
        &mut self,
        now: Mono,
        connected: impl Fn(u64) -> bool,
    ) -> Result<(), ServerError> {
        let fenced_too = now >= self.deaths_due;
        if fenced_too {
            self.deaths_due = now.saturating_add(FENCED_CHECK);
        }
        let is_heard =
            |m: &MemberState| connected(m.rid()) && now.saturating_duration_since(m.renewed) < LATE;
        let mut questions: Vec<(u64, ProcessId)> = Vec::new();
        let mut ask = |process: &ProcessId| -> Result<(), ServerError> {
            let witness = self.members.live().find(|m| {
                let known = &m.item.process;
                known.machine_id == process.machine_id && known != process && is_heard(m)
            });
            let Some(to) = witness.map(|m| m.rid()) else { return Ok(()) };
            if !questions.contains(&(to, *process)) {
                questions.push((to, *process))?;
            }
            Ok(())
        };
        for member in self.members.iter() {
            if member.is(MEMBER_LIVE) && !is_heard(member) || member.is(MEMBER_FENCED) && fenced_too {
                ask(&member.item.process)?;
            }
        }
        for quarantine in self.quarantined.iter().filter(|_| fenced_too) {
            ask(&quarantine.process)?;
        }
        for (to, process) in questions {
            self.request(to, MSG_DEATH, &Death { process, dead: U32::ZERO, pad: U32::ZERO }, false)?;
        }
        Ok(())
    }

    /// The administrator says that a mount cannot write any more. Of one whose lease runs that is not believed: it would go on.
    pub(super) fn confirm_death(&mut self, said: ConfirmDeath) -> Handled {
        let of_rid = self.members.iter().find(|m| m.rid() == said.rid.get() && !m.is(MEMBER_FREE));
        let (slot, process) = match of_rid {
            Some(member) if member.is(MEMBER_LIVE) => return confirmed(DEATH_OF_LIVE),
            Some(member) if member.is(MEMBER_FENCED) => (member.slot, member.item.process),
            Some(_) => return confirmed(DEATH_CONFIRMED),
            None => return confirmed(DEATH_OF_UNKNOWN),
        };
        log::info!("scoutfs server: mount slot {slot}: the administrator says that its mount is dead");
        if let Some(member) = self.members.get_mut(slot) {
            member.item.state = U32::new(MEMBER_GONE);
        }
        self.note_member(slot)?;
        // Mounts of one kernel are one process, and others of them may live.
        let may_write =
            |m: &MemberState| m.item.process == process && (m.is(MEMBER_LIVE) || m.is(MEMBER_FENCED));
        if !self.members.iter().any(may_write) {
            self.release_quarantine(&Told(process))?;
        }
        confirmed(DEATH_CONFIRMED)
    }

    /// The member of `slot` says whether a process is dead.
    pub(super) fn death_answer(&mut self, slot: u32, payload: &[u8]) -> Result<(), ServerError> {
        let Ok(Death { process, dead, .. }) = Death::read_from_bytes(payload) else { return Ok(()) };
        let witness = self.members.get(slot).map(|m| m.item.process);
        let may_know = witness.is_some_and(|w| w.machine_id == process.machine_id && w != process);
        if dead.get() == 1 && may_know { self.confirm_deaths(&Told(process)) } else { Ok(()) }
    }
}

fn confirmed(result: u32) -> Handled {
    Ok(Answer::Durable(bytes_of(&DeathConfirmed { result: U32::new(result), pad: U32::ZERO })?))
}
