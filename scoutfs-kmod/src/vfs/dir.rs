// SPDX-License-Identifier: GPL-2.0-only
//! Names: looking up, making, linking, removing, renaming, listing.
//!
//! The VFS holds the directories' locks, so what it keeps of names agrees with the core on this mount.

use core::ffi::CStr;
use core::mem::zeroed;
use core::ptr::null_mut;

use kernel::bindings;
use kernel::ffi::{c_char, c_int, c_uint};
use scoutfs_fs::dir::{NewInode, RenameFlags};
use scoutfs_fs::inode::Attr;
use scoutfs_fs::Fs;

use super::{inode, with, xattr};
use crate::ffi;
use crate::kobj::error::{check, code, Errno, Result};
use crate::kobj::folio::{offset, position};

pub(super) static INODE_OPS: bindings::inode_operations = bindings::inode_operations {
    lookup: Some(lookup),
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

pub(super) static FILE_OPS: super::Table<bindings::file_operations> =
    super::Table(bindings::file_operations {
        llseek: Some(bindings::generic_file_llseek),
        read: Some(bindings::generic_read_dir),
        iterate_shared: Some(iterate),
        open: Some(super::file::open),
        release: Some(super::file::release),
        fsync: Some(super::file::fsync_dir),
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
    unsafe {
        let name = &(*dentry).__bindgen_anon_1.d_name;
        core::slice::from_raw_parts(name.name, name.__bindgen_anon_1.__bindgen_anon_1.len as usize)
    }
}

/// What a new inode is made of, from who makes it.
fn new_inode(mode: u32, rdev: u64) -> NewInode {
    // SAFETY: credentials of the current task, which are its own.
    let (uid, gid, umask) = unsafe {
        let cred = (*bindings::get_current()).cred;
        ((*cred).fsuid.val, (*cred).fsgid.val, ffi::scoutfs_current_umask())
    };
    NewInode { mode, umask: umask.unsigned_abs(), rdev, uid, gid }
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
        let attr = with(dir, |fs, ino| call(fs, ino, name(dentry)))?;
        inode::refresh(dir);
        bindings::d_instantiate(dentry, inode::get((*dir).i_sb, &attr)?);
    }
    Ok(())
}

unsafe extern "C" fn lookup(
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    _flags: c_uint,
) -> *mut bindings::dentry {
    // SAFETY: the VFS gives a locked directory of ours and a dentry in it.
    unsafe {
        let found = match with(dir, |fs, ino| fs.lookup(ino, name(dentry))) {
            Ok(attr) => match inode::get((*dir).i_sb, &attr) {
                Ok(inode) => inode,
                Err(e) => return e.pointer(),
            },
            Err(Errno::NOENT) => null_mut(),
            Err(e) => return e.pointer(),
        };
        bindings::d_splice_alias(found, dentry)
    }
}

unsafe extern "C" fn create(
    _idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    mode: bindings::umode_t,
) -> c_int {
    let mode = u32::from(mode) & 0o7777 | bindings::S_IFREG;
    // SAFETY: as the VFS calls it.
    code(unsafe { make(dir, dentry, |fs, ino, name| fs.create(ino, name, &new_inode(mode, 0))) })
}

unsafe extern "C" fn mknod(
    _idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    mode: bindings::umode_t,
    dev: bindings::dev_t,
) -> c_int {
    let new = new_inode(mode.into(), inode::core_device_number(dev));
    // SAFETY: as the VFS calls it.
    code(unsafe { make(dir, dentry, |fs, ino, name| fs.create(ino, name, &new)) })
}

unsafe extern "C" fn mkdir(
    _idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    mode: bindings::umode_t,
) -> *mut bindings::dentry {
    let mode = u32::from(mode) & 0o7777 | bindings::S_IFDIR;
    // SAFETY: as the VFS calls it.
    let made = unsafe { make(dir, dentry, |fs, ino, name| fs.mkdir(ino, name, &new_inode(mode, 0))) };
    made.map_or_else(Errno::pointer, |()| null_mut())
}

unsafe extern "C" fn symlink(
    _idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    target: *const c_char,
) -> c_int {
    let new = new_inode(bindings::S_IFLNK | 0o777, 0);
    // SAFETY: the VFS gives a terminated text.
    let target = unsafe { CStr::from_ptr(target.cast()) }.to_bytes();
    // SAFETY: as the VFS calls it.
    code(unsafe { make(dir, dentry, |fs, ino, name| fs.symlink(ino, name, target, &new)) })
}

unsafe extern "C" fn tmpfile(
    _idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    file: *mut bindings::file,
    mode: bindings::umode_t,
) -> c_int {
    let make = || {
        let new = new_inode(u32::from(mode) & 0o7777 | bindings::S_IFREG, 0);
        // SAFETY: the VFS gives a directory of ours and a file whose dentry has no inode.
        unsafe {
            let linkable = (*file).f_flags & bindings::O_EXCL == 0;
            let attr = with(dir, |fs, ino| fs.tmpfile(ino, &new, linkable))?;
            let inode = inode::get((*dir).i_sb, &attr)?;
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
        let made = make(dir, dentry, |fs, ino, name| fs.link((*inode).i_ino, ino, name));
        // The number of links.
        inode::refresh(inode);
        made
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
        inode::refresh(dir);
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
            for changed in [old_dir, new_dir, (*old).d_inode, (*new).d_inode] {
                if !changed.is_null() {
                    inode::refresh(changed);
                }
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
