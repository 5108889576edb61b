// SPDX-License-Identifier: GPL-2.0-only
//! Extended attributes and access control lists.
//!
//! The VFS checks permissions by the name's prefix, and asks for lists by operations of their own; the core keeps them as attributes.

use core::ffi::{c_void, CStr};
use core::mem::zeroed;
use core::ptr::{addr_of_mut, null, null_mut};

use kernel::bindings;
use kernel::ffi::{c_char, c_int};
use scoutfs_env::IoBuf;
use scoutfs_fs::acl::AclKind;
use scoutfs_fs::xattr::{SetXattr, SetXattrMode};

use super::{ids, inode, with, Table};
use crate::ffi;
use crate::kobj::error::{check_pointer, code, count, Errno, Result};

const fn handler(prefix: &CStr) -> Table<bindings::xattr_handler> {
    Table(bindings::xattr_handler {
        name: null(),
        prefix: prefix.as_ptr().cast(),
        get: Some(get),
        set: Some(set),
        // SAFETY: every member is an option of a function, a pointer or a number.
        ..unsafe { zeroed() }
    })
}

/// An NFS server looks whether there is one for these.
static USER: Table<bindings::xattr_handler> = handler(c"user.");

/// For all names: the core knows which there are.
static ALL: Table<bindings::xattr_handler> = handler(c"");

pub(super) static HANDLERS: Table<[*const bindings::xattr_handler; 3]> = Table([&USER.0, &ALL.0, null()]);

const CAP_SYS_ADMIN: c_int = 21;

/// A list of more entries than the core takes is longer than this.
const MAX_ACL_BYTES: usize = 64 << 10;

/// Whether the caller administers the machine.
fn is_admin() -> bool {
    // SAFETY: asks about the current task.
    unsafe { bindings::capable(CAP_SYS_ADMIN) }
}

/// A name, prefix included.
///
/// # Safety
///
/// As the VFS gives it to a handler of ours: what follows the prefix, in a whole name that is terminated and lives as long as the call.
unsafe fn whole<'a>(handler: *const bindings::xattr_handler, name: *const c_char) -> &'a [u8] {
    // SAFETY: by the contract.
    unsafe { CStr::from_ptr(bindings::xattr_full_name(handler, name).cast()) }.to_bytes()
}

/// The VFS's room for an answer; none when it asks for the length only.
///
/// # Safety
///
/// As the VFS gives them: `size` bytes that are ours to fill, or 0.
unsafe fn room<'a>(buffer: *mut c_void, size: usize) -> &'a mut [u8] {
    if buffer.is_null() || size == 0 {
        return &mut [];
    }
    // SAFETY: by the contract.
    unsafe { core::slice::from_raw_parts_mut(buffer.cast(), size) }
}

unsafe extern "C" fn get(
    handler: *const bindings::xattr_handler,
    _dentry: *mut bindings::dentry,
    inode: *mut bindings::inode,
    name: *const c_char,
    buffer: *mut c_void,
    size: usize,
) -> c_int {
    // SAFETY: as the VFS calls it. A value's length is below 65,536.
    unsafe { count(with(inode, |fs, ino| fs.getxattr(ino, whole(handler, name), room(buffer, size)))) as c_int }
}

unsafe extern "C" fn set(
    handler: *const bindings::xattr_handler,
    _idmap: *mut bindings::mnt_idmap,
    _dentry: *mut bindings::dentry,
    inode: *mut bindings::inode,
    name: *const c_char,
    value: *const c_void,
    size: usize,
    flags: c_int,
) -> c_int {
    // SAFETY: as the VFS calls it.
    let name = unsafe { whole(handler, name) };
    // Asked only where it matters: asking is noted in the caller's task.
    let privileged = name.starts_with(b"scoutfs.") && is_admin();
    let set = || {
        let mode = match flags.unsigned_abs() {
            0 => SetXattrMode::Any,
            bindings::XATTR_CREATE => SetXattrMode::Create,
            bindings::XATTR_REPLACE => SetXattrMode::Replace,
            _ => return Err(Errno::INVAL),
        };
        // SAFETY: as the VFS calls it; no value is a removal.
        unsafe {
            if value.is_null() {
                return with(inode, |fs, ino| fs.removexattr(ino, name, privileged));
            }
            let value = if size == 0 { &[] } else { core::slice::from_raw_parts(value.cast::<u8>(), size) };
            let how = SetXattr { mode, privileged, kill_sgid: false };
            with(inode, |fs, ino| fs.setxattr(ino, name, value, how))
        }
    };
    code(set())
}

