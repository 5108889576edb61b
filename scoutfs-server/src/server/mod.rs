// SPDX-License-Identifier: GPL-2.0-only
//! The server: one struct, owned by one thread, that does its IO inside its own methods.
//!
//! | module | what |
//! | --- | --- |
//! | this | [`Server`], its life, and which handler gets which message |
//! | `open` | taking over what the leader before left |
//! | `take_over` | blocks that leaders before may still write, and those that a new one writes first |
//! | `commit` | one super block write for all that was handled |
//! | `work` | the working set: blocks that the server itself may allocate |
//! | `changes` | changes of the server's tree since the last commit |
//! | `free_space` | free blocks and zones that nobody has been given |
//! | `members` | joining, leaving, leases, fencing |
//! | `cut_off` | a leader that has lost the network fences nobody |
//! | `deaths` | who is dead for certain |
//! | `seqs` | seqs and inode numbers |
//! | `horizon` | rounds that find how far the change index is complete |
//! | `hand_over` | space to and from mounts |
//! | `recall` | taking back what mounts do not use |
//! | `clear` | whole zones out of loose metadata blocks |
//! | `merges` | which log is merged when, and what becomes of the pieces |
//! | `fences` | who was reclaimed by lease alone, and the data blocks that they may still write |
//! | `reclaim` | taking back what a mount that is gone has left |
//! | `locks` | cluster locks |
//! | `file_locks` | locks that programs have on files |
//!
//! # What must hold
//!
//! - An answer that promises something is released by the commit that makes it durable, not before.
//! - All state that must survive is an item of the server's tree or a field of the super block, and is changed in
//!   memory and noted for the next commit in one go. When that fails half-way (no memory, or books that do not add up)
//!   the server stops, and what is durable decides.
//! - No handler waits for a mount.

mod changes;
mod clear;
mod commit;
mod cut_off;
mod deaths;
mod fences;
mod file_locks;
mod free_space;
mod hand_over;
mod horizon;
mod locks;
mod members;
mod merges;
mod open;
mod recall;
mod reclaim;
mod seqs;
mod take_over;
mod work;

#[cfg(test)]
mod tests;

use core::time::Duration;

use scoutfs_btree::space::SpaceKind;
use scoutfs_btree::{BlockCache, Error as TreeError};
use scoutfs_env::device::BlockDevice;
use scoutfs_env::time::Mono;
use scoutfs_env::{AllocError, Arc, Box, OrdMap, Vec, log};
use scoutfs_format::BlockRef;
use scoutfs_format::geometry::Geometry;
use scoutfs_format::le::{I64, U32, U64};
use scoutfs_format::msg::{
    MAX_PAYLOAD, MSG_COMMIT_BELOW, MSG_CONFIRM_DEATH, MSG_DEATH, MSG_FILE_LOCK, MSG_FILE_LOCK_REPORT,
    MSG_FINALIZED, MSG_HORIZON, MSG_INOS, MSG_JOIN, MSG_LEAVE, MSG_LOCK, MSG_LOCK_REPORT, MSG_OPENS_REPORT,
    MSG_RECOVERED, MSG_RENEW, MSG_RESPONSE, MSG_SEQ, MSG_SEQ_CLOSED, MSG_SPACE, MSG_SPACE_GIVE,
    MSG_SPACE_RECALL, MSG_SPACE_TAKEN, MSG_STATFS, MessageHeader, STATUS_AGAIN, STATUS_CORRUPT,
    STATUS_INVALID, STATUS_IO, STATUS_NO_MEMORY, STATUS_NOT_MEMBER, STATUS_OK, StatfsReply,
};
use scoutfs_format::voter::{LeaderId, ProcessId, SuperBlock};
use scoutfs_lock::file_locks::FileLockServer;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::error::ServerError;
use changes::Changes;
use free_space::FreeSpace;
use horizon::Horizon;
use members::Members;
use merges::Merges;
use seqs::Counters;
use work::WorkSet;

pub(crate) use commit::work_entry;
#[cfg(test)]
pub(crate) use {
    members::MemberState,
    open::{ServerItems, read_work},
    reclaim::{FreedBlocks, Leftovers, SPACE_PROGRESS, trees_left},
    take_over::Former,
};

