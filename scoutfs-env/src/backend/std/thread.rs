// SPDX-License-Identifier: GPL-2.0-only
//! Threads of a process (or of shuttle, which has the same names).

use core::cell::{Cell, RefCell};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::panic;
use std::string::ToString;
use std::sync::Arc;

use super::super::threads;
use crate::thread::SpawnError;

std::thread_local! {
    static PATIENCE: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// Of the program that the thread serves.
    static KILLED: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// There is always room.
pub(crate) fn with_room<R>(_: usize, body: impl FnOnce() -> R) -> R {
    body()
}

pub(crate) struct JoinHandle(threads::JoinHandle<()>);

pub(crate) fn spawn<F>(name: &'static str, body: F) -> Result<JoinHandle, SpawnError>
where
    F: FnOnce() + Send + 'static,
{
    threads::Builder::new()
        .name(name.to_string())
        .spawn(body)
        .map(JoinHandle)
        .map_err(|error| SpawnError { name, errno: error.raw_os_error().unwrap_or(libc::EAGAIN) })
}

impl JoinHandle {
    pub(crate) fn join(self) {
        if let Err(payload) = self.0.join() {
            panic::resume_unwind(payload);
        }
    }
}

pub(crate) fn sleep(duration: Duration) {
    threads::sleep(duration);
}

/// For how long allocations of this thread wait; returns what it was. (The threads of shuttle share theirs: no test of schedules
/// runs out of memory.)
pub(crate) fn set_patience(limit: Duration) -> Duration {
    PATIENCE.replace(limit)
}

/// For how long they do.
pub(crate) fn patience() -> Duration {
    PATIENCE.get()
}

/// Whether the program that this thread serves was killed.
pub(crate) fn is_killed() -> bool {
    KILLED.with_borrow(|killed| killed.as_ref().is_some_and(|killed| killed.load(Ordering::Acquire)))
}

/// Serves a program as long as `body` runs.
pub(crate) fn run_for<R>(killed: &Arc<AtomicBool>, body: impl FnOnce() -> R) -> R {
    /// Goes back to the one before, also when `body` panics.
    struct Before(Option<Arc<AtomicBool>>);
    impl Drop for Before {
        fn drop(&mut self) {
            KILLED.replace(self.0.take());
        }
    }
    let _before = Before(KILLED.replace(Some(killed.clone())));
    body()
}
