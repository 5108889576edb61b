// SPDX-License-Identifier: GPL-2.0-only
//! What a voter slot holds.

use core::mem::offset_of;
use core::net::SocketAddr;

use scoutfs_env::crc32c::crc32c;
use scoutfs_format::SECTOR_SIZE;
use scoutfs_format::le::{U32, U64};
use scoutfs_format::voter::{MAGIC_QUORUM, ProcessId, QuorumBlock, VOTER_FREE, VOTER_OWNED};
use zerocopy::{FromBytes, IntoBytes};

use crate::address::{self, AddressError};

/// The crc covers everything from here to the end of the sector.
const CRC_FROM: usize = offset_of!(QuorumBlock, magic);
/// Terms and write numbers stay below this, so that counting on from a stored one cannot overflow.
const NUMBER_END: u64 = 1 << 62;

/// Why a sector is not a quorum block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The sector has the wrong size.
    #[error("a quorum block has {found} bytes, expected {SECTOR_SIZE}")]
    Length {
        /// Bytes given.
        found: usize,
    },
    /// Something else is stored here.
    #[error("the quorum block of voter {voter} has magic {found:#010x}, expected {MAGIC_QUORUM:#010x}")]
    Magic {
        /// Whose block it should be.
        voter: u32,
        /// As stored.
        found: u32,
    },
    /// Damaged, or being written.
    #[error("the quorum block of voter {voter} has crc {found:#010x}, its bytes have {expected:#010x}")]
    Crc {
        /// Whose block it should be.
        voter: u32,
        /// As stored.
        found: u32,
        /// Of the bytes.
        expected: u32,
    },
    /// Of another volume.
    #[error("the quorum block of voter {voter} is of volume {found:016x}, expected {expected:016x}")]
    Fsid {
        /// Whose block it should be.
        voter: u32,
        /// As stored.
        found: u64,
        /// The volume.
        expected: u64,
    },
    /// Of another voter.
    #[error("the quorum block of voter {voter} says that it is of voter {found}")]
    Voter {
        /// Whose block it should be.
        voter: u32,
        /// As stored.
        found: u32,
    },
    /// A field has a value that it cannot have.
    #[error("the quorum block of voter {voter} has {field} {found}")]
    Field {
        /// Whose block it is.
        voter: u32,
        /// The field.
        field: &'static str,
        /// As stored.
        found: u64,
    },
    /// The address makes no sense.
    #[error("the quorum block of voter {voter}: {error}")]
    Address {
        /// Whose block it is.
        voter: u32,
        /// What is wrong.
        error: AddressError,
    },
}

/// Why the state of a slot is not known. It is neither free then, nor silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// A copy could not be read, so it is not known whether it is the newer one.
    #[error("copy {copy} of the quorum block of voter {voter} cannot be read")]
    Unreadable {
        /// Whose slot.
        voter: u32,
        /// 0 or 1.
        copy: u32,
    },
    /// Neither copy is valid.
    #[error("no copy of the quorum block is valid: {first}; {second}")]
    NoValidCopy {
        /// About copy 0.
        first: BlockError,
        /// About copy 1.
        second: BlockError,
    },
}

/// The state of a voter slot, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoterBlock {
    /// Which slot.
    pub voter: u32,
    /// Whether somebody owns it.
    pub owned: bool,
    /// Counts the writes of the slot.
    pub write_nr: u64,
    /// Random for each claim.
    pub nonce: u64,
    /// The owner's mount.
    pub rid: u64,
    /// Highest term that the owner has seen.
    pub term: u64,
    /// The term of the slot's last vote; 0 none.
    pub vote_term: u64,
    /// For whom it voted in `vote_term`.
    pub vote_for: u32,
    /// The highest term that the owner has won and not laid down; 0 none.
    pub leader_term: u64,
    /// Where the owner's server listens.
    pub address: Option<SocketAddr>,
    /// The owner.
    pub process: ProcessId,
    /// The term of the leader that the owner's mount is connected to; 0 none.
    pub connected_term: u64,
}

impl VoterBlock {
    /// A slot that nobody has used: mkfs writes it with `write_nr` 0 and 1, so that both copies are valid.
    pub fn free(voter: u32, write_nr: u64) -> Self {
        VoterBlock {
            voter,
            owned: false,
            write_nr,
            nonce: 0,
            rid: 0,
            term: 0,
            vote_term: 0,
            vote_for: 0,
            leader_term: 0,
            address: None,
            process: ProcessId::default(),
            connected_term: 0,
        }
    }

    /// Where it is stored: copy 0 or 1 of the slot.
    pub const fn copy(&self) -> u32 {
        (self.write_nr & 1) as u32
    }

    /// Whether two blocks are the same write of the same owner.
    pub const fn same_write(&self, other: &VoterBlock) -> bool {
        self.nonce == other.nonce && self.write_nr == other.write_nr
    }

