// SPDX-License-Identifier: GPL-2.0-only
//! The VFS's operation tables. Each callback translates, calls `scoutfs_fs`, and translates back.
//!
//! | module | what |
//! | --- | --- |
//! | this | the filesystem type, [`Volume`], and the way into the core |
//! | `options` | mount options |
//! | `mount` | super blocks: mounting, remounting, syncing, unmounting |
//! | `caches` | what this kernel keeps, dropped when the cluster's locks go back |
//! | `inode` | inodes: getting them, attributes, symbolic links |
//! | `dir` | names: looking up, making, linking, removing, renaming, listing |
//! | `file` | open files: reading, writing, seeking, syncing, allocating |
//! | `readers` | whether somebody may have read from a file |
//! | `pages` | the page cache: filling, writing back, mapping to memory |
//! | `fiemap` | where a file's data are |
//! | `shrinker` | memory that is given back when the kernel runs short |
//! | `locks` | locks of files |
//! | `handles` | file handles, for NFS |
//! | `ids` | owners and groups, as the volume has them and as a mount shows them |
//! | `sysfs` | a folder in `/sys/fs/scoutfs` for each mount |
//! | `xattr` | extended attributes and access control lists |
//! | `ioctl` | ioctls, and the memory and rights of who calls |
//!
//! # What must hold
//!
//! - An inode of the VFS holds one reference of the core's inode, which its eviction gives back.
//! - Attributes in an inode of the VFS are copies for permission checks; what programs are told comes from the core each time. Only
//!   the size of a regular file is used for more: it changes under the lock against filling pages (`kobj::folio::Invalidation`).
//! - Nothing that is kept is used after the cluster's lock for it went back, nor without a lease: names are checked on each use
//!   (`dir::revalidate`), attributes and sizes before each operation that needs them (`inode::renew`).
//! - A file's pages are never newer than the core's data but while they are dirty, which the core knows of before (`pages`, `file`).
//!   They agree with what the core has when the cluster's lock goes back: who reads or writes through the core holds the folios meanwhile.

mod caches;
mod dir;
mod fiemap;
mod file;
mod handles;
mod ids;
mod inode;
mod ioctl;
mod locks;
mod mount;
mod options;
mod pages;
mod readers;
mod shrinker;
mod sysfs;
mod xattr;

use core::cell::UnsafeCell;
use core::mem::zeroed;
use core::sync::atomic::{AtomicPtr, Ordering};

use kernel::bindings;
use kernel::prelude::*;
use scoutfs_env::sync::Mutex;
use scoutfs_env::Arc;
use scoutfs_fs::{Fs, Mount};

use crate::host::process::Identity;
use crate::kobj::error::Errno;
use crate::kobj::nofs::NoFs;
use caches::Caches;
use options::Options;
use shrinker::Shrinker;
use sysfs::{Folder, Root};

/// A mounted volume: what a super block points to.
struct Volume {
    /// Removed first, and this next.
    folder: Mutex<Option<Folder>>,
    shrinker: Mutex<Option<Shrinker>>,
    mount: Mount,
    options: Options,
    caches: Arc<Caches>,
    /// Alive as long as this is.
    _identity: Identity,
}

/// The volume of a super block.
///
/// # Safety
///
/// The super block is one of ours, between the end of its mounting and its unmounting.
unsafe fn volume<'a>(sb: *mut bindings::super_block) -> &'a Volume {
    // SAFETY: by the contract it points to a volume, which lives until `put_super`.
    unsafe { &*(*sb).s_fs_info.cast::<Volume>() }
}

/// Calls the core for an inode.
///
/// # Safety
///
/// The inode is one of ours, with a reference.
unsafe fn with<T>(
    inode: *mut bindings::inode,
    call: impl FnOnce(&Fs, u64) -> scoutfs_fs::Result<T>,
) -> core::result::Result<T, Errno> {
    // SAFETY: by the contract.
    let (volume, ino) = unsafe { (volume((*inode).i_sb), (*inode).i_ino) };
    let _nofs = NoFs::enter();
    let fs = volume.mount.fs();
    call(fs, ino).map_err(|e| Errno::from(fs.store().verdict(e)))
}

/// A table of callbacks, or a list of tables, that the kernel only reads.
#[repr(transparent)]
struct Table<T>(T);

// SAFETY: nobody writes it.
unsafe impl<T> Sync for Table<T> {}

/// The filesystem type; the kernel links it into its list.
struct Type(UnsafeCell<bindings::file_system_type>);

// SAFETY: changed by the kernel alone, under its own locks, and before it is registered.
unsafe impl Sync for Type {}

static TYPE: Type = Type(UnsafeCell::new(bindings::file_system_type {
    name: c"scoutfs".as_ptr().cast(),
    fs_flags: (bindings::FS_REQUIRES_DEV | bindings::FS_ALLOW_IDMAP) as i32,
    init_fs_context: Some(mount::init_fs_context),
    kill_sb: Some(mount::kill_sb),
    // SAFETY: zero is valid for all members: numbers, pointers, options of functions, and lists that are not in use.
    ..unsafe { zeroed() }
}));

/// `/sys/fs/scoutfs` while the module is registered.
static ROOT: AtomicPtr<bindings::kobject> = AtomicPtr::new(core::ptr::null_mut());

/// As long as it lives, `mount -t scoutfs` finds this module.
pub(crate) struct Registration {
    /// Goes after the type.
    _root: Root,
}

impl Registration {
    pub(crate) fn new(module: &'static ThisModule) -> Result<Self> {
        let root = Root::new()?;
        ROOT.store(root.as_ptr(), Ordering::Release);
        // SAFETY: nobody else uses the type yet; it lives as long as the module.
        kernel::error::to_result(unsafe {
            (*TYPE.0.get()).owner = module.as_ptr();
            bindings::register_filesystem(TYPE.0.get())
        })?;
        Ok(Registration { _root: root })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: registered in `new`. No super block is left, since each holds the module.
        unsafe { bindings::unregister_filesystem(TYPE.0.get()) };
    }
}
