// SPDX-License-Identifier: GPL-2.0-only
//! The host is whoever links the core: a kernel module. It defines the functions of [`hooks`] and nothing
//! else, so a static library of core crates has only those undefined.
//!
//! | module | what |
//! | --- | --- |
//! | `hooks` | the functions that the module defines, and what each must do |
//! | `sync` | locks over two of them (a futex) |
//! | `auth`, `crc32c`, `log`, `random`, `thread`, `time` | thin safe wrappers of the others |
//!
//! In tests the hooks are defined over system calls (`test_hooks`), so that the locks run as real threads.

// A test build of another back end compiles all of this, but calls only what it tests.
#![cfg_attr(feature = "std", allow(dead_code))]

pub(crate) mod auth;
pub(crate) mod crc32c;
pub(crate) mod hooks;
pub(crate) mod log;
pub(crate) mod random;
pub(crate) mod sync;
#[cfg(test)]
pub(crate) mod test_hooks;
pub(crate) mod thread;
pub(crate) mod time;
