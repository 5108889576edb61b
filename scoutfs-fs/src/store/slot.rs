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

use core::sync::atomic::{AtomicBool, Ordering};

use scoutfs_btree::ring::{CHECKPOINT_FRAMES, RecordBuilder, RecordItem, RingError, RingWriter};
use scoutfs_btree::space::{CommitToken, write_list};
use scoutfs_btree::tree::FreeCursor;
use scoutfs_btree::{
    BlockCache, BlockSpace, Error as TreeError, Limit, LogSource, OwnedItem, Rule, Tail, apply, free_tree,
};
use scoutfs_env::Vec;
use scoutfs_env::device::BlockDevice;
use scoutfs_format::block::BlockRef;
use scoutfs_format::le::{I64, U32, U64};
use scoutfs_format::ring::{
    FRAME_PAYLOAD, LOG_FINALIZED, LogTree, RECORD_CHECKPOINT, RECORD_CLEAN, RecordHeader,
};
use scoutfs_format::space::{SpaceEntry, SpaceListRef};
use scoutfs_format::tree::{ItemHeader, TreeRoot};
use scoutfs_format::voter::ProcessId;

use super::commit::Wish;
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
    /// Finalizing is a checkpoint that finalizes the open log tree, if it has items. Leaving finalizes as well.
    pub wish: Wish,
    /// Blocks that were written for it so far. Goes on when a checkpoint is undone and made again: a reference must never
    /// name two blocks.
    block_counter: u32,
    /// Set when it is durable.
    pub written: Option<Written>,
}

