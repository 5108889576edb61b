// SPDX-License-Identifier: GPL-2.0-only
//! Inodes: getting them, attributes, symbolic links.

use core::alloc::Layout;
use core::mem::zeroed;
use core::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use kernel::alloc::allocator::Kmalloc;
use kernel::alloc::{Allocator, NumaNode};
use kernel::bindings;
use kernel::ffi::{c_char, c_int, c_uint};
use kernel::prelude::GFP_KERNEL;
use scoutfs_env::time::Timespec;
use scoutfs_fs::inode::{Attr, SetAttr, SetTime};

use super::caches::{mark, set_mark};
use super::{dir, fiemap, file, ids, pages, volume, with, xattr};
use crate::ffi;
use crate::kobj::error::{check, code, Errno, Result};
use crate::kobj::folio::{offset, position, InodeLock, Invalidation, LockedFolio, PAGE};
use crate::kobj::nofs::NoFs;

static REGULAR_OPS: bindings::inode_operations =
    bindings::inode_operations { fiemap: Some(fiemap::fiemap), ..FILE_OPS };

static SPECIAL_OPS: bindings::inode_operations = FILE_OPS;

/// What both have.
const FILE_OPS: bindings::inode_operations = bindings::inode_operations {
    permission: Some(permission),
    getattr: Some(getattr),
    setattr: Some(setattr),
    listxattr: Some(xattr::list),
    get_inode_acl: Some(xattr::get_acl),
    set_acl: Some(xattr::set_acl),
    // SAFETY: every member is an option of a function.
    ..unsafe { zeroed() }
};

static SYMLINK_OPS: bindings::inode_operations = bindings::inode_operations {
    permission: Some(permission),
    get_link: Some(get_link),
    getattr: Some(getattr),
    setattr: Some(setattr),
    listxattr: Some(xattr::list),
    // SAFETY: every member is an option of a function.
    ..unsafe { zeroed() }
};

/// A file that runs as its group.
const SET_GID: u32 = bindings::S_ISGID | bindings::S_IXGRP;

/// A device number as the kernel has it: 12 bits of major and 20 of minor.
fn device_number(rdev: u64) -> bindings::dev_t {
    let (major, minor) = ((rdev >> 32) as u32, rdev as u32);
    (major & 0xfff) << 20 | minor & 0xf_ffff
}

/// A device number as the core has it: major in the high half.
pub(super) fn core_device_number(dev: bindings::dev_t) -> u64 {
    u64::from(dev >> 20) << 32 | u64::from(dev & 0xf_ffff)
}

fn timespec(t: Timespec) -> bindings::timespec64 {
    bindings::timespec64 { tv_sec: t.sec, tv_nsec: t.nsec as isize }
}

/// The size as readers of pages see it.
///
/// # Safety
///
/// The inode is one of ours, with a reference.
pub(super) unsafe fn size(inode: *mut bindings::inode) -> u64 {
    // SAFETY: by the contract; on 64 bits the size is read and written whole.
    let size = unsafe { AtomicI64::from_ptr(&raw mut (*inode).i_size) };
    size.load(Ordering::Acquire).unsigned_abs()
}

/// Sets the size as readers of pages see it; under the lock against filling pages.
///
/// # Safety
///
/// As [`size`].
pub(super) unsafe fn set_size(inode: *mut bindings::inode, bytes: u64) {
    // SAFETY: as above.
    let size = unsafe { AtomicI64::from_ptr(&raw mut (*inode).i_size) };
    size.store(offset(bytes), Ordering::Release);
}

/// The short lock of an inode's fields.
struct FieldLock(*mut bindings::inode);

impl FieldLock {
    /// # Safety
    ///
    /// The inode lives longer than this, and nobody sleeps while this lives.
    unsafe fn enter(inode: *mut bindings::inode) -> Self {
        // SAFETY: by the contract.
        unsafe { ffi::scoutfs_inode_spin_lock(inode) };
        FieldLock(inode)
    }
}

impl Drop for FieldLock {
    fn drop(&mut self) {
        // SAFETY: entered by this task.
        unsafe { ffi::scoutfs_inode_spin_unlock(self.0) };
    }
}

