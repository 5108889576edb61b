// SPDX-License-Identifier: GPL-2.0-only
//! Where the next record goes.

use scoutfs_format::SECTOR_SIZE;
use scoutfs_format::geometry::RING_FRAMES;
use scoutfs_format::ring::{
    FRAME_PAYLOAD, LogTree, MAX_LOGS, MAX_RECORD_FRAMES, RECORD_CHECKPOINT, RECORD_CLEAN, RecordHeader,
};

use super::state::Scan;
use super::{RingError, RingOwner};

/// Frames of the longest checkpoint that always fits: one that names all the log trees that it may, and has
/// neither items nor space entries.
pub const CHECKPOINT_FRAMES: u32 =
    (size_of::<RecordHeader>() + MAX_LOGS as usize * size_of::<LogTree>()).div_ceil(FRAME_PAYLOAD) as u32;

// After a checkpoint another one fits, wherever the ring's end is.
const _: () = assert!(MAX_RECORD_FRAMES + 2 * CHECKPOINT_FRAMES <= RING_FRAMES);

/// A place in the ring, and what the record there is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    owner: RingOwner,
    frame: u32,
    frames: u32,
    flags: u32,
    commit_nr: u64,
    checkpoint_nr: u64,
}

impl Placement {
    /// Byte offset of the record in the ring.
    pub fn offset_bytes(&self) -> u64 {
        u64::from(self.frame) * SECTOR_SIZE as u64
    }

    /// Frames of the record.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// The record's number.
    pub fn commit_nr(&self) -> u64 {
        self.commit_nr
    }

    pub(super) fn owner(&self) -> RingOwner {
        self.owner
    }

    pub(super) fn flags(&self) -> u32 {
        self.flags
    }

    pub(super) fn checkpoint_nr(&self) -> u64 {
        self.checkpoint_nr
    }
}

/// Places the records of one owner of a slot. The first one must be a checkpoint.
#[derive(Debug)]
pub struct RingWriter {
    owner: RingOwner,
    /// Number of the newest durable record.
    commit_nr: u64,
    /// Number of the newest durable checkpoint of this owner.
    checkpoint_nr: Option<u64>,
    /// The frame after the newest durable record; [`RING_FRAMES`] is the end.
    next_frame: u32,
    /// Frames before `next_frame` that must not be written: from the newest checkpoint on.
    live_frames: u32,
    /// The record that was placed and is not known to be durable.
    pending: Option<Placement>,
    left: bool,
}

impl RingWriter {
    /// For the new owner of a slot, from what is in its ring. Numbers go on where those of the former owners end, and
    /// the state that the last of them left is not written over before the new owner has one.
    ///
    /// Fails with [`RingError::EpochNotNew`] when a whole record has the new owner's epoch or a later one.
    pub fn open(ring: &[u8], owner: RingOwner) -> Result<RingWriter, RingError> {
        let scan = Scan::new(ring, owner.fsid, owner.slot)?;
        let mut writer = RingWriter {
            owner,
            commit_nr: scan.highest_nr().unwrap_or(0),
            checkpoint_nr: None,
            next_frame: 0,
            live_frames: 0,
            pending: None,
            left: false,
        };
        match scan.state(None) {
            Ok(Some(state)) => {
                if state.epoch() >= owner.epoch {
                    return Err(RingError::EpochNotNew { epoch: owner.epoch, found: state.epoch() });
                }
                let first = state.records().first().map_or(0, |record| record.first_frame());
                let end = state.newest().first_frame() + state.newest().nr_frames();
                writer.next_frame = end;
                writer.live_frames = if first < end { end - first } else { RING_FRAMES - first + end };
            }
            Ok(None) => {}
            Err(RingError::NoMemory) => return Err(RingError::NoMemory),
            // The server gave the slot away, so nobody needs what its former owner left.
            Err(_) => {}
        }
        Ok(writer)
    }

    /// Number of the newest durable record; before the first one, a number that is below all that will be used.
    pub fn commit_nr(&self) -> u64 {
        self.commit_nr
    }

