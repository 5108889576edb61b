// SPDX-License-Identifier: GPL-2.0-only
//! This mount's slot: writing commit records and checkpoints.
//!
//! What must hold:
//!
//! - Everything that a record refers to is durable before it: written data, log blocks, list blocks. One device
//!   flush before the record orders them; the record itself is written durably.
//! - Record n + 1 is never written before record n is durable.
//! - A write error is repeated with the same bytes at the same place, and when that does not help the mount shuts down:
//!   what follows it could not be ordered behind it.
//!
//! A slot is owned by the commit lock of the store.

use scoutfs_btree::forest::Union;
use scoutfs_btree::ring::{CHECKPOINT_FRAMES, RecordBuilder, RecordItem, RingError, RingWriter};
use scoutfs_btree::space::budget::checkpoint_blocks;
use scoutfs_btree::space::{CommitToken, SpaceKind, write_list};
use scoutfs_btree::tree::FreeCursor;
use scoutfs_btree::{
    BlockCache, BlockSpace, Error as TreeError, Limit, LogSource, OwnedItem, Rule, Tail, apply, free_tree,
};
use scoutfs_env::device::BlockDevice;
use scoutfs_env::fault::{Fault, planted};
use scoutfs_env::{Arc, Vec, thread};
use scoutfs_format::Key;
use scoutfs_format::block::BlockRef;
use scoutfs_format::le::{I64, U32, U64};
use scoutfs_format::ring::{
    FRAME_PAYLOAD, LOG_FINALIZED, LOG_SEALED, LogTree, RECORD_CHECKPOINT, RECORD_CLEAN, RecordHeader,
};
use scoutfs_format::space::{SpaceEntry, SpaceListRef};
use scoutfs_format::tree::{ItemHeader, TreeRoot};
use scoutfs_format::voter::ProcessId;

use super::commit::Wish;
use super::data_writes::DataWrites;
use super::runs::to_join;
use super::space::SpaceCell;
use super::trans::Closed;
use crate::error::{Error, Result};

/// Space entries that a checkpoint's record takes itself; more go into blocks of their own.
const MAX_INLINE_ENTRIES: usize = 32;

/// Log trees from which on none is finalized, so that a checkpoint's record always has its few frames.
const MANY_LOGS: usize = 48;
const _: () = assert!(
    size_of::<RecordHeader>()
        + (MANY_LOGS + 1) * size_of::<LogTree>()
        + MAX_INLINE_ENTRIES * size_of::<SpaceEntry>()
        <= CHECKPOINT_FRAMES as usize * FRAME_PAYLOAD
);

/// How often a failed write is repeated before the mount shuts down.
const WRITE_ATTEMPTS: u32 = 5;

/// Bytes of stack that are to be there for a checkpoint. It was seen to take 6.7 KiB: some of what a device is left, which stays above what
/// that must have. Not more, so that a commit that runs in a thread of its own goes on there.
const CHECKPOINT_STACK: usize = 6 << 10;

/// Whose slot it is.
#[derive(Clone, Copy)]
pub(crate) struct Identity {
    pub rid: u64,
    pub slot: u32,
    pub epoch: u64,
    pub process: ProcessId,
    /// Byte offset of the ring.
    pub offset: u64,
}

/// A transaction that was closed, until it is durable and counts.
pub(crate) struct Batch {
    pub seq: u64,
    /// No item of it has a higher version.
    pub max_version: u64,
    /// No item of a later transaction has a lower version than this.
    pub next_min_version: u64,
    pub items: Vec<OwnedItem>,
    pub token: CommitToken,
    pub inode_delta: i64,
    /// Finalizing is a checkpoint that finalizes all log trees that are not, if there are items. Leaving finalizes as well.
    pub wish: Wish,
    /// Blocks that were written for it so far. Goes on when a checkpoint is undone and made again: a reference must never
    /// name two blocks.
    block_counter: u32,
    /// Set when it is durable.
    pub written: Option<Written>,
}

