// SPDX-License-Identifier: GPL-2.0-only
//! Open files: reading, writing, seeking, syncing, allocating.
//!
//! # Writing
//!
//! Before the end of a file data are changed in the page cache, and written later (`vfs/pages.rs`): the core shows that the file has changed,
//! and keeps its blocks; a hole gets some, without data.
//!
//! What is behind the end, or is a megabyte at least, goes through, and so does what the core cannot promise to write later: bytes are copied
//! from the program into memory of ours, the core writes them to the device or gathers them (those at the end of a file, see
//! `scoutfs_fs::data::delayed`), and the pages that the cache has are brought up to date. Those of a stream, which the cache does not have, are copied into new pages at once, which the core then writes or
//! gathers.
//!
//! Folios are locked before the core is called: so when its cluster lock goes back right afterwards, who drops pages waits for them.
//! All of it is under [`Invalidation`], so that meanwhile no page comes into the cache and none becomes dirty by a mapping; those that were
//! dirty in a range that is written through are written before. `fsync` then has the core commit.
//!
//! With O_DIRECT, and with O_APPEND, where the core alone knows the place, pages are removed instead.
//!
//! # Reading
//!
//! Through the page cache, or with O_DIRECT from the core into memory of ours, and from there to the program.

use core::mem::zeroed;

use kernel::bindings;
use kernel::ffi::{c_int, c_long, c_uint};
use scoutfs_env::{IoBuf, Vec};
use scoutfs_fs::data::{AllocateMode, Copied};
use scoutfs_fs::inode::Drops;
use scoutfs_fs::Fs;

use super::{inode, ioctl, locks, pages, readers, with, Table};
use crate::ffi;
use crate::kobj::error::{check, check_long, code, count, Errno, Result};
use crate::kobj::folio::{fill_slice, offset, position, InodeLock, Invalidation, LockedFolio, PAGE};

/// Bytes that are copied at once.
const CHUNK: usize = 1 << 20;
/// From so many bytes on it is worth a request for each large folio to save a copy.
const FRESH: usize = 64 << 10;

pub(super) static OPS: Table<bindings::file_operations> = Table(bindings::file_operations {
    llseek: Some(llseek),
    read_iter: Some(read_iter),
    write_iter: Some(write_iter),
    mmap: Some(pages::mmap),
    open: Some(open),
    release: Some(release),
    fsync: Some(fsync),
    fallocate: Some(fallocate),
    lock: Some(locks::lock),
    flock: Some(locks::flock),
    flush: Some(locks::flush),
    splice_read: Some(splice_read),
    splice_write: Some(bindings::iter_file_splice_write),
    unlocked_ioctl: Some(ioctl::ioctl),
    compat_ioctl: bindings::compat_ptr_ioctl,
    // SAFETY: every member is an option of a function, a pointer or a number.
    ..unsafe { zeroed() }
});

/// Whether a file can be changed through this opening of it.
///
/// # Safety
///
/// The file is alive.
unsafe fn writes(file: *mut bindings::file) -> bool {
    // SAFETY: by the contract.
    unsafe { (*file).f_mode & ffi::SCOUTFS_FMODE_WRITE != 0 }
}

/// Files and directories.
pub(super) unsafe extern "C" fn open(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
    // SAFETY: the VFS gives an inode of ours and a new file.
    code(unsafe {
        check(bindings::generic_file_open(inode, file)).and_then(|_| {
            with(inode, |fs, ino| fs.open(ino, writes(file)))?;
            (*file).f_mode |= ffi::SCOUTFS_FMODE_CAN_ODIRECT;
            Ok(())
        })
    })
}

/// Files and directories.
pub(super) unsafe extern "C" fn release(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
    // SAFETY: the VFS gives an inode of ours and the last use of a file that was opened above.
    unsafe {
        let writes = writes(file);
        // Others that write are counted.
        let dirty = writes && ffi::scoutfs_mapping_is_dirty((*inode).i_mapping);
        let released = with(inode, |fs, ino| {
            let dropped = locks::drop_locks_of(fs, ino, file);
            match dirty {
                true => fs.release_dirty(ino),
                false => fs.release(ino, writes),
            }
            dropped
        });
        code(released)
    }
}

