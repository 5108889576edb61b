// SPDX-License-Identifier: GPL-2.0-only
//! Locks over two hooks: sleep while a word has a value, and wake who sleeps on a word.

#[cfg(not(feature = "std"))]
pub use core::sync::atomic;

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use core::time::Duration;

use super::hooks::{scoutfs_host_wait, scoutfs_host_wake};
use super::thread::is_killed;

/// No time limit.
const FOREVER_NS: u64 = u64::MAX;

/// Sleeps while `word` is `expected`; true when the time ran out.
fn wait(word: &AtomicU32, expected: u32, timeout_ns: u64) -> bool {
    // SAFETY: the word outlives the call.
    unsafe { scoutfs_host_wait(word.as_ptr(), expected, timeout_ns) == 1 }
}

/// Keeps guards on their thread, as those of std.
type NotSend = PhantomData<*const ()>;

const FREE: u32 = 0;
const LOCKED: u32 = 1;
/// Locked, and somebody may be sleeping.
const CONTENDED: u32 = 2;

pub(crate) struct Mutex<T> {
    state: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the mutex owns its value.
unsafe impl<T: Send> Send for Mutex<T> {}
// SAFETY: one thread at a time gets at the value.
unsafe impl<T: Send> Sync for Mutex<T> {}

pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    on_thread: NotSend,
}

// SAFETY: a shared guard gives shared access to the value only.
unsafe impl<T: Sync> Sync for MutexGuard<'_, T> {}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { state: AtomicU32::new(FREE), value: UnsafeCell::new(value) }
    }

    fn guard(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: self, on_thread: PhantomData }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        if self.state.compare_exchange(FREE, LOCKED, Acquire, Relaxed).is_err() {
            // Taken as contended from now on: others may sleep that this thread knows nothing of.
            while self.state.swap(CONTENDED, Acquire) != FREE {
                wait(&self.state, CONTENDED, FOREVER_NS);
            }
        }
        self.guard()
    }

    pub(crate) fn lock_unless_killed(&self) -> Option<MutexGuard<'_, T>> {
        if self.state.compare_exchange(FREE, LOCKED, Acquire, Relaxed).is_err() {
            // As above. Who gives up has just left the mutex as contended with somebody in it: should he have been woken in the place
            // of another, that one is woken when the mutex is free.
            while self.state.swap(CONTENDED, Acquire) != FREE {
                if is_killed() {
                    return None;
                }
                wait(&self.state, CONTENDED, FOREVER_NS);
            }
        }
        Some(self.guard())
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.state.compare_exchange(FREE, LOCKED, Acquire, Relaxed).ok()?;
        Some(self.guard())
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    pub(crate) fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the mutex is held, so nobody else gets at the value.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the mutex is held, so nobody else gets at the value.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        let state = &self.mutex.state;
        let addr = state.as_ptr();
        // After this swap another thread may free the mutex; only its address is used below.
        if state.swap(FREE, Release) == CONTENDED {
            // SAFETY: a wake uses the address as a key only.
            unsafe { scoutfs_host_wake(addr, 1) };
        }
    }
}

pub(crate) struct Condvar {
    /// Changes with every notification.
    notified: AtomicU32,
}

impl Condvar {
    pub(crate) const fn new() -> Self {
        Self { notified: AtomicU32::new(0) }
    }

    fn wait_ns<'a, T>(&self, guard: MutexGuard<'a, T>, timeout_ns: u64) -> (MutexGuard<'a, T>, bool) {
        let mutex = guard.mutex;
        // Read under the mutex: who changes the condition under it and then notifies changes this number, so
        // that the wait below does not begin.
        let seen = self.notified.load(Relaxed);
        drop(guard);
        let timed_out = wait(&self.notified, seen, timeout_ns);
        (mutex.lock(), timed_out)
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.wait_ns(guard, FOREVER_NS).0
    }

    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> (MutexGuard<'a, T>, bool) {
        let ns = u64::try_from(timeout.as_nanos()).unwrap_or(FOREVER_NS);
        self.wait_ns(guard, ns)
    }

    fn notify(&self, count: u32) {
        self.notified.fetch_add(1, Relaxed);
        // SAFETY: a wake uses the address as a key only.
        unsafe { scoutfs_host_wake(self.notified.as_ptr(), count) };
    }

    pub(crate) fn notify_one(&self) {
        self.notify(1);
    }

    pub(crate) fn notify_all(&self) {
        self.notify(u32::MAX);
    }
}