    /// Fills a sector of [`SECTOR_SIZE`] bytes. On error nothing has changed.
    pub fn encode(&self, fsid: u64, sector: &mut [u8]) -> Result<(), BlockError> {
        let len = sector.len();
        if len != SECTOR_SIZE {
            return Err(BlockError::Length { found: len });
        }
        let block = QuorumBlock {
            crc: U32::ZERO,
            magic: U32::new(MAGIC_QUORUM),
            fsid: U64::new(fsid),
            voter: U32::new(self.voter),
            state: U32::new(if self.owned { VOTER_OWNED } else { VOTER_FREE }),
            write_nr: U64::new(self.write_nr),
            nonce: U64::new(self.nonce),
            rid: U64::new(self.rid),
            term: U64::new(self.term),
            vote_term: U64::new(self.vote_term),
            vote_for: U32::new(self.vote_for),
            pad: U32::ZERO,
            leader_term: U64::new(self.leader_term),
            address: address::format(self.address),
            process: self.process,
            connected_term: U64::new(self.connected_term),
        };
        sector.fill(0);
        for (to, from) in sector.iter_mut().zip(block.as_bytes()) {
            *to = *from;
        }
        let crc = crc32c(sector.get(CRC_FROM..).unwrap_or_default());
        for (to, from) in sector.iter_mut().zip(crc.to_le_bytes()) {
            *to = from;
        }
        Ok(())
    }

    /// Checks copy `copy` (0 or 1) of the block of voter `voter`, of `nr_voters`.
    pub fn parse(
        sector: &[u8],
        fsid: u64,
        voter: u32,
        nr_voters: u32,
        copy: u32,
    ) -> Result<VoterBlock, BlockError> {
        if sector.len() != SECTOR_SIZE {
            return Err(BlockError::Length { found: sector.len() });
        }
        let Ok((raw, _)) = QuorumBlock::ref_from_prefix(sector) else {
            return Err(BlockError::Length { found: sector.len() });
        };
        if raw.magic.get() != MAGIC_QUORUM {
            return Err(BlockError::Magic { voter, found: raw.magic.get() });
        }
        let expected = crc32c(sector.get(CRC_FROM..).unwrap_or_default());
        if raw.crc.get() != expected {
            return Err(BlockError::Crc { voter, found: raw.crc.get(), expected });
        }
        if raw.fsid.get() != fsid {
            return Err(BlockError::Fsid { voter, found: raw.fsid.get(), expected: fsid });
        }
        if raw.voter.get() != voter {
            return Err(BlockError::Voter { voter, found: raw.voter.get() });
        }
        let field = |field, found| Err(BlockError::Field { voter, field, found });
        let owned = match raw.state.get() {
            VOTER_FREE => false,
            VOTER_OWNED => true,
            found => return field("state", found.into()),
        };
        let (write_nr, term) = (raw.write_nr.get(), raw.term.get());
        if write_nr >= NUMBER_END || write_nr & 1 != u64::from(copy) {
            return field("write number", write_nr);
        }
        if term >= NUMBER_END {
            return field("term", term);
        }
        let (vote_term, vote_for) = (raw.vote_term.get(), raw.vote_for.get());
        if vote_term > term {
            return field("vote term", vote_term);
        }
        if vote_for >= nr_voters {
            return field("vote for voter", vote_for.into());
        }
        if raw.leader_term.get() > term {
            return field("leader term", raw.leader_term.get());
        }
        if raw.pad.get() != 0 {
            return field("padding", raw.pad.get().into());
        }
        let address = address::parse(&raw.address).map_err(|error| BlockError::Address { voter, error })?;
        Ok(VoterBlock {
            voter,
            owned,
            write_nr,
            nonce: raw.nonce.get(),
            rid: raw.rid.get(),
            term,
            vote_term,
            vote_for,
            leader_term: raw.leader_term.get(),
            address,
            process: raw.process,
            connected_term: raw.connected_term.get(),
        })
    }

