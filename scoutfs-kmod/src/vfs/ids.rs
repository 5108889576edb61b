// SPDX-License-Identifier: GPL-2.0-only
//! Owners and groups: the numbers that the volume has, and those that programs see by a mount, which may map them (an idmapped mount).
//!
//! Inodes and the core have the volume's. What the VFS says that programs want, and who they are, is in numbers of the mount. A number
//! that has none on the other side becomes [`NONE`], which nobody is.

use core::ptr::addr_of_mut;

use kernel::bindings;

/// No owner and no group.
pub(super) const NONE: u32 = u32::MAX;

/// The owner that programs see.
///
/// # Safety
///
/// The mapping is that of a mount which is in use.
pub(super) unsafe fn seen_uid(idmap: *mut bindings::mnt_idmap, uid: u32) -> u32 {
    let uid = bindings::kuid_t { val: uid };
    // SAFETY: by the contract. Volumes are mounted by who administers the machine, with its numbers.
    unsafe { bindings::make_vfsuid(idmap, addr_of_mut!(bindings::init_user_ns), uid) }.val
}

/// The group that programs see.
///
/// # Safety
///
/// As [`seen_uid`].
pub(super) unsafe fn seen_gid(idmap: *mut bindings::mnt_idmap, gid: u32) -> u32 {
    let gid = bindings::kgid_t { val: gid };
    // SAFETY: as above.
    unsafe { bindings::make_vfsgid(idmap, addr_of_mut!(bindings::init_user_ns), gid) }.val
}

/// The volume's number of an owner that programs see.
///
/// # Safety
///
/// As [`seen_uid`].
pub(super) unsafe fn kept_uid(idmap: *mut bindings::mnt_idmap, seen: u32) -> u32 {
    let seen = bindings::vfsuid_t { val: seen };
    // SAFETY: as above.
    unsafe { bindings::from_vfsuid(idmap, addr_of_mut!(bindings::init_user_ns), seen) }.val
}

/// The volume's number of a group that programs see.
///
/// # Safety
///
/// As [`seen_uid`].
pub(super) unsafe fn kept_gid(idmap: *mut bindings::mnt_idmap, seen: u32) -> u32 {
    let seen = bindings::vfsgid_t { val: seen };
    // SAFETY: as above.
    unsafe { bindings::from_vfsgid(idmap, addr_of_mut!(bindings::init_user_ns), seen) }.val
}
