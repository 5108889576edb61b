// SPDX-License-Identifier: GPL-2.0-only
//! The page cache: filling, writing back, mapping to memory.
//!
//! Pages become dirty by mappings to memory and by writes before the end of a file (`vfs/file.rs`). Before a program may change one by a
//! mapping, the core prepares it (`Fs::prepare_pages`), so that a full volume is a signal then and no loss later. What of a folio has
//! changed is noted (`kobj/changed.rs`), and only that is written: the rest may have no blocks.
//!
//! Who holds folios and waits for the core is let in by it when these folios are to be dropped, but only for what it asks about
//! (`caches`). So a request of readahead is one of the core's, over all folios that are held. It is not waited for: the folios stay
//! locked until the device has filled them. So whoever has the core take blocks away from a file drops the pages before
//! (`scoutfs_fs::data::read_ahead`).

use core::ffi::c_int;
use core::mem::zeroed;
use core::ptr::null_mut;

use kernel::bindings;
use kernel::ffi::{c_long, c_ulong};
use scoutfs_env::{try_box, Vec};

use super::{inode, readers, with};
use crate::ffi;
use crate::kobj::changed::{self, Changed};
use crate::kobj::error::{code, Errno, Result};
use crate::kobj::folio::{fill_slice, stable_slice, zero_from, Faulting, LockedFolio, PAGE};

/// Bytes that are read ahead at most: what is more is not needed yet.
const READ_AHEAD: u64 = 2 << 20;
/// Folios, and about so many bytes, that are written back at once.
const RUN_FOLIOS: usize = 1024;
const RUN_BYTES: u64 = 4 << 20;

pub(super) static OPS: bindings::address_space_operations = bindings::address_space_operations {
    read_folio: Some(read_folio),
    readahead: Some(readahead),
    writepages: Some(writepages),
    launder_folio: Some(launder_folio),
    dirty_folio: Some(changed::dirty),
    release_folio: Some(changed::release),
    invalidate_folio: Some(changed::invalidate),
    migrate_folio: Some(bindings::filemap_migrate_folio),
    // SAFETY: every member is an option of a function.
    ..unsafe { zeroed() }
};