impl Batch {
    /// Bytes of its items, headers included.
    fn bytes(&self) -> u64 {
        self.items.iter().map(|i| (size_of::<ItemHeader>() + i.value.len()) as u64).sum()
    }
}

/// What a commit did.
pub(crate) struct Written {
    /// Set after a checkpoint: the log trees to read instead of all tails.
    pub logs: Option<Vec<LogSource>>,
    /// A log tree was finalized.
    pub finalized: bool,
}

/// A log tree of the slot.
#[derive(Clone, Copy)]
struct Log {
    tree: LogTree,
    /// Bytes of its items.
    bytes: u64,
}

impl Log {
    /// An open log tree without items.
    fn open(nr: u64, min_version: u64) -> Log {
        let tree = LogTree { nr: U64::new(nr), min_version: U64::new(min_version), ..LogTree::default() };
        Log { tree, bytes: 0 }
    }

    fn nr(&self) -> u64 {
        self.tree.nr.get()
    }

    fn is_sealed(&self) -> bool {
        self.tree.flags.get() == LOG_SEALED
    }
}

/// See the module.
pub(crate) struct Slot {
    identity: Identity,
    ring: RingWriter,
    /// Finalized log trees, sealed ones, and the open one. That has no tree: its items are in the records, and the next checkpoint
    /// seals it.
    logs: Vec<Log>,
    /// Bytes of the items in the records since the last checkpoint.
    tail_bytes: u64,
    space_list: SpaceListRef,
    space_blocks: Vec<BlockRef>,
    inode_delta: i64,
    /// Log trees of this slot up to this number are merged: their blocks are to be freed.
    merged_through: u64,
    /// Bytes of the items in all log trees that are not finalized, from which on they are.
    max_log_bytes: u64,
    /// Bytes of the newest record.
    record_bytes: u64,
    /// The record that nothing follows is durable.
    left: bool,
    /// Seq of the last batch, and how many blocks were written under it.
    blocks: (u64, u32),
    /// The transaction that was closed and does not count yet.
    pub closed: Option<Batch>,
}

/// A checkpoint whose blocks are written, and what the slot is once its record is durable.
struct Checkpoint {
    record: RecordBuilder,
    flags: u32,
    logs: Vec<Log>,
    space_list: SpaceListRef,
    space_blocks: Vec<BlockRef>,
    inode_delta: i64,
    written: Written,
}

/// Blocks of a checkpoint: from the mount's space, for the transaction that is being committed.
struct CheckpointBlocks<'a> {
    space: &'a SpaceCell,
    token: CommitToken,
    seq: u64,
    counter: &'a mut u32,
}

impl BlockSpace for CheckpointBlocks<'_> {
    fn alloc_block(&mut self) -> core::result::Result<u64, TreeError> {
        self.space.lock().checkpoint_alloc(self.token).map_err(TreeError::from)
    }

    fn free_block(&mut self, block: &BlockRef) -> core::result::Result<(), TreeError> {
        self.space.lock().checkpoint_free(self.token, block.blkno.get()).map_err(TreeError::from)
    }

    fn block_seq(&mut self) -> (u64, u32) {
        *self.counter += 1;
        (self.seq, *self.counter)
    }
}

impl Slot {
    /// A transaction that was just closed. One without a number of its own has that of the one before, and goes on counting its
    /// blocks: a reference must never name two.
    pub fn batch(&self, closed: &Closed, items: Vec<OwnedItem>, token: CommitToken, wish: Wish) -> Batch {
        let &Closed { seq, max_version, inode_delta } = closed;
        Batch {
            seq,
            max_version,
            next_min_version: max_version.saturating_add(1),
            items,
            token,
            inode_delta,
            wish,
            block_counter: if self.blocks.0 == seq { self.blocks.1 } else { 0 },
            written: None,
        }
    }

    /// The batch writes no more blocks.
    pub fn note_blocks(&mut self, batch: &Batch) {
        self.blocks = (batch.seq, batch.block_counter);
    }

