// SPDX-License-Identifier: GPL-2.0-only
//! File handles, for NFS servers and `name_to_handle_at`: the number of an inode, and that of its directory where it is wanted. Numbers
//! are never used again, so generations say nothing.
//!
//! The table is in `helpers.c`, since the kernel's bindings lack its type.

use kernel::bindings;
use kernel::ffi::c_int;
use scoutfs_fs::Fs;

use super::{inode, volume, with};
use crate::kobj::error::{code, Errno, Result};
use crate::kobj::nofs::NoFs;

/// The kernel's types of handles: a number of 64 bits and a generation, alone or followed by those of the directory.
const INO64_GEN: c_int = 0x81;
const INO64_GEN_PARENT: c_int = 0x82;
const INVALID: c_int = 0xff;

/// Words of 32 bits for one inode.
const WORDS: c_int = 3;

/// # Safety
///
/// There is room for [`WORDS`].
unsafe fn put(to: *mut u32, ino: u64) {
    // SAFETY: by the contract.
    unsafe {
        to.write(ino as u32);
        to.add(1).write((ino >> 32) as u32);
        to.add(2).write(Fs::GENERATION as u32);
    }
}

/// # Safety
///
/// There are [`WORDS`].
unsafe fn get(from: *const u32) -> u64 {
    // SAFETY: by the contract.
    unsafe { u64::from(from.read()) | u64::from(from.add(1).read()) << 32 }
}

/// Makes a handle.
///
/// # Safety
///
/// As the VFS calls: inodes of ours, and room for so many words.
#[no_mangle]
unsafe extern "C" fn scoutfs_encode_fh(
    inode: *mut bindings::inode,
    handle: *mut u32,
    max_words: *mut c_int,
    parent: *mut bindings::inode,
) -> c_int {
    // SAFETY: by the contract.
    unsafe {
        let (words, kind) = if parent.is_null() { (WORDS, INO64_GEN) } else { (2 * WORDS, INO64_GEN_PARENT) };
        let room = core::mem::replace(&mut *max_words, words);
        if room < words {
            return INVALID;
        }
        put(handle, (*inode).i_ino);
        if !parent.is_null() {
            put(handle.add(WORDS as usize), (*parent).i_ino);
        }
        kind
    }
}

/// The dentry of an inode's number.
///
/// # Safety
///
/// The super block is one of ours, mounted.
unsafe fn dentry_of(sb: *mut bindings::super_block, ino: u64) -> Result<*mut bindings::dentry> {
    // SAFETY: by the contract.
    unsafe {
        let volume = volume(sb);
        let epoch = volume.caches.epoch();
        let attr = {
            let _nofs = NoFs::enter();
            volume.mount.fs().lookup_ino(ino)
        };
        let attr = match attr.map_err(|e| Errno::from(volume.mount.fs().store().verdict(e))) {
            Err(Errno::NOENT) => return Err(Errno::STALE),
            attr => attr?,
        };
        // Gives the inode back when it fails.
        Ok(bindings::d_obtain_alias(inode::get(sb, &attr, epoch)?))
    }
}

/// What a handle stands for.
///
/// # Safety
///
/// As the VFS calls: a super block of ours, and so many words.
#[no_mangle]
unsafe extern "C" fn scoutfs_fh_to_dentry(
    sb: *mut bindings::super_block,
    handle: *const u32,
    words: c_int,
    kind: c_int,
) -> *mut bindings::dentry {
    if !matches!(kind, INO64_GEN | INO64_GEN_PARENT) || words < WORDS {
        return core::ptr::null_mut();
    }
    // SAFETY: by the contract.
    unsafe { dentry_of(sb, get(handle)) }.unwrap_or_else(Errno::pointer)
}

/// The directory of what a handle stands for, as it was when the handle was made.
///
/// # Safety
///
/// As [`scoutfs_fh_to_dentry`].
#[no_mangle]
unsafe extern "C" fn scoutfs_fh_to_parent(
    sb: *mut bindings::super_block,
    handle: *const u32,
    words: c_int,
    kind: c_int,
) -> *mut bindings::dentry {
    if kind != INO64_GEN_PARENT || words < 2 * WORDS {
        return core::ptr::null_mut();
    }
    // SAFETY: by the contract.
    unsafe { dentry_of(sb, get(handle.add(WORDS as usize))) }.unwrap_or_else(Errno::pointer)
}

/// The directory that a directory is in.
///
/// # Safety
///
/// As the VFS calls: a dentry of a directory of ours.
#[no_mangle]
unsafe extern "C" fn scoutfs_get_parent(child: *mut bindings::dentry) -> *mut bindings::dentry {
    // SAFETY: by the contract.
    let parent = unsafe {
        let (directory, sb) = ((*child).d_inode, (*child).d_sb);
        let epoch = volume(sb).caches.epoch();
        with(directory, |fs, ino| fs.lookup(ino, b".."))
            .and_then(|attr| Ok(bindings::d_obtain_alias(inode::get(sb, &attr, epoch)?)))
    };
    parent.unwrap_or_else(Errno::pointer)
}

/// Makes durable what an NFS server is about to say was done to an inode.
///
/// # Safety
///
/// As the VFS calls: an inode of ours.
#[no_mangle]
unsafe extern "C" fn scoutfs_commit_metadata(inode: *mut bindings::inode) -> c_int {
    // SAFETY: by the contract.
    code(unsafe { with(inode, |fs, ino| fs.fsync(ino)) })
}