unsafe extern "C" fn fsync(file: *mut bindings::file, first: i64, last: i64, _datasync: c_int) -> c_int {
    // SAFETY: the VFS gives a file of ours.
    code(unsafe {
        check(bindings::file_write_and_wait_range(file, first, last))
            .and_then(|_| with((*file).f_inode, |fs, ino| fs.fsync(ino)))
            // What the core had gathered and could not write.
            .and_then(|()| check(bindings::file_check_and_advance_wb_err(file)).map(drop))
    })
}

/// A directory has no pages.
pub(super) unsafe extern "C" fn fsync_dir(
    file: *mut bindings::file,
    _first: i64,
    _last: i64,
    _datasync: c_int,
) -> c_int {
    // SAFETY: the VFS gives a directory of ours.
    code(unsafe { with((*file).f_inode, |fs, ino| fs.fsync(ino)) })
}

unsafe extern "C" fn llseek(file: *mut bindings::file, at: i64, whence: c_int) -> i64 {
    const SEEK_DATA: c_int = 3;
    const SEEK_HOLE: c_int = 4;
    // SAFETY: the VFS gives a file of ours.
    unsafe {
        let inode = (*file).f_inode;
        if whence != SEEK_DATA && whence != SEEK_HOLE {
            if let Err(e) = inode::renew(inode) {
                return e.negative().into();
            }
            return bindings::generic_file_llseek(file, at, whence);
        }
        let seek = || {
            if at < 0 {
                return Err(Errno::NXIO);
            }
            let at = position(at)?;
            // What a program has written by a mapping is data.
            check(bindings::filemap_write_and_wait_range((*inode).i_mapping, offset(at), i64::MAX))?;
            with(
                inode,
                |fs, ino| if whence == SEEK_DATA { fs.seek_data(ino, at) } else { fs.seek_hole(ino, at) },
            )
        };
        match seek() {
            Ok(found) => bindings::vfs_setpos(file, offset(found), i64::MAX),
            Err(e) => e.negative().into(),
        }
    }
}

unsafe extern "C" fn read_iter(iocb: *mut bindings::kiocb, to: *mut bindings::iov_iter) -> isize {
    // SAFETY: the VFS gives a request for a file of ours.
    unsafe {
        let inode = (*(*iocb).ki_filp).f_inode;
        if let Err(e) = inode::renew(inode) {
            return e.negative() as isize;
        }
        readers::note(inode);
        if (*iocb).ki_flags & bindings::IOCB_DIRECT as c_int == 0 {
            return bindings::generic_file_read_iter(iocb, to);
        }
        count(read_direct(inode, iocb, to)) as isize
    }
}

/// Gives pages of the cache to a pipe.
unsafe extern "C" fn splice_read(
    file: *mut bindings::file,
    pos: *mut i64,
    pipe: *mut bindings::pipe_inode_info,
    len: usize,
    flags: c_uint,
) -> isize {
    // SAFETY: the VFS gives a file of ours.
    unsafe {
        if let Err(e) = inode::renew((*file).f_inode) {
            return e.negative() as isize;
        }
        readers::note((*file).f_inode);
        bindings::filemap_splice_read(file, pos, pipe, len, flags)
    }
}

/// Reads past the cache.
///
/// # Safety
///
/// As the VFS calls.
unsafe fn read_direct(
    inode: *mut bindings::inode,
    iocb: *mut bindings::kiocb,
    to: *mut bindings::iov_iter,
) -> Result<usize> {
    // SAFETY: by the contract.
    unsafe {
        let len = ffi::scoutfs_iov_iter_count(to);
        let mut pos = position((*iocb).ki_pos)?;
        if len == 0 {
            return Ok(0);
        }
        let last = pos.saturating_add(len as u64 - 1);
        check(bindings::filemap_write_and_wait_range((*inode).i_mapping, offset(pos), offset(last)))?;
        let skip = (pos % PAGE) as usize;
        let mut buf = IoBuf::zeroed((skip + len).min(CHUNK).next_multiple_of(PAGE as usize))?;
        let mut done = 0;
        while done < len {
            let skip = (pos % PAGE) as usize;
            let want = (len - done).min(buf.len() - skip);
            let part = &mut buf[skip..skip + want];
            let read = match with(inode, |fs, ino| fs.read(ino, pos, part)) {
                Ok(read) => read,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            };
            let copied = bindings::_copy_to_iter(buf[skip..].as_ptr().cast(), read, to);
            done += copied;
            pos += copied as u64;
            if copied < read && done == 0 {
                return Err(Errno::FAULT);
            }
            if copied < want {
                break;
            }
        }
        (*iocb).ki_pos = offset(pos);
        Ok(done)
    }
}

