// SPDX-License-Identifier: GPL-2.0-only
//! Threads of the host.

use crate::backend::thread;

/// A thread could not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot start thread {name}: errno {errno}")]
pub struct SpawnError {
    /// The name that the thread would have had.
    pub name: &'static str,
    /// Why: `EAGAIN`, `ENOMEM` and the like.
    pub errno: i32,
}

/// The right to wait for a thread. A thread whose handle is dropped goes on by itself.
pub struct JoinHandle(thread::JoinHandle);

/// Runs `body` in a thread of its own. The host may cut the name (Linux shows 15 bytes of it).
pub fn spawn<F>(name: &'static str, body: F) -> Result<JoinHandle, SpawnError>
where
    F: FnOnce() + Send + 'static,
{
    thread::spawn(name, body).map(JoinHandle)
}

/// Whether the program that the calling thread serves was killed. Then it waits no longer for what may never come. Threads that
/// [`spawn`] has made serve none.
///
/// Killing wakes the thread once: its wait on a condition variable returns for no reason.
pub fn is_killed() -> bool {
    thread::is_killed()
}

/// Runs `body`, which takes so many `bytes` of stack, in another thread while this one waits if there is less left, and what a device or a
/// network below us needs. A kernel's threads have small stacks.
///
/// In another thread nobody is killed. There must be room for what is nested in `body`: it is not to wait for a third.
pub fn with_room<R: Send>(bytes: usize, body: impl FnOnce() -> R + Send) -> R {
    thread::with_room(bytes, body)
}

/// Runs `body` in the place of a program that is killed when `killed` gets true. Who sets that wakes the thread himself.
#[cfg(feature = "std")]
pub fn run_for<R>(killed: &std::sync::Arc<core::sync::atomic::AtomicBool>, body: impl FnOnce() -> R) -> R {
    thread::run_for(killed, body)
}

impl JoinHandle {
    /// Waits until the thread has ended. A panic of the thread goes on in the caller.
    pub fn join(self) {
        self.0.join();
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use crate::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn join_waits_for_the_end_of_the_thread() {
        static DONE: AtomicU32 = AtomicU32::new(0);
        let handle = super::spawn("worker", || {
            std::thread::sleep(core::time::Duration::from_millis(20));
            DONE.store(1, Ordering::Relaxed);
        })
        .unwrap();
        handle.join();
        assert_eq!(DONE.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_program_is_killed_as_long_as_its_thread_serves_it() {
        use core::sync::atomic::AtomicBool;
        let (one, other) = (std::sync::Arc::new(AtomicBool::new(false)), std::sync::Arc::default());
        super::run_for(&one, || {
            assert!(!super::is_killed());
            one.store(true, Ordering::Relaxed);
            assert!(super::is_killed());
            super::run_for(&other, || assert!(!super::is_killed()));
            assert!(super::is_killed());
            let spawned = super::spawn("worker", || assert!(!super::is_killed()));
            spawned.unwrap().join();
        });
        assert!(!super::is_killed());
    }
}
