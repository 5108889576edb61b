// SPDX-License-Identifier: GPL-2.0-only
//! Super block copies and quorum blocks.
//!
//! One copy of a voter's super block, and one of its quorum blocks, may be torn: that is what a power failure leaves, and
//! why there are two.

use scoutfs_env::crc32c::crc32c;
use scoutfs_env::device::{BlockDevice, IoError};
use scoutfs_env::{AllocError, IoBuf};
use scoutfs_format::SECTOR_SIZE;
use scoutfs_format::voter::{MAGIC_QUORUM, QuorumBlock, VOTER_FREE, VOTER_OWNED};
use scoutfs_server::super_block::{SuperError, ValidSuper, read_copy};
use zerocopy::FromBytes;

use super::issue::{IssueKind, Place};
use super::{CheckError, Checker};

/// What is in the place of a quorum block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuorumState {
    /// Nothing was ever written.
    Empty,
    /// A block whose checksum is right.
    Valid(QuorumBlock),
    /// A damaged or torn block.
    Damaged {
        /// The checksum that it holds.
        stored: u32,
        /// The checksum of its bytes.
        computed: u32,
    },
    /// The device cannot read it.
    Unreadable(IoError),
}

/// Reads a quorum block at a byte offset.
pub fn read_quorum(dev: &dyn BlockDevice, offset: u64) -> Result<QuorumState, AllocError> {
    let mut buf = IoBuf::zeroed(SECTOR_SIZE)?;
    if let Err(e) = dev.read(offset, &mut buf) {
        return Ok(QuorumState::Unreadable(e));
    }
    let Ok((block, _)) = QuorumBlock::read_from_prefix(&buf) else {
        return Ok(QuorumState::Empty);
    };
    if buf.iter().all(|&byte| byte == 0) {
        return Ok(QuorumState::Empty);
    }
    let (stored, computed) = (block.crc.get(), crc32c(buf.get(4..).unwrap_or_default()));
    Ok(if stored == computed { QuorumState::Valid(block) } else { QuorumState::Damaged { stored, computed } })
}

impl Checker<'_> {
    /// Checks all super block copies against the newest one.
    pub(super) fn check_supers(&mut self) -> Result<(), CheckError> {
        for voter in 0..self.geometry.nr_voters() {
            let valid = |copy| read_copy(&***self.dev, voter, copy).is_ok();
            let any_valid = valid(0) || valid(1);
            for copy in 0..2 {
                let place = Place::Super { voter, copy };
                match read_copy(&***self.dev, voter, copy) {
                    Ok(found) => self.check_super(&found, place),
                    Err(SuperError::NoMemory(e)) => return Err(e.into()),
                    // Never written, by any leader.
                    Err(SuperError::NotScoutfs) if !any_valid => {}
                    // A torn write: the other copy stands.
                    Err(SuperError::Crc { .. } | SuperError::NotScoutfs) if any_valid => {
                        self.summary.torn += 1;
                    }
                    Err(error) => self.issue(IssueKind::SuperCopy { error }, place),
                }
            }
        }
        Ok(())
    }

    fn check_super(&mut self, found: &ValidSuper, place: Place) {
        let (new, sb) = (self.sb, &found.sb);
        let fields = [
            ("volume number", sb.id.fsid != new.id.fsid),
            ("UUID", sb.id.uuid != new.id.uuid),
            ("geometry", sb.geometry != new.geometry),
            ("secret", sb.secret != new.secret),
        ];
        for (field, _) in fields.iter().filter(|(_, differs)| *differs) {
            self.issue(IssueKind::SuperDiffers { field }, place.clone());
        }
        let (term, seq) = (sb.term.get(), sb.seq.get());
        if (term, seq) == (new.term.get(), new.seq.get()) && *sb != new && !fields.iter().any(|f| f.1) {
            self.issue(IssueKind::SuperTie { term, seq }, place);
        }
    }

    pub(super) fn check_quorum_blocks(&mut self) -> Result<(), CheckError> {
        for voter in 0..self.geometry.nr_voters() {
            let mut states = [QuorumState::Empty; 2];
            for (copy, state) in (0..).zip(&mut states) {
                *state = read_quorum(&***self.dev, self.geometry.quorum_block_offset(voter, copy))?;
            }
            let torn = |state: &QuorumState| {
                matches!(state, QuorumState::Damaged { .. } | QuorumState::Unreadable(_))
            };
            let both = states.iter().all(torn);
            for (copy, state) in (0..).zip(states) {
                let place = Place::Quorum { voter, copy };
                match state {
                    QuorumState::Empty => {}
                    QuorumState::Valid(block) => self.check_quorum(voter, &block, place),
                    QuorumState::Damaged { stored, computed } if both => {
                        self.issue(IssueKind::QuorumChecksum { stored, computed }, place);
                    }
                    QuorumState::Unreadable(error) => self.issue(IssueKind::Io { error }, place),
                    QuorumState::Damaged { .. } => self.summary.torn += 1,
                }
            }
        }
        Ok(())
    }

    fn check_quorum(&mut self, voter: u32, block: &QuorumBlock, place: Place) {
        let (magic, fsid, found) = (block.magic.get(), block.fsid.get(), block.voter.get());
        if magic != MAGIC_QUORUM || fsid != self.sb.id.fsid.get() || found != voter {
            self.issue(IssueKind::QuorumIdentity { magic, fsid, voter: found }, place);
            return;
        }
        let state = block.state.get();
        if ![VOTER_FREE, VOTER_OWNED].contains(&state) {
            self.issue(IssueKind::QuorumState { state }, place.clone());
        }
        let (term, vote_term, leader_term) =
            (block.term.get(), block.vote_term.get(), block.leader_term.get());
        if vote_term > term || leader_term > term {
            self.issue(IssueKind::QuorumTerms { term, vote_term, leader_term }, place);
        }
    }

    /// Whether super block or quorum blocks changed since they were checked: then the volume is in use.
    pub(super) fn fingerprint(&self) -> Result<u32, CheckError> {
        let mut sum = 0;
        let mut buf = IoBuf::zeroed(4 * SECTOR_SIZE)?;
        for voter in 0..self.geometry.nr_voters() {
            // What cannot be read is not what changes.
            if self.dev.read(self.geometry.quorum_block_offset(voter, 0), &mut buf).is_ok() {
                sum = scoutfs_env::crc32c::crc32c_append(sum, &buf);
            }
        }
        Ok(sum)
    }
}