    /// A slot in which this mount has no record yet. Log trees are counted on from `last_log_nr`.
    pub fn new(
        identity: Identity,
        ring: RingWriter,
        last_log_nr: u64,
        first_seq: u64,
        max_log_bytes: u64,
    ) -> Result<Self> {
        let mut slot = Slot {
            identity,
            ring,
            logs: Vec::new(),
            tail_bytes: 0,
            space_list: SpaceListRef::default(),
            space_blocks: Vec::new(),
            inode_delta: 0,
            merged_through: last_log_nr,
            max_log_bytes,
            record_bytes: 0,
            left: false,
            blocks: (0, 0),
            closed: None,
        };
        slot.logs.push(Log::open(last_log_nr + 1, first_seq))?;
        Ok(slot)
    }

    /// Number of the newest durable record.
    pub fn commit_nr(&self) -> u64 {
        self.ring.commit_nr()
    }

    /// Metadata blocks that a checkpoint could need if it came now, with a list of so many extents.
    pub fn checkpoint_blocks(&self, extents: usize) -> u64 {
        checkpoint_blocks(self.tail_bytes, extents)
    }

    /// Log trees up to `through` are merged. Their blocks are freed by the next checkpoint.
    pub fn note_merged(&mut self, through: u64) {
        self.merged_through = self.merged_through.max(through);
    }

    /// Whether a checkpoint would free merged log trees.
    pub fn has_merged(&self) -> bool {
        self.logs.iter().any(|log| log.nr() <= self.merged_through)
    }

    /// Bytes of the items of this mount that are not merged, those of merged log trees whose blocks are not freed yet included.
    pub fn unmerged_bytes(&self) -> u64 {
        self.logs.iter().fold(self.tail_bytes, |sum, log| sum.saturating_add(log.bytes))
    }

    /// Bytes of the newest record.
    pub fn record_bytes(&self) -> u64 {
        self.record_bytes
    }

    /// Whether there are items that are not in a finalized log tree.
    pub fn has_items(&self) -> bool {
        self.tail_bytes > 0 || self.logs.iter().any(Log::is_sealed)
    }

    /// Bytes of the items in sealed log trees.
    fn sealed_bytes(&self) -> u64 {
        let sealed = self.logs.iter().filter(|log| log.is_sealed());
        sealed.fold(0, |sum, log| sum.saturating_add(log.bytes))
    }

    /// Whether the record that nothing follows is durable.
    pub fn left(&self) -> bool {
        self.left
    }

    /// Whether a transaction's commit finalizes the log trees because that is wished.
    pub fn finalizes(&self, batch: &Batch) -> bool {
        batch.wish.finalize && (self.has_items() || !batch.items.is_empty())
    }

    /// Writes a transaction and notes in it that it is written. `tail` gives all items that are in no tree yet, this
    /// transaction's included.
    ///
    /// After an error it is not durable, and blocks that were written for it are free again: it can be written again. An error
    /// of the device is tried again here. It is final when a record is concerned: nothing may follow a record that may
    /// or may not be there.
    #[inline(never)]
    pub fn write(
        &mut self,
        device: &dyn BlockDevice,
        cache: &BlockCache,
        space: &SpaceCell,
        batch: &mut Batch,
        data_writes: &DataWrites,
        tail: impl Fn() -> Result<Arc<Tail>> + Sync,
    ) -> Result<()> {
        let must_checkpoint = self.finalizes(batch) || batch.wish.leave || self.has_merged();
        if !must_checkpoint && self.write_inline(device, space, batch, data_writes)? {
            return Ok(());
        }
        thread::with_room(CHECKPOINT_STACK, || {
            self.checkpoint(device, cache, space, batch, data_writes, &tail)
        })
    }