/// Copies attributes, all but the size, into the inode, unless it has newer ones already: who asks for attributes on one processor and
/// comes late must not bring back what was changed on another since. Which are newer their version says.
///
/// # Safety
///
/// The inode is one of ours, with a reference.
unsafe fn copy(inode: *mut bindings::inode, attr: &Attr) {
    // SAFETY: by the contract. Readers of these fields take them as they come. The version is what the VFS has for one; it does not use it.
    unsafe {
        let _lock = FieldLock::enter(inode);
        let newest = &raw mut (*inode).i_version.counter;
        if attr.version < (*newest).cast_unsigned() {
            return;
        }
        *newest = attr.version.cast_signed();
        (*inode).i_mode = attr.mode as bindings::umode_t;
        (*inode).i_uid.val = attr.uid;
        (*inode).i_gid.val = attr.gid;
        (*inode).i_blocks = attr.blocks;
        bindings::set_nlink(inode, attr.nlink);
        (*inode).i_atime_sec = attr.atime.sec;
        (*inode).i_atime_nsec = attr.atime.nsec;
        (*inode).i_mtime_sec = attr.mtime.sec;
        (*inode).i_mtime_nsec = attr.mtime.nsec;
        bindings::inode_set_ctime_to_ts(inode, timespec(attr.ctime));
    }
}

/// Changes of an inode were lost, and its version may go back: what is copied next is believed to be newer.
///
/// # Safety
///
/// The inode is one of ours, and lives as long as this takes.
pub(super) unsafe fn forget_version(inode: *mut bindings::inode) {
    // SAFETY: by the contract.
    unsafe {
        let _lock = FieldLock::enter(inode);
        (*inode).i_version.counter = 0;
    }
}

/// The inode with these attributes, which came with a reference of the core's: the inode has it from now on, or has one already.
/// `epoch` is the caches' from before the attributes were read.
///
/// # Safety
///
/// The super block is one of ours, mounted.
pub(super) unsafe fn get(
    sb: *mut bindings::super_block,
    attr: &Attr,
    epoch: usize,
) -> Result<*mut bindings::inode> {
    let give_back = || {
        let _nofs = NoFs::enter();
        // SAFETY: by the contract.
        unsafe { volume(sb) }.mount.fs().forget(attr.ino, 1);
    };
    // SAFETY: by the contract.
    let inode = unsafe { bindings::iget_locked(sb, attr.ino) };
    if inode.is_null() {
        give_back();
        return Err(Errno::NOMEM);
    }
    // SAFETY: an inode with a reference; a new one is ours alone until it is unlocked.
    unsafe {
        if !ffi::scoutfs_inode_is_new(inode) {
            give_back();
            copy(inode, attr);
            return Ok(inode);
        }
        // Another inode may have had this memory.
        (*inode).i_version.counter = 0;
        copy(inode, attr);
        set_size(inode, attr.size);
        // Times are the core's.
        (*inode).i_flags |= bindings::S_NOATIME | bindings::S_NOCMTIME;
        match attr.mode & bindings::S_IFMT {
            bindings::S_IFREG => {
                (*inode).i_op = &REGULAR_OPS;
                (*inode).__bindgen_anon_3.i_fop = &file::OPS.0;
                (*(*inode).i_mapping).a_ops = &pages::OPS;
                ffi::scoutfs_mapping_set_large_folios((*inode).i_mapping);
            }
            bindings::S_IFDIR => {
                (*inode).i_op = &dir::INODE_OPS;
                (*inode).__bindgen_anon_3.i_fop = &dir::FILE_OPS.0;
            }
            bindings::S_IFLNK => (*inode).i_op = &SYMLINK_OPS,
            _ => {
                (*inode).i_op = &SPECIAL_OPS;
                bindings::init_special_inode(inode, (*inode).i_mode, device_number(attr.rdev));
            }
        }
        if volume(sb).caches.epoch() != epoch {
            // It could not be found when its attributes were to be forgotten.
            set_mark(inode);
        }
        bindings::unlock_new_inode(inode);
    }
    Ok(inode)
}

/// Brings the attributes of an inode up to date after an operation that changed them.
///
/// # Safety
///
/// The inode is one of ours, with a reference.
pub(super) unsafe fn refresh(inode: *mut bindings::inode) {
    // SAFETY: by the contract. Should it fail, the next operation that needs the inode fails, too.
    unsafe {
        if let Ok(attr) = with(inode, |fs, ino| fs.getattr(ino)) {
            copy(inode, &attr);
        }
    }
}

