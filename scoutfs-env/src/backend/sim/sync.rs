// SPDX-License-Identifier: GPL-2.0-only
//! The locks of `std`, taken without ever waiting in them: a task of a simulation that finds one taken blocks in
//! the scheduler. Threads of no simulation wait as `std` has them wait.
//!
//! A lock counts who waits for it, so that giving it up costs nothing when nobody does. One lock is used by tasks
//! or by threads of no simulation, not by both at once.

use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;

pub use super::super::std::sync::atomic;

use super::super::std::sync as host;
use super::super::std::thread::is_killed;
use crate::sim::{self, Key};

const LOCK: u8 = 0;
const CONDVAR: u8 = 1;

/// Those who wait for a lock.
struct Waiting(AtomicU32);

impl Waiting {
    const fn new() -> Self {
        Waiting(AtomicU32::new(0))
    }

    fn key(&self) -> Key {
        Key::of(self, LOCK)
    }

    /// Takes a lock by trying, in a task; `None` elsewhere.
    fn take<G>(&self, what: &'static str, attempt: impl Fn() -> Option<G>) -> Option<G> {
        if !sim::active() {
            return None;
        }
        sim::point();
        Some(self.take_again(what, attempt))
    }

    fn take_again<G>(&self, what: &'static str, attempt: impl Fn() -> Option<G>) -> G {
        loop {
            if let Some(guard) = attempt() {
                return guard;
            }
            self.0.fetch_add(1, Ordering::Relaxed);
            sim::block(self.key(), None, what);
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The lock is free.
    fn wake(&self) {
        if self.0.load(Ordering::Relaxed) != 0 {
            sim::wake_all(self.key());
        }
    }
}

macro_rules! guard {
    ($name:ident of $lock:ident) => {
        pub(crate) struct $name<'a, T> {
            // `None` only while it is dropped.
            inner: Option<host::$name<'a, T>>,
            lock: &'a $lock<T>,
        }

        impl<T> Deref for $name<'_, T> {
            type Target = T;

            fn deref(&self) -> &T {
                self.inner.as_ref().expect("a guard that is not dropped")
            }
        }

        impl<T> Drop for $name<'_, T> {
            fn drop(&mut self) {
                self.inner = None;
                self.lock.waiting.wake();
            }
        }
    };
}

guard!(MutexGuard of Mutex);
guard!(RwLockReadGuard of RwLock);
guard!(RwLockWriteGuard of RwLock);

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.inner.as_mut().expect("a guard that is not dropped")
    }
}

impl<T> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.inner.as_mut().expect("a guard that is not dropped")
    }
}

pub(crate) struct Mutex<T> {
    waiting: Waiting,
    inner: host::Mutex<T>,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { waiting: Waiting::new(), inner: host::Mutex::new(value) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        let inner =
            self.waiting.take("a mutex", || self.inner.try_lock()).unwrap_or_else(|| self.inner.lock());
        MutexGuard { inner: Some(inner), lock: self }
    }

    /// Programs are killed in no simulation, but outside of one.
    pub(crate) fn lock_unless_killed(&self) -> Option<MutexGuard<'_, T>> {
        if !is_killed() {
            return Some(self.lock());
        }
        self.try_lock()
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let inner = self.inner.try_lock()?;
        Some(MutexGuard { inner: Some(inner), lock: self })
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }

    pub(crate) fn into_inner(self) -> T {
        self.inner.into_inner()
    }
}

pub(crate) struct RwLock<T> {
    waiting: Waiting,
    inner: host::RwLock<T>,
}

impl<T> RwLock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { waiting: Waiting::new(), inner: host::RwLock::new(value) }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        let inner = self
            .waiting
            .take("a lock, to read", || self.inner.try_read())
            .unwrap_or_else(|| self.inner.read());
        RwLockReadGuard { inner: Some(inner), lock: self }
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        let inner = self
            .waiting
            .take("a lock, to write", || self.inner.try_write())
            .unwrap_or_else(|| self.inner.write());
        RwLockWriteGuard { inner: Some(inner), lock: self }
    }

    pub(crate) fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        let inner = self.inner.try_read()?;
        Some(RwLockReadGuard { inner: Some(inner), lock: self })
    }

    pub(crate) fn try_write(&self) -> Option<RwLockWriteGuard<'_, T>> {
        let inner = self.inner.try_write()?;
        Some(RwLockWriteGuard { inner: Some(inner), lock: self })
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }

    pub(crate) fn into_inner(self) -> T {
        self.inner.into_inner()
    }
}

pub(crate) struct Condvar(host::Condvar);

impl Condvar {
    pub(crate) const fn new() -> Self {
        Self(host::Condvar::new())
    }

    fn key(&self) -> Key {
        Key::of(self, CONDVAR)
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.wait_until(guard, None).0
    }

    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> (MutexGuard<'a, T>, bool) {
        self.wait_until(guard, Some(timeout))
    }

    fn wait_until<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        timeout: Option<Duration>,
    ) -> (MutexGuard<'a, T>, bool) {
        let inner = guard.inner.take().expect("a guard that is not dropped");
        if !sim::active() {
            let (inner, timed_out) = match timeout {
                None => (self.0.wait(inner), false),
                Some(timeout) => self.0.wait_timeout(inner, timeout),
            };
            guard.inner = Some(inner);
            return (guard, timed_out);
        }
        drop(inner);
        let Mutex { waiting, inner: mutex } = guard.lock;
        waiting.wake();
        // No other task runs before this one is queued, so no notification is missed.
        let timed_out = sim::block(self.key(), timeout, "a condition");
        guard.inner = Some(waiting.take_again("a mutex", || mutex.try_lock()));
        (guard, timed_out)
    }

    pub(crate) fn notify_one(&self) {
        if sim::active() { sim::wake_one(self.key()) } else { self.0.notify_one() }
    }

    pub(crate) fn notify_all(&self) {
        if sim::active() { sim::wake_all(self.key()) } else { self.0.notify_all() }
    }
}
