// SPDX-License-Identifier: GPL-2.0-only
//! Threads that wait for memory.
//!
//! Most code gives up what it was asked for when there is no memory, and whoever asked hears of it. A thread that serves
//! everybody, and changes several things in memory at a time that must agree, cannot: for it no memory is something to wait for,
//! as for a device. It must not be waited for by whoever frees memory, and must wait for nobody itself while it is
//! patient, but for the device.
//!
//! In a process the containers try again; in the kernel the module's allocator does, which knows better what to wait for.

use core::time::Duration;

use super::AllocError;
use crate::backend::thread;
use crate::time;

/// Between attempts.
const PAUSE: Duration = Duration::from_millis(5);

/// Runs `work` on this thread. Its allocations wait for up to `limit` before they fail.
pub fn patiently<T>(limit: Duration, work: impl FnOnce() -> T) -> T {
    /// Also when the work panics.
    struct Back(Duration);

    impl Drop for Back {
        fn drop(&mut self) {
            thread::set_patience(self.0);
        }
    }

    let back = Back(thread::set_patience(limit));
    let done = work();
    drop(back);
    done
}

/// Allocates, again and again as long as the thread is patient.
#[inline]
pub(super) fn attempt<T>(mut allocate: impl FnMut() -> Result<T, AllocError>) -> Result<T, AllocError> {
    allocate().or_else(|AllocError| wait(&mut allocate))
}

#[cold]
fn wait<T>(allocate: &mut dyn FnMut() -> Result<T, AllocError>) -> Result<T, AllocError> {
    let limit = thread::patience();
    if limit.is_zero() {
        return Err(AllocError);
    }
    crate::warn!("no memory: waiting for some");
    let end = time::mono_now().saturating_add(limit);
    loop {
        time::sleep(PAUSE);
        let allocated = allocate();
        if allocated.is_ok() || time::mono_now() >= end {
            return allocated;
        }
    }
}

#[cfg(all(test, feature = "std", not(feature = "shuttle")))]
mod tests {
    use super::*;
    use crate::{Vec, alloc_fault};

    #[test]
    fn a_patient_thread_waits_for_memory_and_an_impatient_one_does_not() {
        let grow = || Vec::from_slice(&[1, 2, 3]).map(|vec| vec.len());
        alloc_fault::fail_some(0, 4);
        assert_eq!(grow(), Err(AllocError));
        alloc_fault::fail_some(0, 4);
        assert_eq!(patiently(Duration::from_secs(60), grow), Ok(3));
        alloc_fault::fail_some(0, u64::MAX);
        assert_eq!(patiently(Duration::from_millis(20), grow), Err(AllocError));
        alloc_fault::fail_some(0, 1);
        assert_eq!(grow(), Err(AllocError), "patience ends with the work");
        alloc_fault::clear();
    }
}
