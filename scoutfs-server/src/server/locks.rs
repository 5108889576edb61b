// SPDX-License-Identifier: GPL-2.0-only
//! Cluster locks: feeds the lock machine and sends what it says.
//!
//! A new server grants nothing until every member that it found live has told what it holds and what it has open, or has been
//! reclaimed. A mount that does not answer a revoke for [`REVOKE_LIMIT`] is fenced, though it renews its lease: unless it tells that it gets on
//! with it, as one does that writes what many programs have changed in memory.

use core::time::Duration;

use scoutfs_env::Vec;
use scoutfs_env::log;
use scoutfs_env::time::Mono;
use scoutfs_format::le::{U32, U64};
use scoutfs_format::msg::{
    CommitNumber, LockMessage, MSG_LOCK, OpensReport, Renewal, STATUS_INVALID, STATUS_OK,
};
use scoutfs_lock::{LockError, LockName, LockServer, Message, Opens, ServerOutput};
use zerocopy::{FromBytes, IntoBytes};

use super::{Answer, Handled, Outgoing, Refusal, Server, slot_le};
use crate::error::ServerError;

/// How long a mount may take to answer a revoke.
pub const REVOKE_LIMIT: Duration = Duration::from_secs(60);
/// How often to look for mounts that take longer.
const REVOKE_CHECK: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) struct Locks {
    server: LockServer<u64>,
    next_check: Mono,
}

impl Locks {
    /// Generations of a term are above those of all terms before.
    pub fn new(term: u64) -> Self {
        Locks { server: LockServer::new(term << 32), next_check: Mono::ZERO }
    }
}

/// What a lock machine says of a message of a mount.
pub(super) fn lock_handled(from: u64, handled: Result<(), LockError>) -> Result<(), Refusal> {
    match handled {
        Ok(()) => Ok(()),
        Err(LockError::NoMemory(_)) => Err(Refusal::Stop(ServerError::NoMemory)),
        Err(e) => {
            log::warn!("scoutfs server: mount {from:016x}: {e}");
            Err(Refusal::Status(STATUS_INVALID))
        }
    }
}

impl Server {
    /// A mount wants a lock, or gives one back. The answer is a grant.
    pub(super) fn lock_request(&mut self, now: Mono, from: u64, id: u64, payload: &[u8]) -> Handled {
        let handled = Message::parse_whole(payload).and_then(|(message, opens)| {
            // One that gives a lock back says what the next holder must see.
            if let Some(member) = self.members.live_slot(from).and_then(|slot| self.members.get_mut(slot)) {
                member.note_commit(message.commit_nr);
            }
            self.locks.server.handle_request(from, id, &message, &opens)
        });
        lock_handled(from, handled)?;
        self.send_locks(now)?;
        Ok(Answer::Later)
    }

    /// A mount answers a revoke.
    pub(super) fn lock_answer(
        &mut self,
        now: Mono,
        slot: u32,
        from: u64,
        payload: &[u8],
    ) -> Result<(), ServerError> {
        let handled = Message::parse_whole(payload).and_then(|(message, opens)| {
            if let Some(member) = self.members.get_mut(slot) {
                member.note_commit(message.commit_nr);
            }
            self.locks.server.handle_answer(from, &message, &opens)
        });
        match lock_handled(from, handled) {
            Ok(()) => self.send_locks(now),
            Err(Refusal::Stop(e)) => Err(e),
            Err(Refusal::Status(_)) => Ok(()),
        }
    }

    /// A mount that was a member under a former server says which locks it holds.
    pub(super) fn lock_report(&mut self, from: u64, payload: &[u8]) -> Handled {
        let raws = <[LockMessage]>::ref_from_bytes(payload).map_err(|_| Refusal::Status(STATUS_INVALID))?;
        for raw in raws {
            let handled =
                Message::from_raw(raw).and_then(|message| self.locks.server.handle_report(from, &message));
            lock_handled(from, handled)?;
        }
        Ok(Answer::Now(Vec::new()))
    }

    /// A mount that was a member under a former server says which inodes it has open.
    pub(super) fn opens_report(&mut self, from: u64, payload: &[u8]) -> Handled {
        let raws = <[OpensReport]>::ref_from_bytes(payload).map_err(|_| Refusal::Status(STATUS_INVALID))?;
        for raw in raws {
            let handled = LockName::parse(&raw.id)
                .and_then(|name| self.locks.server.handle_opens(from, name, &Opens::from_raw(&raw.opens)));
            lock_handled(from, handled)?;
        }
        Ok(Answer::Now(Vec::new()))
    }

