// SPDX-License-Identifier: GPL-2.0-only
//! Waiting for a condition under a mutex.

use core::time::Duration;

use super::MutexGuard;
use crate::backend::sync as host;

/// Threads that wait for something to become true of a value under a [`Mutex`](super::Mutex). A wait may
/// return for no reason: test the condition in a loop. Use one mutex with one condition variable.
pub struct Condvar(host::Condvar);

impl Condvar {
    /// A condition that nobody waits for.
    pub const fn new() -> Self {
        Self(host::Condvar::new())
    }

    /// Gives the mutex up, waits to be notified, and takes the mutex again.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let MutexGuard { inner, held } = guard;
        held.check_wait();
        MutexGuard { held, inner: self.0.wait(inner) }
    }

    /// As [`wait`](Self::wait), but not longer than `timeout`. True is returned when the time ran out
    /// (shuttle's clock stands still, so under shuttle it never does).
    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> (MutexGuard<'a, T>, bool) {
        let MutexGuard { inner, held } = guard;
        held.check_wait();
        let (inner, timed_out) = self.0.wait_timeout(inner, timeout);
        (MutexGuard { held, inner }, timed_out)
    }

    /// Wakes one of the waiting threads.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all waiting threads.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

impl Default for Condvar {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Debug for Condvar {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Condvar")
    }
}
