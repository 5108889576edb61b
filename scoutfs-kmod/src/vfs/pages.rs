// SPDX-License-Identifier: GPL-2.0-only
//! The page cache: filling, writing back, mapping to memory.
//!
//! Pages become dirty by mappings to memory alone. Before a program may write to one, the core prepares it (`Fs::prepare_pages`), so that
//! a full volume is a signal then and no loss later.
//!
//! Who holds folios and waits for the core is let in by it when these folios are to be dropped, but only for what it asks about
//! (`caches`). So a request of readahead is one of the core's, over all folios that are held.

use core::ffi::c_int;
use core::mem::zeroed;
use core::ptr::null_mut;

use kernel::bindings;
use scoutfs_env::IoBuf;
use scoutfs_fs::{Error, Fs};

use super::{inode, with};
use crate::ffi;
use crate::kobj::error::{code, Errno, Result};
use crate::kobj::folio::{fill_slice, stable_slice, zero_from, Faulting, LockedFolio, PAGE};

/// Bytes that are read ahead at most: what is more is not needed yet.
const READ_AHEAD: u64 = 2 << 20;

pub(super) static OPS: bindings::address_space_operations = bindings::address_space_operations {
    read_folio: Some(read_folio),
    readahead: Some(readahead),
    writepages: Some(writepages),
    launder_folio: Some(launder_folio),
    dirty_folio: Some(bindings::filemap_dirty_folio),
    migrate_folio: Some(bindings::filemap_migrate_folio),
    // SAFETY: every member is an option of a function.
    ..unsafe { zeroed() }
};

static MAPPED: bindings::vm_operations_struct = bindings::vm_operations_struct {
    fault: Some(fault),
    map_pages: Some(bindings::filemap_map_pages),
    page_mkwrite: Some(page_mkwrite),
    // SAFETY: every member is an option of a function.
    ..unsafe { zeroed() }
};

/// Fills a folio from the core, and unlocks it.
///
/// # Safety
///
/// The folio is locked and not up to date.
unsafe fn fill(inode: *mut bindings::inode, folio: *mut bindings::folio) -> Result<()> {
    // SAFETY: by the contract nobody else reads or writes its memory.
    unsafe {
        let pos = ffi::scoutfs_folio_pos(folio).unsigned_abs();
        let memory = fill_slice(folio);
        let read = with(inode, |fs, ino| fs.read(ino, pos, memory));
        if let Ok(read) = read {
            memory[read..].fill(0);
        }
        bindings::folio_end_read(folio, read.is_ok());
        read.map(drop)
    }
}

unsafe extern "C" fn read_folio(_file: *mut bindings::file, folio: *mut bindings::folio) -> c_int {
    // SAFETY: the VFS gives a locked folio of a file of ours.
    code(unsafe { fill((*ffi::scoutfs_folio_mapping(folio)).host, folio) })
}

unsafe extern "C" fn readahead(rac: *mut bindings::readahead_control) {
    // SAFETY: the VFS gives a run of locked folios of a file of ours, which follow each other.
    unsafe {
        let inode = (*(*rac).mapping).host;
        let first = (*rac)._index as u64 * PAGE;
        let len = u64::from((*rac)._nr_pages) * PAGE;
        if len > READ_AHEAD {
            // The VFS takes all folios back.
            return;
        }
        let Ok(mut buf) = IoBuf::zeroed(len as usize) else { return };
        let Ok(read) = with(inode, |fs, ino| fs.read(ino, first, &mut buf)) else { return };
        buf[read..].fill(0);
        let mut at = 0;
        while at < buf.len() {
            let folio = ffi::scoutfs_readahead_folio(rac);
            if folio.is_null() {
                return;
            }
            let end = at + ffi::scoutfs_folio_size(folio);
            fill_slice(folio).copy_from_slice(&buf[at..end]);
            bindings::folio_end_read(folio, true);
            at = end;
        }
    }
}

/// Writes a folio to the device.
///
/// # Safety
///
/// The folio is locked, and was marked clean for this. It is unlocked if so wanted.
unsafe fn write_folio(
    mapping: *mut bindings::address_space,
    folio: *mut bindings::folio,
    unlock: bool,
) -> Result<()> {
    // SAFETY: by the contract. From the start of the writeback on nobody changes its memory: a program that wants to waits in
    // `page_mkwrite`, and so does who removes or fills pages.
    unsafe {
        let inode = (*mapping).host;
        let pos = ffi::scoutfs_folio_pos(folio).unsigned_abs();
        let size = inode::size(inode);
        if pos >= size {
            // It was cut off meanwhile.
            if unlock {
                bindings::folio_unlock(folio);
            }
            return Ok(());
        }
        if size - pos < ffi::scoutfs_folio_size(folio) as u64 {
            zero_from(folio, size);
        }
        bindings::__folio_start_writeback(folio, false);
        if unlock {
            bindings::folio_unlock(folio);
        }
        let memory = stable_slice(folio);
        let len = usize::try_from(size - pos).unwrap_or(usize::MAX).min(memory.len());
        let written = with(inode, |fs, ino| write_all(fs, ino, pos, &memory[..len]));
        match &written {
            Ok(()) => {}
            // Who wanted it written was killed; somebody else will. It cannot go while it is under writeback.
            Err(Errno::INTR) => drop(bindings::filemap_dirty_folio(mapping, folio)),
            Err(e) => ffi::scoutfs_mapping_set_error(mapping, e.negative()),
        }
        bindings::folio_end_writeback(folio);
        written
    }
}