impl Batch {
    /// A transaction that was just closed; `next_min_version` as in the fields.
    pub fn new(
        closed: &Closed,
        next_min_version: u64,
        items: Vec<OwnedItem>,
        token: CommitToken,
        wish: Wish,
    ) -> Self {
        let &Closed { seq, max_version, inode_delta } = closed;
        Batch {
            seq,
            max_version,
            next_min_version,
            items,
            token,
            inode_delta,
            wish,
            block_counter: 0,
            written: None,
        }
    }

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

/// See the module.
pub(crate) struct Slot {
    identity: Identity,
    ring: RingWriter,
    logs: Vec<LogTree>,
    /// Bytes of the items in the open log tree, and of those in its tail.
    log_bytes: u64,
    tail_bytes: u64,
    space_list: SpaceListRef,
    space_blocks: Vec<BlockRef>,
    inode_delta: i64,
    /// Log trees of this slot up to this number are merged: their blocks are to be freed.
    merged_through: u64,
    /// Bytes of a log tree from which on it is finalized.
    max_log_bytes: u64,
    /// The record that nothing follows is durable.
    left: bool,
    /// The transaction that was closed and does not count yet.
    pub closed: Option<Batch>,
}

/// A checkpoint whose blocks are written, and what the slot is once its record is durable.
struct Checkpoint {
    record: RecordBuilder,
    flags: u32,
    logs: Vec<LogTree>,
    log_bytes: u64,
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
            log_bytes: 0,
            tail_bytes: 0,
            space_list: SpaceListRef::default(),
            space_blocks: Vec::new(),
            inode_delta: 0,
            merged_through: last_log_nr,
            max_log_bytes,
            left: false,
            closed: None,
        };
        slot.logs.push(open_log(last_log_nr + 1, first_seq))?;
        Ok(slot)
    }

    /// Number of the newest durable record.
    pub fn commit_nr(&self) -> u64 {
        self.ring.commit_nr()
    }

    /// Metadata blocks that a checkpoint could need if it came now, with `bytes` more of items.
    pub fn checkpoint_blocks(&self, bytes: u64) -> u64 {
        checkpoint_blocks(self.log_bytes, self.tail_bytes.saturating_add(bytes))
    }

    /// Log trees up to `through` are merged. Their blocks are freed by the next checkpoint.
    pub fn note_merged(&mut self, through: u64) {
        self.merged_through = self.merged_through.max(through);
    }

    /// Whether a checkpoint would free merged log trees.
    pub fn has_merged(&self) -> bool {
        self.logs.iter().any(|log| log.nr.get() <= self.merged_through)
    }

    /// Whether the open log tree, its tail included, has items.
    pub fn has_items(&self) -> bool {
        self.log_bytes + self.tail_bytes > 0
    }

    /// Whether the record that nothing follows is durable.
    pub fn left(&self) -> bool {
        self.left
    }

    /// Whether a transaction's commit finalizes the open log tree because that is wished.
    pub fn finalizes(&self, batch: &Batch) -> bool {
        batch.wish.finalize && (self.has_items() || !batch.items.is_empty())
    }

    /// Writes a transaction and notes in it that it is written. `tail` gives all items that are in no tree yet, this
    /// transaction's included.
    ///
    /// After an error it is not durable, and blocks that were written for it are free again: it can be written again. An error
    /// of the device is tried again here. It is final when a record is concerned: nothing may follow a record that may
    /// or may not be there.
    pub fn write(
        &mut self,
        device: &dyn BlockDevice,
        cache: &BlockCache,
        space: &SpaceCell,
        batch: &mut Batch,
        data_written: &AtomicBool,
        tail: impl Fn() -> Result<Tail>,
    ) -> Result<()> {
        let must_checkpoint = self.finalizes(batch) || batch.wish.leave || self.has_merged();
        if !must_checkpoint && self.write_inline(device, space, batch, data_written)? {
            return Ok(());
        }
        let mut attempt = 1;
        loop {
            let written = match self.build_checkpoint(cache, space, batch, &tail) {
                // An error of the device is final from here on.
                Ok(checkpoint) => self.write_checkpoint(device, checkpoint, batch, data_written),
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
            log_bytes: U64::new(self.log_bytes),
            space: self.space_list,
            process: self.identity.process,
            ..RecordHeader::default()
        }
    }

    /// The transaction in one record; false when it does not fit.
    fn write_inline(
        &mut self,
        device: &dyn BlockDevice,
        space: &SpaceCell,
        batch: &mut Batch,
        data_written: &AtomicBool,
    ) -> Result<bool> {
        if let Some(open) = self.logs.last_mut() {
            open.max_version = U64::new(open.max_version.get().max(batch.max_version));
        }
        let inode_delta = self.inode_delta.saturating_add(batch.inode_delta);
        let mut record = RecordBuilder::new(self.header(batch, 0, inode_delta));
        let fits = (|| {
            for log in &self.logs {
                record.add_log(log)?;
            }
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
        match self.write_record(device, &record, 0, data_written) {
            Ok(()) => {}
            Err(Failure::Ring(RingError::NeedCheckpoint { .. })) => return Ok(false),
            Err(e) => return Err(e.into()),
        }
        self.inode_delta = inode_delta;
        self.tail_bytes = self.tail_bytes.saturating_add(batch.bytes());
        batch.written = Some(Written { logs: None, finalized: false });
        Ok(true)
    }

    /// Puts all items of the mount into its log tree, and makes the record that names it.
    fn build_checkpoint(
        &self,
        cache: &BlockCache,
        space: &SpaceCell,
        batch: &mut Batch,
        tail: impl Fn() -> Result<Tail>,
    ) -> Result<Checkpoint> {
        let tail = &tail()?;
        let finalizes = self.finalizes(batch) || batch.wish.leave;
        let inode_delta = self.inode_delta.saturating_add(batch.inode_delta);
        let mut logs = self.logs.try_clone()?;
        let mut log_bytes = self.log_bytes.saturating_add(self.tail_bytes).saturating_add(batch.bytes());
        let mut finalized = false;
        let token = batch.token;
        {
            let mut blocks =
                CheckpointBlocks { space, token, seq: batch.seq, counter: &mut batch.block_counter };
            for log in logs.iter().filter(|log| log.nr.get() <= self.merged_through) {
                let mut cursor = FreeCursor::START;
                while !free_tree(cache, &mut blocks, &log.root, &mut cursor, u64::MAX)? {}
            }
            logs.retain(|log| log.nr.get() > self.merged_through);
            let full = logs.len() >= MANY_LOGS;
            let open = logs.last_mut().ok_or(Error::Shutdown("the slot has no open log tree"))?;
            let mut changes = scoutfs_btree::forest::TailSource::new(tail, scoutfs_format::Key::MIN);
            let applied = apply(cache, &mut blocks, &open.root, &mut changes, &Rule::Log, Limit::NONE)?;
            open.root = applied.root;
            open.max_version = U64::new(open.max_version.get().max(batch.max_version));
            let wanted = finalizes || log_bytes >= self.max_log_bytes;
            if wanted && open.root != TreeRoot::EMPTY && !full {
                open.flags = U32::new(LOG_FINALIZED);
                finalized = true;
                log_bytes = 0;
                let nr = open.nr.get() + 1;
                logs.push(open_log(nr, batch.next_min_version))?;
            } else if open.root == TreeRoot::EMPTY {
                // An empty tree holds nothing old: later merges need not keep tombstones for it.
                open.min_version = U64::new(batch.next_min_version);
                open.max_version = U64::ZERO;
            }
            for block in &self.space_blocks {
                blocks.free_block(block)?;
            }
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
        header.log_bytes = U64::new(log_bytes);
        let mut record = RecordBuilder::new(header);
        for log in &logs {
            record.add_log(log)?;
        }
        for entry in in_record {
            record.add_space(entry)?;
        }
        let mut sources = Vec::with_capacity(logs.len())?;
        for log in &logs {
            sources.push(LogSource { slot: self.identity.slot, nr: log.nr.get(), root: log.root })?;
        }
        Ok(Checkpoint {
            record,
            flags,
            logs,
            log_bytes,
            space_list,
            space_blocks,
            inode_delta,
            written: Written { logs: Some(sources), finalized },
        })
    }

    /// Makes a checkpoint durable and goes on from it.
    fn write_checkpoint(
        &mut self,
        device: &dyn BlockDevice,
        checkpoint: Checkpoint,
        batch: &mut Batch,
        data_written: &AtomicBool,
    ) -> Result<()> {
        data_written.store(true, Ordering::Relaxed);
        self.write_record(device, &checkpoint.record, checkpoint.flags, data_written).map_err(Error::from)?;
        self.logs = checkpoint.logs;
        self.log_bytes = checkpoint.log_bytes;
        self.tail_bytes = 0;
        self.space_list = checkpoint.space_list;
        self.space_blocks = checkpoint.space_blocks;
        self.inode_delta = checkpoint.inode_delta;
        self.left = batch.wish.leave;
        batch.written = Some(checkpoint.written);
        Ok(())
    }

    /// Makes a record durable, and everything that was written before it.
    fn write_record(
        &mut self,
        device: &dyn BlockDevice,
        record: &RecordBuilder,
        flags: u32,
        data_written: &AtomicBool,
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
            let flushed = if data_written.swap(false, Ordering::AcqRel) { device.flush() } else { Ok(()) };
            match flushed.and_then(|()| device.write_durable(offset, &bytes)) {
                Ok(()) => break,
                Err(e) if attempt < WRITE_ATTEMPTS => {
                    scoutfs_env::warn!("writing commit record {}: {e}; trying again", place.commit_nr());
                    data_written.store(true, Ordering::Release);
                    attempt += 1;
                }
                Err(e) => return Err(Failure::Other(Error::Io(e))),
            }
        }
        self.ring.written(&place)?;
        Ok(())
    }
}

/// An open log tree without items.
fn open_log(nr: u64, min_version: u64) -> LogTree {
    LogTree { nr: U64::new(nr), min_version: U64::new(min_version), ..LogTree::default() }
}

/// Metadata blocks that a checkpoint takes at most: every leaf of the log tree may be written anew, the items of the tail
/// may half fill leaves of their own, each level above has at most a hundredth of the one below, and
/// a few more for the list of space.
pub(crate) fn checkpoint_blocks(log_bytes: u64, tail_bytes: u64) -> u64 {
    let half_block = scoutfs_format::BLOCK_SIZE as u64 / 2;
    let leaves = log_bytes.div_ceil(half_block / 2) + tail_bytes.div_ceil(half_block);
    leaves + leaves.div_ceil(50) + 16
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
