// SPDX-License-Identifier: GPL-2.0-only
//! Names: looking up, making, linking, removing, renaming, listing.
//!
//! The VFS holds the directories' locks, so what it keeps of names agrees with the core on this mount. What other nodes change is seen
//! because each dentry is looked up again when locks went back since ([`revalidate`]).

use core::ffi::CStr;
use core::mem::zeroed;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering};

use kernel::bindings;
use kernel::ffi::{c_char, c_int, c_uint};
use scoutfs_fs::dir::{NewInode, RenameFlags};
use scoutfs_fs::inode::Attr;
use scoutfs_fs::{Error, Fs};

use super::{ids, inode, volume, with, xattr};
use crate::ffi;
use crate::kobj::error::{check, code, errno_of, Errno, Result};
use crate::kobj::folio::{offset, position};

pub(super) static INODE_OPS: bindings::inode_operations = bindings::inode_operations {
    lookup: Some(lookup),
    atomic_open: Some(atomic_open),
    permission: Some(inode::permission),
    create: Some(create),
    link: Some(link),
    unlink: Some(unlink),
    symlink: Some(symlink),
    mkdir: Some(mkdir),
    rmdir: Some(rmdir),
    mknod: Some(mknod),
    rename: Some(rename),
    tmpfile: Some(tmpfile),
    getattr: Some(inode::getattr),
    setattr: Some(inode::setattr),
    listxattr: Some(xattr::list),
    get_inode_acl: Some(xattr::get_acl),
    set_acl: Some(xattr::set_acl),
    // SAFETY: every member is an option of a function.
    ..unsafe { zeroed() }
};

pub(super) static DENTRY_OPS: bindings::dentry_operations = bindings::dentry_operations {
    d_revalidate: Some(revalidate),
    // SAFETY: every member is an option of a function.
    ..unsafe { zeroed() }
};

pub(super) static FILE_OPS: super::Table<bindings::file_operations> =
    super::Table(bindings::file_operations {
        llseek: Some(bindings::generic_file_llseek),
        read: Some(bindings::generic_read_dir),
        iterate_shared: Some(iterate),
        open: Some(super::file::open),
        release: Some(super::file::release),
        fsync: Some(super::file::fsync_dir),
        lock: Some(super::locks::lock),
        flock: Some(super::locks::flock),
        flush: Some(super::locks::flush),
        unlocked_ioctl: Some(super::ioctl::ioctl),
        compat_ioctl: bindings::compat_ptr_ioctl,
        // SAFETY: every member is an option of a function, a pointer or a number.
        ..unsafe { zeroed() }
    });

/// A dentry's name.
///
/// # Safety
///
/// The dentry is alive, and its directory locked.
unsafe fn name<'a>(dentry: *mut bindings::dentry) -> &'a [u8] {
    // SAFETY: by the contract the name does not change.
    unsafe { text_of(&raw const (*dentry).__bindgen_anon_1.d_name) }
}

/// The bytes of a name.
///
/// # Safety
///
/// It is valid and does not change.
unsafe fn text_of<'a>(name: *const bindings::qstr) -> &'a [u8] {
    // SAFETY: by the contract.
    unsafe {
        core::slice::from_raw_parts((*name).name, (*name).__bindgen_anon_1.__bindgen_anon_1.len as usize)
    }
}

/// What a new inode is made of, from who makes it.
///
/// # Safety
///
/// The mapping is that of a mount which is in use.
unsafe fn new_inode(idmap: *mut bindings::mnt_idmap, mode: u32, rdev: u64) -> Result<NewInode> {
    // SAFETY: by the contract; and credentials of the current task, which are its own.
    let (uid, gid, umask) = unsafe {
        let cred = (*bindings::get_current()).cred;
        let (uid, gid) = ((*cred).fsuid.val, (*cred).fsgid.val);
        (ids::kept_uid(idmap, uid), ids::kept_gid(idmap, gid), ffi::scoutfs_current_umask())
    };
    if uid == ids::NONE || gid == ids::NONE {
        return Err(Errno::OVERFLOW);
    }
    Ok(NewInode { mode, umask: umask.unsigned_abs(), rdev, uid, gid })
}