    fn checkpoint(
        &mut self,
        device: &dyn BlockDevice,
        cache: &BlockCache,
        space: &SpaceCell,
        batch: &mut Batch,
        data_writes: &DataWrites,
        tail: &dyn Fn() -> Result<Arc<Tail>>,
    ) -> Result<()> {
        let mut attempt = 1;
        loop {
            let written = match self.build_checkpoint(cache, space, batch, tail) {
                // An error of the device is final from here on.
                Ok(checkpoint) => self.write_checkpoint(device, checkpoint, batch, data_writes),
                Err(Error::Io(e)) if attempt < WRITE_ATTEMPTS => {
                    scoutfs_env::warn!("writing a checkpoint: {e}; trying again");
                    attempt += 1;
                    space.lock().undo_checkpoint(batch.token)?;
                    continue;
                }
                Err(e) => Err(e),
            };
            if written.is_err() {
                space.lock().undo_checkpoint(batch.token)?;
            }
            return written;
        }
    }

    fn header(&self, batch: &Batch, flags: u32, inode_delta: i64) -> RecordHeader {
        RecordHeader {
            rid: U64::new(self.identity.rid),
            flags: U32::new(flags),
            trans_seq: U64::new(batch.seq),
            taken: U64::new(batch.token.taken()),
            given: U64::new(batch.token.given()),
            inode_delta: I64::new(inode_delta),
            log_bytes: U64::new(self.sealed_bytes()),
            space: self.space_list,
            process: self.identity.process,
            ..RecordHeader::default()
        }
    }

    /// The transaction in one record; false when it does not fit.
    #[inline(never)]
    fn write_inline(
        &mut self,
        device: &dyn BlockDevice,
        space: &SpaceCell,
        batch: &mut Batch,
        data_writes: &DataWrites,
    ) -> Result<bool> {
        let inode_delta = self.inode_delta.saturating_add(batch.inode_delta);
        let mut record = RecordBuilder::new(self.header(batch, 0, inode_delta));
        let fits = (|| {
            for entry in &space.lock().trans_entries(batch.token)? {
                record.add_space(entry)?;
            }
            for item in &batch.items {
                record.add_item(&RecordItem {
                    key: item.key,
                    version: item.version,
                    deletion: item.deletion,
                    value: &item.value,
                })?;
            }
            Ok(())
        })();
        match fits {
            Ok(()) => {}
            Err(Failure::Ring(RingError::RecordFull)) => return Ok(false),
            Err(e) => return Err(e.into()),
        }
        match self.write_record(device, &record, 0, data_writes) {
            Ok(()) => {}
            Err(Failure::Ring(RingError::NeedCheckpoint { .. })) => return Ok(false),
            Err(e) => return Err(e.into()),
        }
        self.inode_delta = inode_delta;
        self.tail_bytes = self.tail_bytes.saturating_add(batch.bytes());
        batch.written = Some(Written { logs: None, finalized: false });
        Ok(true)
    }

