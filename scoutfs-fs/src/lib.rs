// SPDX-License-Identifier: GPL-2.0-only
//! The scoutfs filesystem that every front end calls.
//!
//! | module | what |
//! | --- | --- |
//! | [`fs`] | [`Fs`]: one method for each operation |
//! | [`inode`], [`dir`], [`xattr`], [`data`] | the operations, by what they work on |
//! | [`acl`] | access control lists |
//! | [`file_locks`] | locks of fcntl and flock, on all mounts |
//! | [`ioctl`] | the ioctls, for every front end |
//! | [`counters`] | what a mount has done so far, in numbers |
//! | [`node`] | [`Mount`]: a volume on a device made into a working filesystem, its threads, its server |
//! | [`store`] | what operations stand on: cluster locks, transactions, commits, items, space |
//! | [`mkfs`] | making a volume |
//! | [`check`] | proof that a volume is sound |
//! | [`error`] | what operations fail with, and the errno of each |
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod acl;
pub mod check;
pub mod counters;
pub mod data;
pub mod dir;
pub mod error;
pub mod file_locks;
pub mod fs;
pub mod inode;
pub mod ioctl;
pub mod mkfs;
pub mod node;
pub mod store;
pub mod xattr;

pub use error::{Error, Result};
pub use fs::Fs;
pub use node::{Cancel, Mount, MountOptions, Rank};