/// Makes something with a name, and binds the dentry to it.
///
/// # Safety
///
/// As the VFS calls: a locked directory of ours and a dentry in it that has no inode.
unsafe fn make(
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    call: impl FnOnce(&Fs, u64, &[u8]) -> scoutfs_fs::Result<Attr>,
) -> Result<()> {
    // SAFETY: by the contract.
    unsafe {
        let epoch = epoch_of(dir);
        let attr = with(dir, |fs, ino| call(fs, ino, name(dentry)))?;
        // There is something now, also if this kernel has no memory for an inode.
        note(dentry, NEVER);
        bindings::d_instantiate(dentry, inode::get((*dir).i_sb, &attr, epoch)?);
        note(dentry, epoch);
    }
    Ok(())
}

/// No epoch: the dentry is looked up again before it is believed.
const NEVER: usize = 0;

/// The caches' epoch, to be read before looking up.
///
/// # Safety
///
/// The inode is one of ours.
unsafe fn epoch_of(dir: *mut bindings::inode) -> usize {
    // SAFETY: by the contract.
    unsafe { volume((*dir).i_sb) }.caches.epoch()
}

/// The dentry's inode, or that it has none, was true in this epoch.
///
/// # Safety
///
/// The dentry is alive.
unsafe fn note(dentry: *mut bindings::dentry, epoch: usize) {
    // SAFETY: by the contract; the field is ours. Several may look up at once, each of which saw the truth of its epoch.
    unsafe { AtomicUsize::from_ptr(&raw mut (*dentry).d_time) }.store(epoch, Ordering::SeqCst);
}

/// Whether what a dentry says is still so.
unsafe extern "C" fn revalidate(
    dir: *mut bindings::inode,
    name: *const bindings::qstr,
    dentry: *mut bindings::dentry,
    flags: c_uint,
) -> c_int {
    // SAFETY: the VFS gives a dentry of ours; without references the super block stays until it is through, see `put_super`.
    unsafe {
        let volume = volume((*dentry).d_sb);
        let looked_up = AtomicUsize::from_ptr(&raw mut (*dentry).d_time).load(Ordering::SeqCst);
        if looked_up == volume.caches.epoch() && !volume.mount.fs().store().lease_left().is_zero() {
            return 1;
        }
        if flags & ffi::SCOUTFS_LOOKUP_RCU != 0 {
            return Errno::CHILD.negative();
        }
        match look_again(dir, text_of(name), dentry) {
            Ok(same) => same.into(),
            Err(e) => e.negative(),
        }
    }
}

/// Looks a name up again: whether it still says what the dentry says.
///
/// # Safety
///
/// As [`revalidate`], with references.
#[inline(never)]
unsafe fn look_again(dir: *mut bindings::inode, name: &[u8], dentry: *mut bindings::dentry) -> Result<bool> {
    // SAFETY: by the contract.
    unsafe {
        let epoch = epoch_of(dir);
        let inode = (*dentry).d_inode;
        let same = match with(dir, |fs, ino| fs.lookup(ino, name)) {
            Ok(attr) => {
                let same = !inode.is_null() && (*inode).i_ino == attr.ino;
                with(dir, |fs, _| {
                    fs.forget(attr.ino, 1);
                    Ok(())
                })?;
                if same {
                    inode::renew(inode)?;
                }
                same
            }
            Err(Errno::NOENT) => inode.is_null(),
            Err(e) => return Err(e),
        };
        if same {
            note(dentry, epoch);
        }
        Ok(same)
    }
}

unsafe extern "C" fn lookup(
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    _flags: c_uint,
) -> *mut bindings::dentry {
    // SAFETY: the VFS gives a locked directory of ours and a dentry in it.
    unsafe {
        let epoch = epoch_of(dir);
        let found = match with(dir, |fs, ino| fs.lookup(ino, name(dentry))) {
            Ok(attr) => match inode::get((*dir).i_sb, &attr, epoch) {
                Ok(inode) => inode,
                Err(e) => return e.pointer(),
            },
            Err(Errno::NOENT) => null_mut(),
            Err(e) => return e.pointer(),
        };
        note(dentry, epoch);
        let other = bindings::d_splice_alias(found, dentry);
        if !other.is_null() && errno_of(other).is_none() {
            note(other, epoch);
        }
        other
    }
}