    /// Puts all items that are in no tree yet into a log tree, and makes the record that names it.
    #[inline(never)]
    fn build_checkpoint(
        &self,
        cache: &BlockCache,
        space: &SpaceCell,
        batch: &mut Batch,
        tail: impl Fn() -> Result<Arc<Tail>>,
    ) -> Result<Checkpoint> {
        let tail = &tail()?;
        let finalizes = self.finalizes(batch) || batch.wish.leave;
        let inode_delta = self.inode_delta.saturating_add(batch.inode_delta);
        let mut logs = self.logs.try_clone()?;
        let token = batch.token;
        let tail_bytes = self.tail_bytes.saturating_add(batch.bytes());
        let (max_version, next_min_version) = (U64::new(batch.max_version), batch.next_min_version);
        let mut blocks = CheckpointBlocks { space, token, seq: batch.seq, counter: &mut batch.block_counter };
        for log in logs.iter().filter(|log| log.nr() <= self.merged_through) {
            free_log(cache, &mut blocks, &log.tree)?;
        }
        logs.retain(|log| log.nr() > self.merged_through);
        let full = logs.len() >= MANY_LOGS;
        let mut open = logs.pop().ok_or(Error::Shutdown("the slot has no open log tree"))?;
        let total = self.sealed_bytes().saturating_add(tail_bytes);
        let finalize = (finalizes || total >= self.max_log_bytes) && !full;
        if tail.is_empty() {
            // It holds nothing old: later merges need not keep tombstones for it.
            open.tree.min_version = U64::new(next_min_version);
        } else {
            // Runs that are finalized now are merged together anyway.
            let join = if finalize { 0 } else { self.runs_to_join(space, &logs, tail_bytes, full)? };
            let first = logs.len().saturating_sub(join);
            let mut roots = Vec::with_capacity(join)?;
            open.bytes = tail_bytes;
            open.tree.max_version = max_version;
            for Log { tree, bytes } in logs.get(first..).unwrap_or_default() {
                roots.push(tree.root)?;
                open.bytes = open.bytes.saturating_add(*bytes);
                open.tree.min_version = open.tree.min_version.min(tree.min_version);
                open.tree.max_version = open.tree.max_version.max(tree.max_version);
            }
            let mut changes = Union::new(cache, &roots, Some(tail), Key::MIN)?;
            let run = apply(cache, &mut blocks, &TreeRoot::EMPTY, &mut changes, &Rule::Log, Limit::NONE)?;
            open.tree.root = run.root;
            open.tree.flags = U32::new(LOG_SEALED);
            for log in logs.get(first..).unwrap_or_default() {
                free_log(cache, &mut blocks, &log.tree)?;
            }
            logs.truncate(first);
            logs.push(open)?;
            open = Log::open(open.nr() + 1, next_min_version);
        }
        let mut finalized = false;
        for log in logs.iter_mut().filter(|log| finalize && log.is_sealed()) {
            log.tree.flags = U32::new(LOG_FINALIZED);
            finalized = true;
        }
        logs.push(open)?;
        for block in &self.space_blocks {
            blocks.free_block(block)?;
        }
        let list = space.lock().checkpoint_list(token, MAX_INLINE_ENTRIES)?;
        let mut space_blocks = Vec::with_capacity(list.blocks.len())?;
        for blkno in &list.blocks {
            batch.block_counter += 1;
            space_blocks.push(BlockRef::new(*blkno, batch.seq, batch.block_counter))?;
        }
        let no_entries: &[SpaceEntry] = &[];
        let (in_list, in_record) = if list.blocks.is_empty() {
            (no_entries, &list.entries[..])
        } else {
            (&list.entries[..], no_entries)
        };
        let space_list = write_list(cache, &space_blocks, in_list)?;

        let flags = RECORD_CHECKPOINT | if batch.wish.leave { RECORD_CLEAN } else { 0 };
        let mut header = self.header(batch, flags, inode_delta);
        header.space = space_list;
        header.block_counter = U32::new(batch.block_counter);
        header.log_bytes = U64::new(if finalize { 0 } else { total });
        let mut record = RecordBuilder::new(header);
        for log in &logs {
            record.add_log(&log.tree)?;
        }
        for entry in in_record {
            record.add_space(entry)?;
        }
        let mut sources = Vec::with_capacity(logs.len())?;
        for log in logs.iter().filter(|log| log.tree.root != TreeRoot::EMPTY) {
            sources.push(LogSource { slot: self.identity.slot, nr: log.nr(), root: log.tree.root })?;
        }
        Ok(Checkpoint {
            record,
            flags,
            logs,
            space_list,
            space_blocks,
            inode_delta,
            written: Written { logs: Some(sources), finalized },
        })
    }

    /// Makes a checkpoint durable and goes on from it.
    #[inline(never)]
    fn write_checkpoint(
        &mut self,
        device: &dyn BlockDevice,
        checkpoint: Checkpoint,
        batch: &mut Batch,
        data_writes: &DataWrites,
    ) -> Result<()> {
        data_writes.note();
        self.write_record(device, &checkpoint.record, checkpoint.flags, data_writes).map_err(Error::from)?;
        self.logs = checkpoint.logs;
        self.tail_bytes = 0;
        self.space_list = checkpoint.space_list;
        self.space_blocks = checkpoint.space_blocks;
        self.inode_delta = checkpoint.inode_delta;
        self.left = batch.wish.leave;
        batch.written = Some(checkpoint.written);
        Ok(())
    }