/// The state of a lock that a writer has; other values count its readers.
const WRITING: u32 = u32::MAX;

pub(crate) struct RwLock<T> {
    state: AtomicU32,
    /// Writers that sleep or are about to. While there are any, no new reader is let in.
    writers: AtomicU32,
    /// Readers and writers that sleep or are about to.
    sleepers: AtomicU32,
    /// Changes whenever the lock has become free and somebody sleeps.
    freed: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the lock owns its value.
unsafe impl<T: Send> Send for RwLock<T> {}
// SAFETY: many threads get shared access (Sync), or one exclusive access (Send).
unsafe impl<T: Send + Sync> Sync for RwLock<T> {}

pub(crate) struct RwLockReadGuard<'a, T> {
    lock: &'a RwLock<T>,
    on_thread: NotSend,
}

pub(crate) struct RwLockWriteGuard<'a, T> {
    lock: &'a RwLock<T>,
    on_thread: NotSend,
}

// SAFETY: a shared guard gives shared access to the value only.
unsafe impl<T: Sync> Sync for RwLockReadGuard<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for RwLockWriteGuard<'_, T> {}

impl<T> RwLock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self {
            state: AtomicU32::new(0),
            writers: AtomicU32::new(0),
            sleepers: AtomicU32::new(0),
            freed: AtomicU32::new(0),
            value: UnsafeCell::new(value),
        }
    }

    /// Sleeps until `enter` succeeds.
    ///
    /// No wake-up is lost: all operations are SeqCst, so either who frees the lock sees this sleeper and changes
    /// `freed`, or it freed the lock before this sleeper registered, and then `enter` sees it free.
    fn sleep_until<G>(&self, enter: impl Fn() -> Option<G>) -> G {
        self.sleepers.fetch_add(1, SeqCst);
        let guard = loop {
            let seen = self.freed.load(SeqCst);
            if let Some(guard) = enter() {
                break guard;
            }
            wait(&self.freed, seen, FOREVER_NS);
        };
        self.sleepers.fetch_sub(1, SeqCst);
        guard
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        match self.try_read() {
            Some(guard) => guard,
            None => self.sleep_until(|| self.try_read()),
        }
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        if let Some(guard) = self.try_write() {
            return guard;
        }
        self.writers.fetch_add(1, SeqCst);
        let guard = self.sleep_until(|| self.try_write());
        // Readers that this held back are woken when the guard is dropped.
        self.writers.fetch_sub(1, SeqCst);
        guard
    }

    pub(crate) fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        if self.writers.load(SeqCst) != 0 {
            return None;
        }
        self.state
            .fetch_update(SeqCst, SeqCst, |state| {
                // The largest count of readers must not look like a writer.
                (state < WRITING - 1).then(|| state + 1)
            })
            .ok()?;
        Some(RwLockReadGuard { lock: self, on_thread: PhantomData })
    }

    pub(crate) fn try_write(&self) -> Option<RwLockWriteGuard<'_, T>> {
        self.state.compare_exchange(0, WRITING, SeqCst, SeqCst).ok()?;
        Some(RwLockWriteGuard { lock: self, on_thread: PhantomData })
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    pub(crate) fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T> RwLock<T> {
    /// Called after `state` has become 0.
    fn wake_sleepers(&self) {
        if self.sleepers.load(SeqCst) != 0 {
            self.freed.fetch_add(1, SeqCst);
            // All of them: how many may enter depends on which of them come first.
            // SAFETY: a wake uses the address as a key only.
            unsafe { scoutfs_host_wake(self.freed.as_ptr(), u32::MAX) };
        }
    }
}

impl<T> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: counted as a reader, so nobody writes.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: held for writing, so nobody else gets at the value.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: held for writing, so nobody else gets at the value.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for RwLockReadGuard<'_, T> {
    fn drop(&mut self) {
        if self.lock.state.fetch_sub(1, SeqCst) == 1 {
            self.lock.wake_sleepers();
        }
    }
}