unsafe extern "C" fn write_iter(iocb: *mut bindings::kiocb, from: *mut bindings::iov_iter) -> isize {
    // SAFETY: the VFS gives a request for a file of ours.
    let written = unsafe {
        let file = (*iocb).ki_filp;
        let inode = (*file).f_inode;
        let lock = InodeLock::enter(inode);
        let written = inode::renew(inode).and_then(|()| write(inode, iocb, from));
        drop(lock);
        written.and_then(|written| {
            if written > 0 && (*iocb).ki_flags & ffi::SCOUTFS_IOCB_DSYNC != 0 {
                let end = (*iocb).ki_pos;
                check(bindings::vfs_fsync_range(file, end - written as i64, end - 1, 1))?;
            }
            Ok(written)
        })
    };
    count(written) as isize
}

/// Writes; the position moves behind what was written.
///
/// # Safety
///
/// As the VFS calls, with the inode locked.
unsafe fn write(
    inode: *mut bindings::inode,
    iocb: *mut bindings::kiocb,
    from: *mut bindings::iov_iter,
) -> Result<usize> {
    // SAFETY: by the contract.
    unsafe {
        let len = check_long(bindings::generic_write_checks(iocb, from))?.unsigned_abs();
        if len == 0 {
            return Ok(0);
        }
        inode::drop_privileges((*iocb).ki_filp)?;
        let how = if (*iocb).ki_flags & ffi::SCOUTFS_IOCB_APPEND != 0 {
            Place::End
        } else if (*iocb).ki_flags & bindings::IOCB_DIRECT as c_int != 0 {
            Place::PastPages
        } else {
            Place::Pages
        };
        let mut pos = position((*iocb).ki_pos)?;
        let mut buf = None;
        let mut done = 0;
        let mut result = Ok(());
        while done < len && result.is_ok() {
            if matches!(how, Place::Pages) {
                match write_pages(inode, pos, len - done, from) {
                    Ok(None) => {}
                    Ok(Some(0)) if ffi::scoutfs_fatal_signal_pending() => {
                        result = Err(Errno::INTR);
                        break;
                    }
                    Ok(Some(written)) => {
                        done += written;
                        pos += written as u64;
                        bindings::balance_dirty_pages_ratelimited((*inode).i_mapping);
                        continue;
                    }
                    Err(e) => {
                        result = Err(e);
                        break;
                    }
                }
            }
            let buf = match &mut buf {
                Some(buf) => buf,
                None => {
                    let skip = (pos % PAGE) as usize;
                    let room = (skip + len - done).min(CHUNK).next_multiple_of(PAGE as usize);
                    match IoBuf::zeroed(room) {
                        Ok(made) => buf.insert(made),
                        Err(e) => {
                            result = Err(e.into());
                            break;
                        }
                    }
                }
            };
            // Aligned in memory as in the file: whole blocks are written without another copy.
            let skip = (pos % PAGE) as usize;
            let want = (len - done).min(buf.len() - skip);
            let copied = bindings::_copy_from_iter(buf[skip..].as_mut_ptr().cast(), want, from);
            if copied == 0 {
                result = Err(Errno::FAULT);
                break;
            }
            let bytes = &buf[skip..skip + copied];
            let written = match how {
                Place::Pages => write_through(inode, pos, bytes),
                Place::PastPages => write_past(inode, Some(pos), bytes).map(|(_, written)| written),
                Place::End => write_past(inode, None, bytes).map(|(at, written)| {
                    pos = at;
                    written
                }),
            };
            let written = written.unwrap_or_else(|e| {
                result = Err(e);
                0
            });
            if written < copied {
                bindings::iov_iter_revert(from, copied - written);
            }
            done += written;
            pos += written as u64;
            if written < want {
                break;
            }
        }
        (*iocb).ki_pos = offset(pos);
        if done == 0 {
            result.map(|()| 0)
        } else {
            Ok(done)
        }
    }
}