/// Names, as programs see them.
pub(super) unsafe extern "C" fn list(
    dentry: *mut bindings::dentry,
    buffer: *mut c_char,
    size: usize,
) -> isize {
    let admin = is_admin();
    // SAFETY: as the VFS calls it.
    let listed = unsafe {
        let room = room(buffer.cast(), size);
        with((*dentry).d_inode, |fs, ino| {
            // The VFS keeps the values of these from others, but not the names.
            fs.listxattr_if(ino, room, &mut |name| admin || !name.starts_with(b"trusted."))
        })
    };
    count(listed) as isize
}

fn kind_of(kind: c_int) -> Result<AclKind> {
    const ACCESS: c_int = 0x8000;
    const DEFAULT: c_int = 0x4000;
    match kind {
        ACCESS => Ok(AclKind::Access),
        DEFAULT => Ok(AclKind::Default),
        _ => Err(Errno::INVAL),
    }
}

/// Gives the VFS a list, which it keeps.
pub(super) unsafe extern "C" fn get_acl(
    inode: *mut bindings::inode,
    kind: c_int,
    rcu: bool,
) -> *mut bindings::posix_acl {
    if rcu {
        // The VFS may not wait now; it comes again.
        return Errno::CHILD.pointer();
    }
    let read = || {
        let name = kind_of(kind)?.xattr_name();
        // SAFETY: the VFS gives an inode of ours.
        unsafe {
            let len = match with(inode, |fs, ino| fs.getxattr(ino, name, &mut [])) {
                Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(null_mut()),
                len => len?.max(1),
            };
            // It may have grown meanwhile.
            let mut value = IoBuf::zeroed(len.max(MAX_ACL_BYTES))?;
            let len = match with(inode, |fs, ino| fs.getxattr(ino, name, &mut value)) {
                Err(Errno::NODATA) => return Ok(null_mut()),
                len => len?,
            };
            let init_ns = addr_of_mut!(bindings::init_user_ns);
            check_pointer(ffi::posix_acl_from_xattr(init_ns, value.as_ptr().cast(), len).cast())
        }
    };
    read().unwrap_or_else(|e: Errno| e.pointer())
}

pub(super) unsafe extern "C" fn set_acl(
    idmap: *mut bindings::mnt_idmap,
    dentry: *mut bindings::dentry,
    acl: *mut bindings::posix_acl,
    kind: c_int,
) -> c_int {
    let set = || {
        let name = kind_of(kind)?.xattr_name();
        // SAFETY: the VFS gives a dentry of ours whose inode is locked, and a list, or none to remove it.
        unsafe {
            let inode = (*dentry).d_inode;
            // Who is not of the file's group loses set-group-ID.
            let group = bindings::vfsgid_t { val: ids::seen_gid(idmap, (*inode).i_gid.val) };
            let kill_sgid = !bindings::in_group_or_capable(idmap, inode, group);
            let how = SetXattr { mode: SetXattrMode::Any, privileged: false, kill_sgid };
            if acl.is_null() {
                // A list without entries removes what there is, or is not.
                let none = 2u32.to_le_bytes();
                with(inode, |fs, ino| fs.setxattr(ino, name, &none, how))?;
            } else {
                let mut len = 0;
                let init_ns = addr_of_mut!(bindings::init_user_ns);
                let value = ffi::posix_acl_to_xattr(init_ns, acl.cast(), &mut len, bindings::GFP_KERNEL);
                if value.is_null() {
                    return Err(Errno::NOMEM);
                }
                let bytes = core::slice::from_raw_parts(value.cast::<u8>(), len);
                let done = with(inode, |fs, ino| fs.setxattr(ino, name, bytes, how));
                bindings::kfree(value);
                done?;
            }
            ffi::forget_cached_acl(inode, kind);
            inode::refresh(inode);
        }
        Ok(())
    };
    code(set())
}
