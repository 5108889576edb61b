// SPDX-License-Identifier: GPL-2.0-only
//! Reading on in a ring from a state that is known: the records that came after it, and no more of the ring.

use scoutfs_env::{Arc, Vec};
use scoutfs_format::SECTOR_SIZE;
use scoutfs_format::geometry::RING_FRAMES;
use scoutfs_format::ring::MAX_RECORD_FRAMES;

use super::frame::{self, Frame};
use super::{Record, RingError, RingState};

/// Frames that are read at once: most records have one or two.
const READ_FRAMES: u32 = 4;

/// Follows a ring from a known state. The caller reads what it [wants](Self::wants) and [gives](Self::give) it, until it wants nothing
/// more; then it says [what the state is](Self::finish).
pub struct Follower<'a> {
    known: &'a RingState,
    fsid: u64,
    slot: u16,
    /// The records that were found.
    newer: Vec<Arc<Record>>,
    /// Where to read next, and how many frames.
    next: Option<(u32, u32)>,
    /// It was looked at the ring's beginning for a record that did not fit before its end.
    turned: bool,
}

/// What one look at some frames shows.
enum Found {
    /// A whole record.
    Record(Arc<Record>),
    /// The beginning of one of so many frames.
    Part(u32),
    /// No successor.
    Nothing,
}

impl<'a> Follower<'a> {
    /// Begins behind the newest record of `known`, a state of the ring of `slot`.
    pub fn new(known: &'a RingState, fsid: u64, slot: u16) -> Self {
        let mut follower = Follower { known, fsid, slot, newer: Vec::new(), next: None, turned: false };
        if !known.newest().is_clean() {
            follower.look_at(known.newest().first_frame() + known.newest().nr_frames());
        }
        follower
    }

    /// The first frame to read, and how many.
    pub fn wants(&self) -> Option<(u32, u32)> {
        self.next
    }

    /// These are the frames that it [wants](Self::wants).
    pub fn give(&mut self, bytes: &[u8]) -> Result<(), RingError> {
        let Some((first, count)) = self.next.take() else { return Ok(()) };
        let mut frames = Vec::with_capacity(count as usize)?;
        for sector in bytes.chunks_exact(SECTOR_SIZE) {
            frames.push(Frame::parse(sector, self.fsid, self.slot))?;
        }
        let mut at = 0;
        while (at as usize) < frames.len() {
            match self.record_at(bytes, &frames, first, at)? {
                Found::Record(record) => {
                    at += record.nr_frames();
                    let is_last = record.is_clean();
                    self.newer.push(record)?;
                    self.turned = false;
                    if is_last {
                        return Ok(());
                    }
                }
                // It was given all of it, so it is not whole.
                Found::Part(needed) if needed <= count - at => return Ok(()),
                Found::Part(needed) => {
                    if needed <= RING_FRAMES - (first + at) {
                        self.next = Some((first + at, needed));
                    }
                    return Ok(());
                }
                Found::Nothing => {
                    // Was there no room for it before the end?
                    if RING_FRAMES - (first + at) < MAX_RECORD_FRAMES && !self.turned {
                        self.turned = true;
                        self.next = Some((0, READ_FRAMES));
                    }
                    return Ok(());
                }
            }
        }
        self.look_at(first + at);
        Ok(())
    }

    /// The newest state that was found; none when nothing newer than the known one was. Then, or when what should be there is not
    /// in it, the whole ring tells.
    pub fn finish(self) -> Result<Option<RingState>, RingError> {
        if self.newer.is_empty() {
            return Ok(None);
        }
        let mut records = Vec::new();
        let checkpoint = self.newer.iter().rposition(|record| record.is_checkpoint());
        if checkpoint.is_none() {
            records.extend_from_slice(self.known.records())?;
        }
        records.extend_from_slice(self.newer.get(checkpoint.unwrap_or(0)..).unwrap_or_default())?;
        Ok(Some(RingState::new(self.known.epoch(), records)))
    }

    fn look_at(&mut self, frame: u32) {
        if frame < RING_FRAMES {
            self.next = Some((frame, READ_FRAMES.min(RING_FRAMES - frame)));
        } else {
            self.turned = true;
            self.next = Some((0, READ_FRAMES));
        }
    }

    /// The newest record so far.
    fn last(&self) -> &Record {
        self.newer.last().map_or(self.known.newest(), |record| record)
    }

    /// The successor of the newest record, if it begins at frame `at` of some that begin at `first` of the ring.
    fn record_at(
        &self,
        bytes: &[u8],
        frames: &[Option<Frame>],
        first: u32,
        at: u32,
    ) -> Result<Found, RingError> {
        let last = self.last();
        let wanted = (self.known.epoch(), last.commit_nr().checked_add(1));
        let head = frames.get(at as usize).copied().flatten();
        let Some(head) = head.filter(|head| (head.epoch, Some(head.commit_nr)) == wanted && head.index == 0)
        else {
            return Ok(Found::Nothing);
        };
        if frame::whole_record_at(frames, at as usize).is_none() {
            return Ok(Found::Part(head.count.into()));
        }
        let stream = frame::stream_at(bytes, frames, at as usize, head.count.into())?;
        let record = match Record::parse(head.commit_nr, first + at, head.count.into(), stream) {
            Err(RingError::NoMemory) => return Err(RingError::NoMemory),
            // What is wrong with it, the whole ring tells.
            Err(_) => return Ok(Found::Nothing),
            Ok(record) => record,
        };
        let builds_on = record.header().checkpoint_nr.get();
        let fits = record.is_checkpoint() || builds_on == last.header().checkpoint_nr.get();
        Ok(if fits { Found::Record(Arc::new(record)?) } else { Found::Nothing })
    }
}