/// How long a mount may go on without a renewal, from the moment it asked for the last one.
pub const LEASE: Duration = Duration::from_secs(6);
/// How much longer the server waits before it takes a mount for dead: for clocks that differ. Messages that travel need nothing of it,
/// as a mount counts from before it asked and the server from its answer.
pub const LEASE_MARGIN: Duration = Duration::from_secs(1);

/// With fewer seqs below the bound messages are left to who can raise it. [`Server::tick`] does so long before.
const SEQS_AT_ONCE: u64 = 4_096;

/// Knows which processes are certainly dead.
pub trait DeathOracle {
    /// Whether the process can never write again: its machine was seen rebooted, or the process seen gone, by the machine
    /// itself; an agent or the administrator said so. False when that is not known.
    fn is_dead(&self, process: &ProcessId) -> bool;

    /// A mount was fenced, because its lease ran out or because it gave no lock back, and its death is not confirmed. True when it
    /// is by now. Asked every few seconds; must not wait, but may have something done that takes long, for the next time.
    fn confirm(&self, suspect: &Suspect) -> bool {
        self.is_dead(&suspect.process)
    }
}

/// What the host knows of its lease as the leader.
pub trait LeaderLease {
    /// Waits until it is valid or over, after something was written that counts only under it.
    fn confirm(&self) -> LeaseState;
}

/// See [`LeaderLease`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// It is valid, and was all the time.
    Valid,
    /// It had ended, nobody else led meanwhile, and it is valid again since then.
    Resumed(Mono),
    /// Another leads, or may.
    Over,
}

/// A mount that is fenced.
#[derive(Clone, Copy, Debug)]
pub struct Suspect {
    /// Its rid.
    pub rid: u64,
    /// Who mounted.
    pub process: ProcessId,
}

/// Who serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leader {
    /// The voter slot of its mount.
    pub voter: u32,
    /// The term that it has won.
    pub term: u64,
    /// Its mount, not 0.
    pub rid: u64,
}

/// A message to a mount.
#[derive(Debug)]
pub struct Outgoing {
    /// The mount's rid.
    pub to: u64,
    /// `MSG_*`.
    pub kind: u8,
    /// Whether it answers the request `id` of the mount; otherwise it is a request of the server.
    pub response: bool,
    /// `STATUS_*`; 0 in requests.
    pub status: u16,
    /// The request's id. The server numbers its own requests.
    pub id: u64,
    /// What follows the header.
    pub payload: Vec<u8>,
}

/// What the elected node runs for all mounts. See the module.
// Boxes where a part is large: it is made on a kernel's stack.
pub struct Server {
    dev: Arc<Box<dyn BlockDevice>>,
    cache: Arc<BlockCache>,
    geometry: Geometry,
    /// This one.
    leader: LeaderId,
    /// Something was taken over from leaders that may still write, and is not committed yet.
    taking_over: bool,
    /// The latest time that the server was told.
    now: Mono,
    /// The next super block.
    sb: Box<SuperBlock>,
    /// The last one that is durable.
    durable: Box<SuperBlock>,
    /// Asked by each commit, if the host has one: several may be made before the host looks itself.
    lease: Option<Box<dyn LeaderLease + Send>>,
    /// Whether the next super block differs from the durable one in more than what `changes` and `work` tell.
    super_dirty: bool,
    changes: Changes,
    work: WorkSet,
    /// The blocks of the durable list of the working set.
    work_list: Vec<BlockRef>,
    /// Seq of the blocks that the server writes, and the next one's number.
    block_seq: u64,
    block_counter: u32,
    free: FreeSpace,
    quarantined: Vec<open::Quarantine>,
    fenced_data: fences::FencedData,
    members: Members,
    counters: Counters,
    horizon: Horizon,
    cut_off: Box<cut_off::CutOff>,
    merges: Box<Merges>,
    reclaiming: Option<reclaim::Reclaiming>,
    /// When to ask again about those who are fenced.
    deaths_due: Mono,
    /// See [`StatfsReply::pieces`].
    pieces: u64,
    recalls: Box<recall::Recalls>,
    locks: locks::Locks,
    file_locks: Box<FileLockServer<u64>>,
    /// May be sent.
    ready: OrdMap<u64, Outgoing>,
    ready_next: u64,
    /// May be sent after the next commit.
    waiting: Vec<Outgoing>,
    request_id: u64,
    failed: Option<ServerError>,
    stopped: bool,
}

