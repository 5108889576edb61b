// SPDX-License-Identifier: GPL-2.0-only
//! What programs change in a kernel's memory, and is written later: nobody can be told then that there is no space.
//!
//! A kernel asks here before a program may change a page: by a mapping to memory ([`Fs::prepare_pages`]), or as it writes to a file
//! ([`Fs::change_pages`]). From then on the page has blocks that can be
//! written in place: a hole gets some, without data. They stay so until the page is written ([`Fs::write_pages`]): other nodes take them away only with the cluster lock,
//! before which pages are written, and programs here only where the kernel drops pages first. Fences that come meanwhile do not matter (see
//! [`KnownFences`](crate::store::KnownFences)). So writing needs no data block. Items it needs where a block has had no data: the mount owes
//! them from then on (`store/owed`), for each block as if it was written alone. Where it cannot promise more, because pages here and there
//! in space without data would make too many, the page is written at once.
//!
//! # When the file has changed
//!
//! When a program writes to a file it shows other times and another version at once ([`ChangedPages`](super::changed::ChangedPages)), and the
//! item says so when the pages are written: after the data, as with any write. So what was set since stays, and who archives a file does so once. A
//! change by a mapping to memory is seen only when the page is written: so the file changes then. Who has seen a version never reads
//! older content: other nodes get the lock only when the pages are written, and here the pages have the content before the version is
//! shown.
//!
//! Not all pages that were changed are written in one go, and those that come later change no item any more; nor do others while nobody looks
//! ([`ChangedPages`](super::changed::ChangedPages)). To make them durable takes a flush and no commit
//! ([`Store::sync_data`](crate::store::Store::sync_data)).
//!
//! Locking: as for a write.

use core::ops::Range;
use core::time::Duration;

use scoutfs_env::sync::atomic::Ordering;
use scoutfs_env::time::{self, Timespec};
use scoutfs_env::{IoBuf, Vec};
use scoutfs_format::item::MAX_FILE_BYTES;

use crate::counters::Counter;
use crate::data::block_io::{BLOCK_LEN, is_direct};
use crate::data::extent::{Extent, extents_need, remap_need};
use crate::data::state::DataState;
use crate::data::write::{Mapping, Piece, Written};
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::INODE_NEED;
use crate::inode::change::{Change, Touch};
use crate::inode::passing::Attempts;
use crate::inode::record::{DATA_BLOCK_BYTES, Inode};
use crate::inode::table::MemInode;
use crate::store::{DataRun, LockMode, Locks, Need};

/// Bytes of items that a block without data takes when it is written alone: it cuts an extent into three.
const OWED_BYTES: u64 = extents_need(3, true).total_bytes() as u64;
/// Blocks that are copied at once.
const COPY_BLOCKS: u64 = 32;
/// Where there is no memory, it is tried again after this.
const RETRY: Duration = Duration::from_millis(5);

/// What is written to blocks that a file has.
#[derive(Default)]
struct InPlace<'d> {
    /// Where on the device.
    pieces: Vec<(u64, &'d [u8])>,
    /// Blocks of the file that had no data before, in ascending order.
    unwritten: Vec<Range<u64>>,
    /// Something had no blocks, and has them now, with its data.
    elsewhere: bool,
    /// The extent that was looked up last.
    extent: Option<Extent>,
}

impl<'d> InPlace<'d> {
    /// Whole blocks of an extent.
    fn add(&mut self, extent: &Extent, block: u64, bytes: &'d [u8]) -> Result<()> {
        self.pieces.push((extent.blkno_of(block) * DATA_BLOCK_BYTES, bytes))?;
        if !extent.is_written() {
            let end = block + (bytes.len() / BLOCK_LEN) as u64;
            match self.unwritten.last_mut().filter(|last| last.end == block) {
                Some(last) => last.end = end,
                None => self.unwritten.push(block..end)?,
            }
        }
        Ok(())
    }
}

/// See [`Fs::lacking`].
#[derive(Default)]
struct Lacking {
    /// Blocks without data.
    data: u64,
    /// Some of them are not there.
    holes: bool,
}

