// SPDX-License-Identifier: GPL-2.0-only
//! Which open files were told that data which had been written to them are lost.
//!
//! As Linux does it: each open file is told once, by `fsync`, of what was lost since it was opened or told last. Closing tells, too, to
//! those who look, and changes nothing, nor does it wait: each process that inherited the file closes it.
//!
//! Locking: one mutex, a leaf, which nobody takes as long as nothing is lost.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::fuse::{Errno, Result};

/// How many writes of its inode were lost when an open file was opened or told last; those that are not here know of none.
#[derive(Debug, Default)]
pub struct Told(Mutex<HashMap<u64, u32>>);

/// What [`Fs::lost_writes`](scoutfs_fs::Fs::lost_writes) says.
type Lost = (u32, i32);

impl Told {
    /// A file was opened.
    pub fn opened(&self, handle: u64, (lost, _): Lost) {
        if lost > 0 {
            self.seen().insert(handle, lost);
        }
    }

    /// It is closed by all.
    pub fn released(&self, handle: u64, (lost, _): Lost) {
        if lost > 0 {
            self.seen().remove(&handle);
        }
    }

    /// Whether there is nothing to tell.
    pub fn check(&self, handle: u64, (lost, error): Lost) -> Result<()> {
        if lost == 0 || self.seen().get(&handle).is_some_and(|seen| *seen == lost) {
            return Ok(());
        }
        Err(Errno::from_raw_os_error(error))
    }

    /// As [`check`](Self::check), but once.
    pub fn tell(&self, handle: u64, lost: Lost) -> Result<()> {
        let told = self.check(handle, lost);
        if told.is_err() {
            self.seen().insert(handle, lost.0);
        }
        told
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, HashMap<u64, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_open_file_is_told_once_of_what_was_lost_while_it_was_open() {
        let told = Told::default();
        let full: Lost = (1, 28);
        assert_eq!(told.tell(1, (0, 0)), Ok(()));
        // Closing does not count as being told.
        assert_eq!(told.check(1, full), Err(Errno::NOSPC));
        assert_eq!(told.tell(1, full), Err(Errno::NOSPC));
        assert_eq!(told.tell(1, full), Ok(()));
        assert_eq!(told.check(1, full), Ok(()));
        // Another open file, and one that was opened later.
        told.opened(3, full);
        assert_eq!(told.tell(2, full), Err(Errno::NOSPC));
        assert_eq!(told.tell(3, full), Ok(()));
        for handle in 1..=3 {
            assert_eq!(told.tell(handle, (2, 5)), Err(Errno::IO));
            told.released(handle, (2, 5));
        }
        assert!(told.seen().is_empty());
    }
}
