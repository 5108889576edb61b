// SPDX-License-Identifier: GPL-2.0-only
//! Clocks from clock_gettime(2).

use crate::time::Timespec;

pub(crate) fn mono_now_ns() -> u64 {
    // CLOCK_BOOTTIME, not CLOCK_MONOTONIC: a lease must run out while the machine is suspended.
    let now = clock(libc::CLOCK_BOOTTIME);
    u64::try_from(now.sec).unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(u64::from(now.nsec))
}

pub(crate) fn real_now() -> Timespec {
    clock(libc::CLOCK_REALTIME)
}

fn clock(id: libc::clockid_t) -> Timespec {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a live timespec that the call may fill in.
    let result = unsafe { libc::clock_gettime(id, &mut now) };
    assert!(result == 0, "the kernel does not know clock {id}");
    Timespec {
        sec: now.tv_sec,
        // Always below 10^9.
        nsec: now.tv_nsec as u32,
    }
}