    /// A mount holds no lock any more, waits for none, and has nothing open.
    pub(super) fn locks_left(&mut self, rid: u64) {
        self.locks.server.handle_client_gone(rid);
        self.file_locks.handle_client_gone(rid);
    }

    /// A mount renews its lease, and tells how it gets on.
    pub(super) fn note_renewal(&mut self, now: Mono, slot: u32, payload: &[u8]) {
        let (Some(member), Ok(renewal)) = (self.members.get_mut(slot), Renewal::read_from_bytes(payload))
        else {
            return;
        };
        member.free = [renewal.meta.get(), renewal.data.get()];
        let progress = renewal.revoke_progress.get();
        if core::mem::replace(&mut member.revoke_progress, progress) != progress {
            let rid = member.rid();
            self.locks.server.note_progress(rid, now);
        }
    }

    /// Ends recovery when every member that may hold locks from under a former server has told of them, or is gone.
    pub(super) fn locks_recover(&mut self) {
        if self.locks.server.is_recovering() && !self.members.live().any(|m| m.unknown_below > 0) {
            self.locks.server.finish_recovery();
            self.file_locks.finish_recovery();
        }
    }

    /// Sends what the lock machine has to say, and looks for revokes that take too long.
    pub(super) fn lock_tick(&mut self, now: Mono) -> Result<(), ServerError> {
        self.locks_recover();
        if now >= self.locks.next_check && !self.is_cut_off() {
            self.locks.next_check = now.saturating_add(REVOKE_CHECK);
            let overdue = self.locks.server.overdue(now, REVOKE_LIMIT);
            if let Some(slot) = overdue.and_then(|rid| self.members.live_slot(rid)) {
                log::warn!("scoutfs server: mount slot {slot} does not give a lock back");
                self.expel(slot, false)?;
            }
        }
        self.send_locks(now)
    }

    /// Adds the commits of others that a mount must see with a grant: those that it was not told of in this term.
    fn add_news(&mut self, rid: u64, payload: &mut Vec<u8>) -> Result<(), ServerError> {
        let Some(slot) = self.members.live_slot(rid) else {
            return Ok(());
        };
        let Some(mut told) = self.members.get_mut(slot).map(|member| core::mem::take(&mut member.told))
        else {
            return Ok(());
        };
        // Slots that are free, too: all that their last owner left is in the merged tree, which a mount that was not told
        // may not have read since. And a new owner does not hide that there was another before.
        for other in self.members.iter().filter(|other| other.slot != slot) {
            let newest = (other.item.epoch.get(), other.commit_nr);
            if (newest.1 > 0 || newest.0 > 1) && told.get(&other.slot) != Some(&newest) {
                let number = CommitNumber {
                    slot: slot_le(other.slot),
                    pad: U32::ZERO,
                    epoch: U64::new(newest.0),
                    commit_nr: U64::new(newest.1),
                };
                payload.extend_from_slice(number.as_bytes())?;
                told.insert(other.slot, newest)?;
            }
        }
        if let Some(member) = self.members.get_mut(slot) {
            member.told = told;
        }
        Ok(())
    }

    pub(super) fn send_locks(&mut self, now: Mono) -> Result<(), ServerError> {
        while let Some(output) = self.locks.server.poll_output(now) {
            match output {
                ServerOutput::Grant { client, token, grant } => {
                    // Drawn now: higher than all that former holders have used.
                    let (mut version, mut opens) = (0, Opens::default());
                    if grant.needs_version() {
                        version = self.take_seq()?;
                        let slot = self.members.live_slot(client);
                        if let Some(member) = slot.and_then(|slot| self.members.get_mut(slot)) {
                            member.note_granted(version);
                        }
                        opens = self.locks.server.opens_elsewhere(grant.name(), client);
                    }
                    let mut payload = grant.into_message(version).to_payload(&opens)?;
                    payload.extend_from_slice(self.fences().as_bytes())?;
                    self.add_news(client, &mut payload)?;
                    let (to, kind, id, status) = (client, MSG_LOCK, token, STATUS_OK);
                    self.send(Outgoing { to, kind, response: true, status, id, payload }, false);
                }
                ServerOutput::Revoke { client, message } => {
                    self.request(client, MSG_LOCK, &message.to_raw(), false)?;
                }
            }
        }
        self.send_file_locks()
    }
}
