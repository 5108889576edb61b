// SPDX-License-Identifier: GPL-2.0-only
//! The hooks over system calls, so that this back end runs in tests.

use core::cell::RefCell;
use core::ffi::c_void;
use core::ptr::null;
use core::time::Duration;
use std::boxed::Box;
use std::string::{String, ToString};
use std::sync::Mutex;
use std::thread::JoinHandle;
use std::vec::Vec;

use super::hooks::{HostTime, LockNotes, ThreadEntry};

/// The last line that was logged, and its level.
pub(super) static LAST_LINE: Mutex<(u32, String)> = Mutex::new((0, String::new()));

#[unsafe(no_mangle)]
extern "C" fn scoutfs_host_wait(addr: *const u32, expected: u32, timeout_ns: u64) -> i32 {
    let timeout = libc::timespec {
        tv_sec: (timeout_ns / 1_000_000_000) as i64,
        tv_nsec: (timeout_ns % 1_000_000_000) as i64,
    };
    let timeout = if timeout_ns == u64::MAX { null() } else { &raw const timeout };
    // SAFETY: the futex word and the timeout are live.
    let result = unsafe {
        libc::syscall(libc::SYS_futex, addr, libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, expected, timeout)
    };
    let error = std::io::Error::last_os_error().raw_os_error();
    i32::from(result == -1 && error == Some(libc::ETIMEDOUT))
}

#[unsafe(no_mangle)]
extern "C" fn scoutfs_host_wake(addr: *const u32, count: u32) {
    let count = count.min(i32::MAX as u32);
    // SAFETY: a wake uses the address as a key only.
    unsafe { libc::syscall(libc::SYS_futex, addr, libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, count) };
}

/// Who kills wakes, too.
#[unsafe(no_mangle)]
unsafe extern "C" fn scoutfs_host_with_room(_bytes: usize, work: ThreadEntry, data: *mut c_void) {
    // SAFETY: as the hook says.
    unsafe { work(data) };
}

#[unsafe(no_mangle)]
extern "C" fn scoutfs_host_killed() -> i32 {
    crate::backend::std::thread::is_killed().into()
}

struct SendPtr(*mut c_void);
// SAFETY: the pointer is given up to the new thread.
unsafe impl Send for SendPtr {}

#[unsafe(no_mangle)]
extern "C" fn scoutfs_host_spawn(
    name: *const u8,
    name_len: usize,
    entry: ThreadEntry,
    data: *mut c_void,
    handle: *mut *mut c_void,
) -> i32 {
    // SAFETY: a live string, by the contract of the hook.
    let name = unsafe { str::from_utf8_unchecked(core::slice::from_raw_parts(name, name_len)) };
    if name == "refused" {
        return libc::EAGAIN;
    }
    let data = SendPtr(data);
    let thread = std::thread::spawn(move || {
        let data = data;
        // SAFETY: called once, with the data that came with it.
        unsafe { entry(data.0) }
    });
    // SAFETY: the caller's variable.
    unsafe { *handle = Box::into_raw(Box::new(thread)).cast() };
    0
}

#[unsafe(no_mangle)]
extern "C" fn scoutfs_host_join(handle: *mut c_void) {
    // SAFETY: made by spawn, used up here.
    let thread = unsafe { Box::from_raw(handle.cast::<JoinHandle<()>>()) };
    thread.join().unwrap();
}

#[unsafe(no_mangle)]
extern "C" fn scoutfs_host_detach(handle: *mut c_void) {
    // SAFETY: made by spawn, used up here.
    drop(unsafe { Box::from_raw(handle.cast::<JoinHandle<()>>()) });
}

#[unsafe(no_mangle)]
extern "C" fn scoutfs_host_sleep(ns: u64) {
    std::thread::sleep(Duration::from_nanos(ns));
}

/// Memory is there or not.
#[unsafe(no_mangle)]
extern "C" fn scoutfs_host_set_patience(limit_ns: u64) -> u64 {
    std::thread_local! {
        static LIMIT: core::cell::Cell<u64> = const { core::cell::Cell::new(0) };
    }
    LIMIT.replace(limit_ns)
}

