// SPDX-License-Identifier: GPL-2.0-only
//! Reading a ring.

use scoutfs_env::{Arc, Vec};
use scoutfs_format::SECTOR_SIZE;
use scoutfs_format::geometry::RING_FRAMES;
use scoutfs_format::ring::LogTree;

use super::frame::{self, Frame};
use super::{RING_BYTES, Record, RingError};

/// The newest record of a ring and all that it builds on.
#[derive(Debug)]
pub struct RingState {
    epoch: u64,
    records: Vec<Arc<Record>>,
    newest: usize,
}

impl RingState {
    /// A checkpoint and the records after it: at least one.
    pub(super) fn new(epoch: u64, records: Vec<Arc<Record>>) -> RingState {
        let newest = records.len().saturating_sub(1);
        RingState { epoch, records, newest }
    }

    /// Epoch of its owner.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Number of the newest record, to be compared with what the reader was promised.
    pub fn commit_nr(&self) -> u64 {
        self.newest().commit_nr()
    }

    /// The newest record.
    pub fn newest(&self) -> &Record {
        &self.records[self.newest]
    }

    /// The mount's log trees, oldest first, as the newest checkpoint names them.
    pub fn logs(&self) -> impl Iterator<Item = LogTree> + '_ {
        self.records.iter().take(1).flat_map(|record| record.logs())
    }

    /// The newest checkpoint and all records after it, oldest first, the newest record included.
    pub fn records(&self) -> &[Arc<Record>] {
        &self.records
    }
}

/// A ring whose frames were looked at.
pub(super) struct Scan<'a> {
    ring: &'a [u8],
    slot_frames: Vec<Option<Frame>>,
}

impl<'a> Scan<'a> {
    /// Looks at all frames of a ring.
    pub fn new(ring: &'a [u8], fsid: u64, slot: u16) -> Result<Self, RingError> {
        if ring.len() != RING_BYTES {
            return Err(RingError::RingLength { found: ring.len() });
        }
        let mut slot_frames = Vec::with_capacity(RING_FRAMES as usize)?;
        for sector in ring.chunks_exact(SECTOR_SIZE) {
            slot_frames.push(Frame::parse(sector, fsid, slot))?;
        }
        Ok(Scan { ring, slot_frames })
    }

    /// The highest number in any frame, whether its record is whole or not.
    pub fn highest_nr(&self) -> Option<u64> {
        self.slot_frames.iter().flatten().map(|frame| frame.commit_nr).max()
    }

    /// The whole records of the ring: first frame, and what that says.
    fn whole(&self) -> impl Iterator<Item = (usize, Frame)> + '_ {
        (0..self.slot_frames.len())
            .filter_map(|first| Some((first, frame::whole_record_at(&self.slot_frames, first)?)))
    }

    /// The record of an epoch with a number, or `None` when it is not there.
    fn record(&self, epoch: u64, commit_nr: u64) -> Result<Option<Record>, RingError> {
        let mut found = self.whole().filter(|(_, head)| (head.epoch, head.commit_nr) == (epoch, commit_nr));
        let Some((first, head)) = found.next() else {
            return Ok(None);
        };
        if let Some((second, _)) = found.next() {
            return Err(RingError::Duplicate { commit_nr, first: first as u32, second: second as u32 });
        }
        let count = usize::from(head.count);
        let stream = frame::stream_at(self.ring, &self.slot_frames, first, count)?;
        Record::parse(commit_nr, first as u32, count as u32, stream).map(Some)
    }

    /// What [`parse_ring`] says.
    pub fn state(&self, wanted_epoch: Option<u64>) -> Result<Option<RingState>, RingError> {
        let newest = self
            .whole()
            .map(|(_, head)| (head.epoch, head.commit_nr))
            .filter(|&(epoch, _)| wanted_epoch.is_none_or(|wanted| wanted == epoch))
            .max();
        let Some((epoch, commit_nr)) = newest else {
            return Ok(None);
        };
        let missing = |missing| RingError::Missing { commit_nr, missing };
        let newest = self.record(epoch, commit_nr)?.ok_or(missing(commit_nr))?;
        let checkpoint_nr = newest.header().checkpoint_nr.get();
        let mut records = Vec::new();
        // Stays short, whatever the number is: the first record that is missing ends it.
        for nr in checkpoint_nr..commit_nr {
            let record = self.record(epoch, nr)?.ok_or(missing(nr))?;
            let found = record.header().checkpoint_nr.get();
            if found != checkpoint_nr {
                return Err(RingError::CheckpointNumber { commit_nr: nr, found });
            }
            if record.is_clean() {
                return Err(RingError::AfterClean { commit_nr: nr });
            }
            records.push(Arc::new(record)?)?;
        }
        records.push(Arc::new(newest)?)?;
        Ok(Some(RingState::new(epoch, records)))
    }
}

/// Reads the ring of `slot`: the newest record of the wanted epoch (or of the highest one that has a whole record)
/// and all records that it builds on. `None` when there is no such record.
///
/// Fails when the ring is damaged. One that was read while its owner was writing it may look damaged as well, see
/// [`RingError::may_be_transient`].
pub fn parse_ring(
    ring: &[u8],
    fsid: u64,
    slot: u16,
    wanted_epoch: Option<u64>,
) -> Result<Option<RingState>, RingError> {
    Scan::new(ring, fsid, slot)?.state(wanted_epoch)
}
