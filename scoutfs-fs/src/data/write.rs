// SPDX-License-Identifier: GPL-2.0-only
//! Writing.

use scoutfs_env::time::Timespec;
use scoutfs_format::item::{EXTENT_UNWRITTEN, MAX_FILE_BYTES};

use crate::counters::Counter;
use crate::data::behind::Answer;
use crate::data::delayed::Wanted;
use crate::data::extent::{Extent, remap_need};
use crate::data::state::DataState;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::change::{Change, Touch};
use crate::inode::passing::Attempts;
use crate::inode::record::{DATA_BLOCK_BYTES, Inode, from_time, to_time};
use crate::inode::table::Pin;
use crate::inode::{Drops, INODE_NEED};
use crate::store::{DataRun, LockMode, Locks, Need};

/// Files smaller than this get no blocks ahead of their end.
const MIN_AHEAD_BLOCKS: u64 = 16;
/// Most blocks that are set aside ahead of the end of a growing file: 8 MiB.
const MAX_AHEAD_BLOCKS: u64 = 2048;

/// A hole that is filled here and there gets a place on the device for so many blocks at most: 1 GiB.
const MAX_PLACE_BLOCKS: u64 = 1 << 18;

/// Data, and where in the file they go.
#[derive(Clone, Copy)]
pub(super) struct Piece<'d> {
    pub offset: u64,
    pub data: &'d [u8],
    /// They may use the reserve of metadata blocks.
    pub privileged: bool,
    /// When a program has written them, if that was before.
    pub written: Option<Written>,
}

/// What an inode shows of writes that are carried out later.
#[derive(Clone, Copy)]
pub(crate) struct Written {
    /// Of the last one; none if another time was set since.
    pub mtime: Option<Timespec>,
    pub ctime: Timespec,
    /// How many they are.
    pub count: u64,
}

impl<'d> Piece<'d> {
    /// The part that the extent has room for.
    fn within(&self, extent: &Extent) -> Piece<'d> {
        let room = extent.end() * DATA_BLOCK_BYTES - self.offset;
        let len = usize::try_from(room).unwrap_or(usize::MAX).min(self.data.len());
        Piece { data: &self.data[..len], ..*self }
    }

    fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }
}

/// Where data go that get new blocks.
pub(super) struct Place {
    /// What they are written over, which others may still write.
    pub old: Option<Extent>,
    pub run: DataRun,
}

/// How blocks are mapped.
pub(crate) struct Mapping {
    pub touch: Touch,
    /// Something is mapped there.
    pub replaces: bool,
    /// As of a piece.
    pub privileged: bool,
}

/// How a write is done.
#[derive(Default)]
struct How<'a, 'f, 'h> {
    drops: Drops,
    answer: Option<&'h mut Answer<'a, 'f>>,
    /// It may be gathered in memory.
    delays: bool,
}

impl Fs {
    /// Writes `data` at `offset` and returns how much was written: less than all only when space or the device
    /// failed after a part. Memory that is aligned to 4096 bytes, with such an offset, is written without a copy.
    ///
    /// # Errors
    ///
    /// [`Error::FileTooBig`] at or past the largest file's end.
    pub fn write(&self, ino: u64, offset: u64, data: &[u8]) -> Result<usize> {
        self.write_at(ino, Some(offset), data, How::default()).map(|(_, len)| len)
    }

    /// As [`Fs::write`], or as [`Fs::append`] without an offset, for a kernel that leaves it to the filesystem to take `drops` away.
    ///
    /// Calls `answer`, if there is one, as soon as it is certain that all is written unless the device fails: with the number of bytes, at
    /// most once. What is returned after that is not to be answered. See [`behind`](crate::data::behind).
    pub fn write_for_kernel(
        &self,
        ino: u64,
        offset: Option<u64>,
        data: &[u8],
        drops: Drops,
        answer: Option<&mut dyn FnMut(usize)>,
    ) -> Result<usize> {
        let mut answer = answer.map(Answer::new);
        let how = How { drops, answer: answer.as_mut(), ..How::default() };
        let written = self.write_at(ino, offset, data, how);
        written.map(|(_, len)| len)
    }

    /// Writes `data` at `offset`, or at the end of the file, for a program that does not wait for the device: what is small may be
    /// gathered in memory for a moment (see [`delayed`](crate::data::delayed)). Returns where it went and how much was written.
    pub fn write_later(
        &self,
        ino: u64,
        offset: Option<u64>,
        data: &[u8],
        drops: Drops,
    ) -> Result<(u64, usize)> {
        self.write_at(ino, offset, data, How { drops, delays: true, ..How::default() })
    }

