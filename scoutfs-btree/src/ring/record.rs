// SPDX-License-Identifier: GPL-2.0-only
//! A record that was read and checked.

use scoutfs_env::Vec;
use scoutfs_format::Key;
use scoutfs_format::ring::{
    InlineItem, LOG_FINALIZED, LOG_SEALED, LogTree, MAX_LOGS, RECORD_CHECKPOINT, RECORD_CLEAN, RecordHeader,
};
use scoutfs_format::space::{
    ENTRY_FORGOTTEN, ENTRY_FREE, ENTRY_GIVEN, ENTRY_USED, SPACE_DATA, SPACE_META, SpaceEntry,
};
use scoutfs_format::tree::{ITEM_DELETION, ITEM_FLAGS, MAX_TREE_HEIGHT, MAX_VALUE_LEN};
use zerocopy::FromBytes;

use super::RingError;

/// An item of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordItem<'a> {
    /// Its key.
    pub key: Key,
    /// Its version.
    pub version: u64,
    /// Whether it is a deletion; its value is empty then.
    pub deletion: bool,
    /// Its value, at most [`MAX_VALUE_LEN`] bytes.
    pub value: &'a [u8],
}

/// A record, all of whose content was checked when it was parsed.
#[derive(Debug)]
pub struct Record {
    commit_nr: u64,
    first_frame: u32,
    nr_frames: u32,
    header: RecordHeader,
    stream: Vec<u8>,
    /// Where the space entries and the items begin in the stream.
    space_at: usize,
    items_at: usize,
}

impl Record {
    /// Checks a record's stream.
    pub(super) fn parse(
        commit_nr: u64,
        first_frame: u32,
        nr_frames: u32,
        stream: Vec<u8>,
    ) -> Result<Record, RingError> {
        let found = stream.len();
        let wrong_length = |expected| RingError::StreamLength { commit_nr, expected, found };
        let (header, body) =
            RecordHeader::read_from_prefix(&stream).map_err(|_| wrong_length(size_of::<RecordHeader>()))?;
        let flags = header.flags.get();
        if flags & !(RECORD_CHECKPOINT | RECORD_CLEAN) != 0 {
            return Err(RingError::RecordFlags { commit_nr, flags });
        }
        let checkpoint_nr = header.checkpoint_nr.get();
        let is_checkpoint = flags & RECORD_CHECKPOINT != 0;
        if checkpoint_nr > commit_nr || is_checkpoint != (checkpoint_nr == commit_nr) {
            return Err(RingError::CheckpointNumber { commit_nr, found: checkpoint_nr });
        }
        let nr_logs = header.nr_logs.get();
        if nr_logs > MAX_LOGS || (nr_logs > 0 && !is_checkpoint) {
            return Err(RingError::LogCount { commit_nr, found: nr_logs });
        }
        let logs_len = nr_logs as usize * size_of::<LogTree>();
        let space_at = size_of::<RecordHeader>() + logs_len;
        let items_at = (header.nr_space.get() as usize)
            .checked_mul(size_of::<SpaceEntry>())
            .and_then(|len| len.checked_add(space_at))
            .ok_or(wrong_length(usize::MAX))?;
        let logs = body.get(..logs_len).ok_or(wrong_length(space_at))?;
        let space = stream.get(space_at..items_at).ok_or(wrong_length(items_at))?;

        let mut before = None;
        for log in structs::<LogTree>(logs) {
            check_log(commit_nr, before.as_ref(), &log)?;
            before = Some(log);
        }
        for entry in structs::<SpaceEntry>(space) {
            check_space(commit_nr, &entry)?;
        }
        let mut rest = stream.get(items_at..).unwrap_or_default();
        let mut before = None;
        for _ in 0..header.nr_items.get() {
            let at = found - rest.len();
            let (head, after) =
                InlineItem::ref_from_prefix(rest).map_err(|_| wrong_length(at + size_of::<InlineItem>()))?;
            let key = head.key.get();
            let (val_len, flags) = (usize::from(head.val_len.get()), head.flags);
            let deletion = flags & ITEM_DELETION != 0;
            if val_len > MAX_VALUE_LEN || flags & !ITEM_FLAGS != 0 || (deletion && val_len != 0) {
                return Err(RingError::Item { commit_nr, key, flags, val_len });
            }
            if let Some(before) = before.filter(|&before| before >= key) {
                return Err(RingError::ItemOrder { commit_nr, before, key });
            }
            before = Some(key);
            rest = after.get(val_len..).ok_or(wrong_length(at + size_of::<InlineItem>() + val_len))?;
        }
        if !rest.is_empty() {
            return Err(wrong_length(found - rest.len()));
        }
        Ok(Record { commit_nr, first_frame, nr_frames, header, stream, space_at, items_at })
    }

