// SPDX-License-Identifier: GPL-2.0-only
//! What a kernel module must define.

use core::ffi::c_void;

/// What a thread runs.
pub(crate) type ThreadEntry = unsafe extern "C" fn(data: *mut c_void);

/// A time of day, filled in by the host.
#[repr(C)]
pub(crate) struct HostTime {
    pub(crate) sec: i64,
    pub(crate) nsec: u32,
}

unsafe extern "C" {
    /// If the word at `addr` is `expected`, sleeps until it is woken or `timeout_ns` have passed (`u64::MAX`:
    /// for ever). Comparing and going to sleep are one step as seen by `scoutfs_host_wake`. May also
    /// return for no reason, and must when the calling thread is killed, once: but not because of signals over and over.
    /// Returns 1 when the time ran out, else 0.
    pub(crate) fn scoutfs_host_wait(addr: *const u32, expected: u32, timeout_ns: u64) -> i32;

    /// Wakes up to `count` sleepers of `addr`. Takes the address as a key only: the memory may be free already.
    pub(crate) fn scoutfs_host_wake(addr: *const u32, count: u32);

    /// Returns 1 if the calling thread is that of a program that was killed, else 0.
    pub(crate) fn scoutfs_host_killed() -> i32;

    /// Calls `work(data)` once and returns after that: in another thread if the stack of this one has not so many bytes left, and
    /// what devices and the network need.
    pub(crate) fn scoutfs_host_with_room(bytes: usize, work: ThreadEntry, data: *mut c_void);

    /// Starts a thread that calls `entry(data)` once, and sets `*handle`. The name is not terminated. Returns 0,
    /// or an error number, and then `entry` is never called.
    pub(crate) fn scoutfs_host_spawn(
        name: *const u8,
        name_len: usize,
        entry: ThreadEntry,
        data: *mut c_void,
        handle: *mut *mut c_void,
    ) -> i32;

    /// Waits until a thread has ended, and frees its handle.
    pub(crate) fn scoutfs_host_join(handle: *mut c_void);

    /// Frees a handle without waiting.
    pub(crate) fn scoutfs_host_detach(handle: *mut c_void);

    /// Sleeps for at least `ns` nanoseconds.
    pub(crate) fn scoutfs_host_sleep(ns: u64);

    /// Sets for how many nanoseconds an allocation of the calling thread waits for memory before it fails, and returns what
    /// was set before. It is 0 when a thread begins. The module's allocator does the waiting.
    pub(crate) fn scoutfs_host_set_patience(limit_ns: u64) -> u64;

    /// Nanoseconds on a clock that never goes back and counts suspend.
    pub(crate) fn scoutfs_host_mono_ns() -> u64;

    /// The time of day.
    pub(crate) fn scoutfs_host_real_time(now: *mut HostTime);

    /// Fills `len` bytes with random numbers fit for keys.
    pub(crate) fn scoutfs_host_random(bytes: *mut u8, len: usize);

    /// Continues a finished CRC-32C: takes and returns values after the final xor, 0 to begin with.
    pub(crate) fn scoutfs_host_crc32c(crc: u32, bytes: *const u8, len: usize) -> u32;

    /// HMAC-SHA-256 of a message under a secret of 32 bytes, into 32 bytes. Must not sleep.
    pub(crate) fn scoutfs_host_hmac_sha256(
        secret: *const u8,
        message: *const u8,
        message_len: usize,
        proof: *mut u8,
    );

    /// Writes a line to the log: UTF-8, at most 256 bytes, no newline, not terminated. Levels are 0 error,
    /// 1 warning, 2 info, 3 debug. Must not sleep.
    pub(crate) fn scoutfs_host_log(level: u32, line: *const u8, len: usize);
}

/// What the host notes of a lock; zeros at first.
#[cfg(any(all(feature = "lockdep", not(feature = "std")), test))]
pub(crate) type LockNotes = [usize; 8];

#[cfg(any(all(feature = "lockdep", not(feature = "std")), test))]
unsafe extern "C" {
    /// The calling thread waits for a lock, or has just taken it when `tried` is 1, alone or shared with others. `notes` are the host's,
    /// for as long as the lock lives; it moves only while nobody has it. `class` is an address that stays and stands for all locks that
    /// were made in one place, which `file` (not terminated) and `line` tell; this is the `nth` of them that the thread takes in an order
    /// which holds for all. Must not sleep.
    pub(crate) fn scoutfs_host_lock_taken(
        notes: *mut LockNotes,
        class: *const c_void,
        file: *const u8,
        file_len: usize,
        line: u32,
        nth: u32,
        shared: u32,
        tried: u32,
    );

    /// The calling thread is about to give up a lock.
    pub(crate) fn scoutfs_host_lock_given_up(notes: *mut LockNotes);
}