    /// Writes `data` at the end of the file, wherever that is now. Returns the offset and how much was written.
    pub fn append(&self, ino: u64, data: &[u8]) -> Result<(u64, usize)> {
        self.write_at(ino, None, data, How::default())
    }

    fn write_at<'a>(
        &'a self,
        ino: u64,
        offset: Option<u64>,
        data: &[u8],
        How { drops, mut answer, delays }: How<'a, '_, '_>,
    ) -> Result<(u64, usize)> {
        let mut attempts = Attempts::of(self);
        loop {
            let how = How { drops, answer: answer.as_deref_mut(), delays };
            let done = self.try_write_at(ino, offset, data, how);
            if answer.as_ref().is_some_and(|answer| answer.is_given()) || !attempts.once_more(&done) {
                return done;
            }
        }
    }

    fn try_write_at<'a>(
        &'a self,
        ino: u64,
        offset: Option<u64>,
        data: &[u8],
        How { drops, mut answer, delays }: How<'a, '_, '_>,
    ) -> Result<(u64, usize)> {
        self.writable()?;
        let pin = self.pin(ino)?;
        let locks = match offset {
            Some(first) => {
                let end = first.saturating_add(data.len() as u64);
                pin.note_pages(end);
                let locks = self.store().lock_bytes(ino, first, end)?;
                pin.note_pages(end);
                locks
            }
            // Where it goes is known under the lock.
            None => self.store().lock(&[(ino, LockMode::Write)])?,
        };
        let mut state = pin.data.write();
        let wanted = Wanted { offset, data, drops };
        if delays && let Some(at) = self.delay(&locks, &mut state, &pin, wanted)? {
            return Ok((at, data.len()));
        }
        if state.gathered.is_some() {
            self.write_gathered(&locks, &mut state, &pin)?;
            if delays && let Some(at) = self.delay(&locks, &mut state, &pin, wanted)? {
                return Ok((at, data.len()));
            }
        }
        let mut inode = self.load_file(&locks, ino)?;
        inode.check_changeable()?;
        let offset = offset.unwrap_or(inode.size());
        if data.is_empty() {
            return Ok((offset, 0));
        }
        let room = MAX_FILE_BYTES.saturating_sub(offset);
        if room == 0 {
            return Err(Error::FileTooBig);
        }
        let len = usize::try_from(room).unwrap_or(usize::MAX).min(data.len());
        self.drop_privileges(&locks, &mut inode, drops)?;
        self.finish_truncate_locked(&locks, &mut inode)?;
        // In the same block, the write itself does it.
        if offset / DATA_BLOCK_BYTES > inode.size() / DATA_BLOCK_BYTES {
            self.zero_past_end(&locks, &mut state, &mut inode)?;
        }
        self.count(Counter::Write);
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let mut ready = |step: usize| {
                if let Some(answer) = answer.as_deref_mut().filter(|_| done + step == len) {
                    answer.now(self, pin.shared(), len);
                }
            };
            let piece = Piece { offset: at, data: &data[done..len], privileged: false, written: None };
            match self.write_step(&locks, &mut state, &mut inode, piece, &mut ready) {
                Ok(step) => done += step,
                Err(error) => {
                    if let Some(answer) = &answer {
                        answer.lost(&self.store().verdict(error.clone()));
                    }
                    if done == 0 {
                        return Err(error);
                    }
                    break;
                }
            }
        }
        if done > 0 {
            pin.changed.forget_mtime();
        }
        self.count_n(Counter::WriteBytes, done as u64);
        Ok((offset, done))
    }

    /// Zeros what the last block holds behind the end of the file, which is about to grow.
    pub(crate) fn zero_past_end(
        &self,
        locks: &Locks<'_>,
        state: &mut DataState,
        inode: &mut Inode,
    ) -> Result<()> {
        let size = inode.size();
        let end = size.next_multiple_of(DATA_BLOCK_BYTES);
        if size == end {
            return Ok(());
        }
        let extent = self.extent_from(locks, inode.ino, size / DATA_BLOCK_BYTES)?;
        self.zero_in_block(locks, state, inode, extent, (size, end))
    }

    /// Writes a part of a piece: into one extent, or one hole. Says how much that is when nothing is wanting for it any more.
    pub(super) fn write_step(
        &self,
        locks: &Locks<'_>,
        state: &mut DataState,
        inode: &mut Inode,
        piece: Piece<'_>,
        ready: &mut dyn FnMut(usize),
    ) -> Result<usize> {
        let block = piece.offset / DATA_BLOCK_BYTES;
        let end_block = piece.end().div_ceil(DATA_BLOCK_BYTES);
        let found = self.extent_from(locks, inode.ino, block)?;
        if let Some(extent) = found.filter(|e| e.first <= block) {
            if extent.blkno == 0 {
                // Nothing brings the rest of a block back from an archive yet.
                return Err(Error::NotSupported);
            }
            let mut part = extent.part(block, extent.end().min(end_block));
            if self.store().may_be_written(inode.ino, part.fences) {
                let run = self.reserve_run(locks, state, inode, block, part.len)?;
                part.len = run.len;
                let piece = piece.within(&part);
                ready(piece.data.len());
                return self.write_new(locks, state, inode, Place { old: Some(part), run }, piece);
            }
            let piece = piece.within(&part);
            ready(piece.data.len());
            return self.write_mapped(locks, state, inode, part, piece);
        }
        let hole_end = found.map_or(u64::MAX, |e| e.first);
        let run = self.reserve_run(locks, state, inode, block, end_block.min(hole_end) - block)?;
        let piece = piece.within(&self.extent_of(&run, block, 0));
        ready(piece.data.len());
        self.write_new(locks, state, inode, Place { old: None, run }, piece)
    }

    /// Writes to blocks that the file has.
    pub(super) fn write_mapped(
        &self,
        locks: &Locks<'_>,
        state: &mut DataState,
        inode: &mut Inode,
        part: Extent,
        piece: Piece<'_>,
    ) -> Result<usize> {
        let Piece { offset, data, privileged, .. } = piece;
        let tail = self.write_run(state, inode, (&part, &part), offset, data)?;
        let remap = if part.is_written() {
            None
        } else {
            let written = |e: Extent| Some(Extent { flags: 0, ..e });
            Some(self.remap(locks, inode.ino, part.first, part.end() - 1, None, written)?)
        };
        let need =
            remap.as_ref().map_or(Need { privileged, ..INODE_NEED }, |remap| remap_need(remap, privileged));
        let hold = locks.hold(need)?;
        let mut new = self.grown(inode, piece.end(), piece.written);
        let mut change = Change::new(&hold);
        change.inode(&mut new, Touch::Data)?;
        if let Some(remap) = &remap {
            remap.prepare(&mut change, &mut new)?;
            remap.finish(self.store(), &hold, new.ino);
        }
        change.finish(&[&new]);
        *inode = new;
        self.keep_tail(state, inode, piece.end(), tail);
        Ok(data.len())
    }

    /// Writes to new blocks, and maps to them what the data are for.
    pub(super) fn write_new(
        &self,
        locks: &Locks<'_>,
        state: &mut DataState,
        inode: &mut Inode,
        Place { old, run }: Place,
        piece: Piece<'_>,
    ) -> Result<usize> {
        let Piece { offset, data, privileged, .. } = piece;
        let new = self.extent_of(&run, offset / DATA_BLOCK_BYTES, 0);
        // What a hole has beside the data is as in a block that was not written.
        let before = old.unwrap_or(Extent { flags: EXTENT_UNWRITTEN, ..new });
        let tail = match self.write_run(state, inode, (&before, &new), offset, data) {
            Ok(tail) => tail,
            Err(error) => {
                self.store().unreserve_data(run);
                return Err(error);
            }
        };
        let mut grown = self.grown(inode, piece.end(), piece.written);
        let mapping = Mapping { touch: Touch::Data, replaces: old.is_some(), privileged };
        self.map_run(locks, &mut grown, new, run, mapping)?;
        *inode = grown;
        self.keep_tail(state, inode, piece.end(), tail);
        Ok(data.len())
    }

    /// Maps a hole of `inode`, or a part of one extent that the new one `replaces`, to the blocks of `run`, in a transaction with
    /// the other changes of the inode.
    pub(crate) fn map_run(
        &self,
        locks: &Locks<'_>,
        inode: &mut Inode,
        extent: Extent,
        run: DataRun,
        Mapping { touch, replaces, privileged }: Mapping,
    ) -> Result<()> {
        let mut map = || {
            let remap = if replaces {
                let new = |old: Extent| Some(extent.part(old.first, old.end()));
                self.remap(locks, inode.ino, extent.first, extent.end() - 1, None, new)?
            } else {
                self.remap_hole(locks, inode.ino, extent)?
            };
            let hold = locks.hold(remap_need(&remap, privileged))?;
            let mut change = Change::new(&hold);
            change.inode(inode, touch)?;
            remap.prepare(&mut change, inode)?;
            remap.finish(self.store(), &hold, inode.ino);
            change.finish(&[inode]);
            Ok(hold)
        };
        match map() {
            Ok(hold) => {
                hold.use_data(run);
                Ok(())
            }
            Err(error) => {
                self.store().unreserve_data(run);
                Err(error)
            }
        }
    }

    /// The inode after it was written to as far as `end`: by a program now, or before.
    pub(super) fn grown(&self, inode: &Inode, end: u64, written: Option<Written>) -> Inode {
        let mut new = inode.clone();
        new.item.size.set(inode.size().max(end));
        match written {
            None => new.touch_mtime(self.store().now()),
            Some(written) => new.note_written(&written),
        }
        new
    }

    /// Remembers the last block, if the file ends there.
    pub(super) fn keep_tail(
        &self,
        state: &mut DataState,
        inode: &Inode,
        end: u64,
        tail: Option<scoutfs_env::IoBuf>,
    ) {
        if let Some(bytes) = tail
            && end == inode.size()
        {
            state.set_tail(end / DATA_BLOCK_BYTES, inode.item.data_version.get(), bytes);
        }
    }

    /// Free blocks for `want` logical blocks from `block` on, or for the first of them: behind those before, or in a hole where the order on the
    /// device is that of the file. A file that grows gets more set aside, in memory, for what will follow.
    pub(crate) fn reserve_run(
        &self,
        locks: &Locks<'_>,
        state: &mut DataState,
        inode: &Inode,
        block: u64,
        want: u64,
    ) -> Result<DataRun> {
        let before = self.extent_before(locks, inode.ino, block)?.filter(|e| e.blkno != 0);
        let size_blocks = inode.size().div_ceil(DATA_BLOCK_BYTES);
        let appends = block >= size_blocks;
        let near = match before {
            Some(before) if appends => Some(before.blkno + before.len),
            Some(before) => Some(before.blkno_of(block)),
            None if appends => None,
            None => self.place_in_hole(locks, inode.ino, block, size_blocks)?,
        };
        if let Some(run) = state.reserved.take() {
            if appends && near == Some(run.start) {
                return Ok(keep_rest(state, run, want));
            }
            self.store().unreserve_data(run);
        }
        let ahead =
            if appends && size_blocks >= MIN_AHEAD_BLOCKS { size_blocks.min(MAX_AHEAD_BLOCKS) } else { 0 };
        // What is set aside for other files is not used.
        let run = self.store().reserve_data(want + ahead, near, &|| self.drop_reservations())?;
        Ok(keep_rest(state, run, want))
    }

    /// Where the first block before all others of a file is best: so that what is written here and there into a hole is in the order of the file
    /// on the device, and one extent in the end.
    fn place_in_hole(
        &self,
        locks: &Locks<'_>,
        ino: u64,
        block: u64,
        size_blocks: u64,
    ) -> Result<Option<u64>> {
        Ok(match self.extent_from(locks, ino, block)? {
            Some(next) if next.first <= block || next.blkno == 0 => None,
            Some(next) => next.blkno.checked_sub(next.first - block),
            None => {
                let suggest = || self.store().space.suggest_data(size_blocks.min(MAX_PLACE_BLOCKS));
                let mut place = suggest();
                if place.is_none() {
                    // The server has some.
                    let run = self.store().reserve_data(1, None, &|| self.drop_reservations())?;
                    self.store().unreserve_data(run);
                    place = suggest();
                }
                place.filter(|(_, len)| block < *len).map(|(start, _)| start + block)
            }
        })
    }

    /// Finishes a truncation that a crash interrupted.
    pub(crate) fn finish_truncate(&self, pin: &Pin<'_>) -> Result<()> {
        if self.store().read_only() {
            return Ok(());
        }
        {
            let locks = self.store().lock(&[(pin.ino, LockMode::Read)])?;
            if !self.load(&locks, pin.ino)?.truncate_pending() {
                return Ok(());
            }
        }
        let locks = self.store().lock(&[(pin.ino, LockMode::Write)])?;
        let _state = pin.data.write();
        let mut inode = self.load(&locks, pin.ino)?;
        self.finish_truncate_locked(&locks, &mut inode)
    }
}

impl Inode {
    /// It was written to before.
    pub(super) fn note_written(&mut self, written: &Written) {
        if let Some(mtime) = written.mtime {
            self.item.mtime = to_time(mtime);
        }
        if from_time(&self.item.ctime) < written.ctime {
            self.touch_ctime(written.ctime);
        }
        // The change itself counts as one.
        let version = self.item.version.get().wrapping_add(written.count.saturating_sub(1));
        self.item.version.set(version);
    }
}

/// The first `want` blocks of a run, or all; the rest is set aside.
fn keep_rest(state: &mut DataState, mut run: DataRun, want: u64) -> DataRun {
    if run.len <= want {
        return run;
    }
    let front = run.split_off_front(want);
    state.reserved = Some(run);
    front
}
