// SPDX-License-Identifier: GPL-2.0-only
//! Messages between mounts and the server.
//!
//! A frame is a [`MessageHeader`] and its payload. Requests carry an id that the response repeats. The payload of
//! each kind is named with the kind.

use crate::layout::{constants, layout};
use crate::le::{I64, U16, U32, U64};
use crate::voter::ProcessId;

constants! { MSG_CONSTANTS:
    /// Bytes of the largest payload.
    pub const MAX_PAYLOAD: usize = 16 * 1024;
    /// [`MessageHeader::magic`].
    pub const MAGIC_MESSAGE: u32 = 0x6d74_6373;
    /// [`MessageHeader::flags`]: a response.
    pub const MSG_RESPONSE: u8 = 1;

    /// Both ways, first on a connection: [`Greeting`].
    pub const MSG_GREETING: u8 = 1;
    /// Server to mount, when the mount has greeted: [`Challenge`]. The mount answers with [`MSG_PROOF`].
    pub const MSG_CHALLENGE: u8 = 18;
    /// Mount to server: [`Proof`]. Then the server greets.
    pub const MSG_PROOF: u8 = 19;
    /// Mount to server: [`JoinRequest`]; answer [`JoinReply`].
    pub const MSG_JOIN: u8 = 2;
    /// Mount to server: [`SeqRequest`]; answer [`SeqReply`].
    pub const MSG_SEQ: u8 = 3;
    /// Mount to server: [`SeqClosed`]; no payload in the answer.
    pub const MSG_SEQ_CLOSED: u8 = 4;
    /// Mount to server: no payload; answer [`InosReply`].
    pub const MSG_INOS: u8 = 5;
    /// Mount to server: [`SpaceRequest`]; answer a hand-over: [`HandOverHeader`] and its extents
    /// ([`HandOverExtent`](crate::server_item::HandOverExtent)). An answer without extents has number 0.
    pub const MSG_SPACE: u8 = 6;
    /// Mount to server, after a record that names them is durable: [`HandOverTaken`]; no payload in the answer.
    pub const MSG_SPACE_TAKEN: u8 = 7;
    /// Mount to server, after the record that gives it is durable: a [`HandOverHeader`] and its extents;
    /// answer [`HandOverTaken`].
    pub const MSG_SPACE_GIVE: u8 = 8;
    /// Both ways: [`LockMessage`], and [`OpenInodes`] where [`LOCK_OPENS`] says so. From a mount a request for a mode, from the
    /// server a grant as its answer, and with it [`Fences`] and one [`CommitNumber`] for each other slot that has a commit which the mount was
    /// not told of; from the server a revoke, from a mount its answer. Who gives a group back says which of its inodes are open
    /// here; who gets it for writing is told which are open elsewhere.
    pub const MSG_LOCK: u8 = 9;
    /// Mount to server: no payload; answer [`HorizonReply`] and one [`CommitNumber`] for each slot in use.
    pub const MSG_HORIZON: u8 = 10;
    /// Server to mount: [`CommitBelow`]; answer [`CommitNumber`].
    pub const MSG_COMMIT_BELOW: u8 = 11;
    /// Server to mount: [`MergedLogs`]; no answer is needed, an empty one is sent.
    pub const MSG_MERGED: u8 = 12;
    /// Server to mount: finalize the open log tree with the next commit; answer [`CommitNumber`].
    pub const MSG_FINALIZE: u8 = 13;
    /// Mount to server: [`FreeBlocks`], or no payload; answer [`StatfsReply`].
    pub const MSG_STATFS: u8 = 14;
    /// Mount to server: [`Renewal`], or no payload; answer [`RenewReply`].
    pub const MSG_RENEW: u8 = 15;
    /// Mount to server, after its clean record is durable: [`CommitNumber`]; no payload in the answer.
    pub const MSG_LEAVE: u8 = 16;
    /// Mount to server: log trees were finalized: [`CommitNumber`]; no payload in the answer.
    pub const MSG_FINALIZED: u8 = 17;

    /// Mount to a new server: [`LockMessage`]s, the locks that it holds; no payload in the answer.
    pub const MSG_LOCK_REPORT: u8 = 20;
    /// Mount to a new server, after all of its locks: [`Recovered`]; no payload in the answer.
    pub const MSG_RECOVERED: u8 = 21;
    /// Mount to a new server, before [`MSG_RECOVERED`]: [`OpensReport`]s, the open inodes of each group that has some; no payload
    /// in the answer.
    pub const MSG_OPENS_REPORT: u8 = 22;
    /// Server to mount: [`Death`], is this process of the mount's machine dead? The answer is a [`Death`], too.
    pub const MSG_DEATH: u8 = 23;
    /// Mount to server: [`FileLockRequest`]; answer [`FileLockReply`], which for a lock that is waited for comes when it is granted.
    pub const MSG_FILE_LOCK: u8 = 24;
    /// Mount to a new server, before [`MSG_RECOVERED`]: [`FileLock`]s that programs hold there; no payload in the answer.
    pub const MSG_FILE_LOCK_REPORT: u8 = 25;
    /// Server to mount, when somebody finds no space: [`SpaceRecall`]. The mount gives what it does not use, and answers with
    /// [`SpaceRecalled`] when the server has that.
    pub const MSG_SPACE_RECALL: u8 = 26;
    /// Mount to server: [`ConfirmDeath`], the administrator says that a mount is dead. The answer is a [`DeathConfirmed`], durable.
    pub const MSG_CONFIRM_DEATH: u8 = 27;

    /// [`DeathConfirmed::result`]: what it held is taken back.
    pub const DEATH_CONFIRMED: u32 = 1;
    /// It is a member, and its lease runs: nothing was done.
    pub const DEATH_OF_LIVE: u32 = 2;
    /// There is no such mount, or nothing of it is left.
    pub const DEATH_OF_UNKNOWN: u32 = 3;

    /// [`MessageHeader::status`]: done.
    pub const STATUS_OK: u16 = 0;
    /// Out of space.
    pub const STATUS_NO_SPACE: u16 = 1;
    /// An error of the device.
    pub const STATUS_IO: u16 = 2;
    /// Out of memory.
    pub const STATUS_NO_MEMORY: u16 = 3;
    /// The request makes no sense.
    pub const STATUS_INVALID: u16 = 4;
    /// All mount slots are in use.
    pub const STATUS_NO_SLOT: u16 = 5;
    /// The sender is not, or no longer, a member.
    pub const STATUS_NOT_MEMBER: u16 = 6;
    /// The server is not ready or stopping; ask again.
    pub const STATUS_AGAIN: u16 = 7;
    /// Damaged metadata.
    pub const STATUS_CORRUPT: u16 = 8;

    /// [`SpaceRequest::need`]: nobody waits for it; what others have stays with them.
    pub const SPACE_AHEAD: u32 = 0;
    /// [`SpaceRequest::need`]: an operation lacks it, and has not said so before.
    pub const SPACE_NEEDED: u32 = 1;
    /// [`SpaceRequest::need`]: the operation that has said so still lacks it.
    pub const SPACE_STILL_NEEDED: u32 = 2;

    /// [`LockId::kind`]: a group of inodes: `start` the first inode number, `2^order` of them.
    pub const LOCK_INODES: u8 = 1;
    /// [`LockId::kind`]: renames of directories.
    pub const LOCK_RENAME: u8 = 2;

    /// [`LockMessage::mode`]: nothing.
    pub const MODE_NULL: u8 = 0;
    /// Shared.
    pub const MODE_READ: u8 = 1;
    /// Exclusive.
    pub const MODE_WRITE: u8 = 2;

    /// [`LockMessage::flags`]: [`OpenInodes`] follow.
    pub const LOCK_OPENS: u8 = 1;
    /// [`FileLock::class`]: a lock of fcntl, of a range, by process or open file description.
    pub const FILE_LOCK_FCNTL: u8 = 1;
    /// [`FileLock::class`]: a lock of flock, of the whole file, by open file description.
    pub const FILE_LOCK_FLOCK: u8 = 2;

    /// [`FileLockRequest::op`]: which lock is in the way of this one?
    pub const FILE_LOCK_TEST: u8 = 1;
    /// Have the whole range at least in this mode, now or not at all. Of what is held in a higher mode nothing is given back.
    pub const FILE_LOCK_SET: u8 = 2;
    /// The same, and wait as long as another is in the way.
    pub const FILE_LOCK_WAIT: u8 = 3;
    /// Wait no longer for the lock that was asked for with this id; it may have been granted meanwhile.
    pub const FILE_LOCK_CANCEL: u8 = 4;
    /// Have nothing of the range in a higher mode than this one; with [`MODE_NULL`] nothing at all. Takes nothing, so nothing can be
    /// in its way.
    pub const FILE_LOCK_LOWER: u8 = 5;

    /// [`FileLockReply::result`]: done; of a test: the lock in the way, with [`MODE_NULL`] none.
    pub const FILE_LOCK_DONE: u8 = 1;
    /// Another lock is in the way.
    pub const FILE_LOCK_BLOCKED: u8 = 2;
    /// To wait would be to wait for oneself.
    pub const FILE_LOCK_DEADLOCK: u8 = 3;
    /// Is not waited for any longer.
    pub const FILE_LOCK_CANCELLED: u8 = 4;
    /// The mount has too many locks, or waits for too many.
    pub const FILE_LOCK_FULL: u8 = 5;

    /// Words in [`OpenInodes`]: a bit for each inode of the largest group.
    pub const OPEN_WORDS: usize = 16;
}