/// What a handler gives.
enum Answer {
    /// May be sent at once.
    Now(Vec<u8>),
    /// May be sent when what was handled is durable.
    Durable(Vec<u8>),
    /// Comes later, by another way.
    Later,
}

/// Why a request is refused.
enum Refusal {
    /// Tell the mount.
    Status(u16),
    /// The server's own state is in doubt: it stops.
    Stop(ServerError),
}

impl From<ServerError> for Refusal {
    fn from(e: ServerError) -> Self {
        Refusal::Stop(e)
    }
}

impl From<AllocError> for Refusal {
    fn from(_: AllocError) -> Self {
        Refusal::Stop(ServerError::NoMemory)
    }
}

type Handled = Result<Answer, Refusal>;

/// The status that tells of an error.
fn status_of(e: &ServerError) -> u16 {
    match e {
        ServerError::Io(_) | ServerError::Tree(TreeError::Io(_)) => STATUS_IO,
        ServerError::NoMemory | ServerError::Tree(TreeError::NoMemory) => STATUS_NO_MEMORY,
        ServerError::Stopped => STATUS_IO,
        _ => STATUS_CORRUPT,
    }
}

/// The payload as a structure.
fn parse<T: FromBytes>(payload: &[u8]) -> Result<T, Refusal> {
    T::read_from_bytes(payload).map_err(|_| Refusal::Status(STATUS_INVALID))
}

fn bytes_of<T: IntoBytes + Immutable>(value: &T) -> Result<Vec<u8>, AllocError> {
    Vec::from_slice(value.as_bytes())
}

impl Server {
    /// A message of the mount `from` (its rid): a request, or the answer to a request of the server.
    ///
    /// A request is answered exactly once, by [`poll_message`](Self::poll_message), now or after a
    /// [`commit`](Self::commit) or what else it needs.
    #[inline(never)]
    pub fn handle(&mut self, now: Mono, from: u64, header: &MessageHeader, payload: &[u8]) {
        self.now = self.now.max(now);
        self.finish_take_over();
        if header.flags & MSG_RESPONSE != 0 {
            if self.is_running()
                && let Err(e) = self.handle_answer(now, from, header, payload)
            {
                self.stop(e);
            }
            return;
        }
        // Room for the answer, so that what is refused for want of memory can be refused. Without it now there may be some
        // then.
        let _ = self.ready.reserve(1);
        let _ = self.waiting.reserve(1);
        let handled = if self.is_running() {
            match self.handle_request(now, from, header, payload) {
                // These leave nothing half done: at worst a number is never used.
                Err(Refusal::Stop(ServerError::NoMemory))
                    if self.is_running()
                        && matches!(header.kind, MSG_SEQ | MSG_INOS | MSG_STATFS | MSG_RENEW) =>
                {
                    Err(Refusal::Status(STATUS_NO_MEMORY))
                }
                handled => handled,
            }
        } else if self.failed.is_some() {
            Err(Refusal::Status(STATUS_IO))
        } else {
            Err(Refusal::Status(STATUS_AGAIN))
        };
        let (status, answer) = match handled {
            Ok(answer) => (STATUS_OK, answer),
            Err(Refusal::Status(status)) => (status, Answer::Now(Vec::new())),
            Err(Refusal::Stop(e)) => {
                let status = status_of(&e);
                self.stop(e);
                (status, Answer::Now(Vec::new()))
            }
        };
        let (payload, durable) = match answer {
            Answer::Now(payload) => (payload, false),
            Answer::Durable(payload) => (payload, true),
            Answer::Later => return,
        };
        let (kind, id) = (header.kind, header.id.get());
        let message = Outgoing { to: from, kind, response: true, status, id, payload };
        self.send(message, durable && self.dirty());
    }

