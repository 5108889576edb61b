// SPDX-License-Identifier: GPL-2.0-only
//! Which data blocks a mount that was fenced may still write.
//!
//! A mount that is fenced by lease alone may have asked for a write of data before, which lands when others have its locks. It can
//! go to blocks that a file had when the mount was fenced, if the mount had locked it for writing. So each extent tells how
//! many fences were known when the file got its blocks. While the death of who was fenced by a later one is not confirmed, these blocks
//! are not written, but others in their place, and are not used again when they are freed.
//!
//! The server tells of fences with each grant of a lock: who gets the lock of a fenced mount knows.
//!
//! Locking: none; one atomic word.

use core::sync::atomic::{AtomicU64, Ordering};

use scoutfs_env::fault::{Fault, planted};
use scoutfs_format::msg::Fences;

/// What is known of fences: the number of the newest one in the upper half, that of the newest which is not confirmed in the lower.
#[derive(Default)]
pub(crate) struct KnownFences(AtomicU64);

impl KnownFences {
    /// The server has told. Also what it told before may come later.
    pub fn note(&self, fences: &Fences) {
        let (newest, unconfirmed) = (u64::from(fences.newest.get()), u64::from(fences.unconfirmed.get()));
        let told = newest << 32 | unconfirmed.min(newest);
        let newer = |known: u64| {
            let same = known >> 32 == newest;
            (newest > known >> 32 || same && told < known).then_some(told)
        };
        // That nothing changes is no error.
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, newer);
    }

    /// What extents whose blocks are new are marked with.
    pub fn newest(&self) -> u32 {
        (self.0.load(Ordering::Acquire) >> 32) as u32
    }

    /// Whether there is one that is not confirmed.
    pub fn any_unconfirmed(&self) -> bool {
        self.0.load(Ordering::Acquire) as u32 != 0
    }

    /// Whether somebody else may still write to blocks that a file got when so many fences were known.
    pub fn may_be_written(&self, fences: u32) -> bool {
        fences < self.0.load(Ordering::Acquire) as u32 && !planted(Fault::WriteInPlace)
    }

    /// Whether such blocks must not be used again when they are freed.
    pub fn withholds(&self, fences: u32) -> bool {
        fences < self.0.load(Ordering::Acquire) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(known: &KnownFences, newest: u32, unconfirmed: u32) {
        known.note(&Fences { newest: newest.into(), unconfirmed: unconfirmed.into() });
    }

    #[test]
    fn blocks_that_are_older_than_an_unconfirmed_fence_may_be_written() {
        let known = KnownFences::default();
        assert!(!known.may_be_written(0) && !known.any_unconfirmed());
        told(&known, 3, 2);
        assert_eq!(known.newest(), 3);
        assert!(known.any_unconfirmed() && known.may_be_written(1) && !known.may_be_written(2));
        told(&known, 3, 0);
        assert!(!known.may_be_written(0) && !known.any_unconfirmed());
        assert_eq!(known.newest(), 3);
    }

    /// Grants and answers about the lease take different ways.
    #[test]
    fn what_is_told_late_changes_nothing() {
        let known = KnownFences::default();
        told(&known, 3, 3);
        told(&known, 2, 0);
        assert!(known.may_be_written(2));
        told(&known, 3, 1);
        told(&known, 3, 3);
        assert!(known.may_be_written(0) && !known.may_be_written(1));
        told(&known, 4, 4);
        assert!(known.may_be_written(3));
        // Nonsense of a server is no fence that was never made.
        told(&known, 5, 9);
        assert!(known.may_be_written(4) && !known.may_be_written(5));
    }
}