/// Looks a name up and makes a file where there is none; a file that another node makes first is opened, too, unless it was to be new.
/// The VFS opens it.
unsafe extern "C" fn atomic_open(
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    file: *mut bindings::file,
    flags: c_uint,
    mode: bindings::umode_t,
) -> c_int {
    // SAFETY: the VFS gives a locked directory of ours, a dentry in it, and a new file.
    unsafe {
        let mut other = null_mut();
        if ffi::scoutfs_dentry_in_lookup(dentry) {
            other = lookup(dir, dentry, 0);
        }
        let found = if other.is_null() { dentry } else { other };
        if errno_of(other).is_none() && flags & bindings::O_CREAT != 0 && (*found).d_inode.is_null() {
            let idmap = ffi::scoutfs_file_mnt_idmap(file);
            let new = new_inode(idmap, u32::from(mode) & 0o7777 | bindings::S_IFREG, 0);
            let excl = flags & bindings::O_EXCL != 0;
            let mut made = true;
            let done = new.and_then(|new| {
                make(dir, found, |fs, ino, name| match fs.create(ino, name, &new) {
                    Err(Error::Exists) if !excl => {
                        made = false;
                        fs.lookup(ino, name)
                    }
                    done => done,
                })
            });
            if let Err(e) = done {
                if !other.is_null() {
                    bindings::dput(other);
                }
                return e.negative();
            }
            if made {
                (*file).f_mode |= ffi::SCOUTFS_FMODE_CREATED;
            }
        }
        bindings::finish_no_open(file, other)
    }
}

unsafe extern "C" fn create(
    idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    mode: bindings::umode_t,
) -> c_int {
    let mode = u32::from(mode) & 0o7777 | bindings::S_IFREG;
    // SAFETY: as the VFS calls it.
    code(unsafe {
        new_inode(idmap, mode, 0)
            .and_then(|new| make(dir, dentry, |fs, ino, name| fs.create(ino, name, &new)))
    })
}

unsafe extern "C" fn mknod(
    idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    mode: bindings::umode_t,
    dev: bindings::dev_t,
) -> c_int {
    // SAFETY: as the VFS calls it.
    code(unsafe {
        new_inode(idmap, mode.into(), inode::core_device_number(dev))
            .and_then(|new| make(dir, dentry, |fs, ino, name| fs.create(ino, name, &new)))
    })
}

unsafe extern "C" fn mkdir(
    idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    mode: bindings::umode_t,
) -> *mut bindings::dentry {
    let mode = u32::from(mode) & 0o7777 | bindings::S_IFDIR;
    // SAFETY: as the VFS calls it.
    let made = unsafe {
        new_inode(idmap, mode, 0).and_then(|new| make(dir, dentry, |fs, ino, name| fs.mkdir(ino, name, &new)))
    };
    made.map_or_else(Errno::pointer, |()| null_mut())
}

unsafe extern "C" fn symlink(
    idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    target: *const c_char,
) -> c_int {
    // SAFETY: the VFS gives a terminated text.
    let target = unsafe { CStr::from_ptr(target.cast()) }.to_bytes();
    // SAFETY: as the VFS calls it.
    code(unsafe {
        new_inode(idmap, bindings::S_IFLNK | 0o777, 0)
            .and_then(|new| make(dir, dentry, |fs, ino, name| fs.symlink(ino, name, target, &new)))
    })
}