/// Brings attributes and size of an inode up to date, if the cluster's lock was away, and waits for a lease. For regular files no
/// caller may be filling pages, or keep others from it.
///
/// # Safety
///
/// The inode is one of ours, with a reference.
pub(super) unsafe fn renew(inode: *mut bindings::inode) -> Result<()> {
    // SAFETY: by the contract.
    unsafe {
        if is_sure(inode) {
            Ok(())
        } else {
            renew_now(inode)
        }
    }
}

/// Whether attributes and size of an inode may be believed.
///
/// # Safety
///
/// The inode is one of ours, and its super block is mounted.
unsafe fn is_sure(inode: *mut bindings::inode) -> bool {
    // SAFETY: by the contract.
    unsafe {
        mark(inode).load(Ordering::SeqCst) == 0
            && !volume((*inode).i_sb).mount.fs().store().lease_left().is_zero()
    }
}

/// # Safety
///
/// As [`renew`].
#[inline(never)]
unsafe fn renew_now(inode: *mut bindings::inode) -> Result<()> {
    // SAFETY: by the contract. Until attributes and size are in the inode it is marked, so that nobody else believes what is there; and a
    // mark that comes meanwhile stays.
    unsafe {
        let _invalidation = Invalidation::enter((*inode).i_mapping);
        let seen = mark(inode).load(Ordering::SeqCst);
        let attr = with(inode, |fs, ino| fs.getattr(ino))?;
        copy(inode, &attr);
        if seen != 0 {
            set_size(inode, attr.size);
            let _ = mark(inode).compare_exchange(seen, 0, Ordering::SeqCst, Ordering::SeqCst);
        }
        Ok(())
    }
}

/// Takes away what a write to a file takes away: its set-ID bits, and capabilities. That there are none is remembered (`S_NOSEC`) until the
/// lock goes back, or until somebody here sets some, which the VFS sees.
///
/// # Safety
///
/// The file is alive, one of ours, its inode is locked, and its attributes may be believed.
pub(super) unsafe fn drop_privileges(file: *mut bindings::file) -> Result<()> {
    // SAFETY: by the contract.
    unsafe {
        let inode = (*file).f_inode;
        let flags = AtomicU32::from_ptr(&raw mut (*inode).i_flags);
        if flags.load(Ordering::Acquire) & bindings::S_NOSEC != 0 {
            return Ok(());
        }
        let caches = &volume((*inode).i_sb).caches;
        let epoch = caches.epoch();
        check(bindings::file_remove_privs(file))?;
        let mode = u32::from((*inode).i_mode);
        if mode & bindings::S_ISUID == 0 && mode & SET_GID != SET_GID {
            flags.fetch_or(bindings::S_NOSEC, Ordering::SeqCst);
            if caches.epoch() != epoch {
                // A lock was on its way back, and another node may have set some. Who gives one back from now on comes here later.
                may_have_privileges(inode);
            }
        }
    }
    Ok(())
}

/// A write to the file is to look whether there is something to be taken away.
///
/// # Safety
///
/// The inode lives as long as this takes.
pub(super) unsafe fn may_have_privileges(inode: *mut bindings::inode) {
    // SAFETY: by the contract.
    let flags = unsafe { AtomicU32::from_ptr(&raw mut (*inode).i_flags) };
    flags.fetch_and(!bindings::S_NOSEC, Ordering::SeqCst);
}

/// Whether the caller may do something, by attributes that may be believed.
pub(super) unsafe extern "C" fn permission(
    idmap: *mut bindings::mnt_idmap,
    inode: *mut bindings::inode,
    mask: c_int,
) -> c_int {
    // SAFETY: the VFS gives an inode of ours; without references the super block stays until it is through, see `put_super`.
    unsafe {
        if !is_sure(inode) {
            if mask & bindings::MAY_NOT_BLOCK as c_int != 0 {
                return Errno::CHILD.negative();
            }
            if let Err(e) = renew_now(inode) {
                return e.negative();
            }
        }
        bindings::generic_permission(idmap, inode, mask)
    }
}