    /// How many of the newest sealed log trees a checkpoint joins with the new one. All when there are too many log
    /// trees. None when the blocks for it are not there beside the reserve and what the next transactions may need.
    fn runs_to_join(&self, space: &SpaceCell, logs: &[Log], tail_bytes: u64, all: bool) -> Result<usize> {
        let mut runs = Vec::with_capacity(logs.len())?;
        for log in logs.iter().filter(|log| log.is_sealed()) {
            runs.push(log.bytes)?;
        }
        if all {
            return Ok(runs.len());
        }
        let join = to_join(&runs, tail_bytes);
        let bytes = runs.iter().rev().take(join).fold(tail_bytes, |sum, run| sum.saturating_add(*run));
        let space = space.lock();
        let extents = space.list_entries();
        let next = 2 * checkpoint_blocks(self.max_log_bytes, extents);
        let needed = checkpoint_blocks(bytes, extents).saturating_add(next);
        let free = space.free_blocks(SpaceKind::Meta).saturating_sub(space.reserve_blocks());
        Ok(if free >= needed { join } else { 0 })
    }

    /// Makes a record durable, and everything that was written before it.
    fn write_record(
        &mut self,
        device: &dyn BlockDevice,
        record: &RecordBuilder,
        flags: u32,
        data_writes: &DataWrites,
    ) -> core::result::Result<(), Failure> {
        let place = self.ring.place(record.frames(), flags)?;
        let bytes = match record.encode(&place) {
            Ok(bytes) => bytes,
            Err(e) => {
                self.ring.unplace(&place)?;
                return Err(e.into());
            }
        };
        let offset = self.identity.offset + place.offset_bytes();
        let mut attempt = 1;
        loop {
            // What the record refers to must not be lost with it staying. Data of operations that are not in this
            // transaction may be flushed along; those that are have been written before it closed.
            let flush = data_writes.pending().filter(|_| !planted(Fault::SkipDataFlush));
            let written = match flush {
                None if planted(Fault::VolatileRecord) => device.write(offset, &bytes),
                None => device.write_durable(offset, &bytes),
                Some(_) if planted(Fault::VolatileRecord) => {
                    device.flush().and_then(|()| device.write(offset, &bytes))
                }
                Some(_) => device.flush_and_write_durable(offset, &bytes),
            };
            match written {
                Ok(()) => {
                    flush.into_iter().for_each(|written| data_writes.note_flushed(written));
                    break;
                }
                Err(e) if attempt < WRITE_ATTEMPTS => {
                    scoutfs_env::warn!("writing commit record {}: {e}; trying again", place.commit_nr());
                    attempt += 1;
                }
                Err(e) => return Err(Failure::Other(Error::Io(e))),
            }
        }
        self.ring.written(&place)?;
        self.record_bytes = bytes.len() as u64;
        Ok(())
    }
}

/// Frees the blocks of a log tree.
fn free_log(cache: &BlockCache, blocks: &mut dyn BlockSpace, log: &LogTree) -> Result<()> {
    let mut cursor = FreeCursor::START;
    while !free_tree(cache, blocks, &log.root, &mut cursor, u64::MAX)? {}
    Ok(())
}

/// An error that the slot may know how to go on from.
enum Failure {
    Ring(RingError),
    Other(Error),
}

impl From<RingError> for Failure {
    fn from(e: RingError) -> Self {
        Failure::Ring(e)
    }
}

impl From<scoutfs_btree::space::SpaceError> for Failure {
    fn from(e: scoutfs_btree::space::SpaceError) -> Self {
        Failure::Other(e.into())
    }
}

impl From<Failure> for Error {
    fn from(e: Failure) -> Self {
        match e {
            Failure::Ring(e) => e.into(),
            Failure::Other(e) => e,
        }
    }
}
