// SPDX-License-Identifier: GPL-2.0-only
//! Writes at the end of a file, which are gathered in memory and written together a moment later: a program that writes a file
//! piece by piece does not wait for the device at each, and the device gets large requests, several at one time.
//!
//! What is gathered has its blocks, in memory, and room for its items, so that writing it does not fail for want of space. The inode's
//! item knows nothing of it until it is written: size, times and extents change in one transaction then, after the data, as with any
//! write. Attributes that are asked for meanwhile are shown with it.
//!
//! A crash loses what nobody synced, and leaves what was done up to some moment. That holds for what is gathered, too, where somebody
//! asked for a commit, or the time did: all is written before. A commit that comes because a lock goes to another mount, or because a
//! transaction is full, may have later calls, of the last moment, without it.
//!
//! It is written
//!
//! - before anything else reads or changes the data or the size of the inode, here ([`Fs::write_delayed_of`]) or on another mount: the
//!   thread that gives the inode's lock back does it first;
//! - before `fsync`, `sync` and an unmount return, and before the file takes another's name;
//! - when there is much of it, by who adds to it;
//! - after 50 ms, by a thread of its own (`node/flusher`).
//!
//! What cannot be written is lost, and the next `fsync` of each open file tells, as for writes [`behind`](super::behind).
//!
//! # Locking
//!
//! What is gathered is in the inode's [`DataState`], under its local lock for changing, and exists only while this mount has the inode's
//! cluster lock for writing. What attributes are shown with is in [`MemInode::delayed`], since who asks for them may not wait for the
//! local lock: a mutex, and a leaf, as that of the queue. Each inode in the queue is kept in the table, unless it is to be
//! deleted; only the thread that takes it out gives that up, since the last one to let go of an inode may have to delete it.

use core::time::Duration;

use scoutfs_env::sync::Mutex;
use scoutfs_env::sync::atomic::{AtomicU64, Ordering};
use scoutfs_env::time::{self, Timespec};
use scoutfs_env::{Box, IoBuf, thread, try_box};
use scoutfs_format::item::MAX_FILE_BYTES;

use crate::counters::Counter;
use crate::data::block_io::{BLOCK_LEN, in_block};
use crate::data::state::DataState;
use crate::data::write::{Mapping, Piece, Written};
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::change::Touch;
use crate::inode::record::{Attr, DATA_BLOCK_BYTES, Inode, STAT_BLOCK_BYTES};
use crate::inode::table::{MemInode, Pin};
use crate::inode::{Drops, SetAttr};
use crate::store::{DataRun, LockMode, Locks};

mod memory;
mod queue;

use memory::Memory;
pub(crate) use queue::{DelayedWrites, HeldOff};

/// Larger writes gain little by waiting.
const MAX_WRITE: usize = 1 << 20;
/// Most bytes of one file that are gathered, its last block's beginning included.
const MAX_BYTES: usize = 4 << 20;

/// Where something cannot be written, it is tried again after this.
const RETRY: Duration = Duration::from_millis(5);

/// A write that may be gathered.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'d> {
    /// None: at the end of the file.
    pub offset: Option<u64>,
    pub data: &'d [u8],
    pub drops: Drops,
}

/// What is gathered of a file.
pub(crate) struct Gathered {
    /// Where in the file the memory begins: a block.
    base: u64,
    memory: Memory,
    /// Where what is gathered begins: the file's end as its item has it.
    at: u64,
    /// Blocks for what goes beyond the block of `at`, in which the first bytes may go. More than are needed so far, perhaps.
    run: Option<DataRun>,
    /// The block on the device behind the file's last one.
    near: Option<u64>,
    /// Nothing may be added: what a write takes away was given since.
    sealed: bool,
}

/// What the attributes of a file are shown with.
#[derive(Clone, Copy)]
pub(crate) struct Shown {
    /// The end of the file.
    end: u64,
    /// The first block that it does not have yet.
    first_new: u64,
    /// Of the last write, unless somebody has set another time since.
    mtime: Option<Timespec>,
    ctime: Timespec,
    /// Writes.
    count: u64,
}

impl Shown {
    /// New blocks up to `end`.
    fn new_blocks(&self, end: u64) -> u64 {
        end.div_ceil(DATA_BLOCK_BYTES).saturating_sub(self.first_new)
    }