/// Does what changes a file behind the VFS's back: its size, what its pages hold.
///
/// # Safety
///
/// The inode is one of ours, with a reference; `change` touches no user memory.
pub(super) unsafe fn change_wholly<T>(
    inode: *mut bindings::inode,
    change: impl FnOnce() -> Result<T>,
) -> Result<T> {
    // SAFETY: by the contract.
    unsafe {
        let _lock = InodeLock::enter(inode);
        let invalidation = Invalidation::enter((*inode).i_mapping);
        invalidation.write_back(0, u64::MAX)?;
        invalidation.drop_pages(0, u64::MAX)?;
        let done = change();
        // Also when it failed: a part may have been done.
        let attr = with(inode, |fs, ino| fs.getattr(ino))?;
        copy(inode, &attr);
        set_size(inode, attr.size);
        done
    }
}

/// The VFS forgets an inode.
pub(super) unsafe extern "C" fn evict(inode: *mut bindings::inode) {
    // SAFETY: the VFS gives an inode of ours that nobody else uses any more, but for who drops its pages.
    unsafe {
        volume((*inode).i_sb).caches.wait_for((*inode).i_ino);
        bindings::truncate_inode_pages_final(&raw mut (*inode).i_data);
        bindings::clear_inode(inode);
        let _nofs = NoFs::enter();
        volume((*inode).i_sb).mount.fs().forget((*inode).i_ino, 1);
    }
}

/// # Safety
///
/// As the VFS calls.
unsafe fn getattr_of(
    idmap: *mut bindings::mnt_idmap,
    path: *const bindings::path,
    stat: *mut bindings::kstat,
    mask: u32,
) -> Result<()> {
    // SAFETY: the VFS gives a path of ours and room for the answer.
    unsafe {
        let inode = (*(*path).dentry).d_inode;
        let attr = with(inode, |fs, ino| fs.getattr(ino))?;
        copy(inode, &attr);
        bindings::generic_fillattr(idmap, mask, inode, stat);
        // What belongs together: another processor may be copying other attributes into the inode now.
        (*stat).mode = attr.mode as bindings::umode_t;
        (*stat).nlink = attr.nlink;
        (*stat).uid.val = ids::seen_uid(idmap, attr.uid);
        (*stat).gid.val = ids::seen_gid(idmap, attr.gid);
        (*stat).size = offset(attr.size);
        (*stat).blocks = attr.blocks;
        (*stat).atime = timespec(attr.atime);
        (*stat).mtime = timespec(attr.mtime);
        (*stat).ctime = timespec(attr.ctime);
        (*stat).btime = timespec(attr.crtime);
        // For the kernel itself, which does not show it to programs. It may go back when a crash takes changes with it.
        (*stat).change_cookie = attr.version;
        (*stat).result_mask |= bindings::STATX_BTIME | bindings::STATX_CHANGE_COOKIE;
    }
    Ok(())
}

pub(super) unsafe extern "C" fn getattr(
    idmap: *mut bindings::mnt_idmap,
    path: *const bindings::path,
    stat: *mut bindings::kstat,
    mask: u32,
    _flags: c_uint,
) -> c_int {
    // SAFETY: as the VFS calls it.
    code(unsafe { getattr_of(idmap, path, stat, mask) })
}

/// What is to be set, but for the size.
///
/// # Safety
///
/// `attr` is valid, and the mapping is that of a mount which is in use.
unsafe fn wanted(idmap: *mut bindings::mnt_idmap, attr: *const bindings::iattr) -> SetAttr {
    // SAFETY: by the contract. Owner and group are numbers of the mount; the VFS has refused those that the volume has none for.
    unsafe {
        let valid = (*attr).ia_valid;
        let when = |what: u32| valid & what != 0;
        let time = |given: u32, t: bindings::timespec64| {
            if when(given) {
                SetTime::At(Timespec { sec: t.tv_sec, nsec: t.tv_nsec as u32 })
            } else {
                SetTime::Now
            }
        };
        SetAttr {
            mode: when(bindings::ATTR_MODE).then(|| (*attr).ia_mode.into()),
            uid: when(bindings::ATTR_UID)
                .then(|| ids::kept_uid(idmap, (*attr).__bindgen_anon_1.ia_vfsuid.val)),
            gid: when(bindings::ATTR_GID)
                .then(|| ids::kept_gid(idmap, (*attr).__bindgen_anon_2.ia_vfsgid.val)),
            atime: when(bindings::ATTR_ATIME).then(|| time(bindings::ATTR_ATIME_SET, (*attr).ia_atime)),
            mtime: when(bindings::ATTR_MTIME).then(|| time(bindings::ATTR_MTIME_SET, (*attr).ia_mtime)),
            ..SetAttr::default()
        }
    }
}