layout! {
    /// Begins every message.
    pub struct MessageHeader {
        /// crc32c of the rest of the header and the payload.
        pub crc: U32,
        /// [`MAGIC_MESSAGE`].
        pub magic: U32,
        /// Bytes of the payload.
        pub payload_len: U32,
        /// `MSG_*`.
        pub kind: u8,
        /// [`MSG_RESPONSE`].
        pub flags: u8,
        /// `STATUS_*`; 0 in requests.
        pub status: U16,
        /// Order of sending on this connection, from 1.
        pub seq: U64,
        /// All messages up to this seq were received.
        pub ack: U64,
        /// Id of the request; a response repeats it.
        pub id: U64,
        /// Term of the server.
        pub term: U64,
    }

    /// First message both ways.
    pub struct Greeting {
        pub fsid: U64,
        pub format_hash: U64,
        /// Term that the sender knows; 0 none.
        pub term: U64,
        /// The mount; 0 from the server.
        pub rid: U64,
        /// Random for each connection; 0 from the server, which has sent its own with the challenge.
        pub nonce: [u8; 16],
    }

    /// The server wants to know whether the mount can read the device, and shows that it can itself.
    pub struct Challenge {
        /// Random for each connection.
        pub nonce: [u8; 16],
        /// HMAC-SHA-256 under the volume's secret, of what both sides said, as the server.
        pub proof: [u8; 32],
    }

    /// The mount can read the device.
    pub struct Proof {
        /// HMAC-SHA-256 under the volume's secret, of what both sides said, as the mount.
        pub proof: [u8; 32],
    }

    /// A mount wants a slot.
    pub struct JoinRequest {
        pub rid: U64,
        /// Who mounts.
        pub process: ProcessId,
        /// 1 when the mount will only read.
        pub read_only: U32,
        pub pad: U32,
    }

    /// A mount has a slot.
    pub struct JoinReply {
        /// The slot.
        pub slot: U32,
        pub pad: U32,
        /// Goes into all records.
        pub epoch: U64,
        /// Log trees up to this number are merged (those of former owners of the slot); the mount counts on.
        pub merged_through: U64,
        /// Last hand-over to the slot that is known to be taken: who has just joined counts on from here, and the next ones, which he
        /// gets when he asks for space, are his reserve.
        pub down_given: U64,
        /// Last hand-over that the server took from the slot; the mount counts on from here.
        pub up_taken: U64,
        /// Milliseconds of a lease.
        pub lease_ms: U64,
        /// Metadata blocks that the mount must keep for commits and deletes.
        pub reserve_blocks: U64,
    }

    /// Asks for the seq of a transaction.
    pub struct SeqRequest {
        /// The seqs before this one that the mount closed (committed or gave back): all below this number.
        pub closed_below: U64,
    }

    /// A seq.
    pub struct SeqReply {
        pub seq: U64,
    }

    /// Seqs below this number will not be used by the sender; also tells its newest durable record.
    pub struct SeqClosed {
        pub below: U64,
        pub commit_nr: U64,
    }

    /// Inode numbers.
    pub struct InosReply {
        pub first: U64,
        pub count: U64,
    }

    /// Asks for space.
    pub struct SpaceRequest {
        /// Blocks wanted, in units of the kind; fewer may come.
        pub blocks: U64,
        /// The kind of space.
        pub kind: U32,
        /// `SPACE_AHEAD` and following.
        pub need: U32,
    }

    /// Wants space back that the receiver does not use.
    pub struct SpaceRecall {
        /// Goes into the answer.
        pub round: U64,
        /// Blocks wanted, in units of the kind.
        pub blocks: U64,
        /// The kind of space.
        pub kind: U32,
        /// The lowest slot of those that wait for it; `u32::MAX` when only who joins does.
        pub slot: U32,
        /// 1 when the round before gave nothing: all that is not merged is to be finalized, and the other kind given as well, for
        /// zones that get empty can become this one.
        pub all: U32,
        pub pad: U32,
    }

    /// What was not used is given.
    pub struct SpaceRecalled {
        /// Of the recall.
        pub round: U64,
        /// Of the recall.
        pub kind: U32,
        /// 1 when the mount keeps blocks for operations of its own that wait for them: they, or what is left, may come later.
        pub kept: U32,
    }

    /// What the sender has: blocks that are free, that will be with its next commit, or that are set aside.
    pub struct FreeBlocks {
        pub meta: U64,
        pub data: U64,
    }

    /// What a mount tells as it renews its lease.
    pub struct Renewal {
        /// As in [`FreeBlocks`].
        pub meta: U64,
        pub data: U64,
        /// Counts what it has done for locks that go back: it may take long as long as this grows.
        pub revoke_progress: U64,
    }

    /// Begins a hand-over.
    pub struct HandOverHeader {
        /// Its number: counted for each slot, epoch and direction, taken in order.
        pub number: U64,
        /// Extents that follow.
        pub nr_extents: U32,
        pub pad: U32,
    }

    /// All hand-overs up to this number were taken.
    pub struct HandOverTaken {
        pub number: U64,
        /// The taker's record that names it; 0 from the server.
        pub commit_nr: U64,
    }

    /// Names a lock.
    pub struct LockId {
        /// First inode number of the group.
        pub start: U64,
        /// `LOCK_*`.
        pub kind: u8,
        /// The group has `2^order` inode numbers.
        pub order: u8,
        pub pad: [u8; 6],
    }

    /// About one lock.
    pub struct LockMessage {
        pub id: LockId,
        /// Write version of a grant of write.
        pub version: U64,
        /// The newest record that must be seen by the next holder (in an answer to a revoke).
        pub commit_nr: U64,
        /// Grants count up, so that late duplicates are known.
        pub generation: U64,
        /// Mode held before.
        pub old_mode: u8,
        /// Mode wanted or granted.
        pub mode: u8,
        /// [`LOCK_OPENS`].
        pub flags: u8,
        pub pad: [u8; 5],
    }

    /// Which inodes of a group are open: bit `n % 64` of word `n / 64` stands for the group's inode `start + n`.
    pub struct OpenInodes {
        pub words: [U64; OPEN_WORDS],
    }

    /// Which inodes of a group a mount has open.
    pub struct OpensReport {
        pub id: LockId,
        pub opens: OpenInodes,
    }

    /// A lock that a program has on a file, or wants.
    pub struct FileLock {
        pub ino: U64,
        /// Whose it is: the mount's name for a process or an open file description.
        pub owner: U64,
        /// First byte.
        pub start: U64,
        /// Last byte, itself included; 2^63 - 1 is the end of the file, however it grows.
        pub end: U64,
        /// The process, on its own machine.
        pub pid: U32,
        /// `FILE_LOCK_FCNTL` or `FILE_LOCK_FLOCK`.
        pub class: u8,
        /// `MODE_*`.
        pub mode: u8,
        pub pad: [u8; 2],
    }

    /// A program wants something of a lock.
    pub struct FileLockRequest {
        /// Counted by the mount; a cancel has that of what it cancels.
        pub id: U64,
        pub lock: FileLock,
        /// `FILE_LOCK_TEST` and following.
        pub op: u8,
        pub pad: [u8; 7],
    }

    /// What became of it.
    pub struct FileLockReply {
        /// Of the request; 0 answers a cancel.
        pub id: U64,
        /// The lock that is in the way of a tested one.
        pub start: U64,
        pub end: U64,
        /// Its process; 0 on another mount.
        pub pid: U32,
        /// Its mode.
        pub mode: u8,
        /// `FILE_LOCK_DONE` and following.
        pub result: u8,
        pub pad: [u8; 2],
    }

    /// A slot's newest durable record.
    pub struct CommitNumber {
        pub slot: U32,
        pub pad: U32,
        pub epoch: U64,
        pub commit_nr: U64,
    }

    /// The change index is complete below `horizon`.
    pub struct HorizonReply {
        /// No item with a lower version can still appear.
        pub horizon: U64,
        /// [`CommitNumber`]s that follow.
        pub nr_slots: U32,
        pub pad: U32,
    }

    /// Commit, or give back, every seq below.
    pub struct CommitBelow {
        pub seq: U64,
    }

    /// Log trees of the receiver up to this number are merged; their blocks are its own again.
    pub struct MergedLogs {
        pub through: U64,
    }

    /// A mount has told a new server all that it must know.
    pub struct Recovered {
        /// The seq of its open transaction.
        pub seq: U64,
        /// The newest seq that it was ever given, which it may have in hand.
        pub last_seq: U64,
        /// Hand-overs up to this number are known to it.
        pub taken: U64,
        /// Its newest durable record.
        pub commit_nr: U64,
    }

    /// Space as the server knows it.
    pub struct StatfsReply {
        /// Blocks of 64 KiB that are in metadata zones, and blocks of 4 KiB in data zones.
        pub total_meta: U64,
        pub total_data: U64,
        /// Free blocks that the server holds, by kind.
        pub free_meta: U64,
        pub free_data: U64,
        /// Free whole zones.
        pub free_zones: U64,
        /// Inodes by the super block (mounts add their own deltas).
        pub inodes: I64,
        /// Super block seq.
        pub super_seq: U64,
        /// Metadata blocks that the server lacks for its commits and merges, and cannot get out of what is free.
        pub lacking_meta: U64,
        /// Counts pieces of merges and sweeps, and steps of taking back what mounts have left, in this term: while it grows, more space may come.
        pub pieces: U64,
        /// Free blocks that other mounts have besides their reserves, by kind, as they last said.
        pub others_meta: U64,
        pub others_data: U64,
        /// Blocks that a mount or a leader which was fenced may still write, by kind: in quarantine, or free when it last said.
        pub quarantined_meta: U64,
        pub quarantined_data: U64,
    }

    /// Whether a process is dead for certain.
    pub struct Death {
        pub process: ProcessId,
        /// 1 when it is; 0 in the question, and when that is not known.
        pub dead: U32,
        pub pad: U32,
    }

    /// The administrator has seen to it that a mount cannot write any more. Also the argument of the ioctl.
    pub struct ConfirmDeath {
        /// Which.
        pub rid: U64,
    }

    /// What became of that.
    pub struct DeathConfirmed {
        /// `DEATH_*`.
        pub result: U32,
        pub pad: U32,
    }

    /// Mounts that were reclaimed by lease alone. What is told later counts when `newest` is higher, or when it is the same and
    /// `unconfirmed` lower.
    pub struct Fences {
        /// Number of the newest fence.
        pub newest: U32,
        /// Number of the newest of those whose death is not confirmed; 0 when there is none.
        pub unconfirmed: U32,
    }

    /// The lease goes on.
    pub struct RenewReply {
        /// The member's epoch as the server knows it.
        pub epoch: U64,
        pub fences: Fences,
    }
}
