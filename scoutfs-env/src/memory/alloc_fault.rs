// SPDX-License-Identifier: GPL-2.0-only
//! Failing allocations on purpose. A test runs an operation after `fail_after(0)`, `fail_after(1)` and so on,
//! until [`tripped`] says that the operation made no such allocation any more, and looks at what each
//! failure left behind.
//!
//! That is the thread's own: tests of other threads are not disturbed, and allocations that the operation
//! makes on other threads are not counted. For those there is [`fail_on`], which names the thread: all tests of a
//! process that use it must take turns.

use core::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::AllocError;

/// Which allocations fail.
#[derive(Clone, Copy)]
struct Plan {
    /// So many succeed.
    after: u64,
    /// So many fail then.
    count: u64,
}

impl Plan {
    fn fails(&self, nr: u64) -> bool {
        nr >= self.after && nr - self.after < self.count
    }
}

std::thread_local! {
    static PLAN: Cell<Option<Plan>> = const { Cell::new(None) };
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// The plan for threads of a name, and how many allocations they have tried.
struct Named {
    thread: &'static str,
    plan: Plan,
    tried: u64,
}

static NAMED: Mutex<Option<Named>> = Mutex::new(None);
/// Whether there is such a plan.
static IS_NAMED: AtomicBool = AtomicBool::new(false);

fn named() -> MutexGuard<'static, Option<Named>> {
    NAMED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts to count this thread's allocations at zero. The next `n` succeed, the one after them fails, and those
/// after that succeed again.
pub fn fail_after(n: u64) {
    fail_some(n, 1);
}

/// As [`fail_after`], but `count` of them fail.
pub fn fail_some(n: u64, count: u64) {
    PLAN.set(Some(Plan { after: n, count }));
    COUNT.set(0);
}

/// Lets all allocations of this thread succeed again, and starts to count at zero.
pub fn clear() {
    PLAN.set(None);
    COUNT.set(0);
}

/// How many allocations this thread has tried since it last called [`fail_after`] or [`clear`], the failed one
/// included.
pub fn count() -> u64 {
    COUNT.get()
}

/// Whether the failure that [`fail_after`] asked for has happened.
pub fn tripped() -> bool {
    PLAN.get().is_some_and(|plan| COUNT.get() > plan.after)
}

/// Of the allocations of all threads of a name the next `n` succeed, and the `count` after them fail, until [`clear_on`].
pub fn fail_on(thread: &'static str, n: u64, count: u64) {
    *named() = Some(Named { thread, plan: Plan { after: n, count }, tried: 0 });
    IS_NAMED.store(true, Ordering::Release);
}

/// Ends what [`fail_on`] began. Gives how many allocations those threads have tried, those that failed included.
pub fn clear_on() -> u64 {
    IS_NAMED.store(false, Ordering::Release);
    named().take().map_or(0, |named| named.tried)
}

pub(super) fn on_allocation() -> Result<(), AllocError> {
    let count = COUNT.get();
    COUNT.set(count + 1);
    let fails = PLAN.get().is_some_and(|plan| plan.fails(count));
    if fails || (IS_NAMED.load(Ordering::Acquire) && fails_by_name()) {
        return Err(AllocError);
    }
    Ok(())
}

#[cold]
fn fails_by_name() -> bool {
    let mut plan = named();
    let Some(named) = plan.as_mut().filter(|named| std::thread::current().name() == Some(named.thread))
    else {
        return false;
    };
    named.tried += 1;
    named.plan.fails(named.tried - 1)
}
