// SPDX-License-Identifier: GPL-2.0-only
//! Clocks and sleeping.

use kernel::bindings;

/// As the core has it.
#[repr(C)]
struct HostTime {
    sec: i64,
    nsec: u32,
}

/// Nanoseconds since boot, suspend included.
pub(super) fn mono_ns() -> u64 {
    // SAFETY: reads a clock.
    let now = unsafe { bindings::ktime_get_with_offset(bindings::tk_offsets_TK_OFFS_BOOT) };
    now.unsigned_abs()
}

/// Sleeps for at least so long.
pub(crate) fn sleep_ns(ns: u64) {
    let us = usize::try_from(ns.div_ceil(1000)).unwrap_or(usize::MAX);
    // A tenth more lets the kernel wake several sleepers at once.
    let slack = (us / 10).min(1000);
    // SAFETY: sleeps; the task waits for nothing else. Idle: does not count as load.
    unsafe { bindings::usleep_range_state(us, us.saturating_add(slack), bindings::TASK_IDLE) };
}

/// See `scoutfs_env`.
#[no_mangle]
extern "C" fn scoutfs_host_sleep(ns: u64) {
    sleep_ns(ns);
}

/// See `scoutfs_env`.
#[no_mangle]
extern "C" fn scoutfs_host_mono_ns() -> u64 {
    mono_ns()
}

/// See `scoutfs_env`.
///
/// # Safety
///
/// `now` is valid for writing.
#[no_mangle]
unsafe extern "C" fn scoutfs_host_real_time(now: *mut HostTime) {
    let mut ts = bindings::timespec64::default();
    // SAFETY: fills a value on the stack; `now` is valid by the contract. Nanoseconds are below 1e9.
    unsafe {
        bindings::ktime_get_real_ts64(&mut ts);
        *now = HostTime { sec: ts.tv_sec, nsec: ts.tv_nsec as u32 };
    }
}