impl<T> Drop for RwLockWriteGuard<'_, T> {
    fn drop(&mut self) {
        self.lock.state.store(0, SeqCst);
        self.lock.wake_sleepers();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Instant;

    #[test]
    fn a_mutex_lets_one_thread_in_at_a_time() {
        let count = Mutex::new(0u64);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        *count.lock() += 1;
                    }
                });
            }
        });
        assert_eq!(count.into_inner(), 80_000);
    }

    /// And who is killed takes nobody's turn with him.
    #[test]
    fn who_waits_for_a_mutex_can_be_killed() {
        use std::sync::atomic::AtomicBool;
        let (mutex, killed) = (Mutex::new(0), std::sync::Arc::new(AtomicBool::new(false)));
        let mut locked = 0;
        for round in 0..400 {
            killed.store(false, SeqCst);
            thread::scope(|scope| {
                let mut held = Some(mutex.lock());
                let victim = scope.spawn(|| {
                    crate::thread::run_for(&killed, || mutex.lock_unless_killed().map(|mut n| *n += 1))
                });
                let other = scope.spawn(|| *mutex.lock() += 1);
                thread::yield_now();
                if round % 2 == 0 {
                    // At the same time: he may have been woken because it is free.
                    scope.spawn(|| killed.store(true, SeqCst));
                    held = None;
                } else {
                    killed.store(true, SeqCst);
                }
                while !victim.is_finished() {
                    // All of them, since the victim may be the second; the other sleeps again.
                    // SAFETY: a wake uses the address as a key only.
                    unsafe { scoutfs_host_wake(mutex.state.as_ptr(), u32::MAX) };
                    thread::yield_now();
                }
                let got = victim.join().unwrap().is_some();
                assert!(held.is_none() || !got, "it has the mutex while another has");
                drop(held);
                other.join().unwrap();
                locked += 1 + u32::from(got);
            });
        }
        assert_eq!(mutex.into_inner(), locked);
        let killed = std::sync::Arc::new(AtomicBool::new(true));
        crate::thread::run_for(&killed, || assert!(Mutex::new(()).lock_unless_killed().is_some()));
    }

    #[test]
    fn writers_exclude_everybody_and_all_of_them_get_in() {
        let lock = RwLock::new((0u64, 0u64));
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        let mut pair = lock.write();
                        pair.0 += 1;
                        pair.1 += 1;
                    }
                });
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        let pair = lock.read();
                        assert_eq!(pair.0, pair.1);
                    }
                });
            }
        });
        assert_eq!(lock.into_inner(), (15_000, 15_000));
    }

    #[test]
    fn a_waiting_writer_is_not_starved_by_readers() {
        let lock = RwLock::new(false);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| while !*lock.read() {});
            }
            *lock.write() = true;
        });
    }

    #[test]
    fn a_queue_under_a_condvar_delivers_everything() {
        let (queue, changed) = (Mutex::new(std::vec::Vec::new()), Condvar::new());
        let sum = thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for n in 0..5_000u64 {
                        queue.lock().push(n);
                        changed.notify_one();
                    }
                });
            }
            let mut sum = 0;
            for _ in 0..10_000 {
                let mut guard = queue.lock();
                sum += loop {
                    match guard.pop() {
                        Some(n) => break n,
                        None => guard = changed.wait(guard),
                    }
                };
            }
            sum
        });
        assert_eq!(sum, 2 * (4_999 * 5_000 / 2));
    }

    #[test]
    fn a_wait_without_a_notification_times_out() {
        let (mutex, condvar) = (Mutex::new(()), Condvar::new());
        let start = Instant::now();
        let mut guard = mutex.lock();
        while start.elapsed() < Duration::from_millis(10) {
            let (again, timed_out) = condvar.wait_timeout(guard, Duration::from_millis(10));
            guard = again;
            assert!(timed_out || start.elapsed() < Duration::from_millis(10));
        }
        assert!(mutex.try_lock().is_none());
    }
}
