// SPDX-License-Identifier: GPL-2.0-only
//! Quorum blocks and super blocks: what a voter slot holds.
//!
//! A voter alternates between its two quorum blocks; the valid one with the higher `write_nr` counts. The
//! leader writes both super block copies of its own voter slot, one after the other; readers take the copy with
//! the highest (term, seq) of all voters' copies.

use crate::block::SECTOR_SIZE;
use crate::geometry::{MAX_VOTERS, RawGeometry};
use crate::layout::{constants, layout};
use crate::le::{U16, U32, U64};
use crate::space::SpaceListRef;
use crate::tree::TreeRoot;

constants! { VOTER_CONSTANTS:
    /// Magic of a super block: `scoutfs` and a zero, read as a little-endian number.
    pub const MAGIC_SUPER: u64 = 0x0073_6674_756f_6373;
    /// Magic of a quorum block.
    pub const MAGIC_QUORUM: u32 = 0x7174_6373;

    /// [`QuorumBlock::state`]: nobody owns the slot; the last owner left cleanly.
    pub const VOTER_FREE: u32 = 0;
    /// [`QuorumBlock::state`]: owned.
    pub const VOTER_OWNED: u32 = 1;

    /// [`SuperBlock::flags`]: the last leader left cleanly and nobody serves.
    pub const SUPER_CLEAN: u64 = 1;
    /// Where in the sector of a super block its entries of [`TakeOver`] are.
    pub const TAKE_OVERS_OFFSET: usize = 2048;
    /// How many. At least one for each voter slot, so that each leader may have one.
    pub const MAX_TAKE_OVERS: usize = 16;

    /// [`Address::family`]: no address.
    pub const ADDRESS_NONE: u16 = 0;
    /// [`Address::family`]: IPv4, in the first four bytes.
    pub const ADDRESS_V4: u16 = 4;
    /// [`Address::family`]: IPv6.
    pub const ADDRESS_V6: u16 = 6;
}

const _: () = assert!(MAX_TAKE_OVERS >= MAX_VOTERS as usize);
const _: () = assert!(size_of::<SuperBlock>() <= TAKE_OVERS_OFFSET);
const _: () = assert!(TAKE_OVERS_OFFSET + MAX_TAKE_OVERS * size_of::<TakeOver>() <= SECTOR_SIZE);

layout! {
    /// A network address.
    pub struct Address {
        /// `ADDRESS_*`.
        pub family: U16,
        /// TCP port; 0 is none.
        pub port: U16,
        pub pad: U32,
        /// The address in network order.
        pub ip: [u8; 16],
    }

    /// Names a process on a machine, so that the machine itself can confirm its death.
    pub struct ProcessId {
        /// The machine: stays the same over reboots, and no two machines have the same.
        pub machine_id: [u8; 16],
        /// Random for each boot of the machine.
        pub boot_id: [u8; 16],
        /// Process id; 0 for the kernel.
        pub pid: U64,
        /// When the process started, in the machine's own ticks since boot.
        pub start: U64,
    }

    /// A voter's block: who owns the slot, how it voted, that it is alive.
    pub struct QuorumBlock {
        /// crc32c of the 4 KiB from the byte after this field to the end.
        pub crc: U32,
        /// [`MAGIC_QUORUM`].
        pub magic: U32,
        /// The volume.
        pub fsid: U64,
        /// Which voter slot.
        pub voter: U32,
        /// `VOTER_*`.
        pub state: U32,
        /// Counts the writes of this slot; it decides which of the two blocks is newer and is the beat.
        pub write_nr: U64,
        /// Random for each claim.
        pub nonce: U64,
        /// The owner's mount.
        pub rid: U64,
        /// Highest term seen.
        pub term: U64,
        /// The term of the owner's last vote; durable before the vote counts.
        pub vote_term: U64,
        /// The voter slot that it voted for in `vote_term`.
        pub vote_for: U32,
        pub pad: U32,
        /// The highest term that the owner has won and not laid down; 0 is none.
        pub leader_term: U64,
        /// Where the owner's server listens.
        pub address: Address,
        /// Who owns it.
        pub process: ProcessId,
        /// The term of the leader that the owner's mount is connected to; 0 is none.
        pub connected_term: U64,
    }

    /// The first 64 bytes of a super block, which never change, so that any binary can print what it refuses.
    pub struct SuperId {
        /// [`MAGIC_SUPER`].
        pub magic: U64,
        /// The volume's number.
        pub fsid: U64,
        /// Version for people.
        pub format_version: U64,
        /// The format's hash.
        pub format_hash: U64,
        /// The volume's UUID.
        pub uuid: [u8; 16],
        pub reserved: [u8; 16],
    }

    /// Names a leader. While the block of its voter slot shows its mount as the owner, it may still write; whoever owns the slot
    /// after it has made sure that it does not.
    pub struct LeaderId {
        /// Its term.
        pub term: U64,
        /// Its mount; 0 is nobody.
        pub rid: U64,
        /// Its voter slot.
        pub voter: U32,
        pub pad: U32,
    }

    /// Free metadata blocks that a leader who followed one that may still write took, and may write, until one has committed: the
    /// server's tree has them as free. They are in the sector of a super block, behind that.
    pub struct TakeOver {
        /// First block.
        pub start: U64,
        /// The leader's term.
        pub term: U64,
        /// The leader's mount.
        pub rid: U64,
        /// Blocks; 0 in an entry without meaning.
        pub len: U32,
        /// The leader's voter slot.
        pub voter: U32,
    }

    /// A super block: the roots of all that the server owns.
    pub struct SuperBlock {
        pub id: SuperId,
        /// crc32c of the 4 KiB with this field zero.
        pub crc: U32,
        pub pad: U32,
        /// Term of the leader that wrote it.
        pub term: U64,
        /// Counts the super writes of all terms.
        pub seq: U64,
        /// `SUPER_*`.
        pub flags: U64,
        pub geometry: RawGeometry,
        /// Shared secret of those that can read the device; never printed.
        pub secret: [u8; 32],
        /// No seq or version at or above this was ever given out.
        pub seq_bound: U64,
        /// No inode number at or above this was ever given out.
        pub ino_bound: U64,
        /// The merged tree.
        pub fs_root: TreeRoot,
        /// The server's own items.
        pub server_root: TreeRoot,
        /// The metadata blocks that [`work_leader`](Self::work_leader) may allocate for itself.
        pub work: SpaceListRef,
        /// Tombstones in the merged tree.
        pub tombstones: U64,
        /// Inodes, by the records of mounts that left or were reclaimed.
        pub inodes: U64,
        /// Seq of the last block that the server wrote, for unique block seqs.
        pub block_seq: U64,
        /// Zones that hold metadata, by the server's tree; those that are neither these nor empty hold data.
        pub meta_zones: U64,
        /// Whose working set `work` is.
        pub work_leader: LeaderId,
    }
}

impl TakeOver {
    /// Whose it is.
    pub fn leader(&self) -> LeaderId {
        LeaderId { term: self.term, rid: self.rid, voter: self.voter, pad: U32::ZERO }
    }
}