    /// Its number.
    pub fn commit_nr(&self) -> u64 {
        self.commit_nr
    }

    /// Its first frame in the ring.
    pub fn first_frame(&self) -> u32 {
        self.first_frame
    }

    /// Its frames in the ring.
    pub fn nr_frames(&self) -> u32 {
        self.nr_frames
    }

    /// The state of the mount.
    pub fn header(&self) -> &RecordHeader {
        &self.header
    }

    /// Whether nothing before it is needed.
    pub fn is_checkpoint(&self) -> bool {
        self.header.flags.get() & RECORD_CHECKPOINT != 0
    }

    /// Whether the mount left with it.
    pub fn is_clean(&self) -> bool {
        self.header.flags.get() & RECORD_CLEAN != 0
    }

    /// The mount's log trees, oldest first, of a checkpoint; other records have none.
    pub fn logs(&self) -> impl Iterator<Item = LogTree> + '_ {
        let logs = self.stream.get(size_of::<RecordHeader>()..self.space_at);
        structs(logs.unwrap_or_default())
    }

    /// What the transaction did to the mount's space, in the order in which it is to be replayed.
    pub fn space(&self) -> impl Iterator<Item = SpaceEntry> + '_ {
        structs(self.stream.get(self.space_at..self.items_at).unwrap_or_default())
    }

    /// The transaction's items, keys ascending.
    pub fn items(&self) -> impl Iterator<Item = RecordItem<'_>> {
        let mut rest = self.stream.get(self.items_at..).unwrap_or_default();
        core::iter::from_fn(move || {
            let (head, after) = InlineItem::ref_from_prefix(rest).ok()?;
            let (value, after) = after.split_at_checked(usize::from(head.val_len.get()))?;
            rest = after;
            Some(RecordItem {
                key: head.key.get(),
                version: head.version.get(),
                deletion: head.flags & ITEM_DELETION != 0,
                value,
            })
        })
    }
}

/// Structures that lie side by side.
fn structs<T: FromBytes>(bytes: &[u8]) -> impl Iterator<Item = T> + '_ {
    bytes.chunks_exact(size_of::<T>()).filter_map(|chunk| T::read_from_bytes(chunk).ok())
}

/// Checks a log tree and its place behind the one before it.
pub(super) fn check_log(commit_nr: u64, before: Option<&LogTree>, log: &LogTree) -> Result<(), RingError> {
    let flags = log.flags.get();
    // Finalized trees, then sealed ones, then the open one.
    let is_after = before.is_none_or(|before| {
        let place = |flags| match flags {
            LOG_FINALIZED => 0,
            LOG_SEALED => 1,
            _ => 2,
        };
        let (before_flags, before_nr) = (before.flags.get(), before.nr.get());
        before_flags != 0 && place(before_flags) <= place(flags) && before_nr < log.nr.get()
    });
    let fits = is_after
        && matches!(flags, 0 | LOG_FINALIZED | LOG_SEALED)
        && log.root.height <= MAX_TREE_HEIGHT
        && (log.root.height == 0) == log.root.block.is_none();
    if fits { Ok(()) } else { Err(RingError::Log { commit_nr, log_nr: log.nr.get() }) }
}

/// Checks a space entry of a record by itself.
pub(super) fn check_space(commit_nr: u64, entry: &SpaceEntry) -> Result<(), RingError> {
    let (start, len) = (entry.start.get(), entry.len.get());
    let has_end = start.checked_add(u64::from(len)).is_some();
    let fits = match entry.state {
        ENTRY_FREE | ENTRY_USED => len > 0 && has_end && entry.number.get() == 0,
        ENTRY_GIVEN => len > 0 && has_end && entry.number.get() != 0,
        ENTRY_FORGOTTEN => len == 0 && entry.number.get() != 0,
        _ => false,
    };
    if fits && matches!(entry.kind, SPACE_META | SPACE_DATA) {
        return Ok(());
    }
    Err(RingError::Space { commit_nr, kind: entry.kind, state: entry.state, start, len })
}