/// Writes from the program into pages without another copy. Returns how much; `None` where that cannot be done.
///
/// # Safety
///
/// As [`write_over`].
unsafe fn write_pages(
    inode: *mut bindings::inode,
    pos: u64,
    want: usize,
    from: *mut bindings::iov_iter,
) -> Result<Option<usize>> {
    // SAFETY: by the contract.
    unsafe {
        if pos + want as u64 <= inode::size(inode) && want >= CHUNK {
            // The device gets it at once, which costs less than keeping it.
            return Ok(None);
        }
        if let Some(written) = write_over(inode, pos, want, from)? {
            return Ok(Some(written));
        }
        match want >= FRESH {
            true => write_fresh(inode, pos, want, from).map(|written| Some(written).filter(|len| *len > 0)),
            false => Ok(None),
        }
    }
}

/// Where a write goes.
#[derive(Clone, Copy)]
enum Place {
    /// To its offset, and into the cache.
    Pages,
    /// To its offset.
    PastPages,
    /// To the end of the file.
    End,
}

/// Writes back what is dirty in a range, and zeros what the cache has behind the end of the file if that moves.
///
/// # Safety
///
/// The inode is one of ours, with a reference, and locked.
unsafe fn prepare(
    inode: *mut bindings::inode,
    invalidation: &Invalidation,
    pos: u64,
    len: usize,
) -> Result<()> {
    // SAFETY: by the contract.
    unsafe {
        invalidation.write_back(pos, pos.saturating_add(len as u64 - 1))?;
        let size = inode::size(inode);
        if pos > size {
            invalidation.write_back(size, size)?;
            inode::zero_tail(inode, size);
        }
    }
    Ok(())
}

/// Changes data before the end of the file in the page cache, to be written later. Returns how much; `None`, with nothing changed, where it is to
/// be done otherwise.
///
/// # Safety
///
/// The inode is one of ours, with a reference, and locked. No folio and no lock of the core is held.
unsafe fn write_over(
    inode: *mut bindings::inode,
    pos: u64,
    want: usize,
    from: *mut bindings::iov_iter,
) -> Result<Option<usize>> {
    // SAFETY: by the contract. The program's memory was touched before, and is copied from only if it is still there.
    unsafe {
        if pos + want as u64 > inode::size(inode) {
            return Ok(None);
        }
        let want = want.min(CHUNK - (pos % CHUNK as u64) as usize);
        let want = want - bindings::fault_in_iov_iter_readable(from, want);
        if want == 0 {
            return Err(Errno::FAULT);
        }
        let end = pos + want as u64;
        let mapping = (*inode).i_mapping;
        let _invalidation = Invalidation::enter(mapping);
        // Before others are held: it is read about this one alone.
        for at in [pos, end] {
            if at % PAGE != 0 {
                pages::have(inode, at / PAGE)?;
            }
        }
        let mut folios = Vec::with_capacity(want / PAGE as usize + 2)?;
        let mut at = pos;
        while at < end {
            let folio = LockedFolio::make(mapping, at / PAGE, (end - at).max(PAGE))?;
            if !folio.is_uptodate() && (folio.pos() < pos || folio.end() > end) {
                return Ok(None);
            }
            folio.wait_for_writeback();
            at = folio.end();
            folios.push(folio)?;
        }
        let mut copy = || {
            let bytes = copy_in(&folios, pos, want, from);
            Copied { bytes, may_be_read: readers::were_there(inode) }
        };
        let Some(copied) = with(inode, |fs, ino| fs.change_pages(ino, pos, want as u64, &mut copy))? else {
            return Ok(None);
        };
        let end = pos + copied as u64;
        for folio in folios.iter().filter(|folio| folio.pos() < end) {
            folio.mark_uptodate();
            folio.mark_changed(pos, end, false);
        }
        Ok(Some(copied))
    }
}