/// Zeros what a page in the cache holds behind the end of the file, which is about to grow: a program may have written there by a
/// mapping to memory.
///
/// # Safety
///
/// The inode is one of ours, with a reference, and locked; pages are not made dirty.
pub(super) unsafe fn zero_tail(inode: *mut bindings::inode, size: u64) {
    // SAFETY: by the contract.
    unsafe {
        if size % PAGE != 0 {
            if let Some(folio) = LockedFolio::find((*inode).i_mapping, size / PAGE) {
                folio.zero_from(size);
            }
        }
    }
}

/// Sets attributes and the size.
///
/// # Safety
///
/// The inode is one of ours, with a reference, and locked.
unsafe fn set_with_size(inode: *mut bindings::inode, set: &SetAttr, new: u64) -> Result<Attr> {
    // SAFETY: by the contract.
    unsafe {
        let old = size(inode);
        let mapping = (*inode).i_mapping;
        let invalidation = Invalidation::enter(mapping);
        // Nothing may be written behind the new end once the core has set it. Should the core refuse, nothing is lost.
        invalidation.write_back(old.min(new) / PAGE * PAGE, u64::MAX)?;
        if new < old {
            set_size(inode, new);
            bindings::truncate_pagecache(inode, offset(new));
        } else {
            zero_tail(inode, old);
        }
        let done = with(inode, |fs, ino| fs.setattr(ino, &SetAttr { size: Some(new), ..*set }));
        match &done {
            Ok(attr) => set_size(inode, attr.size),
            Err(_) => {
                set_size(inode, old);
                // The last page was zeroed in part.
                invalidation.drop_pages(old.min(new), old.min(new))?;
            }
        }
        done
    }
}

pub(super) unsafe extern "C" fn setattr(
    idmap: *mut bindings::mnt_idmap,
    dentry: *mut bindings::dentry,
    attr: *mut bindings::iattr,
) -> c_int {
    let set = || {
        // SAFETY: the VFS gives a dentry of ours whose inode is locked, and what is to be set.
        unsafe {
            let inode = (*dentry).d_inode;
            renew(inode)?;
            check(bindings::setattr_prepare(idmap, dentry, attr))?;
            let set = wanted(idmap, attr);
            let new = if (*attr).ia_valid & bindings::ATTR_SIZE != 0 {
                set_with_size(inode, &set, position((*attr).ia_size)?)?
            } else {
                if set.mtime.is_some()
                    && (*inode).i_mode & bindings::S_IFMT as u16 == bindings::S_IFREG as u16
                {
                    // What was written by a mapping before must not change the time afterwards.
                    check(bindings::filemap_write_and_wait_range((*inode).i_mapping, 0, i64::MAX))?;
                }
                with(inode, |fs, ino| fs.setattr(ino, &set))?
            };
            copy(inode, &new);
            if set.mode.is_some() {
                // A list follows the mode.
                ffi::forget_all_cached_acls(inode);
            }
        }
        Ok(())
    };
    code(set())
}

unsafe extern "C" fn get_link(
    dentry: *mut bindings::dentry,
    inode: *mut bindings::inode,
    done: *mut bindings::delayed_call,
) -> *const c_char {
    if dentry.is_null() {
        // The VFS may not wait now; it comes again.
        return Errno::CHILD.pointer();
    }
    let link = || {
        // SAFETY: the VFS gives an inode of ours.
        let target = unsafe { with(inode, |fs, ino| fs.readlink(ino)) }?;
        let layout = Layout::array::<u8>(target.len() + 1).map_err(|_| Errno::NOMEM)?;
        let memory = Kmalloc::alloc(layout, GFP_KERNEL, NumaNode::NO_NODE).map_err(|_| Errno::NOMEM)?;
        let text = memory.as_ptr().cast::<u8>();
        // SAFETY: room for the target and a zero; `done` is the VFS's to be filled.
        unsafe {
            text.copy_from_nonoverlapping(target.as_ptr(), target.len());
            text.add(target.len()).write(0);
            (*done).fn_ = Some(bindings::kfree_link);
            (*done).arg = text.cast();
        }
        Ok(text)
    };
    link().map_or_else(|e: Errno| e.pointer(), |text| text.cast::<c_char>())
}
