// SPDX-License-Identifier: GPL-2.0-only
use core::time::Duration;
use std::thread;
use std::time::Instant;

use super::*;

#[test]
fn a_mutex_lets_one_thread_in_at_a_time() {
    let count = Mutex::new(0u64);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    let mut guard = count.lock();
                    let before = *guard;
                    core::hint::spin_loop();
                    *guard = before + 1;
                }
            });
        }
    });
    assert_eq!(count.into_inner(), 4000);
}

#[test]
fn try_lock_fails_while_the_mutex_is_held() {
    let mutex = Mutex::new(());
    let guard = mutex.lock();
    assert!(mutex.try_lock().is_none());
    drop(guard);
    assert!(mutex.try_lock().is_some());
}

#[test]
fn a_panic_under_a_lock_does_not_poison_it() {
    let mutex = Mutex::new(1);
    let result = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
        let _guard = mutex.lock();
        std::panic::resume_unwind(std::boxed::Box::new(()));
    }));
    assert!(result.is_err());
    assert_eq!(*mutex.lock(), 1);
}

#[test]
fn readers_share_and_writers_do_not() {
    let lock = RwLock::new(0);
    {
        let _one = lock.read();
        assert!(lock.try_read().is_some());
        assert!(lock.try_write().is_none());
    }
    let _writer = lock.write();
    assert!(lock.try_read().is_none());
    assert!(lock.try_write().is_none());
}

#[test]
fn a_condvar_wakes_its_waiter() {
    let (ready, changed) = (Mutex::new(false), Condvar::new());
    thread::scope(|scope| {
        scope.spawn(|| {
            *ready.lock() = true;
            changed.notify_one();
        });
        let mut guard = ready.lock();
        while !*guard {
            guard = changed.wait(guard);
        }
    });
}

#[test]
fn wait_timeout_says_that_the_time_ran_out() {
    let (mutex, condvar) = (Mutex::new(()), Condvar::new());
    let start = Instant::now();
    let mut guard = mutex.lock();
    loop {
        let (again, timed_out) = condvar.wait_timeout(guard, Duration::from_millis(10));
        guard = again;
        if timed_out {
            break;
        }
    }
    assert!(start.elapsed() >= Duration::from_millis(10));
    drop(guard);
}

#[cfg(all(debug_assertions, feature = "std"))]
mod order {
    use super::*;

    #[test]
    fn locks_may_be_taken_in_rising_rank_and_released_in_any_order() {
        let (low, middle, high) =
            (Mutex::with_rank((), 10), RwLock::with_rank((), 20), Mutex::with_rank((), 30));
        let a = low.lock();
        let b = middle.read();
        drop(a);
        let c = high.lock();
        drop(b);
        drop(c);
        let _a = low.lock();
    }

    #[test]
    #[should_panic(expected = "waiting for a lock of rank 10 while holding one of rank 20")]
    fn a_falling_rank_panics() {
        let (low, high) = (Mutex::with_rank((), 10), RwLock::with_rank((), 20));
        let _high = high.write();
        let _low = low.lock();
    }

    #[test]
    #[should_panic(expected = "waiting for a lock of rank 10 while holding one of rank 10")]
    fn an_equal_rank_panics() {
        let (one, two) = (Mutex::with_rank((), 10), Mutex::with_rank((), 10));
        let _one = one.lock();
        let _two = two.lock();
    }

    #[test]
    fn unranked_locks_and_try_lock_take_no_part() {
        let (low, high, none) = (Mutex::with_rank((), 10), Mutex::with_rank((), 20), Mutex::new(()));
        let _high = high.lock();
        let _none = none.lock();
        assert!(low.try_lock().is_some());
    }

    #[test]
    #[should_panic(expected = "take a lock of rank 10 again while holding one of rank Some(20)")]
    fn waiting_for_a_condition_under_a_higher_lock_panics() {
        let (low, high) = (Mutex::with_rank((), 10), Mutex::with_rank((), 20));
        let guard = low.lock();
        let _high = high.lock();
        let _ = Condvar::new().wait_timeout(guard, Duration::from_millis(1));
    }
}
