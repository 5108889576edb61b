// SPDX-License-Identifier: GPL-2.0-only
//! The page cache: filling, writing back, mapping to memory.
//!
//! Pages become dirty by mappings to memory alone. Before a program may write to one, the core prepares it (`Fs::prepare_pages`), so that
//! a full volume is a signal then and no loss later.
//!
//! Who holds folios and waits for the core is let in by it when these folios are to be dropped, but only for what it asks about
//! (`caches`). So a request of readahead is one of the core's, over all folios that are held. It is not waited for: the folios stay
//! locked until the device has filled them. So whoever has the core take blocks away from a file drops the pages before
//! (`scoutfs_fs::data::read_ahead`).

use core::ffi::c_int;
use core::mem::zeroed;
use core::ptr::null_mut;

use kernel::bindings;
use kernel::ffi::c_long;
use scoutfs_env::{try_box, IoBuf, Vec};
use scoutfs_fs::{Error, Fs};

use super::{inode, with};
use crate::ffi;
use crate::kobj::error::{code, Errno, Result};
use crate::kobj::folio::{fill_slice, stable_slice, zero_from, Faulting, LockedFolio, PAGE};

/// Bytes that are read ahead at most: what is more is not needed yet.
const READ_AHEAD: u64 = 2 << 20;
/// Folios, and bytes of several, that are written back at once.
const RUN_FOLIOS: usize = 64;
const RUN_BYTES: u64 = 256 << 10;

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
    // SAFETY: the VFS gives a run of locked folios of a file of ours, which follow each other. What we do not take it takes back.
    unsafe {
        let inode = (*(*rac).mapping).host;
        let first = (*rac)._index as u64 * PAGE;
        let pages = (*rac)._nr_pages as usize;
        let mut ahead = Ahead { folios: Vec::new(), first, valid: None };
        let mut memory = Vec::new();
        if pages as u64 * PAGE > READ_AHEAD
            || ahead.folios.reserve(pages).is_err()
            || memory.reserve(pages).is_err()
        {
            return;
        }
        loop {
            let folio = ffi::scoutfs_readahead_folio(rac);
            if folio.is_null() {
                break;
            }
            // There is room for as many as there are pages.
            let _ = ahead.folios.push_within_capacity(folio);
            let _ = memory.push_within_capacity(fill_slice(folio));
        }
        // Where it is dropped they end as not read, and who needs one reads it.
        let done = try_box(move |valid: Option<usize>| {
            ahead.valid = valid;
            drop(ahead);
        });
        if let Ok(done) = done {
            let _ = with(inode, |fs, ino| fs.read_ahead(ino, first, memory, done));
        }
    }
}

/// Locked folios that follow each other in a file, not up to date, which are being read. They are unlocked when this is dropped.
struct Ahead {
    folios: Vec<*mut bindings::folio>,
    /// Where they begin in the file.
    first: u64,
    /// How many bytes were read, if they were.
    valid: Option<usize>,
}

// SAFETY: locked folios belong to no task.
unsafe impl Send for Ahead {}

impl Drop for Ahead {
    fn drop(&mut self) {
        for folio in &self.folios {
            // SAFETY: locked, and so held by the cache; nobody else reads or writes it.
            unsafe {
                if let Some(valid) = self.valid {
                    zero_from(*folio, self.first + valid as u64);
                }
                bindings::folio_end_read(*folio, self.valid.is_some());
            }
        }
    }
}

/// Folios that follow each other, under writeback: from the start of that on nobody changes their memory. A program that wants to waits in
/// `page_mkwrite`, and so does who removes or fills pages. It also keeps them in the cache.
struct Run {
    folios: [*mut bindings::folio; RUN_FOLIOS],
    len: usize,
    /// Where the first one begins in the file, and where the last one ends.
    pos: u64,
    end: u64,
}

impl Run {
    /// Puts a folio under writeback, which is locked and was marked clean for this. It stays locked.
    ///
    /// # Safety
    ///
    /// As said, and it begins before the end of the file, which is at `size`.
    unsafe fn begin(folio: *mut bindings::folio, size: u64) -> Self {
        let mut run = Run { folios: [null_mut(); RUN_FOLIOS], len: 0, pos: 0, end: 0 };
        // SAFETY: by the contract.
        unsafe {
            run.pos = ffi::scoutfs_folio_pos(folio).unsigned_abs();
            run.end = run.pos;
            run.add(folio, size);
        }
        run
    }

