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
}