    fn handle_request(&mut self, now: Mono, from: u64, header: &MessageHeader, payload: &[u8]) -> Handled {
        if payload.len() > MAX_PAYLOAD {
            return Err(Refusal::Status(STATUS_INVALID));
        }
        if header.kind == MSG_JOIN {
            return self.join(now, from, parse(payload)?);
        }
        let Some(slot) = self.members.live_slot(from) else {
            return Err(Refusal::Status(STATUS_NOT_MEMBER));
        };
        let id = header.id.get();
        match header.kind {
            MSG_SEQ => self.seq(slot, parse(payload)?),
            MSG_SEQ_CLOSED => self.seq_closed(slot, parse(payload)?),
            MSG_INOS => self.inos(),
            MSG_SPACE => self.space(slot, id, parse(payload)?),
            MSG_SPACE_TAKEN => self.space_taken(slot, parse(payload)?),
            MSG_SPACE_GIVE => self.space_give(slot, payload),
            MSG_LOCK => self.lock_request(now, from, id, payload),
            MSG_HORIZON => self.horizon_request(from, id),
            MSG_STATFS => {
                self.note_free(slot, payload);
                self.statfs(slot)
            }
            MSG_RENEW => {
                self.note_renewal(now, slot, payload);
                self.renew(now, slot)
            }
            MSG_CONFIRM_DEATH => self.confirm_death(parse(payload)?),
            MSG_LEAVE => self.leave(slot, parse(payload)?),
            MSG_FINALIZED => self.finalized(slot, parse(payload)?),
            MSG_LOCK_REPORT => self.lock_report(from, payload),
            MSG_OPENS_REPORT => self.opens_report(from, payload),
            MSG_FILE_LOCK => self.file_lock_request(from, id, payload),
            MSG_FILE_LOCK_REPORT => self.file_lock_report(from, payload),
            MSG_RECOVERED => self.recovered(now, slot, parse(payload)?),
            _ => Err(Refusal::Status(STATUS_INVALID)),
        }
    }