    /// Number of this owner's newest durable checkpoint.
    pub fn checkpoint_nr(&self) -> Option<u64> {
        self.checkpoint_nr
    }

    /// The first frame of a record of `frames` after `next_frame` and `live_frames` frames, and the frames that are live
    /// then.
    fn fit(next_frame: u32, live_frames: u32, frames: u32) -> Option<(u32, u32)> {
        let (frame, skipped) =
            if frames <= RING_FRAMES - next_frame { (next_frame, 0) } else { (0, RING_FRAMES - next_frame) };
        let live = live_frames + skipped + frames;
        (live <= RING_FRAMES).then_some((frame, live))
    }

    /// Places the next record, of `frames` frames and with the flags of its header. It must then be written until it is
    /// durable, and [`written`](Self::written) be told, or, before any of it is written, [`unplace`](Self::unplace). Nothing
    /// else can be placed meanwhile.
    ///
    /// Fails with [`RingError::NeedCheckpoint`] when there is room for nothing but a checkpoint, which never
    /// happens to a checkpoint of up to [`CHECKPOINT_FRAMES`] frames.
    pub fn place(&mut self, frames: u32, flags: u32) -> Result<Placement, RingError> {
        if let Some(pending) = &self.pending {
            return Err(RingError::WritePending { commit_nr: pending.commit_nr });
        }
        if self.left {
            return Err(RingError::Left { commit_nr: self.commit_nr });
        }
        if frames == 0 || frames > MAX_RECORD_FRAMES {
            return Err(RingError::RecordFull);
        }
        let commit_nr =
            self.commit_nr.checked_add(1).ok_or(RingError::NumbersExhausted { commit_nr: self.commit_nr })?;
        let fit = Self::fit(self.next_frame, self.live_frames, frames);
        let (frame, checkpoint_nr) = if flags & RECORD_CHECKPOINT != 0 {
            let free = RING_FRAMES - self.live_frames;
            let (frame, _) = fit.ok_or(RingError::CheckpointTooLong { frames, free })?;
            (frame, commit_nr)
        } else {
            // A checkpoint must fit after it.
            let fit =
                fit.filter(|&(frame, live)| Self::fit(frame + frames, live, CHECKPOINT_FRAMES).is_some());
            match (fit, self.checkpoint_nr) {
                (Some((frame, _)), Some(checkpoint_nr)) => (frame, checkpoint_nr),
                _ => return Err(RingError::NeedCheckpoint { frames }),
            }
        };
        let place = Placement { owner: self.owner, frame, frames, flags, commit_nr, checkpoint_nr };
        self.pending = Some(place);
        Ok(place)
    }

    /// Nothing of the record that was placed was written, and nothing will be: its number and its place are free again.
    ///
    /// Fails with [`RingError::NotPlaced`] when another one or none was placed.
    pub fn unplace(&mut self, place: &Placement) -> Result<(), RingError> {
        if self.pending.as_ref() != Some(place) {
            return Err(RingError::NotPlaced { commit_nr: place.commit_nr });
        }
        self.pending = None;
        Ok(())
    }

    /// The record that was placed is durable.
    ///
    /// Fails with [`RingError::NotPlaced`] when another one or none was placed.
    pub fn written(&mut self, place: &Placement) -> Result<(), RingError> {
        if self.pending.as_ref() != Some(place) {
            return Err(RingError::NotPlaced { commit_nr: place.commit_nr });
        }
        self.pending = None;
        if place.flags & RECORD_CHECKPOINT != 0 {
            self.checkpoint_nr = Some(place.commit_nr);
            self.live_frames = place.frames;
        } else {
            let fit = Self::fit(self.next_frame, self.live_frames, place.frames);
            self.live_frames = fit.map_or(RING_FRAMES, |(_, live)| live);
        }
        self.next_frame = place.frame + place.frames;
        self.commit_nr = place.commit_nr;
        self.left = place.flags & RECORD_CLEAN != 0;
        Ok(())
    }
}
