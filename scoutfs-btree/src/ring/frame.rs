// SPDX-License-Identifier: GPL-2.0-only
//! The 4 KiB frames of a ring.

use scoutfs_env::crc32c::crc32c;
use scoutfs_env::{IoBuf, Vec};
use scoutfs_format::SECTOR_SIZE;
use scoutfs_format::le::{U16, U32, U64};
use scoutfs_format::ring::{FRAME_PAYLOAD, FrameHeader, MAGIC_FRAME, MAX_RECORD_FRAMES};
use zerocopy::{FromBytes, IntoBytes};

use super::{RingError, RingOwner};

/// Bytes of the checksum that begins a frame and does not cover itself.
const CRC_LEN: usize = size_of::<U32>();

/// Frames of a stream of `len` bytes.
pub(super) const fn frames_of(len: usize) -> usize {
    len.div_ceil(FRAME_PAYLOAD)
}

/// Cuts a stream, given in parts, into sealed frames.
pub(super) fn seal(owner: &RingOwner, commit_nr: u64, parts: &[&[u8]]) -> Result<IoBuf, RingError> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let count = frames_of(len);
    if len == 0 || count > MAX_RECORD_FRAMES as usize {
        return Err(RingError::RecordFull);
    }
    let mut buf = IoBuf::zeroed(count * SECTOR_SIZE)?;
    let mut rest = parts.iter().copied();
    let mut part: &[u8] = &[];
    for (index, frame) in buf.chunks_exact_mut(SECTOR_SIZE).enumerate() {
        let payload_len = FRAME_PAYLOAD.min(len - index * FRAME_PAYLOAD);
        let (header, payload) = frame.split_at_mut(size_of::<FrameHeader>());
        let mut room = payload.get_mut(..payload_len).unwrap_or_default();
        while !room.is_empty() {
            if part.is_empty() {
                match rest.next() {
                    Some(next) => part = next,
                    None => break,
                }
                continue;
            }
            let n = room.len().min(part.len());
            let (now, later) = room.split_at_mut(n);
            let (from, after) = part.split_at(n);
            now.copy_from_slice(from);
            room = later;
            part = after;
        }
        // The counts fit: there are at most 16 frames of 4 KiB.
        let head = FrameHeader {
            crc: U32::ZERO,
            magic: U32::new(MAGIC_FRAME),
            fsid: U64::new(owner.fsid),
            commit_nr: U64::new(commit_nr),
            slot: U16::new(owner.slot),
            index: index as u8,
            count: count as u8,
            payload_len: U16::new(payload_len as u16),
            pad: U16::ZERO,
            epoch: U64::new(owner.epoch),
        };
        header.copy_from_slice(head.as_bytes());
        let (crc, covered) = frame.split_at_mut(CRC_LEN);
        crc.copy_from_slice(U32::new(crc32c(covered)).as_bytes());
    }
    Ok(buf)
}

/// A frame that was read and is whole; whether its record is, is not known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub epoch: u64,
    pub commit_nr: u64,
    pub index: u8,
    pub count: u8,
    pub payload_len: u16,
}

impl Frame {
    /// The frame in 4 KiB of a ring, if there is one of this volume and slot.
    pub fn parse(bytes: &[u8], fsid: u64, slot: u16) -> Option<Frame> {
        let (head, _) = FrameHeader::ref_from_prefix(bytes).ok()?;
        let payload_len = usize::from(head.payload_len.get());
        let fits = head.magic.get() == MAGIC_FRAME
            && head.fsid.get() == fsid
            && head.slot.get() == slot
            && head.index < head.count
            && u32::from(head.count) <= MAX_RECORD_FRAMES
            && (1..=FRAME_PAYLOAD).contains(&payload_len)
            // Only the last frame of a record may be short.
            && (payload_len == FRAME_PAYLOAD || head.index + 1 == head.count);
        if !fits || bytes.len() != SECTOR_SIZE || crc32c(bytes.get(CRC_LEN..)?) != head.crc.get() {
            return None;
        }
        Some(Frame {
            epoch: head.epoch.get(),
            commit_nr: head.commit_nr.get(),
            index: head.index,
            count: head.count,
            payload_len: head.payload_len.get(),
        })
    }

    /// Whether `next` is the frame after this one in the same record.
    fn continues_in(&self, next: &Frame) -> bool {
        (next.epoch, next.commit_nr, next.count) == (self.epoch, self.commit_nr, self.count)
            && self.index.checked_add(1) == Some(next.index)
    }
}

/// Whether the frames of a ring hold a whole record that begins at frame `first`.
pub(super) fn whole_record_at(frames: &[Option<Frame>], first: usize) -> Option<Frame> {
    let head = (*frames.get(first)?)?;
    if head.index != 0 {
        return None;
    }
    let end = first.checked_add(usize::from(head.count))?;
    let mut before = head;
    for frame in frames.get(first + 1..end)? {
        let frame = (*frame)?;
        if !before.continues_in(&frame) {
            return None;
        }
        before = frame;
    }
    Some(head)
}

/// Puts the stream of the whole record at frame `first` together.
pub(super) fn stream_at(
    ring: &[u8],
    frames: &[Option<Frame>],
    first: usize,
    count: usize,
) -> Result<Vec<u8>, RingError> {
    let mut stream = Vec::with_capacity(count * FRAME_PAYLOAD)?;
    let sectors = ring.chunks_exact(SECTOR_SIZE).zip(frames);
    for (sector, frame) in sectors.skip(first).take(count) {
        let len = frame.map_or(0, |frame| usize::from(frame.payload_len));
        let payload = sector.get(size_of::<FrameHeader>()..).and_then(|bytes| bytes.get(..len));
        stream.extend_from_slice(payload.unwrap_or_default())?;
    }
    Ok(stream)
}
