// SPDX-License-Identifier: GPL-2.0-only
//! The host is a userspace process on Linux.

pub(crate) mod auth;
pub(crate) mod crc32c;
pub(crate) mod log;
#[cfg(not(feature = "shuttle"))]
pub(crate) mod random;
pub(crate) mod sync;
pub(crate) mod thread;
pub(crate) mod time;
