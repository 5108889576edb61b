// SPDX-License-Identifier: GPL-2.0-only
//! The scoutfs kernel module: a real Linux filesystem over the same core crates that the FUSE front end uses.
//!
//! | module | what |
//! | --- | --- |
//! | `host` | what the core asks of its host (`scoutfs_host_*` and the block device), over the kernel's primitives |
//! | `kobj` | safe wrappers of kernel objects: allocation scopes, folios, errors |
//! | `vfs` | the VFS's operation tables: translate, call `scoutfs_fs`, translate back |
//! | `ffi` | types and functions that the kernel's own bindings lack |
//!
//! # What must hold
//!
//! - No rule of the filesystem is here: what an operation does and when it fails is the core's to say.
//! - Every call into the core is made in a scope without filesystem reclaim ([`kobj::nofs`]), so that an allocation never
//!   enters a filesystem again.
//! - User memory is touched only while no lock of the core and no folio is held.
//! - A callback that the VFS offers and that is not here is not in the table, so that the VFS says so; nothing pretends to work.

mod ffi;
mod host;
mod kobj;
mod vfs;

use kernel::prelude::*;

module! {
    type: Scoutfs,
    name: "scoutfs",
    authors: ["the scoutfs project"],
    description: "scoutfs, a clustered filesystem for large archives",
    license: "GPL",
    alias: ["fs-scoutfs"],
}

/// `modinfo` shows which volumes this module can mount.
#[link_section = ".modinfo"]
#[used]
static FORMAT: [u8; 24] = format_info();

/// `format=`, the hash in hexadecimal, and the zero that ends an entry.
const fn format_info() -> [u8; 24] {
    let name = b"format=";
    let mut text = [0; 24];
    let mut at = 0;
    while at < 23 {
        text[at] = if at < name.len() {
            name[at]
        } else {
            b"0123456789abcdef"[(scoutfs_format::FORMAT_HASH >> (4 * (22 - at)) & 0xf) as usize]
        };
        at += 1;
    }
    text
}

/// The loaded module: its filesystem type is registered as long as it lives.
struct Scoutfs {
    _registration: vfs::Registration,
    /// Goes after it.
    _queue: host::stack::Queue,
}

impl kernel::Module for Scoutfs {
    fn init(module: &'static ThisModule) -> Result<Self> {
        #[cfg(CONFIG_LOCKDEP)]
        host::lockdep::init();
        let queue = host::stack::Queue::new()?;
        let registration = vfs::Registration::new(module)?;
        scoutfs_env::info!("loaded, format {:016x}", scoutfs_format::FORMAT_HASH);
        Ok(Scoutfs { _registration: registration, _queue: queue })
    }
}
