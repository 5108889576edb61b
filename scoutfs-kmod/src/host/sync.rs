// SPDX-License-Identifier: GPL-2.0-only
//! Sleeping on a word of memory, and waking.
//!
//! Sleepers wait in the kernel's own hash of wait queues for variables (`__var_waitqueue`), each as an exclusive waiter with the word's
//! address as its key, so that a wake-up of one wakes one. The entry lies on the sleeper's stack and is taken from the
//! queue, under its lock, before the call returns.

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr::addr_of_mut;
use core::sync::atomic::{fence, AtomicU32, Ordering};

use kernel::bindings;

use crate::ffi;

/// The key of waiters for a variable has this in place of a bit's number.
const NO_BIT: i32 = -1;

/// How the current task sleeps: the core's own threads do not count as load, nor as hung however long they have nothing to do. A program
/// is woken when it is killed; if it was, it sleeps to the end: what may be given up the core has then.
fn sleep_state() -> i32 {
    // SAFETY: the current task is alive, and its flags are its own.
    let flags = unsafe { (*bindings::get_current()).flags };
    let state = if flags & bindings::PF_KTHREAD != 0 {
        bindings::TASK_IDLE
    } else if is_killed() {
        bindings::TASK_UNINTERRUPTIBLE
    } else {
        ffi::SCOUTFS_TASK_KILLABLE
    };
    state as i32
}

/// Whether a fatal signal is on its way to the current task.
fn is_killed() -> bool {
    // SAFETY: asks about the current task.
    unsafe { ffi::scoutfs_fatal_signal_pending() }
}

/// See `scoutfs_env`. A task that was killed by a signal and comes to its end gives back what it had: files, and locks on them.
#[no_mangle]
extern "C" fn scoutfs_host_killed() -> i32 {
    const SIGNAL: i32 = 0x7f;
    // SAFETY: the current task is alive, and so is what its threads share.
    let dying = unsafe {
        let task = bindings::get_current();
        (*task).flags & bindings::PF_EXITING != 0 && (*(*task).signal).group_exit_code & SIGNAL != 0
    };
    (dying || is_killed()).into()
}

/// See `scoutfs_env`.
///
/// # Safety
///
/// `addr` is valid for the length of the call.
#[no_mangle]
unsafe extern "C" fn scoutfs_host_wait(addr: *const u32, expected: u32, timeout_ns: u64) -> i32 {
    let key = addr.cast_mut().cast::<c_void>();
    let mut entry = MaybeUninit::<bindings::wait_bit_queue_entry>::zeroed();
    let entry = entry.as_mut_ptr();
    // SAFETY: the entry lives on this stack until it is taken out of the queue below; the address is a key.
    let (queue, wait, killed) = unsafe {
        bindings::init_wait_var_entry(entry, key, ffi::SCOUTFS_WQ_FLAG_EXCLUSIVE as i32);
        let queue = bindings::__var_waitqueue(key);
        let wait = addr_of_mut!((*entry).wq_entry);
        // Who changes the word and then wakes either sees this entry, or changed the word before it is read below. A task that is
        // killed just now is not queued.
        let killed = bindings::prepare_to_wait_event(queue, wait, sleep_state()) != 0;
        (queue, wait, killed)
    };
    // SAFETY: valid by the contract; others change it atomically.
    let word = unsafe { AtomicU32::from_ptr(addr.cast_mut()) };
    let mut timed_out = false;
    if !killed && word.load(Ordering::SeqCst) == expected {
        match i64::try_from(timeout_ns) {
            Ok(mut timeout) => {
                // SAFETY: the task's state was set above.
                timed_out = unsafe {
                    bindings::schedule_hrtimeout(&mut timeout, bindings::hrtimer_mode_HRTIMER_MODE_REL)
                } == 0;
            }
            // For ever.
            // SAFETY: as above.
            Err(_) => unsafe { bindings::schedule() },
        }
    }
    // SAFETY: the entry was queued here.
    unsafe { bindings::finish_wait(queue, wait) };
    timed_out.into()
}

/// See `scoutfs_env`.
#[no_mangle]
extern "C" fn scoutfs_host_wake(addr: *const u32, count: u32) {
    // SAFETY: the address is a key.
    let queue = unsafe { bindings::__var_waitqueue(addr.cast_mut().cast()) };
    // The change of the word comes before the look at the queue.
    fence(Ordering::SeqCst);
    // SAFETY: the queues live as long as the kernel; whether one is empty may be asked without its lock.
    let empty = unsafe {
        let head = addr_of_mut!((*queue).head);
        core::ptr::read_volatile(addr_of_mut!((*head).next)) == head
    };
    if empty {
        return;
    }
    let mut key = bindings::wait_bit_key { flags: addr.cast_mut().cast(), bit_nr: NO_BIT, timeout: 0 };
    // None stands for all.
    let nr = i32::try_from(count).unwrap_or(0);
    // SAFETY: the queue is alive and the key is of the kind that its entries compare with.
    unsafe { bindings::__wake_up(queue, bindings::TASK_NORMAL, nr, addr_of_mut!(key).cast()) };
}