#[unsafe(no_mangle)]
extern "C" fn scoutfs_host_mono_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills in a live timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[unsafe(no_mangle)]
extern "C" fn scoutfs_host_real_time(now: *mut HostTime) {
    let since_1970 = std::time::UNIX_EPOCH.elapsed().unwrap();
    // SAFETY: the caller's variable.
    unsafe {
        (*now).sec = since_1970.as_secs() as i64;
        (*now).nsec = since_1970.subsec_nanos();
    }
}

#[unsafe(no_mangle)]
extern "C" fn scoutfs_host_random(bytes: *mut u8, len: usize) {
    // SAFETY: the caller's buffer.
    let got = unsafe { libc::getrandom(bytes.cast(), len, 0) };
    assert_eq!(got, len as isize);
}

#[unsafe(no_mangle)]
extern "C" fn scoutfs_host_crc32c(crc: u32, bytes: *const u8, len: usize) -> u32 {
    // SAFETY: the caller's buffer.
    let bytes = unsafe { core::slice::from_raw_parts(bytes, len) };
    // Bit by bit: independent of the code that it stands for.
    !bytes.iter().fold(!crc, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & 0u32.wrapping_sub(crc & 1)))
    })
}

#[unsafe(no_mangle)]
extern "C" fn scoutfs_host_hmac_sha256(secret: *const u8, message: *const u8, len: usize, proof: *mut u8) {
    // SAFETY: the caller's buffers.
    let (secret, message) =
        unsafe { (&*secret.cast::<[u8; 32]>(), core::slice::from_raw_parts(message, len)) };
    let made = crate::backend::std::auth::hmac_sha256(secret, message);
    // SAFETY: the caller's buffer of 32 bytes.
    unsafe { proof.cast::<[u8; 32]>().write(made) };
}

#[unsafe(no_mangle)]
extern "C" fn scoutfs_host_log(level: u32, line: *const u8, len: usize) {
    // SAFETY: the caller's line.
    let line = unsafe { core::slice::from_raw_parts(line, len) };
    *LAST_LINE.lock().unwrap() = (level, str::from_utf8(line).unwrap().to_string());
}

/// A lock that was taken, as the host is told.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) notes: usize,
    pub(crate) class: usize,
    pub(crate) file: String,
    pub(crate) line: u32,
    pub(crate) nth: u32,
    pub(crate) shared: bool,
    pub(crate) tried: bool,
}

/// What the host is told of locks.
#[derive(Clone, Debug)]
pub(crate) enum LockEvent {
    Taken(Taken),
    GivenUp(usize),
}

impl LockEvent {
    pub(crate) fn taken(&self) -> Option<Taken> {
        match self {
            LockEvent::Taken(taken) => Some(taken.clone()),
            LockEvent::GivenUp(_) => None,
        }
    }

    pub(crate) fn notes(&self) -> usize {
        match self {
            LockEvent::Taken(taken) => taken.notes,
            LockEvent::GivenUp(notes) => *notes,
        }
    }
}

std::thread_local! {
    static LOCK_EVENTS: RefCell<Vec<LockEvent>> = const { RefCell::new(Vec::new()) };
}

/// What this thread has told since it was asked last.
pub(crate) fn lock_events() -> Vec<LockEvent> {
    LOCK_EVENTS.take()
}

#[unsafe(no_mangle)]
extern "C" fn scoutfs_host_lock_taken(
    notes: *mut LockNotes,
    class: *const c_void,
    file: *const u8,
    file_len: usize,
    line: u32,
    nth: u32,
    shared: u32,
    tried: u32,
) {
    // SAFETY: a live string, by the contract of the hook.
    let file = unsafe { str::from_utf8_unchecked(core::slice::from_raw_parts(file, file_len)) }.to_string();
    let (notes, class) = (notes.addr(), class.addr());
    let taken = Taken { notes, class, file, line, nth, shared: shared == 1, tried: tried == 1 };
    LOCK_EVENTS.with_borrow_mut(|events| events.push(LockEvent::Taken(taken)));
}

#[unsafe(no_mangle)]
extern "C" fn scoutfs_host_lock_given_up(notes: *mut LockNotes) {
    LOCK_EVENTS.with_borrow_mut(|events| events.push(LockEvent::GivenUp(notes.addr())));
}
