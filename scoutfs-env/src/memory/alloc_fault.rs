// SPDX-License-Identifier: GPL-2.0-only
//! Failing allocations on purpose. A test runs an operation after `fail_after(0)`, `fail_after(1)` and so on,
//! until [`tripped`] says that the operation made no such allocation any more, and looks at what each
//! failure left behind.
//!
//! All state is the thread's own: tests of other threads are not disturbed, and allocations that the operation
//! makes on other threads are not counted.

use core::cell::Cell;

use super::AllocError;

std::thread_local! {
    static FAIL_AT: Cell<Option<u64>> = const { Cell::new(None) };
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// Starts to count this thread's allocations at zero. The next `n` succeed, the one after them fails, and those
/// after that succeed again.
pub fn fail_after(n: u64) {
    FAIL_AT.set(Some(n));
    COUNT.set(0);
}

/// Lets all allocations succeed again, and starts to count at zero.
pub fn clear() {
    FAIL_AT.set(None);
    COUNT.set(0);
}

/// How many allocations this thread has tried since it last called [`fail_after`] or [`clear`], the failed one
/// included.
pub fn count() -> u64 {
    COUNT.get()
}

/// Whether the failure that [`fail_after`] asked for has happened.
pub fn tripped() -> bool {
    FAIL_AT.get().is_some_and(|n| COUNT.get() > n)
}

pub(super) fn on_allocation() -> Result<(), AllocError> {
    let count = COUNT.get();
    COUNT.set(count + 1);
    if FAIL_AT.get() == Some(count) {
        return Err(AllocError);
    }
    Ok(())
}
