// SPDX-License-Identifier: GPL-2.0-only
//! Kernel threads for the core.
//!
//! A thread holds the module while it runs, and ends in the kernel's code, so that the module cannot go away under it. The
//! handle of a thread is its task with a reference; joining stops it in the kernel's sense, which waits for its end
//! (the core has told it to end by then).

use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU64, Ordering};

use kernel::bindings;
use scoutfs_env::{try_box, Box};

use super::this_module;
use crate::ffi;

type Entry = unsafe extern "C" fn(data: *mut c_void);

/// What a thread is given; lives as long as it runs.
struct Thread {
    entry: Entry,
    data: *mut c_void,
    /// On the stack of who starts the thread; not touched after it is completed.
    started: *mut bindings::completion,
    /// For so many nanoseconds its allocations wait for memory.
    patience_ns: AtomicU64,
}

const ENOMEM: c_int = 12;
const ENODEV: c_int = 19;

/// # Safety
///
/// `thread` is a `Box<Thread>` that was given up to this call.
unsafe extern "C" fn run(thread: *mut c_void) -> c_int {
    let thread = thread.cast::<Thread>();
    // Never left: all that the thread does is the core's.
    // SAFETY: changes flags of the current task.
    unsafe { ffi::scoutfs_nofs_save() };
    // SAFETY: by the contract; who started the thread waits until this completes.
    unsafe {
        bindings::complete((*thread).started);
        ((*thread).entry)((*thread).data);
        drop(Box::from_raw(thread));
    }
    // SAFETY: the reference that `scoutfs_host_spawn` took. The thread ends in there, whether or not it is joined.
    unsafe { bindings::__module_put_and_kthread_exit(this_module(), 0) }
}

/// The current thread, if it is one of the core's.
fn current() -> Option<&'static Thread> {
    // SAFETY: the current task is alive; the data of a kernel thread that runs `run` is a `Thread` that lives as long as it runs.
    unsafe {
        let task = bindings::get_current();
        let ours = (*task).flags & bindings::PF_KTHREAD != 0
            && bindings::kthread_func(task) == run as *const () as *mut c_void;
        ours.then(|| &*bindings::kthread_data(task).cast::<Thread>())
    }
}

/// For how many nanoseconds an allocation of the current thread waits.
pub(super) fn patience_ns() -> u64 {
    current().map_or(0, |thread| thread.patience_ns.load(Ordering::Relaxed))
}

/// See `scoutfs_env`. Only the core's own threads are patient: others have somebody to tell.
#[no_mangle]
extern "C" fn scoutfs_host_set_patience(limit_ns: u64) -> u64 {
    current().map_or(0, |thread| thread.patience_ns.swap(limit_ns, Ordering::Relaxed))
}

/// See `scoutfs_env`.
///
/// # Safety
///
/// As the hook says.
#[no_mangle]
unsafe extern "C" fn scoutfs_host_spawn(
    name: *const u8,
    name_len: usize,
    entry: Entry,
    data: *mut c_void,
    handle: *mut *mut c_void,
) -> i32 {
    let mut started = MaybeUninit::<bindings::completion>::zeroed();
    let started = started.as_mut_ptr();
    // SAFETY: memory of the right size, on this stack.
    unsafe { bindings::init_completion(started) };
    let Ok(thread) = try_box(Thread { entry, data, started, patience_ns: AtomicU64::new(0) }) else {
        return ENOMEM;
    };
    // SAFETY: the module is alive: this is its code.
    if !unsafe { bindings::try_module_get(this_module()) } {
        return ENODEV;
    }
    let thread = Box::into_raw(thread);
    // SAFETY: the format takes a length and a pointer, and those are of a live string.
    let task = unsafe {
        bindings::kthread_create_on_node(
            Some(run),
            thread.cast(),
            bindings::NUMA_NO_NODE,
            c"%.*s".as_ptr().cast(),
            name_len as c_int,
            name,
        )
    };
    if let Some(errno) = crate::kobj::error::errno_of(task) {
        // SAFETY: there is no thread, so box and module reference are still ours.
        unsafe {
            drop(Box::from_raw(thread));
            bindings::module_put(this_module());
        }
        return errno;
    }
    // SAFETY: a new task, which has not run; the handle's place is valid by the contract. A thread that is stopped before it runs
    // would never call its entry: so its start is waited for.
    unsafe {
        bindings::get_task_struct(task);
        bindings::wake_up_process(task);
        bindings::wait_for_completion(started);
        *handle = task.cast();
    }
    0
}

/// See `scoutfs_env`.
///
/// # Safety
///
/// The handle comes from a spawn and is not used again.
#[no_mangle]
unsafe extern "C" fn scoutfs_host_join(handle: *mut c_void) {
    // SAFETY: the handle is a task with a reference, which this gives back.
    unsafe { bindings::kthread_stop_put(handle.cast()) };
}

/// See `scoutfs_env`.
///
/// # Safety
///
/// The handle comes from a spawn and is not used again.
#[no_mangle]
unsafe extern "C" fn scoutfs_host_detach(handle: *mut c_void) {
    // SAFETY: the handle is a task with a reference, which this gives back.
    unsafe { bindings::put_task_struct(handle.cast()) };
}