/// Copies from a program into folios that are locked and follow each other, from `pos` on, without waiting for its memory. What it has of a
/// folio that is not up to date it has wholly. Returns how much.
///
/// # Safety
///
/// The folios have room for all.
unsafe fn copy_in(folios: &[LockedFolio], pos: u64, want: usize, from: *mut bindings::iov_iter) -> usize {
    let mut done = 0;
    for folio in folios {
        let at = pos + done as u64;
        let len = (want - done).min((folio.end() - at) as usize);
        // SAFETY: by the contract.
        let copied = unsafe {
            bindings::copy_folio_from_iter_atomic(folio.as_ptr(), (at - folio.pos()) as usize, len, from)
        };
        if copied < len {
            if folio.is_uptodate() {
                return done + copied;
            }
            // SAFETY: so much was taken just now.
            unsafe { bindings::iov_iter_revert(from, copied) };
            return done;
        }
        done += len;
    }
    done
}

/// Writes whole pages that the cache does not have: from the program into new folios, and from those to the device. Returns how much that
/// was: nothing where it is to be done otherwise.
///
/// # Safety
///
/// The inode is one of ours, with a reference, and locked. No folio and no lock of the core is held.
unsafe fn write_fresh(
    inode: *mut bindings::inode,
    pos: u64,
    want: usize,
    from: *mut bindings::iov_iter,
) -> Result<usize> {
    // SAFETY: by the contract. The program's memory was touched before, and is copied from only if it is still there.
    unsafe {
        let want = (want - want % PAGE as usize).min(CHUNK - (pos % CHUNK as u64) as usize);
        if pos % PAGE != 0 || bindings::fault_in_iov_iter_readable(from, want) != 0 {
            return Ok(0);
        }
        let mapping = (*inode).i_mapping;
        let invalidation = Invalidation::enter(mapping);
        prepare(inode, &invalidation, pos, want)?;
        let mut at = pos;
        let end = pos + want as u64;
        while at < end {
            let Ok(folio) = LockedFolio::make(mapping, at / PAGE, end - at) else { break };
            let len = folio.end().saturating_sub(at);
            let small = len < (end - at).min(FRESH as u64);
            if folio.is_uptodate() || folio.pos() != at || folio.end() > end || small {
                break;
            }
            let len = len as usize;
            let copied = bindings::copy_folio_from_iter_atomic(folio.as_ptr(), 0, len, from);
            if copied < len {
                bindings::iov_iter_revert(from, copied);
                break;
            }
            let bytes = &*fill_slice(folio.as_ptr());
            let later = |fs: &Fs, ino| fs.write_later(ino, Some(at), bytes, Drops::Nothing);
            let written = match with(inode, later) {
                Ok((_, written)) => written,
                Err(e) if at == pos => {
                    bindings::iov_iter_revert(from, len);
                    return Err(e);
                }
                // Who writes the rest hears of it.
                Err(_) => 0,
            };
            at += written as u64;
            if written < len {
                bindings::iov_iter_revert(from, len - written);
                break;
            }
            folio.mark_uptodate();
        }
        if at > inode::size(inode) {
            inode::set_size(inode, at);
        }
        Ok((at - pos) as usize)
    }
}

/// Writes bytes to the device, and to the pages that the cache has; whole pages come into it. Returns how much was written.
///
/// # Safety
///
/// The inode is one of ours, with a reference, and locked.
unsafe fn write_through(inode: *mut bindings::inode, pos: u64, bytes: &[u8]) -> Result<usize> {
    // SAFETY: by the contract.
    unsafe {
        let mapping = (*inode).i_mapping;
        let invalidation = Invalidation::enter(mapping);
        prepare(inode, &invalidation, pos, bytes.len())?;
        let folios = lock_folios(mapping, pos, pos + bytes.len() as u64)?;
        // Readers of these do not wait: they must see the bytes before the core shows that the file has changed.
        for folio in folios.iter().filter(|folio| folio.is_uptodate()) {
            folio.copy_from(pos, bytes);
        }
        let written = with(inode, |fs, ino| fs.write_later(ino, Some(pos), bytes, Drops::Nothing));
        let end = pos + written.as_ref().map_or(0, |(_, written)| *written as u64);
        for folio in folios.iter().filter(|folio| !folio.is_uptodate()) {
            if pos <= folio.pos() && end >= folio.end() {
                folio.copy_from(pos, bytes);
                folio.mark_uptodate();
            }
        }
        drop(folios);
        if end > inode::size(inode) {
            inode::set_size(inode, end);
        }
        if end < pos + bytes.len() as u64 {
            // They hold what was not written.
            invalidation.drop_pages(end, pos + bytes.len() as u64 - 1)?;
        }
        Ok(written?.1)
    }
}