    /// The same with a folio that begins where the run ends, which is not full.
    ///
    /// # Safety
    ///
    /// As [`Run::begin`].
    unsafe fn add(&mut self, folio: *mut bindings::folio, size: u64) {
        let Some(place) = self.folios.get_mut(self.len) else { return };
        *place = folio;
        self.len += 1;
        // SAFETY: by the contract.
        unsafe {
            self.end += ffi::scoutfs_folio_size(folio) as u64;
            if size < self.end {
                zero_from(folio, size);
            }
            bindings::__folio_start_writeback(folio, false);
        }
    }

    /// Adds dirty folios behind the last one that nobody has locked. To wait for one would be to wait for requests about others, which
    /// may wait for this writeback.
    ///
    /// # Safety
    ///
    /// The run is of this mapping.
    unsafe fn extend(
        &mut self,
        mapping: *mut bindings::address_space,
        wbc: *mut bindings::writeback_control,
        size: u64,
    ) {
        while self.len < RUN_FOLIOS && self.end < size {
            // SAFETY: the mapping is alive, and the folio is locked and held until it is under writeback.
            unsafe {
                let Some(next) = LockedFolio::find_unlocked(mapping, self.end / PAGE) else { return };
                if next.pos() != self.end
                    || next.end() - self.pos > RUN_BYTES
                    || next.is_under_writeback()
                    || !bindings::folio_clear_dirty_for_io(next.as_ptr())
                {
                    return;
                }
                (*wbc).nr_to_write -= ((next.end() - next.pos()) / PAGE) as c_long;
                self.add(next.as_ptr(), size);
            }
        }
    }

    fn folios(&self) -> &[*mut bindings::folio] {
        self.folios.get(..self.len).unwrap_or_default()
    }

    /// Writes all to the device.
    ///
    /// # Safety
    ///
    /// The run is of this mapping, and ends here. No folio is locked but the first one, if it is alone.
    unsafe fn write(self, mapping: *mut bindings::address_space, size: u64) -> Result<()> {
        // SAFETY: by the contract, and what is said of the type.
        unsafe {
            let written = with((*mapping).host, |fs, ino| {
                let len = usize::try_from(self.end.min(size) - self.pos).unwrap_or(usize::MAX);
                // One write is worth a copy.
                let copy = if self.len > 1 { IoBuf::zeroed((self.end - self.pos) as usize).ok() } else { None };
                let mut at = 0;
                if let Some(mut copy) = copy {
                    for folio in self.folios() {
                        let bytes = stable_slice(*folio);
                        copy[at..at + bytes.len()].copy_from_slice(bytes);
                        at += bytes.len();
                    }
                    return write_all(fs, ino, self.pos, &copy[..len]);
                }
                for folio in self.folios() {
                    let bytes = stable_slice(*folio);
                    write_all(fs, ino, self.pos + at as u64, &bytes[..bytes.len().min(len - at)])?;
                    at += bytes.len();
                }
                Ok(())
            });
            match &written {
                Ok(()) | Err(Errno::INTR) => {}
                Err(e) => ffi::scoutfs_mapping_set_error(mapping, e.negative()),
            }
            for folio in self.folios() {
                if written == Err(Errno::INTR) {
                    // Who wanted it written was killed; somebody else will. It cannot go while it is under writeback.
                    bindings::filemap_dirty_folio(mapping, *folio);
                }
                bindings::folio_end_writeback(*folio);
            }
            written
        }
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
            let size = inode::size((*mapping).host);
            if killed {
                bindings::filemap_dirty_folio(mapping, folio);
                bindings::folio_unlock(folio);
                Errno::INTR.negative()
            } else if ffi::scoutfs_folio_pos(folio).unsigned_abs() >= size {
                // It was cut off meanwhile.
                bindings::folio_unlock(folio);
                0
            } else {
                let mut run = Run::begin(folio, size);
                bindings::folio_unlock(folio);
                run.extend(mapping, wbc, size);
                let written = run.write(mapping, size);
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
        let mapping = ffi::scoutfs_folio_mapping(folio);
        let size = inode::size((*mapping).host);
        if bindings::folio_clear_dirty_for_io(folio) && ffi::scoutfs_folio_pos(folio).unsigned_abs() < size {
            let written = Run::begin(folio, size).write(mapping, size);
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