    /// The state of a slot from its two copies; `None` for a copy that could not be read. One damaged copy is as it
    /// should be: it is being written, or its write was torn, and the other one counts.
    pub fn newest(
        copies: [Option<&[u8]>; 2],
        fsid: u64,
        voter: u32,
        nr_voters: u32,
    ) -> Result<VoterBlock, SlotError> {
        let [first, second] = copies;
        let Some(first) = first else {
            return Err(SlotError::Unreadable { voter, copy: 0 });
        };
        let Some(second) = second else {
            return Err(SlotError::Unreadable { voter, copy: 1 });
        };
        let first = Self::parse(first, fsid, voter, nr_voters, 0);
        let second = Self::parse(second, fsid, voter, nr_voters, 1);
        match (first, second) {
            // They differ, for one is even and one is odd.
            (Ok(a), Ok(b)) => Ok(if a.write_nr > b.write_nr { a } else { b }),
            (Ok(a), Err(_)) => Ok(a),
            (Err(_), Ok(b)) => Ok(b),
            (Err(first), Err(second)) => Err(SlotError::NoValidCopy { first, second }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    fn block(write_nr: u64) -> VoterBlock {
        VoterBlock {
            owned: true,
            nonce: 11,
            rid: 12,
            term: 9,
            vote_term: 8,
            vote_for: 1,
            leader_term: 7,
            address: Some("[fe80::1]:99".parse().unwrap()),
            process: ProcessId {
                machine_id: [9; 16],
                boot_id: [3; 16],
                pid: U64::new(4),
                start: U64::new(5),
            },
            connected_term: 6,
            ..VoterBlock::free(2, write_nr)
        }
    }

    fn sector(block: &VoterBlock) -> vec::Vec<u8> {
        let mut sector = vec![0xaa; SECTOR_SIZE];
        block.encode(77, &mut sector).unwrap();
        sector
    }

    fn resigned(at: usize, value: u8) -> vec::Vec<u8> {
        let mut bytes = sector(&block(5));
        bytes[at] = value;
        let crc = crc32c(&bytes[CRC_FROM..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn blocks_round_trip() {
        assert_eq!(VoterBlock::parse(&sector(&block(5)), 77, 2, 3, 1), Ok(block(5)));
        let free = VoterBlock::free(2, 0);
        assert_eq!(VoterBlock::parse(&sector(&free), 77, 2, 3, 0), Ok(free));
    }

    #[test]
    fn each_violation_has_its_error() {
        let good = sector(&block(5));
        let parse = |bytes: &[u8]| VoterBlock::parse(bytes, 77, 2, 3, 1).unwrap_err();
        assert_eq!(parse(&good[1..]), BlockError::Length { found: 4095 });
        assert!(matches!(parse(&vec![0; SECTOR_SIZE]), BlockError::Magic { found: 0, .. }));
        let mut flipped = good.clone();
        flipped[4095] ^= 1;
        assert!(matches!(parse(&flipped), BlockError::Crc { .. }));
        assert_eq!(
            VoterBlock::parse(&good, 78, 2, 3, 1),
            Err(BlockError::Fsid { voter: 2, found: 77, expected: 78 })
        );
        assert_eq!(VoterBlock::parse(&good, 77, 1, 3, 1), Err(BlockError::Voter { voter: 1, found: 2 }));
        let field = |name: &str, at: usize, value: u8| match parse(&resigned(at, value)) {
            BlockError::Field { field, .. } => assert_eq!(field, name),
            other => panic!("{other}"),
        };
        field("state", offset_of!(QuorumBlock, state), 2);
        field("write number", offset_of!(QuorumBlock, write_nr), 6);
        field("write number", offset_of!(QuorumBlock, write_nr) + 7, 0x40);
        field("term", offset_of!(QuorumBlock, term) + 7, 0x40);
        field("vote term", offset_of!(QuorumBlock, vote_term), 10);
        field("vote for voter", offset_of!(QuorumBlock, vote_for), 3);
        field("leader term", offset_of!(QuorumBlock, leader_term), 10);
        field("padding", offset_of!(QuorumBlock, pad), 1);
        assert!(matches!(parse(&resigned(offset_of!(QuorumBlock, address), 9)), BlockError::Address { .. }));
    }

    #[test]
    fn a_torn_copy_leaves_the_other_and_an_unread_one_leaves_nothing() {
        let (even, odd) = (sector(&block(6)), sector(&block(5)));
        let torn = vec![1; SECTOR_SIZE];
        let newest = |a, b| VoterBlock::newest([a, b], 77, 2, 3);
        assert_eq!(newest(Some(&even), Some(&odd)), Ok(block(6)));
        assert_eq!(newest(Some(&torn), Some(&odd)), Ok(block(5)));
        assert_eq!(newest(Some(&even), Some(&torn)), Ok(block(6)));
        assert_eq!(newest(None, Some(&odd)), Err(SlotError::Unreadable { voter: 2, copy: 0 }));
        assert_eq!(newest(Some(&even), None), Err(SlotError::Unreadable { voter: 2, copy: 1 }));
        assert!(matches!(newest(Some(&torn), Some(&torn)), Err(SlotError::NoValidCopy { .. })));
    }

    proptest! {
        #[test]
        fn rubbish_with_a_right_crc_never_panics(
            changes in proptest::collection::vec((8..200usize, any::<u8>()), 0..20),
        ) {
            let mut bytes = sector(&block(5));
            for (at, value) in changes {
                bytes[at] = value;
            }
            let crc = crc32c(&bytes[CRC_FROM..]);
            bytes[..4].copy_from_slice(&crc.to_le_bytes());
            if let Ok(parsed) = VoterBlock::parse(&bytes, 77, 2, 3, 1) {
                let mut again = vec![0; SECTOR_SIZE];
                parsed.encode(77, &mut again).unwrap();
                prop_assert_eq!(VoterBlock::parse(&again, 77, 2, 3, 1), Ok(parsed));
            }
        }
    }
}