    fn show(&self, attr: &mut Attr) {
        attr.size = attr.size.max(self.end);
        let blocks = self.new_blocks(self.end);
        attr.blocks = attr.blocks.saturating_add(blocks * (DATA_BLOCK_BYTES / STAT_BLOCK_BYTES));
        attr.online_blocks = attr.online_blocks.saturating_add(blocks);
        attr.mtime = self.mtime.unwrap_or(attr.mtime);
        attr.ctime = attr.ctime.max(self.ctime);
        attr.version = attr.version.wrapping_add(self.count);
    }
}

/// Of an inode: what is gathered, as others see it.
#[derive(Default)]
pub(crate) struct Delayed {
    /// How often something was written, times two, and one more while something is gathered.
    turns: AtomicU64,
    shown: Mutex<Option<Box<Shown>>>,
}

impl Delayed {
    /// Whether something is gathered.
    fn is_some(&self) -> bool {
        !self.turns.load(Ordering::Acquire).is_multiple_of(2)
    }

    /// Attributes with what is gathered. The caller has the inode's local lock.
    pub(crate) fn show(&self, mut attr: Attr) -> Attr {
        if let Some(shown) = self.shown() {
            shown.show(&mut attr);
        }
        attr
    }

    fn shown(&self) -> Option<Shown> {
        self.shown.lock().as_deref().copied()
    }
}

impl Fs {
    /// Writes of programs may be gathered from now on, see [`delayed`](crate::data::delayed).
    pub(crate) fn start_delaying(&self) {
        self.delayed.start();
    }

    /// Ends that, and writes all that was gathered.
    pub(crate) fn stop_delaying(&self) {
        self.delayed.stop();
        loop {
            let Some(ino) = self.delayed.first() else { return };
            self.write_waiting(ino);
        }
    }

    /// Waits until something has been gathered for long enough, and writes it. False when that has ended.
    pub(crate) fn write_next_delayed(&self) -> bool {
        let Some(ino) = self.delayed.wait_for_next() else { return false };
        self.write_waiting(ino);
        true
    }

    /// Writes what was gathered of the first inode of the queue, takes it out and lets go of it. Where that cannot be done now, it
    /// waits behind the others.
    fn write_waiting(&self, ino: u64) {
        if self.write_delayed_now(ino, true).is_ok_and(|done| done) {
            self.end_keeping(ino);
        } else {
            self.delayed.put_off();
            time::sleep(RETRY);
        }
    }

    /// Writes what was gathered of an inode before the call. For those who are about to take its locks to read it.
    ///
    /// # Errors
    ///
    /// [`Error::NoMemory`] or [`Error::Interrupted`]: it is still there. What is lost is no error of whoever comes here.
    pub(crate) fn write_delayed_of(&self, ino: u64) -> Result<()> {
        let Some(inode) = self.table.get(ino) else { return Ok(()) };
        while inode.delayed.is_some() {
            match self.write_delayed_now(ino, false) {
                // It is being deleted, which takes care of that.
                Err(Error::StaleHandle) => time::sleep(RETRY),
                // The lock is on its way back, and who gives it back has not come here yet. Meanwhile others may have it for reading.
                Ok(false) => {
                    self.store().trans.check()?;
                    if thread::is_killed() {
                        return Err(Error::Interrupted);
                    }
                    time::sleep(RETRY);
                }
                done => return done.map(drop),
            }
        }
        Ok(())
    }

