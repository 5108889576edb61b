// SPDX-License-Identifier: GPL-2.0-only
//! The kernel's threads.

use core::ffi::c_void;
use core::ptr::null_mut;
use core::time::Duration;

use super::hooks::{
    scoutfs_host_detach, scoutfs_host_join, scoutfs_host_killed, scoutfs_host_set_patience,
    scoutfs_host_sleep, scoutfs_host_spawn, scoutfs_host_with_room,
};
use crate::thread::SpawnError;
use crate::{Box, try_box};

const ENOMEM: i32 = 12;

pub(crate) struct JoinHandle(*mut c_void);

// SAFETY: a handle is used up once, by whichever thread has it.
unsafe impl Send for JoinHandle {}
// SAFETY: nothing can be done with a shared reference to a handle.
unsafe impl Sync for JoinHandle {}

/// # Safety
///
/// `data` is a `Box<F>` that was given up to this call.
unsafe extern "C" fn entry<F: FnOnce()>(data: *mut c_void) {
    // SAFETY: by the contract.
    let body = unsafe { Box::from_raw(data.cast::<F>()) };
    body();
}

pub(crate) fn spawn<F>(name: &'static str, body: F) -> Result<JoinHandle, SpawnError>
where
    F: FnOnce() + Send + 'static,
{
    let body = try_box(body).map_err(|_| SpawnError { name, errno: ENOMEM })?;
    let data = Box::into_raw(body);
    let mut handle = null_mut();
    // SAFETY: the name is a live string; `data` is a box of the type that `entry` takes, given up to it.
    let errno =
        unsafe { scoutfs_host_spawn(name.as_ptr(), name.len(), entry::<F>, data.cast(), &mut handle) };
    if errno != 0 {
        // SAFETY: `entry` is not going to be called, so the box is still ours.
        drop(unsafe { Box::from_raw(data) });
        return Err(SpawnError { name, errno });
    }
    Ok(JoinHandle(handle))
}

impl JoinHandle {
    pub(crate) fn join(self) {
        let handle = self.0;
        core::mem::forget(self);
        // SAFETY: the handle came from a spawn and is used up here.
        unsafe { scoutfs_host_join(handle) };
    }
}

impl Drop for JoinHandle {
    fn drop(&mut self) {
        // SAFETY: the handle came from a spawn and is used up here.
        unsafe { scoutfs_host_detach(self.0) };
    }
}

/// A call that another thread may make.
struct Call<F, R> {
    body: Option<F>,
    result: Option<R>,
}

/// # Safety
///
/// `data` is a call that nobody else uses meanwhile.
unsafe extern "C" fn make_call<F: FnOnce() -> R, R>(data: *mut c_void) {
    // SAFETY: by the contract.
    let call = unsafe { &mut *data.cast::<Call<F, R>>() };
    call.result = call.body.take().map(|body| body());
}

pub(crate) fn with_room<F: FnOnce() -> R + Send, R: Send>(bytes: usize, body: F) -> R {
    let mut call = Call { body: Some(body), result: None };
    // SAFETY: the call is used by this thread again after the host has returned.
    unsafe { scoutfs_host_with_room(bytes, make_call::<F, R>, (&raw mut call).cast()) };
    // SAFETY: the host has made the call, once.
    unsafe { call.result.unwrap_unchecked() }
}

pub(crate) fn sleep(duration: Duration) {
    let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: takes a number.
    unsafe { scoutfs_host_sleep(ns) };
}

/// For how long allocations of this thread wait; returns what it was.
pub(crate) fn set_patience(limit: Duration) -> Duration {
    let ns = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: takes a number.
    Duration::from_nanos(unsafe { scoutfs_host_set_patience(ns) })
}

/// For how long this crate is to wait: the host has.
pub(crate) fn patience() -> Duration {
    Duration::ZERO
}

/// Whether the calling thread's program was killed.
pub(crate) fn is_killed() -> bool {
    // SAFETY: asks about the calling thread.
    unsafe { scoutfs_host_killed() != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn a_thread_runs_once_and_join_waits_for_it() {
        let ran = Arc::new(AtomicU32::new(0));
        let in_thread = ran.clone();
        let handle = spawn("worker", move || {
            sleep(Duration::from_millis(5));
            in_thread.fetch_add(1, Ordering::Relaxed);
        });
        handle.unwrap().join();
        assert_eq!(ran.load(Ordering::Relaxed), 1);
        assert_eq!(Arc::strong_count(&ran), 1);
    }

    #[test]
    fn a_call_that_needs_room_gives_what_it_returns() {
        let text = std::string::String::from("lent");
        let mut calls = 0;
        let len = with_room(5000, || {
            calls += 1;
            text.len()
        });
        assert_eq!((len, calls), (4, 1));
    }

    #[test]
    fn a_thread_that_is_refused_drops_its_closure() {
        let held = Arc::new(());
        let in_thread = held.clone();
        let error = spawn("refused", move || drop(in_thread)).err().unwrap();
        assert_eq!(error.errno, libc::EAGAIN);
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