fn write_all(fs: &Fs, ino: u64, pos: u64, bytes: &[u8]) -> scoutfs_fs::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match fs.write_pages(ino, pos + done as u64, &bytes[done..])? {
            0 => return Err(Error::NoSpace),
            written => done += written,
        }
    }
    Ok(())
}

unsafe extern "C" fn writepages(
    mapping: *mut bindings::address_space,
    wbc: *mut bindings::writeback_control,
) -> c_int {
    let (mut error, mut killed) = (0, false);
    let mut folio = null_mut();
    loop {
        // SAFETY: the VFS gives a mapping of ours; the folio is what the call before gave.
        folio = unsafe { bindings::writeback_iter(mapping, wbc, folio, &mut error) };
        if folio.is_null() {
            return error;
        }
        // SAFETY: it is given locked and marked clean. What is not written any more is dirty again before it is unlocked.
        error = unsafe {
            if killed {
                bindings::filemap_dirty_folio(mapping, folio);
                bindings::folio_unlock(folio);
                Errno::INTR.negative()
            } else {
                let written = write_folio(mapping, folio, true);
                killed = written == Err(Errno::INTR);
                code(written)
            }
        };
    }
}

/// Writes a dirty folio that is about to be removed.
unsafe extern "C" fn launder_folio(folio: *mut bindings::folio) -> c_int {
    // SAFETY: the VFS gives a locked folio of a file of ours.
    unsafe {
        if bindings::folio_clear_dirty_for_io(folio) {
            let written = write_folio(ffi::scoutfs_folio_mapping(folio), folio, false);
            if written == Err(Errno::INTR) {
                return Errno::INTR.negative();
            }
            // Another error is kept for who syncs: the folio goes all the same.
        }
    }
    0
}

/// A program reads or writes a page that is not there.
unsafe extern "C" fn fault(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
    // SAFETY: the VFS gives a fault in a mapping of ours. Pages are filled while it is under way, but not by it.
    unsafe {
        let file = (*(*vmf).__bindgen_anon_1.vma).vm_file;
        match inode::renew((*file).f_inode) {
            Ok(()) => bindings::filemap_fault(vmf),
            Err(_) => bindings::vm_fault_reason_VM_FAULT_SIGBUS,
        }
    }
}

/// Maps a file to memory.
pub(super) unsafe extern "C" fn mmap(
    _file: *mut bindings::file,
    vma: *mut bindings::vm_area_struct,
) -> c_int {
    // SAFETY: the VFS gives a new mapping of a file of ours.
    unsafe { (*vma).vm_ops = &MAPPED };
    0
}

/// A program is about to write to a page that is mapped.
unsafe extern "C" fn page_mkwrite(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
    // SAFETY: the VFS gives a fault in a mapping of ours, whose page is held.
    unsafe {
        let file = (*(*vmf).__bindgen_anon_1.vma).vm_file;
        let inode = (*file).f_inode;
        ffi::scoutfs_sb_start_pagefault((*inode).i_sb);
        let answer =
            make_writable(inode, ffi::scoutfs_page_folio((*vmf).page), (*vmf).__bindgen_anon_1.pgoff as u64);
        ffi::scoutfs_sb_end_pagefault((*inode).i_sb);
        answer
    }
}

/// # Safety
///
/// As [`page_mkwrite`].
unsafe fn make_writable(
    inode: *mut bindings::inode,
    folio: *mut bindings::folio,
    index: u64,
) -> bindings::vm_fault_t {
    // SAFETY: by the contract.
    unsafe {
        let mapping = (*inode).i_mapping;
        if inode::renew(inode).is_err() {
            return bindings::vm_fault_reason_VM_FAULT_SIGBUS;
        }
        let _faulting = Faulting::enter(mapping);
        let pos = index * PAGE;
        let size = inode::size(inode);
        if pos >= size {
            return bindings::vm_fault_reason_VM_FAULT_SIGBUS;
        }
        match with(inode, |fs, ino| fs.prepare_pages(ino, pos, PAGE.min(size - pos))) {
            Ok(()) => {}
            Err(Errno::NOMEM) => return bindings::vm_fault_reason_VM_FAULT_OOM,
            Err(_) => return bindings::vm_fault_reason_VM_FAULT_SIGBUS,
        }
        let Some(locked) = LockedFolio::lock(folio, mapping) else {
            return bindings::vm_fault_reason_VM_FAULT_NOPAGE;
        };
        bindings::folio_mark_dirty(locked.as_ptr());
        bindings::folio_wait_writeback(locked.as_ptr());
        locked.leave_locked();
        bindings::vm_fault_reason_VM_FAULT_LOCKED
    }
}