    /// As [`Fs::write_delayed_of`], for all inodes. Nothing more is gathered while what it returns lives: so a commit meanwhile has
    /// nothing of later calls without what was written before them.
    pub(crate) fn write_all_delayed(&self) -> Result<HeldOff<'_>> {
        let held_off = self.delayed.hold_off();
        self.write_each_delayed()?;
        Ok(held_off)
    }

    fn write_each_delayed(&self) -> Result<()> {
        let mut from = 0;
        loop {
            let mut inos = [0; 64];
            let len = self.delayed.some_from(from, &mut inos);
            for ino in &inos[..len] {
                self.write_delayed_of(*ino)?;
            }
            match inos[..len].last().and_then(|last| last.checked_add(1)) {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }

    /// Whether nothing is gathered any more; then, if it `leaves`, the inode is not in the queue any more.
    fn write_delayed_now(&self, ino: u64, leaves: bool) -> Result<bool> {
        let pin = self.pin(ino)?;
        // None when it is on its way back: whoever gives it back writes first.
        let locks = self.store().lock_now(ino, LockMode::Write);
        let mut state = pin.data.write();
        match &locks {
            Ok(Some(locks)) => self.write_gathered(locks, &mut state, &pin)?,
            Err(error) if self.store().trans.check().is_err() => self.lose(&mut state, &pin, error),
            _ => {}
        }
        let done = state.gathered.is_none();
        if leaves && done {
            self.delayed.remove(ino);
            state.queued = false;
            if !self.table.is_open(ino) {
                self.drop_reservation(&mut state);
            }
        }
        if done { Ok(true) } else { locks.map(|_| false) }
    }

    /// What is gathered cannot be written.
    fn lose(&self, state: &mut DataState, inode: &MemInode, error: &Error) {
        if state.gathered.is_some() {
            let error = self.store().verdict(error.clone());
            self.behind.lost(inode, &error);
            let caches = self.caches.lock().clone();
            if let Some(caches) = caches {
                caches.note_lost(inode.ino, error.errno());
            }
            self.end_delay(state, inode);
        }
    }

    /// Whoever gives a lock back, which nobody else uses, writes what was gathered under it.
    pub(crate) fn write_delayed_for_revoke(&self, inode: &MemInode) {
        if !inode.delayed.is_some() {
            return;
        }
        let write = || {
            let locks = self.store().lock_going_back(inode.ino)?;
            self.write_gathered(&locks, &mut inode.data.write(), inode)
        };
        while write().is_err() {
            time::sleep(RETRY);
        }
    }

    /// An inode's attributes, with what was gathered. The caller has its cluster lock, and perhaps other inodes' local ones.
    pub(crate) fn show_delayed(&self, inode: &MemInode, load: &dyn Fn() -> Result<Inode>) -> Result<Attr> {
        loop {
            self.behind.wait_for(inode);
            let turns = inode.delayed.turns.load(Ordering::Acquire);
            let changed_turns = inode.changed.turns();
            let shown = if inode.delayed.is_some() { inode.delayed.shown() } else { None };
            let changed = inode.changed.shown();
            let mut attr = load()?.attr();
            if shown.is_none() && changed.is_none() {
                // Nothing, or it was written just now.
                if turns.is_multiple_of(2) && changed_turns.is_multiple_of(2) {
                    inode.changed.ask();
                    return Ok(attr);
                }
                continue;
            }
            let is_written = inode.written_behind.load(Ordering::Acquire) > 0;
            let same = inode.delayed.turns.load(Ordering::Acquire) == turns
                && inode.changed.turns() == changed_turns;
            if !is_written && same {
                shown.iter().for_each(|shown| shown.show(&mut attr));
                changed.iter().for_each(|changed| changed.show(&mut attr));
                inode.changed.ask();
                return Ok(attr);
            }
        }
    }

    /// Gathers a small write to the end of a file. Returns where it goes; none if it is to be written as others are, when all that was
    /// gathered before is. The caller holds the inode's locks for changing it.
    #[inline(never)]
    pub(crate) fn delay(
        &self,
        locks: &Locks<'_>,
        state: &mut DataState,
        pin: &Pin<'_>,
        Wanted { offset, data, drops }: Wanted<'_>,
    ) -> Result<Option<u64>> {
        if data.is_empty() || data.len() > MAX_WRITE || locks.go_back() || self.delayed.is_held_off() {
            return Ok(None);
        }
        if state.gathered.is_none() && !self.begin_delay(locks, state, pin, Wanted { offset, data, drops })? {
            return Ok(None);
        }
        let Some(mut shown) = pin.delayed.shown() else { return Ok(None) };
        let at = offset.unwrap_or(shown.end);
        if at != shown.end || !self.add_delayed(state, shown, data) {
            return Ok(None);
        }
        shown.end += data.len() as u64;
        shown.ctime = self.store().now();
        shown.mtime = Some(shown.ctime);
        shown.count += 1;
        if let Some(place) = pin.delayed.shown.lock().as_deref_mut() {
            *place = shown;
        }
        pin.changed.forget_mtime();
        if self.delayed.is_held_off() {
            // Somebody has begun to write all, and may have been here already. What fails stays.
            let _ = self.write_gathered(locks, state, pin);
        }
        self.count(Counter::Write);
        self.count(Counter::DelayedWrite);
        self.count_n(Counter::WriteBytes, data.len() as u64);
        Ok(Some(at))
    }

    /// Looks whether writes may be gathered at the end of a file, and begins with nothing.
    fn begin_delay(
        &self,
        locks: &Locks<'_>,
        state: &mut DataState,
        pin: &Pin<'_>,
        Wanted { offset, data, drops }: Wanted<'_>,
    ) -> Result<bool> {
        if !self.delayed.has_room() || !self.store().has_room() {
            return Ok(false);
        }
        let mut inode = self.load_file(locks, pin.ino)?;
        let size = inode.size();
        if inode.is_retained()
            || inode.truncate_pending()
            || offset.is_some_and(|offset| offset != size)
            || size >= MAX_FILE_BYTES - 2 * MAX_BYTES as u64
        {
            return Ok(false);
        }
        // Nothing may be behind the end, and what is before it in its block is to be there.
        let block = size / DATA_BLOCK_BYTES;
        let last = self.extent_from(locks, inode.ino, block)?;
        let fits = match last {
            None => in_block(size) == 0,
            Some(last) => {
                in_block(size) != 0
                    && last.first <= block
                    && last.end() == block + 1
                    && last.is_written()
                    && !self.store().may_be_written(inode.ino, last.fences)
                    && self.extent_from(locks, inode.ino, block + 1)?.is_none()
            }
        };
        if !fits {
            return Ok(false);
        }
        let near = last.map(|last| last.blkno + last.len);
        let first_new = size.div_ceil(DATA_BLOCK_BYTES);
        let need = (size + data.len() as u64).div_ceil(DATA_BLOCK_BYTES) - first_new;
        let now = self.store().now();
        let base = block * DATA_BLOCK_BYTES;
        let boxes = (
            try_box(Shown { end: size, first_new, mtime: None, ctime: now, count: 0 }),
            try_box(Gathered { base, memory: Memory::default(), at: size, run: None, near, sealed: false }),
        );
        let (Ok(shown), Ok(mut gathered)) = boxes else { return Ok(false) };
        let room = (in_block(size) + data.len()).next_multiple_of(BLOCK_LEN);
        if gathered.memory.extend(0, room).is_err() {
            return Ok(false);
        }
        self.drop_privileges(locks, &mut inode, drops)?;
        let run = match need {
            0 => None,
            _ => match self.reserve_run(locks, state, &inode, first_new, need) {
                Ok(run) => Some(run),
                Err(Error::NoSpace | Error::NoMemory) => return Ok(false),
                Err(e) => return Err(e),
            },
        };
        if run.as_ref().is_some_and(|run| run.len < need) || !self.enqueue(state, pin) {
            if let Some(run) = run {
                self.store().unreserve_data(run);
            }
            return Ok(false);
        }
        self.delayed.add_bytes(gathered.memory.len());
        gathered.run = run;
        state.gathered = Some(gathered);
        *pin.delayed.shown.lock() = Some(shown);
        pin.delayed.turns.fetch_or(1, Ordering::AcqRel);
        Ok(true)
    }

    /// Puts an inode into the queue, if it is not there.
    fn enqueue(&self, state: &mut DataState, pin: &Pin<'_>) -> bool {
        if !state.queued {
            if self.delayed.add(pin.ino).is_err() {
                return false;
            }
            self.keep_delayed(pin);
            state.queued = true;
        }
        true
    }

    /// Adds to what is gathered. False where it does not go.
    fn add_delayed(&self, state: &mut DataState, shown: Shown, data: &[u8]) -> bool {
        // Taken, because its growth needs the rest of the state.
        let Some(mut gathered) = state.gathered.take() else { return false };
        let from = (shown.end - gathered.base) as usize;
        let to = from + data.len();
        let need = shown.new_blocks(shown.end + data.len() as u64);
        let fits = !gathered.sealed
            && to <= MAX_BYTES
            && self.extend_run(state, &mut gathered, need)
            && self.extend_memory(&mut gathered.memory, from, to);
        if fits {
            gathered.memory.copy_in(from, data);
        }
        state.gathered = Some(gathered);
        fits
    }

    /// Sees to it that the memory, of which so much is `used`, has room for `len` bytes.
    fn extend_memory(&self, memory: &mut Memory, used: usize, len: usize) -> bool {
        let before = memory.len();
        let done = memory.extend(used, len).is_ok();
        self.delayed.add_bytes(memory.len() - before);
        done
    }

    /// Sees to it that there are `need` blocks in a row.
    fn extend_run(&self, state: &mut DataState, gathered: &mut Gathered, need: u64) -> bool {
        let have = gathered.run.as_ref().map_or(0, |run| run.len);
        if need <= have {
            return true;
        }
        let end = gathered.run.as_ref().map_or(gathered.near, |run| Some(run.start + run.len));
        // What was set aside behind it, or more.
        let mut more = match state.reserved.take() {
            Some(reserved) if Some(reserved.start) == end => reserved,
            other => {
                state.reserved = other;
                let want = (need - have).max(have.min(MAX_BYTES as u64 / DATA_BLOCK_BYTES));
                match self.store().reserve_data(want, end, &|| self.drop_reservations()) {
                    Ok(more) => more,
                    Err(_) => return false,
                }
            }
        };
        if gathered.run.is_some() && Some(more.start) != end {
            self.store().unreserve_data(more);
            return false;
        }
        let front = more.split_off_front(need - have);
        let len = have + front.len;
        gathered.run =
            Some(DataRun { start: gathered.run.as_ref().map_or(front.start, |run| run.start), len });
        if more.len > 0 {
            self.set_aside(state, more);
        }
        len >= need
    }

    /// Keeps blocks for what follows, or gives them back.
    fn set_aside(&self, state: &mut DataState, run: DataRun) {
        match &state.reserved {
            Some(_) => self.store().unreserve_data(run),
            None => state.reserved = Some(run),
        }
    }

    /// Writes what is gathered of an inode, whose locks for changing it the caller holds.
    ///
    /// # Errors
    ///
    /// [`Error::NoMemory`] or [`Error::Interrupted`]: it is still there. Otherwise it is gone, and if it is lost, that is noted.
    pub(crate) fn write_gathered(
        &self,
        locks: &Locks<'_>,
        state: &mut DataState,
        inode: &MemInode,
    ) -> Result<()> {
        let (Some(mut gathered), Some(shown)) = (state.gathered.take(), inode.delayed.shown()) else {
            return Ok(());
        };
        // Who wants to know the attributes waits until it is done.
        let answered = self.behind.begin_known(inode);
        let written = self.write_out(locks, state, inode.ino, &mut gathered, &shown);
        state.gathered = Some(gathered);
        match written {
            Err(e @ (Error::NoMemory | Error::Interrupted)) if self.store().trans.check().is_ok() => {
                return Err(e);
            }
            Err(error) => self.lose(state, inode, &error),
            Ok(()) => self.end_delay(state, inode),
        }
        drop(answered);
        Ok(())
    }

    /// The inode is about to be deleted, and nobody here has it. It stays where it is open on another mount, with all that was written.
    pub(crate) fn drop_delayed(&self, inode: &MemInode) {
        while inode.delayed.is_some() {
            let locks = self.store().lock_now(inode.ino, LockMode::Write);
            let mut state = inode.data.write();
            match &locks {
                Ok(Some(locks)) if self.store().lock_table.is_open_elsewhere(inode.ino) => {
                    let _ = self.write_gathered(locks, &mut state, inode);
                }
                Ok(Some(_)) => self.end_delay(&mut state, inode),
                Err(_) if self.store().trans.check().is_err() => self.end_delay(&mut state, inode),
                // Whoever gives the lock back writes.
                Ok(None) | Err(_) => {}
            }
            if state.gathered.is_some() {
                drop((state, locks));
                time::sleep(RETRY);
            }
        }
        self.delayed.remove(inode.ino);
        inode.data.write().queued = false;
    }

    /// Nothing is gathered any more.
    fn end_delay(&self, state: &mut DataState, inode: &MemInode) {
        let Some(gathered) = state.gathered.take() else { return };
        self.delayed.remove_bytes(gathered.memory.len());
        if let Some(run) = gathered.run {
            self.set_aside(state, run);
        }
        // From odd to even.
        inode.delayed.turns.fetch_add(1, Ordering::AcqRel);
        *inode.delayed.shown.lock() = None;
    }

    /// Can be called again after an error for want of memory.
    fn write_out(
        &self,
        locks: &Locks<'_>,
        state: &mut DataState,
        ino: u64,
        gathered: &mut Gathered,
        shown: &Shown,
    ) -> Result<()> {
        let mut inode = self.load_file(locks, ino)?;
        let start = gathered.at;
        if inode.size() != start {
            return Err(inode.corrupt("the size has changed under writes that were gathered"));
        }
        let written = |count| Some(Written { mtime: shown.mtime, ctime: shown.ctime, count });
        let new_at = (shown.first_new * DATA_BLOCK_BYTES).clamp(start, shown.end);
        let mut run = gathered.run.take();
        let result = (|| {
            if start < new_at {
                let block = start / DATA_BLOCK_BYTES;
                let part = self.extent_from(locks, ino, block)?.filter(|extent| extent.first <= block);
                let Some(part) = part.map(|extent| extent.part(block, block + 1)) else {
                    return Err(inode.corrupt("its last block is gone"));
                };
                let data = gathered.memory.in_block(gathered.base, start..new_at);
                let count = if new_at == shown.end { shown.count } else { 0 };
                let piece = Piece { offset: start, data, privileged: true, written: written(count) };
                self.write_mapped(locks, state, &mut inode, part, piece)?;
            }
            let mut at = new_at;
            while at < shown.end {
                let blocks = (shown.end - at).div_ceil(DATA_BLOCK_BYTES);
                let now = match &mut run {
                    Some(run) if run.len > blocks => run.split_off_front(blocks),
                    // What an attempt without memory has used up is replaced.
                    run => match run.take() {
                        Some(run) => run,
                        None => self.reserve_run(locks, state, &inode, at / DATA_BLOCK_BYTES, blocks)?,
                    },
                };
                let end = shown.end.min(at + now.len * DATA_BLOCK_BYTES);
                let count = if end == shown.end { shown.count } else { 0 };
                self.write_blocks(locks, state, &mut inode, gathered, (at, end), now, written(count))?;
                at = end;
            }
            Ok(())
        })();
        gathered.run = run;
        gathered.at = inode.size();
        result
    }

    /// Writes what is gathered from a block on to new ones, and maps them.
    #[expect(clippy::too_many_arguments, reason = "what is written, where, and as what")]
    fn write_blocks(
        &self,
        locks: &Locks<'_>,
        state: &mut DataState,
        inode: &mut Inode,
        gathered: &Gathered,
        (at, end): (u64, u64),
        run: DataRun,
        written: Option<Written>,
    ) -> Result<()> {
        let new = self.extent_of(&run, at / DATA_BLOCK_BYTES, 0);
        let pieces = gathered.memory.blocks(gathered.base, at..end, run.start * DATA_BLOCK_BYTES);
        // Of another block than the last one it says nothing any more.
        state.forget_tail();
        let done = pieces.map_err(Error::from).and_then(|p| Ok(self.store().device().write_pieces(&p)?));
        if let Err(error) = done {
            self.store().unreserve_data(run);
            return Err(error);
        }
        self.store().note_data_written();
        let mut grown = self.grown(inode, end, written);
        let mapping = Mapping { touch: Touch::Data, replaces: false, privileged: true };
        self.map_run(locks, &mut grown, new, run, mapping)?;
        *inode = grown;
        if in_block(end) != 0 {
            let block = end - in_block(end) as u64;
            let bytes = gathered.memory.in_block(gathered.base, block..block + DATA_BLOCK_BYTES);
            // Only a help: not an error without memory.
            self.keep_tail(state, inode, end, IoBuf::from_slice(bytes).ok());
        }
        Ok(())
    }
}

impl Fs {
    /// Attributes of an inode were set, whose local lock the caller has: a time of the contents stays as it was set, and what a write
    /// takes away may be there again.
    pub(crate) fn note_set(&self, state: &mut DataState, inode: &MemInode, set: &SetAttr) {
        if let Some(shown) = inode.delayed.shown.lock().as_deref_mut()
            && set.mtime.is_some()
        {
            shown.mtime = None;
        }
        if set.mtime.is_some() {
            inode.changed.forget_mtime();
        }
        if set.mode.is_some() {
            state.seal();
        }
    }
}

impl DataState {
    /// What a write takes away may be there again: the next one is to look.
    pub(crate) fn seal(&mut self) {
        if let Some(gathered) = &mut self.gathered {
            gathered.sealed = true;
        }
    }
}

#[cfg(test)]
mod tests;
