// SPDX-License-Identifier: GPL-2.0-only
//! Making a record.

use scoutfs_env::{IoBuf, Vec};
use scoutfs_format::Key;
use scoutfs_format::le::{U16, U32, U64};
use scoutfs_format::ring::{
    FRAME_PAYLOAD, InlineItem, LogTree, MAX_LOGS, MAX_RECORD_FRAMES, RECORD_CHECKPOINT, RecordHeader,
};
use scoutfs_format::space::SpaceEntry;
use scoutfs_format::tree::{ITEM_DELETION, MAX_VALUE_LEN};
use zerocopy::IntoBytes;

use super::record::{RecordItem, check_log, check_space};
use super::{Placement, RingError, frame};

/// Bytes of the longest stream.
const MAX_STREAM: usize = MAX_RECORD_FRAMES as usize * FRAME_PAYLOAD;

/// Gathers what goes into a record. Parts of a kind are added in order, kinds in any order.
pub struct RecordBuilder {
    header: RecordHeader,
    logs: Vec<u8>,
    space: Vec<u8>,
    items: Vec<u8>,
    nr_items: u32,
    last_key: Option<Key>,
    last_log: Option<LogTree>,
}

impl RecordBuilder {
    /// A record with the given header. Its counts and its checkpoint number are set by the builder.
    pub fn new(header: RecordHeader) -> Self {
        RecordBuilder {
            header,
            logs: Vec::new(),
            space: Vec::new(),
            items: Vec::new(),
            nr_items: 0,
            last_key: None,
            last_log: None,
        }
    }

    /// The header, to be changed as long as the record is not encoded.
    pub fn header_mut(&mut self) -> &mut RecordHeader {
        &mut self.header
    }

    /// Bytes of the stream so far.
    fn len(&self) -> usize {
        size_of::<RecordHeader>() + self.logs.len() + self.space.len() + self.items.len()
    }

    /// Frames that the record takes so far.
    pub fn frames(&self) -> u32 {
        // At most MAX_RECORD_FRAMES, which `check_room` sees to.
        frame::frames_of(self.len()) as u32
    }

    /// Items so far.
    pub fn nr_items(&self) -> u32 {
        self.nr_items
    }

    /// Whether its header says that nothing before it is needed.
    pub fn is_checkpoint(&self) -> bool {
        self.header.flags.get() & RECORD_CHECKPOINT != 0
    }

    /// How many more space entries the record can take and still have at most `frames` frames.
    pub fn room_for_space(&self, frames: u32) -> usize {
        let bytes = (frames.min(MAX_RECORD_FRAMES) as usize * FRAME_PAYLOAD).saturating_sub(self.len());
        bytes / size_of::<SpaceEntry>()
    }

    fn check_room(&self, bytes: usize) -> Result<(), RingError> {
        if bytes > MAX_STREAM - self.len() {
            return Err(RingError::RecordFull);
        }
        Ok(())
    }

    /// Adds a log tree to a checkpoint, oldest first.
    ///
    /// Fails with [`RingError::LogCount`] when the record is no checkpoint, with [`RingError::RecordFull`] when there is no room, with [`RingError::Log`] when the log tree is
    /// impossible or out of order, and with [`RingError::NoMemory`]; the record is as before then.
    pub fn add_log(&mut self, log: &LogTree) -> Result<(), RingError> {
        if !self.is_checkpoint() {
            return Err(RingError::LogCount { commit_nr: 0, found: 1 });
        }
        check_log(0, self.last_log.as_ref(), log)?;
        if self.logs.len() / size_of::<LogTree>() >= MAX_LOGS as usize {
            return Err(RingError::RecordFull);
        }
        self.check_room(size_of::<LogTree>())?;
        self.logs.extend_from_slice(log.as_bytes())?;
        self.last_log = Some(*log);
        Ok(())
    }

    /// Adds a space entry. Fails as [`add_log`](Self::add_log) does.
    pub fn add_space(&mut self, entry: &SpaceEntry) -> Result<(), RingError> {
        check_space(0, entry)?;
        self.check_room(size_of::<SpaceEntry>())?;
        self.space.extend_from_slice(entry.as_bytes())?;
        Ok(())
    }

    /// Adds an item; keys must ascend. Fails as [`add_log`](Self::add_log) does.
    pub fn add_item(&mut self, item: &RecordItem<'_>) -> Result<(), RingError> {
        let val_len = item.value.len();
        let flags = if item.deletion { ITEM_DELETION } else { 0 };
        if val_len > MAX_VALUE_LEN || (item.deletion && val_len != 0) {
            return Err(RingError::Item { commit_nr: 0, key: item.key, flags, val_len });
        }
        if let Some(before) = self.last_key.filter(|&before| before >= item.key) {
            return Err(RingError::ItemOrder { commit_nr: 0, before, key: item.key });
        }
        let bytes = size_of::<InlineItem>() + val_len;
        self.check_room(bytes)?;
        self.items.reserve(bytes)?;
        let head = InlineItem {
            key: item.key.to_raw(),
            version: U64::new(item.version),
            val_len: U16::new(val_len as u16),
            flags,
            pad: [0; 5],
        };
        self.items.extend_from_slice(head.as_bytes())?;
        self.items.extend_from_slice(item.value)?;
        self.nr_items += 1;
        self.last_key = Some(item.key);
        Ok(())
    }

    /// The frames of the record, to be written where the [`RingWriter`](super::RingWriter) placed it.
    ///
    /// Fails with [`RingError::NotPlaced`] when the record is not the one that was placed (another length or kind), and
    /// with [`RingError::NoMemory`].
    pub fn encode(&self, place: &Placement) -> Result<IoBuf, RingError> {
        if place.frames() != self.frames() || place.flags() != self.header.flags.get() {
            return Err(RingError::NotPlaced { commit_nr: place.commit_nr() });
        }
        let header = RecordHeader {
            checkpoint_nr: U64::new(place.checkpoint_nr()),
            nr_logs: U32::new((self.logs.len() / size_of::<LogTree>()) as u32),
            nr_space: U32::new((self.space.len() / size_of::<SpaceEntry>()) as u32),
            nr_items: U32::new(self.nr_items),
            ..self.header
        };
        let parts: [&[u8]; 4] = [header.as_bytes(), &self.logs, &self.space, &self.items];
        frame::seal(&place.owner(), place.commit_nr(), &parts)
    }
}
