// SPDX-License-Identifier: GPL-2.0-only
//! How a handler that waits learns that its caller no longer does.
//!
//! Each thread has one [`Interrupt`], which names the request that it serves now. An INTERRUPT names its
//! request by number, and numbers are never reused, so that one that comes late hits nobody.
//!
//! An INTERRUPT can be read before the thread that read its request has said so. [`Interrupts`] keeps such
//! numbers: whichever of the two comes second sees the first. Both sides write, then read, in one total
//! order (SeqCst), so that they cannot miss each other.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

type Callback = Box<dyn FnMut() + Send>;

/// Says whether the caller of the current request gave up.
pub struct Interrupt {
    /// The request that is served, or 0.
    current: AtomicU64,
    /// The last request that was interrupted, or 0.
    raised: AtomicU64,
    callback: Mutex<Option<Callback>>,
    wake: Condvar,
}

impl std::fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interrupt").field("raised", &self.is_raised()).finish_non_exhaustive()
    }
}

/// Takes the callback of [`Interrupt::on_interrupt`] away when it goes out of scope.
#[derive(Debug)]
#[must_use]
pub struct InterruptGuard<'a>(&'a Interrupt);

impl Drop for InterruptGuard<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

impl Interrupt {
    fn new() -> Self {
        Self {
            current: AtomicU64::new(0),
            raised: AtomicU64::new(0),
            callback: Mutex::new(None),
            wake: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Callback>> {
        self.callback.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the request was interrupted. Cheap.
    pub fn is_raised(&self) -> bool {
        let raised = self.raised.load(SeqCst);
        raised != 0 && raised == self.current.load(SeqCst)
    }

    /// Waits until the request is interrupted (true) or the time is over (false).
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut guard = self.lock();
        loop {
            if self.is_raised() {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            guard = self.wake.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Has `callback` called when the request is interrupted, at once if it is already, until the guard goes.
    ///
    /// It is for waking a handler that waits for something of its own, which then looks at
    /// [`is_raised`](Self::is_raised): it may be called more than once and for nothing, and runs on another thread. It must not
    /// block, and not wait for a lock that is held where the guard is dropped.
    pub fn on_interrupt(&self, callback: impl FnMut() + Send + 'static) -> InterruptGuard<'_> {
        let mut slot = self.lock();
        *slot = Some(Box::new(callback));
        if self.is_raised()
            && let Some(callback) = slot.as_mut()
        {
            callback();
        }
        drop(slot);
        InterruptGuard(self)
    }

    /// Interrupts `unique` if that is what is served here.
    fn raise(&self, unique: u64) -> bool {
        if self.current.load(SeqCst) != unique {
            return false;
        }
        let mut slot = self.lock();
        self.raised.store(unique, SeqCst);
        if let Some(callback) = slot.as_mut() {
            callback();
        }
        self.wake.notify_all();
        true
    }
}

/// The interrupts of all threads of a session.
#[derive(Debug, Default)]
pub(crate) struct Interrupts {
    threads: Mutex<Vec<Arc<Interrupt>>>,
    /// Numbers that were interrupted before their request was known; the oldest are dropped.
    early: Mutex<VecDeque<u64>>,
    early_len: AtomicUsize,
}

impl Interrupts {
    /// More interrupts than this cannot be ahead of their requests at the same time, but late ones, of requests that
    /// were answered meanwhile, stay until they are pushed out.
    const EARLY_MAX: usize = 256;
    /// Numbers grow; a request that is so far behind the newest one was answered long ago.
    const EARLY_DISTANCE: u64 = 1 << 21;

    fn lock_threads(&self) -> MutexGuard<'_, Vec<Arc<Interrupt>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_early(&self) -> MutexGuard<'_, VecDeque<u64>> {
        self.early.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new thread's handle.
    pub(crate) fn register(&self) -> Arc<Interrupt> {
        let interrupt = Arc::new(Interrupt::new());
        self.lock_threads().push(Arc::clone(&interrupt));
        interrupt
    }

    /// The thread ends.
    pub(crate) fn unregister(&self, interrupt: &Arc<Interrupt>) {
        self.lock_threads().retain(|other| !Arc::ptr_eq(other, interrupt));
    }

    /// The thread begins to serve `unique`.
    pub(crate) fn begin(&self, interrupt: &Interrupt, unique: u64) {
        interrupt.current.store(unique, SeqCst);
        if self.early_len.load(SeqCst) == 0 {
            return;
        }
        let mut early = self.lock_early();
        let found = early.contains(&unique);
        early.retain(|&other| other != unique && other.saturating_add(Self::EARLY_DISTANCE) >= unique);
        self.early_len.store(early.len(), SeqCst);
        drop(early);
        if found {
            interrupt.raise(unique);
        }
    }

    /// The thread serves nothing.
    pub(crate) fn end(&self, interrupt: &Interrupt) {
        interrupt.current.store(0, SeqCst);
    }

    /// Interrupts the request, now or when it becomes known.
    pub(crate) fn raise(&self, unique: u64) {
        let mut early = self.lock_early();
        if early.len() >= Self::EARLY_MAX {
            early.pop_front();
        }
        early.push_back(unique);
        self.early_len.store(early.len(), SeqCst);
        if self.lock_threads().iter().any(|interrupt| interrupt.raise(unique)) {
            early.pop_back();
            self.early_len.store(early.len(), SeqCst);
        }
    }

    /// Interrupts all requests that are served now.
    pub(crate) fn raise_all(&self) {
        for interrupt in self.lock_threads().iter() {
            match interrupt.current.load(SeqCst) {
                0 => {}
                unique => drop(interrupt.raise(unique)),
            }
        }
    }

    /// Whether a thread other than `me` serves a request.
    pub(crate) fn others_busy(&self, me: &Interrupt) -> bool {
        self.lock_threads().iter().any(|other| !std::ptr::eq(&**other, me) && other.current.load(SeqCst) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn an_interrupt_reaches_its_request_and_no_other() {
        let all = Interrupts::default();
        let (a, b) = (all.register(), all.register());
        all.begin(&a, 2);
        all.begin(&b, 4);
        all.raise(4);
        assert!(!a.is_raised() && b.is_raised());
        all.end(&b);
        all.begin(&b, 6);
        assert!(!b.is_raised());
        assert!(all.others_busy(&a));
        all.end(&b);
        assert!(!all.others_busy(&a));
    }

    #[test]
    fn an_interrupt_that_comes_before_its_request_is_kept() {
        let all = Interrupts::default();
        let a = all.register();
        all.raise(8);
        all.begin(&a, 6);
        assert!(!a.is_raised());
        all.begin(&a, 8);
        assert!(a.is_raised());
        assert_eq!(all.early_len.load(SeqCst), 0);
    }

    #[test]
    fn interrupts_that_come_too_late_do_not_pile_up() {
        let all = Interrupts::default();
        for unique in 1..=10 * Interrupts::EARLY_MAX as u64 {
            all.raise(unique);
        }
        assert_eq!(all.lock_early().len(), Interrupts::EARLY_MAX);
        let a = all.register();
        all.begin(&a, 1 << 40);
        assert_eq!(all.lock_early().len(), 0);
    }

    #[test]
    fn the_callback_runs_also_when_the_interrupt_came_first() {
        let all = Interrupts::default();
        let a = all.register();
        all.begin(&a, 2);
        all.raise(2);
        let called = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&called);
        let guard = a.on_interrupt(move || seen.store(true, SeqCst));
        assert!(called.swap(false, SeqCst));
        drop(guard);
        all.raise(2);
        assert!(!called.load(SeqCst));
    }

    #[test]
    fn a_waiting_handler_is_woken() {
        let all = Arc::new(Interrupts::default());
        let a = all.register();
        all.begin(&a, 2);
        assert!(!a.wait_timeout(Duration::from_millis(1)));
        let other = Arc::clone(&all);
        let thread = std::thread::spawn(move || other.raise(2));
        assert!(a.wait_timeout(Duration::from_secs(60)));
        thread.join().unwrap();
    }

    #[test]
    fn begin_and_raise_never_miss_each_other() {
        let all = Arc::new(Interrupts::default());
        let a = all.register();
        for unique in 1..5000 {
            let other = Arc::clone(&all);
            std::thread::scope(|s| {
                s.spawn(move || other.raise(unique));
                all.begin(&a, unique);
                if !a.wait_timeout(Duration::from_secs(60)) {
                    panic!("interrupt {unique} was lost");
                }
            });
            all.end(&a);
        }
    }
}