static MAPPED: bindings::vm_operations_struct = bindings::vm_operations_struct {
    fault: Some(fault),
    map_pages: Some(map_pages),
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

/// Sees to it that a page of the cache has what is in the file.
///
/// # Safety
///
/// The inode is one of ours, with a reference; nobody else brings pages into the cache. No folio and no lock of the core is held.
pub(super) unsafe fn have(inode: *mut bindings::inode, index: u64) -> Result<()> {
    // SAFETY: by the contract. A folio that is locked and not up to date is read and written by nobody else.
    unsafe {
        let folio = LockedFolio::make((*inode).i_mapping, index, PAGE)?;
        if !folio.is_uptodate() {
            let memory = fill_slice(folio.as_ptr());
            let pos = folio.pos();
            let read = with(inode, |fs, ino| fs.read(ino, pos, memory))?;
            memory[read..].fill(0);
            folio.mark_uptodate();
        }
        Ok(())
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

/// Folios under writeback: from the start of that on nobody changes their memory. A program that wants to waits in
/// `page_mkwrite`, and so does who writes to pages, removes or fills them. It also keeps them in the cache.
struct Run {
    /// In ascending order, with what is to be written of them.
    folios: Vec<(*mut bindings::folio, Changed)>,
    bytes: u64,
    /// The end of the file.
    size: u64,
}

impl Run {
    /// Puts a folio under writeback, which is locked and was marked clean for this. It stays locked. Without memory it is dirty again.
    ///
    /// # Safety
    ///
    /// As said, and it begins before the end of the file, which is at `size`.
    unsafe fn begin(
        mapping: *mut bindings::address_space,
        folio: *mut bindings::folio,
        size: u64,
    ) -> Result<Self> {
        let mut run = Run { folios: Vec::new(), bytes: 0, size };
        // SAFETY: by the contract.
        unsafe {
            if let Err(e) = run.folios.reserve(1) {
                bindings::filemap_dirty_folio(mapping, folio);
                return Err(e.into());
            }
            run.add(folio);
        }
        Ok(run)
    }

    /// The same with a folio behind, for which there is room.
    ///
    /// # Safety
    ///
    /// As [`Run::begin`].
    unsafe fn add(&mut self, folio: *mut bindings::folio) {
        // SAFETY: by the contract.
        unsafe {
            let len = ffi::scoutfs_folio_size(folio) as u64;
            if self.size < ffi::scoutfs_folio_pos(folio).unsigned_abs() + len {
                zero_from(folio, self.size);
            }
            let _ = self.folios.push_within_capacity((folio, changed::take(folio)));
            self.bytes += len;
            bindings::__folio_start_writeback(folio, false);
        }
    }

    /// Adds dirty folios behind the last one, in the range that is to be written, that nobody has locked. To wait for one would be to wait
    /// for requests about others, which may wait for this writeback.
    ///
    /// # Safety
    ///
    /// The run is of this mapping.
    unsafe fn extend(
        &mut self,
        mapping: *mut bindings::address_space,
        wbc: *mut bindings::writeback_control,
        mut next: usize,
    ) {
        // SAFETY: the mapping is alive. A folio is held while it is looked at, and locked until it is under writeback.
        unsafe {
            let end = match (*wbc).range_cyclic() {
                0 => ((*wbc).range_end.unsigned_abs() / PAGE) as usize,
                _ => usize::MAX,
            };
            let end = end.min((self.size / PAGE) as usize);
            while !self.is_full() && (*wbc).nr_to_write > 0 {
                let mut found: bindings::folio_batch = zeroed();
                if ffi::scoutfs_get_dirty_folios(mapping, &mut next, end, &mut found) == 0 {
                    return;
                }
                for folio in found.folios.iter().take(found.nr.into()) {
                    let folio = *folio;
                    if !self.is_full() && self.folios.reserve(1).is_ok() {
                        self.try_add(mapping, wbc, folio);
                    }
                    ffi::scoutfs_folio_put(folio);
                }
            }
        }
    }

    /// # Safety
    ///
    /// As [`Run::extend`]; there is room for the folio.
    unsafe fn try_add(
        &mut self,
        mapping: *mut bindings::address_space,
        wbc: *mut bindings::writeback_control,
        folio: *mut bindings::folio,
    ) {
        // SAFETY: by the contract.
        unsafe {
            let Some(locked) = LockedFolio::try_lock(folio, mapping) else { return };
            if locked.pos() < self.size
                && !locked.is_under_writeback()
                && bindings::folio_clear_dirty_for_io(folio)
            {
                (*wbc).nr_to_write -= ((locked.end() - locked.pos()) / PAGE) as c_long;
                self.add(folio);
            }
        }
    }

    fn is_full(&self) -> bool {
        self.folios.len() >= RUN_FOLIOS || self.bytes >= RUN_BYTES
    }

    /// Writes all to the device.
    ///
    /// # Safety
    ///
    /// The run is of this mapping, and ends here. No folio is locked but the first one, if it is alone.
    unsafe fn write(self, mapping: *mut bindings::address_space) -> Result<()> {
        // SAFETY: by the contract, and what is said of the type.
        unsafe {
            let written = self.pages().and_then(|pages| {
                let mapped = self.folios.iter().any(|(_, changed)| changed.is_mapped());
                with((*mapping).host, |fs, ino| fs.write_pages(ino, &pages, mapped))
            });
            // Who wanted it written was killed, or there is no memory: somebody will write it. It cannot go while it is under writeback.
            let again = matches!(written, Err(Errno::INTR | Errno::NOMEM));
            match &written {
                Err(e) if !again => {
                    ffi::scoutfs_mapping_set_error(mapping, e.negative());
                    inode::forget_version((*mapping).host);
                }
                _ => {}
            }
            for (folio, changed) in self.folios.iter() {
                if again {
                    changed::put_back(*folio, *changed);
                    bindings::filemap_dirty_folio(mapping, *folio);
                }
                bindings::folio_end_writeback(*folio);
            }
            written
        }
    }

    /// The memory that is to be written.
    ///
    /// # Safety
    ///
    /// As said of the type, while the result lives.
    unsafe fn pages(&self) -> Result<Vec<(u64, &[u8])>> {
        let mut pages = Vec::with_capacity(self.folios.len())?;
        for (folio, changed) in self.folios.iter() {
            // SAFETY: by the contract.
            let (pos, bytes) = unsafe { (ffi::scoutfs_folio_pos(*folio).unsigned_abs(), stable_slice(*folio)) };
            let end = self.size.div_ceil(PAGE) * PAGE - pos;
            let len = usize::try_from(end).unwrap_or(usize::MAX).min(bytes.len());
            let (mut page, bytes) = (0, &bytes[..len]);
            while let Some((first, end)) = changed.next(page, len / PAGE as usize) {
                let begin = first * PAGE as usize;
                pages.push((pos + begin as u64, &bytes[begin..end * PAGE as usize]))?;
                page = end;
            }
        }
        Ok(pages)
    }
}

unsafe extern "C" fn writepages(
    mapping: *mut bindings::address_space,
    wbc: *mut bindings::writeback_control,
) -> c_int {
    let (mut error, mut stopped) = (0, None);
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
            if let Some(e) = stopped {
                bindings::filemap_dirty_folio(mapping, folio);
                bindings::folio_unlock(folio);
                e
            } else if ffi::scoutfs_folio_pos(folio).unsigned_abs() >= size {
                // It was cut off meanwhile.
                bindings::folio_unlock(folio);
                0
            } else {
                let next = ffi::scoutfs_folio_pos(folio) as u64 + ffi::scoutfs_folio_size(folio) as u64;
                let begun = Run::begin(mapping, folio, size);
                bindings::folio_unlock(folio);
                let written = begun.and_then(|mut run| {
                    run.extend(mapping, wbc, (next / PAGE) as usize);
                    run.write(mapping)
                });
                let error = code(written);
                if matches!(written, Err(Errno::INTR | Errno::NOMEM)) {
                    stopped = Some(error);
                }
                error
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
            let written = Run::begin(mapping, folio, size).and_then(|run| run.write(mapping));
            if let Err(e @ (Errno::INTR | Errno::NOMEM)) = written {
                return e.negative();
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
            Ok(()) => {
                readers::note((*file).f_inode);
                bindings::filemap_fault(vmf)
            }
            Err(_) => bindings::vm_fault_reason_VM_FAULT_SIGBUS,
        }
    }
}

/// Maps pages that are there around one that a program reads.
unsafe extern "C" fn map_pages(
    vmf: *mut bindings::vm_fault,
    first: c_ulong,
    last: c_ulong,
) -> bindings::vm_fault_t {
    // SAFETY: the VFS gives a fault in a mapping of ours.
    unsafe {
        readers::note((*(*(*vmf).__bindgen_anon_1.vma).vm_file).f_inode);
        bindings::filemap_map_pages(vmf, first, last)
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
        let answer = make_writable(inode, ffi::scoutfs_page_folio((*vmf).page));
        ffi::scoutfs_sb_end_pagefault((*inode).i_sb);
        answer
    }
}

/// Makes a folio ready for programs to write to, wholly: the kernel may map more of it than the page that one writes to, and asks no more.
///
/// # Safety
///
/// As [`page_mkwrite`].
unsafe fn make_writable(inode: *mut bindings::inode, folio: *mut bindings::folio) -> bindings::vm_fault_t {
    // SAFETY: by the contract.
    unsafe {
        let mapping = (*inode).i_mapping;
        if inode::renew(inode).is_err() {
            return bindings::vm_fault_reason_VM_FAULT_SIGBUS;
        }
        let _faulting = Faulting::enter(mapping);
        // Who holds it keeps it as large as it is.
        let pos = ffi::scoutfs_folio_pos(folio).unsigned_abs();
        let len = ffi::scoutfs_folio_size(folio) as u64;
        let size = inode::size(inode);
        if pos >= size {
            return bindings::vm_fault_reason_VM_FAULT_SIGBUS;
        }
        match with(inode, |fs, ino| fs.prepare_pages(ino, pos, len.min(size - pos))) {
            Ok(()) => {}
            Err(Errno::NOMEM) => return bindings::vm_fault_reason_VM_FAULT_OOM,
            Err(_) => return bindings::vm_fault_reason_VM_FAULT_SIGBUS,
        }
        let Some(locked) = LockedFolio::lock(folio, mapping) else {
            return bindings::vm_fault_reason_VM_FAULT_NOPAGE;
        };
        locked.wait_for_writeback();
        locked.mark_changed(pos, pos + len, true);
        locked.leave_locked();
        bindings::vm_fault_reason_VM_FAULT_LOCKED
    }
}
