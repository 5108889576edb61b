// SPDX-License-Identifier: GPL-2.0-only
//! Room on a thread's stack, of which there are 16 KiB on most machines.
//!
//! A system call that comes to us has used a part of it, and block devices that stand on each other, or a network, want several
//! more. So work of the core that goes deep runs in a thread of a queue when there is little left: one that may be relied upon when memory
//! is short.

use core::ffi::c_void;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use kernel::bindings;
use kernel::error::Result;
use kernel::prelude::ENOMEM;

use crate::ffi;
use crate::kobj::nofs::NoFs;

/// What devices and the network are to be left.
const BELOW: usize = 5 << 10;
/// With less than this the log tells.
const LEAST: usize = 4 << 10;

static QUEUE: AtomicPtr<bindings::workqueue_struct> = AtomicPtr::new(null_mut());

/// The queue, while the module is there.
pub(crate) struct Queue(());

impl Queue {
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: makes one.
        let queue = unsafe { ffi::scoutfs_alloc_workqueue(c"scoutfs".as_ptr().cast()) };
        if queue.is_null() {
            return Err(ENOMEM);
        }
        QUEUE.store(queue, Ordering::Release);
        Ok(Queue(()))
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: nobody uses it any more: no volume is mounted.
        unsafe { bindings::destroy_workqueue(QUEUE.swap(null_mut(), Ordering::AcqRel)) };
    }
}

/// Bytes that are left on the stack of the current thread.
fn left() -> usize {
    let here = 0u8;
    // SAFETY: the current task is alive. Stacks grow down, to where their memory begins.
    let base = unsafe { (*bindings::get_current()).stack.addr() };
    (&raw const here).addr().wrapping_sub(base)
}

/// To be called where others' code goes on: the log tells, once, when there is too little room for it.
#[inline(always)]
pub(crate) fn look(below: &str) {
    let left = left();
    if left < LEAST {
        complain(below, left);
    }
}

#[cold]
#[inline(never)]
fn complain(below: &str, left: usize) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if !TOLD.swap(true, Ordering::Relaxed) {
        scoutfs_env::error!("the {below} is left {left} bytes of stack");
        // SAFETY: prints.
        unsafe { bindings::dump_stack() };
    }
}

/// See `scoutfs_env`.
///
/// # Safety
///
/// As the hook says.
#[no_mangle]
unsafe extern "C" fn scoutfs_host_with_room(
    bytes: usize,
    work: unsafe extern "C" fn(*mut c_void),
    data: *mut c_void,
) {
    let queue = QUEUE.load(Ordering::Acquire);
    // SAFETY: by the contract; the queue is there as long as a volume is mounted.
    unsafe {
        if left() >= bytes + BELOW || queue.is_null() {
            work(data);
        } else {
            let mut call = Call { work, data };
            ffi::scoutfs_call_elsewhere(queue, Some(make_call), (&raw mut call).cast());
        }
    }
}

struct Call {
    work: unsafe extern "C" fn(*mut c_void),
    data: *mut c_void,
}

/// In a thread of the queue.
unsafe extern "C" fn make_call(call: *mut c_void) {
    let _nofs = NoFs::enter();
    // SAFETY: a call, which lives until this has returned.
    unsafe {
        let call = &*call.cast::<Call>();
        (call.work)(call.data);
    }
}