    /// The answer to a request of the server. Answers that make no sense, or come from strangers, are ignored: who does
    /// not answer in time is fenced anyway.
    fn handle_answer(
        &mut self,
        now: Mono,
        from: u64,
        header: &MessageHeader,
        payload: &[u8],
    ) -> Result<(), ServerError> {
        let Some(slot) = self.members.live_slot(from) else {
            return Ok(());
        };
        if header.status.get() != STATUS_OK {
            return Ok(());
        }
        match header.kind {
            MSG_COMMIT_BELOW => match FromBytes::read_from_bytes(payload) {
                Ok(commit) => self.committed_below(slot, from, commit),
                Err(_) => Ok(()),
            },
            MSG_LOCK => self.lock_answer(now, slot, from, payload),
            MSG_DEATH => self.death_answer(slot, payload),
            MSG_SPACE_RECALL => match FromBytes::read_from_bytes(payload) {
                Ok(answer) => self.recalled(slot, answer),
                Err(_) => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn statfs(&self, slot: u32) -> Handled {
        let zones = self.geometry.nr_zones();
        let (meta_zones, free_zones) = (self.free.meta_zones, self.free.empty_zones());
        let data_zones = zones.saturating_sub(meta_zones).saturating_sub(free_zones);
        let free = |kind| self.free.of(kind).blocks();
        Ok(Answer::Now(bytes_of(&StatfsReply {
            total_meta: U64::new(meta_zones * self.geometry.zone_meta_blocks()),
            total_data: U64::new(data_zones * self.geometry.zone_data_blocks()),
            free_meta: U64::new(free(SpaceKind::Meta)),
            free_data: U64::new(free(SpaceKind::Data)),
            free_zones: U64::new(free_zones),
            inodes: I64::new(self.sb.inodes.get().cast_signed()),
            super_seq: self.durable.seq,
            pieces: U64::new(self.pieces),
            others_meta: U64::new(self.others_free(slot, SpaceKind::Meta)),
            others_data: U64::new(self.others_free(slot, SpaceKind::Data)),
            quarantined_meta: U64::new(self.quarantined_blocks(SpaceKind::Meta)),
            quarantined_data: U64::new(self.quarantined_blocks(SpaceKind::Data)),
            lacking_meta: U64::new(self.work_deficit().saturating_sub(self.free.available(SpaceKind::Meta))),
        })?))
    }

    /// A bounded step of what goes on without messages: leases that ran out, taking back what mounts have left, keeping
    /// counters and the working set ahead of their use.
    #[inline(never)]
    pub fn tick(&mut self, now: Mono) {
        self.now = self.now.max(now);
        self.finish_take_over();
        if !self.is_running() {
            return;
        }
        self.check_network(now);
        let done = self
            .check_leases(now)
            .and_then(|()| self.reclaim_step())
            .and_then(|()| self.lock_tick(now))
            .and_then(|()| self.keep_ahead());
        if let Err(e) = done {
            self.stop(e);
        }
    }

    /// Whether a message of this kind can be handled now without a commit and without a look at the device, so that whoever received it
    /// may do it. Numbers that it may take are there.
    pub fn handles_at_once(&self, kind: u8) -> bool {
        matches!(kind, MSG_LOCK | MSG_FILE_LOCK | MSG_SEQ)
            && self.is_running()
            && !self.dirty()
            && self.seqs_left() > SEQS_AT_ONCE
    }

    /// When [`tick`](Self::tick) has something to do at the latest; [`Mono::MAX`] is never.
    pub fn next_wakeup(&self, now: Mono) -> Mono {
        if !self.is_running() {
            return Mono::MAX;
        }
        if self.dirty() || self.can_reclaim() {
            return now;
        }
        self.next_lease_end().min(self.next_merge(now))
    }

    /// The next message to send.
    pub fn poll_message(&mut self) -> Option<Outgoing> {
        self.ready.pop_first().map(|(_, message)| message)
    }

    /// From now on no commit counts that this lease does not confirm.
    pub fn set_lease(&mut self, lease: Box<dyn LeaderLease + Send>) {
        self.lease = Some(lease);
    }

    /// The error that stopped the server.
    pub fn failed(&self) -> Option<&ServerError> {
        self.failed.as_ref()
    }

    /// The super block as it was last made durable.
    pub fn super_block(&self) -> &SuperBlock {
        &self.durable
    }

    /// Whether mounts are left that go on when this server ends.
    pub fn has_members(&self) -> bool {
        self.members.live().next().is_some()
    }

    /// Whether a mount is a member.
    pub fn is_member(&self, rid: u64) -> bool {
        self.members.live_slot(rid).is_some()
    }

    /// Its term.
    pub fn term(&self) -> u64 {
        self.sb.term.get()
    }

    fn is_running(&self) -> bool {
        self.failed.is_none() && !self.stopped
    }

    /// Something went wrong that leaves the state in memory in doubt. What waits for a commit that will not come is
    /// refused.
    fn stop(&mut self, e: ServerError) {
        log::error!("scoutfs server: {e}");
        let status = status_of(&e);
        if self.failed.is_none() {
            self.failed = Some(e);
        }
        let waiting = core::mem::take(&mut self.waiting);
        for message in waiting {
            if message.response {
                self.send(Outgoing { status, payload: Vec::new(), ..message }, false);
            }
        }
    }

    /// Queues a message, to be sent now or after the next commit. Without memory the message is lost, as on a
    /// network, and the server stops.
    fn send(&mut self, message: Outgoing, after_commit: bool) {
        let queued = if after_commit {
            self.waiting.push(message)
        } else {
            self.ready_next += 1;
            self.ready.insert(self.ready_next, message).map(drop)
        };
        if queued.is_err() && self.failed.is_none() {
            self.failed = Some(ServerError::NoMemory);
        }
    }

    /// Sends a request of the server.
    fn request<T: IntoBytes + Immutable>(
        &mut self,
        to: u64,
        kind: u8,
        payload: &T,
        after_commit: bool,
    ) -> Result<(), ServerError> {
        self.request_id += 1;
        let (id, payload) = (self.request_id, bytes_of(payload)?);
        self.send(Outgoing { to, kind, response: false, status: STATUS_OK, id, payload }, after_commit);
        Ok(())
    }
}

/// A slot as stored in messages.
fn slot_le(slot: u32) -> U32 {
    U32::new(slot)
}