/// What a program has copied into pages, see [`Fs::change_pages`].
#[derive(Clone, Copy, Debug)]
pub struct Copied {
    /// So many bytes.
    pub bytes: usize,
    /// Somebody may have read from the file.
    pub may_be_read: bool,
}

/// How the file has changed by what is written: once.
#[derive(Clone, Copy)]
struct Touches {
    /// As programs wrote before.
    written: Option<Written>,
    /// By a mapping, when nobody knows.
    mapped: bool,
}

impl Touches {
    fn any(&self) -> bool {
        self.written.is_some() || self.mapped
    }

    /// Puts them into the inode.
    fn take(&mut self, inode: &mut Inode, now: Timespec) -> Touch {
        let touch = if self.any() { Touch::Data } else { Touch::Meta };
        if let Some(written) = self.written.take() {
            inode.note_written(&written);
        }
        if core::mem::take(&mut self.mapped) {
            inode.touch_mtime(now);
        }
        touch
    }
}

impl Fs {
    /// Sees to it that `len` bytes at `offset`, which are in a kernel's memory, can be changed there and written by [`Fs::write_pages`]
    /// without more space for data. Holes get blocks, and blocks that somebody who was fenced may still write are exchanged. What is
    /// read from the file stays the same.
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`] when there is none, [`Error::NotSupported`] where data are in an archive.
    pub fn prepare_pages(&self, ino: u64, offset: u64, len: u64) -> Result<()> {
        self.writable()?;
        let end = offset.checked_add(len).filter(|end| *end <= MAX_FILE_BYTES).ok_or(Error::FileTooBig)?;
        let mut attempts = Attempts::of(self);
        loop {
            let done = self.try_prepare_pages(ino, offset, end);
            if !attempts.once_more(&done) {
                return done;
            }
        }
    }

    /// A program writes `len` bytes at `offset` to pages of a kernel, which the caller keeps locked, and writes with [`Fs::write_pages`] later.
    /// `change` copies them there, or the first of them, and gives how many: with none nothing has happened. It is called at most
    /// once, just before the file shows that it has changed, and must not wait for anything. It also tells, after it has copied, whether
    /// anybody may have read from the file past the core since it was called last for it, or may read without asking.
    ///
    /// `None`, with no content changed, if that cannot be in place: behind the end of the file, where data are in an archive or on blocks that
    /// somebody who was fenced may write, or when there is no space. Then it is to be written as it is elsewhere.
    pub fn change_pages(
        &self,
        ino: u64,
        offset: u64,
        len: u64,
        change: &mut dyn FnMut() -> Copied,
    ) -> Result<Option<usize>> {
        self.writable()?;
        let end = offset.checked_add(len).filter(|end| *end <= MAX_FILE_BYTES).ok_or(Error::FileTooBig)?;
        let mut attempts = Attempts::of(self);
        loop {
            let done = self.try_change_pages(ino, offset, end, change);
            if !attempts.once_more(&done) {
                return done;
            }
        }
    }

    fn try_change_pages(
        &self,
        ino: u64,
        offset: u64,
        end: u64,
        change: &mut dyn FnMut() -> Copied,
    ) -> Result<Option<usize>> {
        let pin = self.pin(ino)?;
        pin.note_pages(end);
        let locks = self.store().lock_bytes(ino, offset, end)?;
        pin.note_pages(end);
        let mut state = pin.data.write();
        self.write_gathered(&locks, &mut state, &pin)?;
        let mut inode = self.load_file(&locks, ino)?;
        inode.check_changeable()?;
        if inode.truncate_pending() || end > inode.size() {
            return Ok(None);
        }
        let blocks = offset / DATA_BLOCK_BYTES..end.div_ceil(DATA_BLOCK_BYTES);
        let Some(Lacking { data, holes }) = self.lacking(&locks, ino, blocks)? else { return Ok(None) };
        if data > 0 && !self.owe_blocks(&pin, data) {
            return Ok(None);
        }
        let paid = |result| {
            self.pay_blocks(&pin, data);
            result
        };
        if holes {
            match self.fill_holes(&locks, &mut state, &mut inode, offset, end) {
                Err(Error::NoSpace) => return paid(Ok(None)),
                Err(e) => return paid(Err(e)),
                Ok(()) => {}
            }
        }
        let Copied { bytes, may_be_read } = change();
        if may_be_read {
            pin.changed.ask();
        }
        if bytes > 0 {
            pin.changed.note(self.store().now());
            self.count(Counter::Write);
            self.count_n(Counter::WriteBytes, bytes as u64);
            Ok(Some(bytes))
        } else {
            paid(Ok(Some(0)))
        }
    }

    /// What blocks of a file lack to be written in place; `None` where they never can.
    fn lacking(&self, locks: &Locks<'_>, ino: u64, blocks: Range<u64>) -> Result<Option<Lacking>> {
        let (mut block, mut lacking) = (blocks.start, Lacking::default());
        while block < blocks.end {
            let found = self.extent_from(locks, ino, block)?;
            let (here, end) = match found {
                Some(extent) if extent.first <= block => (Some(extent), extent.end()),
                other => (None, other.map_or(blocks.end, |next| next.first)),
            };
            let end = end.min(blocks.end);
            match here {
                Some(extent) if extent.blkno == 0 || self.store().may_be_written(ino, extent.fences) => {
                    return Ok(None);
                }
                Some(extent) if extent.is_written() => {}
                _ => lacking.data += end - block,
            }
            lacking.holes |= here.is_none();
            block = end;
        }
        Ok(Some(lacking))
    }

    /// The mount owes items for so many blocks of an inode. False if it cannot promise that.
    fn owe_blocks(&self, inode: &MemInode, blocks: u64) -> bool {
        let done = self.store().owe(blocks * OWED_BYTES);
        if done {
            inode.owed_blocks.fetch_add(blocks, Ordering::AcqRel);
        }
        done
    }

    /// They are written. What is counted may be fewer, when all was paid meanwhile.
    fn pay_blocks(&self, inode: &MemInode, blocks: u64) {
        let less = |owed: u64| Some(owed.saturating_sub(blocks));
        let owed = inode.owed_blocks.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).unwrap_or(0);
        self.store().pay(owed.min(blocks) * OWED_BYTES);
    }

    /// No changed page of the inode is left: some may have been dropped.
    pub(crate) fn pay_all(&self, inode: &MemInode) {
        self.store().pay(inode.owed_blocks.swap(0, Ordering::AcqRel) * OWED_BYTES);
    }

    /// Writes pages, which are whole blocks at their offsets in the file, in ascending order and aligned memory; what is behind the end of
    /// the file is not written. The device gets all at one time where it can. `mapped`: programs have changed them by a mapping to memory, so the file
    /// changes now. It fails for want of space only if the volume has not even what deletions may use.
    pub fn write_pages(&self, ino: u64, pages: &[(u64, &[u8])], mapped: bool) -> Result<()> {
        self.writable()?;
        let are_blocks =
            |(at, bytes): &(u64, &[u8])| bytes.len().is_multiple_of(BLOCK_LEN) && is_direct(*at, bytes);
        if !pages.iter().all(are_blocks) {
            return Err(Error::Invalid("pages that are not of whole blocks"));
        }
        let mut attempts = Attempts::of(self);
        loop {
            let done = self.try_write_pages(ino, pages, mapped);
            if !attempts.once_more(&done) {
                if done.as_ref().is_err_and(|e| !matches!(e, Error::NoMemory | Error::Interrupted))
                    && let Some(inode) = self.table.get(ino)
                {
                    // Whoever asks for attributes is not told any more of what is lost.
                    inode.changed.end();
                }
                return done;
            }
        }
    }

    fn try_write_pages(&self, ino: u64, pages: &[(u64, &[u8])], mapped: bool) -> Result<()> {
        let (Some((first, _)), Some((last, bytes))) = (pages.first(), pages.last()) else { return Ok(()) };
        let end = last.saturating_add(bytes.len() as u64);
        let pin = self.pin(ino)?;
        pin.note_pages(end);
        let locks = self.store().lock_bytes(ino, *first, end)?;
        pin.note_pages(end);
        let mut state = pin.data.write();
        self.write_gathered(&locks, &mut state, &pin)?;
        let mut inode = self.load_file(&locks, ino)?;
        inode.check_changeable()?;
        self.finish_truncate_locked(&locks, &mut inode)?;
        state.forget_tail();
        let mut in_place = InPlace::default();
        for (offset, bytes) in pages {
            self.write_page(&locks, &mut state, &mut inode, (*offset, bytes), &mut in_place)?;
        }
        let InPlace { pieces, unwritten, elsewhere, .. } = in_place;
        if elsewhere {
            pin.changed.forget_mtime();
        }
        if pieces.is_empty() {
            return Ok(());
        }
        self.store().device().write_pieces(&pieces)?;
        pin.data_written.fetch_max(self.store().note_data_written(), Ordering::AcqRel);
        let written = match mapped || !unwritten.is_empty() || pin.changed.is_due(&inode) {
            true => pin.changed.shown(),
            false => {
                self.changed_unseen.fetch_or(pin.changed.is_some(), Ordering::AcqRel);
                None
            }
        };
        // Who wants to know the attributes waits until it is done.
        let answered = written.is_some().then(|| self.behind.begin_known(&pin));
        let mut touches = Touches { written, mapped };
        if mapped {
            // Programs' writes were counted before.
            self.count(Counter::Write);
            self.count_n(Counter::WriteBytes, pieces.iter().map(|(_, bytes)| bytes.len() as u64).sum());
        }
        for blocks in unwritten.iter() {
            self.map_written(&locks, &mut inode, blocks.clone(), &mut touches, true)?;
            self.pay_blocks(&pin, blocks.end - blocks.start);
            pin.changed.take_over();
        }
        if touches.any() {
            self.touch_pages(&locks, &pin, &mut inode, touches)?;
        }
        drop(answered);
        Ok(())
    }

    /// Changes an inode's item as its pages were. The caller has its locks for changing it.
    fn touch_pages(
        &self,
        locks: &Locks<'_>,
        mem: &MemInode,
        inode: &mut Inode,
        mut touches: Touches,
    ) -> Result<()> {
        let hold = locks.hold(Need { privileged: true, ..INODE_NEED })?;
        let mut change = Change::new(&hold);
        let touch = touches.take(inode, self.store().now());
        change.inode(inode, touch)?;
        change.finish(&[inode]);
        mem.changed.take_over();
        Ok(())
    }

    /// Has an inode's item take over what is shown of pages that were written, if there is anything, and if it is due or `always`.
    pub(crate) fn take_over_changes(&self, ino: u64, always: bool) -> Result<()> {
        match self.table.get(ino) {
            Some(inode) if inode.changed.is_some() => {}
            _ => return Ok(()),
        }
        let Some(pin) = self.pin_live(ino)? else { return Ok(()) };
        // None when it is on its way back: whoever gives it back does this.
        let locks = self.store().lock_now(ino, LockMode::Write)?;
        let _state = pin.data.write();
        match &locks {
            Some(locks) => self.take_over_locked(locks, &pin, always),
            None => Ok(()),
        }
    }

    /// The same for those that were written while nobody looked.
    pub(crate) fn take_over_all_changes(&self) -> Result<()> {
        if !self.changed_unseen.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let mut done = Ok(());
        self.table.for_each_in(0, u64::MAX, |inode| {
            if done.is_ok() {
                done = self.take_over_changes(inode.ino, true);
            }
        });
        if done.is_err() {
            self.changed_unseen.store(true, Ordering::Release);
        }
        done
    }

    /// Whoever gives back a lock for writing, which nobody else uses, does this for each inode when its pages are written. From then on
    /// others may look.
    pub(crate) fn end_changes_for_revoke(&self, inode: &MemInode) {
        while inode.changed.is_some() {
            let locks = self.store().lock_going_back(inode.ino);
            let taken = locks.and_then(|locks| {
                let _state = inode.data.write();
                self.take_over_locked(&locks, inode, true)
            });
            match taken {
                Err(Error::NoMemory | Error::Interrupted) if self.store().trans.check().is_ok() => {
                    time::sleep(RETRY);
                }
                // It is lost, as pages are that could not be written.
                _ => inode.changed.end(),
            }
        }
        inode.changed.ask();
        inode.end_dirty();
        self.pay_all(inode);
    }

    fn take_over_locked(&self, locks: &Locks<'_>, mem: &MemInode, always: bool) -> Result<()> {
        let Some(written) = mem.changed.shown() else { return Ok(()) };
        let mut inode = self.load_file(locks, mem.ino)?;
        if !always && !mem.changed.is_due(&inode) {
            return Ok(());
        }
        // Who wants to know the attributes waits until it is done.
        let answered = self.behind.begin_known(mem);
        self.touch_pages(locks, mem, &mut inode, Touches { written: Some(written), mapped: false })?;
        drop(answered);
        Ok(())
    }

    /// Adds what of a page can be written to blocks that it has to what is `in_place`, and writes the rest.
    fn write_page<'d>(
        &self,
        locks: &Locks<'_>,
        state: &mut DataState,
        inode: &mut Inode,
        (mut at, mut bytes): (u64, &'d [u8]),
        in_place: &mut InPlace<'d>,
    ) -> Result<()> {
        let size = inode.size();
        while !bytes.is_empty() && at < size {
            let block = at / DATA_BLOCK_BYTES;
            let known = in_place.extent.filter(|extent| extent.first <= block && block < extent.end());
            let extent = match known {
                Some(extent) => Some(extent),
                None => self.extent_from(locks, inode.ino, block)?,
            };
            in_place.extent = extent;
            let has_blocks = |extent: &Extent| {
                extent.first <= block
                    && extent.blkno != 0
                    && !self.store().may_be_written(inode.ino, extent.fences)
            };
            let len = match extent.filter(has_blocks) {
                Some(extent) => {
                    let end = extent.end().min(size.div_ceil(DATA_BLOCK_BYTES));
                    let room = usize::try_from((end - block) * DATA_BLOCK_BYTES).unwrap_or(usize::MAX);
                    let len = room.min(bytes.len());
                    in_place.add(&extent, block, &bytes[..len])?;
                    len
                }
                None => {
                    let room = usize::try_from(size - at).unwrap_or(usize::MAX);
                    let data = &bytes[..bytes.len().min(room)];
                    let piece = Piece { offset: at, data, privileged: true, written: None };
                    match self.write_step(locks, state, inode, piece, &mut |_| ())? {
                        0 => return Err(Error::NoSpace),
                        len => {
                            in_place.elsewhere = true;
                            in_place.extent = None;
                            len
                        }
                    }
                }
            };
            at += len as u64;
            bytes = &bytes[len..];
        }
        Ok(())
    }

    /// Blocks that were allocated have data now.
    fn map_written(
        &self,
        locks: &Locks<'_>,
        inode: &mut Inode,
        blocks: Range<u64>,
        touches: &mut Touches,
        privileged: bool,
    ) -> Result<()> {
        let mut from = Some(blocks.start);
        while let Some(first) = from {
            let written = |e: Extent| Some(Extent { flags: 0, ..e });
            let remap = self.remap(locks, inode.ino, first, blocks.end - 1, None, written)?;
            from = remap.next;
            let hold = locks.hold(remap_need(&remap, privileged))?;
            let mut new = inode.clone();
            let mut change = Change::new(&hold);
            let mut left = *touches;
            let touch = left.take(&mut new, self.store().now());
            change.inode(&mut new, touch)?;
            remap.prepare(&mut change, &mut new)?;
            remap.finish(self.store(), &hold, new.ino);
            change.finish(&[&new]);
            (*inode, *touches) = (new, left);
        }
        Ok(())
    }

    fn try_prepare_pages(&self, ino: u64, offset: u64, end: u64) -> Result<()> {
        let end_block = end.div_ceil(DATA_BLOCK_BYTES);
        let pin = self.pin(ino)?;
        let locks = self.store().lock(&[(ino, LockMode::Write)])?;
        let mut state = pin.data.write();
        self.write_gathered(&locks, &mut state, &pin)?;
        let mut inode = self.load_file(&locks, ino)?;
        inode.check_changeable()?;
        self.finish_truncate_locked(&locks, &mut inode)?;
        let mut block = offset / DATA_BLOCK_BYTES;
        while block < end_block {
            let found = self.extent_from(&locks, ino, block)?;
            block = match found.filter(|e| e.first <= block) {
                Some(extent) if extent.blkno == 0 => return Err(Error::NotSupported),
                Some(extent) if self.store().may_be_written(ino, extent.fences) => {
                    let part = extent.part(block, extent.end().min(end_block));
                    self.exchange_blocks(&locks, &mut state, &mut inode, part)?;
                    block
                }
                Some(extent) if extent.is_written() => extent.end(),
                Some(extent) => {
                    let part = extent.part(block, extent.end().min(end_block));
                    if !self.owe_blocks(&pin, part.len) {
                        self.write_zeros(&locks, &mut inode, &part)?;
                    }
                    part.end()
                }
                // And come here again.
                None => {
                    let hole_end = found.map_or(end_block, |e| e.first.min(end_block));
                    let (first, end) = (block * DATA_BLOCK_BYTES, hole_end * DATA_BLOCK_BYTES);
                    self.fill_holes(&locks, &mut state, &mut inode, first, end)?;
                    block
                }
            };
        }
        Ok(())
    }

    /// Gives data to blocks that have none, as they are read.
    fn write_zeros(&self, locks: &Locks<'_>, inode: &mut Inode, part: &Extent) -> Result<()> {
        let buf = IoBuf::zeroed(part.len.min(COPY_BLOCKS) as usize * BLOCK_LEN)?;
        let mut block = part.first;
        while block < part.end() {
            let len = buf.len().min((part.end() - block) as usize * BLOCK_LEN);
            self.store().device().write(part.blkno_of(block) * DATA_BLOCK_BYTES, &buf[..len])?;
            block += (len / BLOCK_LEN) as u64;
        }
        self.store().note_data_written();
        let mut unseen = Touches { written: None, mapped: false };
        self.map_written(locks, inode, part.first..part.end(), &mut unseen, false)
    }

    /// Gives the first blocks of an extent's part others with the same content.
    fn exchange_blocks(
        &self,
        locks: &Locks<'_>,
        state: &mut DataState,
        inode: &mut Inode,
        old: Extent,
    ) -> Result<()> {
        let run = self.reserve_run(locks, state, inode, old.first, old.len.min(COPY_BLOCKS))?;
        let new = self.extent_of(&run, old.first, old.flags);
        if old.is_written()
            && let Err(error) = self.copy_blocks(old.blkno, run.start, run.len)
        {
            self.store().unreserve_data(run);
            return Err(error);
        }
        self.map_prepared(locks, inode, new, run, true)
    }

    fn map_prepared(
        &self,
        locks: &Locks<'_>,
        inode: &mut Inode,
        extent: Extent,
        run: DataRun,
        replaces: bool,
    ) -> Result<()> {
        let mut new = inode.clone();
        let mapping = Mapping { touch: Touch::Meta, replaces, privileged: false };
        self.map_run(locks, &mut new, extent, run, mapping)?;
        *inode = new;
        Ok(())
    }

    /// Copies at most [`COPY_BLOCKS`].
    fn copy_blocks(&self, from: u64, to: u64, blocks: u64) -> Result<()> {
        let mut buf = IoBuf::zeroed(blocks as usize * BLOCK_LEN)?;
        self.store().device().read(from * DATA_BLOCK_BYTES, &mut buf)?;
        self.store().device().write(to * DATA_BLOCK_BYTES, &buf)?;
        self.store().note_data_written();
        Ok(())
    }
}
