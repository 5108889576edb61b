// SPDX-License-Identifier: GPL-2.0-only
//! The kernel's clocks.

use super::hooks::{HostTime, scoutfs_host_mono_ns, scoutfs_host_real_time};
use crate::time::Timespec;

pub(crate) fn mono_now_ns() -> u64 {
    // SAFETY: takes nothing and returns a number.
    unsafe { scoutfs_host_mono_ns() }
}

pub(crate) fn real_now() -> Timespec {
    let mut now = HostTime { sec: 0, nsec: 0 };
    // SAFETY: `now` is live and may be filled in.
    unsafe { scoutfs_host_real_time(&mut now) };
    Timespec { sec: now.sec, nsec: now.nsec }
}