unsafe extern "C" fn tmpfile(
    idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    file: *mut bindings::file,
    mode: bindings::umode_t,
) -> c_int {
    let make = || {
        // SAFETY: the VFS gives a directory of ours and a file whose dentry has no inode.
        unsafe {
            let new = new_inode(idmap, u32::from(mode) & 0o7777 | bindings::S_IFREG, 0)?;
            let linkable = (*file).f_flags & bindings::O_EXCL == 0;
            let epoch = epoch_of(dir);
            let attr = with(dir, |fs, ino| fs.tmpfile(ino, &new, linkable))?;
            let inode = inode::get((*dir).i_sb, &attr, epoch)?;
            let dentry = (*file).__bindgen_anon_1.f_path.dentry;
            bindings::d_mark_tmpfile(file, inode);
            bindings::d_instantiate(dentry, inode);
            check(bindings::finish_open(file, dentry, None)).map(drop)
        }
    };
    code(make())
}

unsafe extern "C" fn link(
    old: *mut bindings::dentry,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
) -> c_int {
    // SAFETY: the VFS gives dentries and a locked directory of ours.
    code(unsafe {
        let inode = (*old).d_inode;
        make(dir, dentry, |fs, ino, name| fs.link((*inode).i_ino, ino, name))
    })
}

unsafe extern "C" fn unlink(dir: *mut bindings::inode, dentry: *mut bindings::dentry) -> c_int {
    // SAFETY: as the VFS calls it.
    code(unsafe { remove(dir, dentry, Fs::unlink) })
}

unsafe extern "C" fn rmdir(dir: *mut bindings::inode, dentry: *mut bindings::dentry) -> c_int {
    // SAFETY: as the VFS calls it.
    code(unsafe { remove(dir, dentry, Fs::rmdir) })
}

/// Removes a name.
///
/// # Safety
///
/// As the VFS calls: a locked directory of ours and a dentry in it that has an inode.
unsafe fn remove(
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    call: impl FnOnce(&Fs, u64, &[u8]) -> scoutfs_fs::Result<()>,
) -> Result<()> {
    // SAFETY: by the contract.
    unsafe {
        with(dir, |fs, ino| call(fs, ino, name(dentry)))?;
        // Without links it goes with its last user.
        inode::refresh((*dentry).d_inode);
    }
    Ok(())
}

unsafe extern "C" fn rename(
    _idmap: *mut bindings::mnt_idmap,
    old_dir: *mut bindings::inode,
    old: *mut bindings::dentry,
    new_dir: *mut bindings::inode,
    new: *mut bindings::dentry,
    flags: c_uint,
) -> c_int {
    let rename = || {
        let mut how = RenameFlags::empty();
        how.set(RenameFlags::NOREPLACE, flags & bindings::RENAME_NOREPLACE != 0);
        how.set(RenameFlags::EXCHANGE, flags & bindings::RENAME_EXCHANGE != 0);
        if flags & !(bindings::RENAME_NOREPLACE | bindings::RENAME_EXCHANGE) != 0 {
            return Err(Errno::INVAL);
        }
        // SAFETY: the VFS gives locked directories of ours and dentries in them.
        unsafe {
            let to = (*new_dir).i_ino;
            with(old_dir, |fs, ino| fs.rename(ino, name(old), to, name(new), how))?;
            let replaced = (*new).d_inode;
            if !replaced.is_null() && !how.contains(RenameFlags::EXCHANGE) {
                inode::refresh(replaced);
            }
        }
        Ok(())
    };
    code(rename())
}

unsafe extern "C" fn iterate(file: *mut bindings::file, ctx: *mut bindings::dir_context) -> c_int {
    let list = || {
        // SAFETY: the VFS gives a file of ours, and a place to put entries, which may touch user memory: the core holds no lock then.
        unsafe {
            let Some(put) = (*ctx).actor else { return Err(Errno::INVAL) };
            let from = position((*ctx).pos)?;
            with((*file).f_inode, |fs, ino| {
                fs.readdir(ino, from, &mut |entry| {
                    (*ctx).pos = offset(entry.pos);
                    let (text, len) = (entry.name.as_ptr().cast(), entry.name.len() as c_int);
                    let kind = entry.kind.mode() >> 12;
                    let taken = put(ctx, text, len, (*ctx).pos, entry.ino, kind);
                    if taken {
                        (*ctx).pos = offset(entry.next_pos);
                    }
                    taken
                })
            })
        }
    };
    code(list())
}