/// Locks the folios of a range that are in the cache, and new ones for whole pages that are not.
///
/// # Safety
///
/// The mapping is alive, and nobody fills pages of it.
unsafe fn lock_folios(
    mapping: *mut bindings::address_space,
    first: u64,
    end: u64,
) -> Result<Vec<LockedFolio>> {
    let mut folios = Vec::new();
    let mut at = first;
    while at < end {
        let whole = at % PAGE == 0 && end - at >= PAGE;
        // SAFETY: by the contract.
        let folio = unsafe {
            if whole {
                LockedFolio::make(mapping, at / PAGE, end - at).ok()
            } else {
                LockedFolio::find(mapping, at / PAGE)
            }
        };
        at = match folio {
            Some(folio) => {
                let next = folio.end();
                folios.push(folio)?;
                next
            }
            None => (at / PAGE + 1) * PAGE,
        };
    }
    Ok(folios)
}

/// Writes bytes to the device at an offset or at the end of the file, and removes the pages that the cache has of them. Returns where
/// they are and how much was written.
///
/// # Safety
///
/// As [`write_through`].
unsafe fn write_past(inode: *mut bindings::inode, pos: Option<u64>, bytes: &[u8]) -> Result<(u64, usize)> {
    // SAFETY: by the contract.
    unsafe {
        let invalidation = Invalidation::enter((*inode).i_mapping);
        let (pos, written) = match pos {
            Some(pos) => {
                prepare(inode, &invalidation, pos, bytes.len())?;
                invalidation.drop_pages(pos, pos.saturating_add(bytes.len() as u64 - 1))?;
                (pos, with(inode, |fs, ino| fs.write(ino, pos, bytes))?)
            }
            None => {
                // The last page may be dirty. Should another node have moved the end, there is none of it.
                let size = inode::size(inode);
                prepare(inode, &invalidation, size, bytes.len())?;
                invalidation.drop_pages(size, u64::MAX)?;
                with(inode, |fs, ino| fs.write_later(ino, None, bytes, Drops::Nothing))?
            }
        };
        let end = pos + written as u64;
        if end > inode::size(inode) {
            inode::set_size(inode, end);
        }
        Ok((pos, written))
    }
}

unsafe extern "C" fn fallocate(file: *mut bindings::file, flags: c_int, at: i64, len: i64) -> c_long {
    let allocate = || {
        let flags = flags.unsigned_abs();
        let keep_size = flags & ffi::FALLOC_FL_KEEP_SIZE != 0;
        let mode = match flags & !ffi::FALLOC_FL_KEEP_SIZE {
            0 => AllocateMode::Allocate,
            ffi::FALLOC_FL_PUNCH_HOLE => AllocateMode::PunchHole,
            ffi::FALLOC_FL_ZERO_RANGE => AllocateMode::ZeroRange,
            _ => return Err(Errno::OPNOTSUPP),
        };
        let (at, len) = (position(at)?, position(len)?);
        // SAFETY: the VFS gives a file of ours that is open for writing.
        unsafe {
            let inode = (*file).f_inode;
            let _lock = InodeLock::enter(inode);
            inode::renew(inode)?;
            let size = inode::size(inode);
            let end = at.saturating_add(len);
            if !keep_size && end > size {
                // What the caller may have of a file.
                check(bindings::inode_newsize_ok(inode, offset(end)))?;
            }
            inode::drop_privileges(file)?;
            let invalidation = Invalidation::enter((*inode).i_mapping);
            let last = end.saturating_sub(1);
            invalidation.write_back(at.min(size), last)?;
            if last >= size {
                inode::zero_tail(inode, size);
            }
            if mode != AllocateMode::Allocate {
                // None comes back before the end.
                invalidation.drop_pages(at, last)?;
            }
            with(inode, |fs, ino| fs.fallocate(ino, mode, keep_size, at, len))?;
            inode::set_size(inode, with(inode, |fs, ino| fs.getattr(ino))?.size);
        }
        Ok(())
    };
    code(allocate()) as c_long
}
