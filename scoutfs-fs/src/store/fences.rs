// SPDX-License-Identifier: GPL-2.0-only
//! Which data blocks a mount that was fenced may still write.
//!
//! A mount that is fenced by lease alone may have asked for a write of data before, which lands when others have its locks. It can
//! go to blocks that a file had when the mount was fenced, if the mount had locked it for writing. So each extent tells how
//! many fences were known when the file got its blocks. While the death of who was fenced by a later one is not confirmed, these blocks
//! are not written, but others in their place, and are not used again when they are freed.
//!
//! The server tells of fences with each grant of a lock: who gets the lock of a fenced mount knows. Who has the lock since before
//! a fence need not mind that one: the mount that was fenced cannot have had it for writing. So what a kernel has prepared to change in
//! its memory ([`Fs::prepare_pages`](crate::Fs::prepare_pages)) keeps its blocks for as long as the lock stays, whoever is fenced meanwhile,
//! and needs no space when it is written. (Blocks never go from one inode to another without having been free.)
//!
//! Locking: [`KnownFences`] none, one atomic word; [`FencesAtGrants`] is a part of the lock table.

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

    /// Whether somebody else may still write to blocks that a file got when so many fences were known, should the lock of the file
    /// have come after the fence: [`Store::may_be_written`](super::Store::may_be_written).
    pub fn may_be_written(&self, fences: u32) -> bool {
        fences < self.0.load(Ordering::Acquire) as u32 && !planted(Fault::WriteInPlace)
    }

    /// Whether such blocks must not be used again when they are freed.
    pub fn withholds(&self, fences: u32) -> bool {
        fences < self.0.load(Ordering::Acquire) as u32
    }
}

/// Turns of the number of fences that are told apart. Locks from before the first of them count as granted at the first.
const TURNS: usize = 8;

/// How many fences were known when this mount got the locks that it holds, or fewer. Locks are told apart by their
/// [`refresh`](super::LockTable::refresh), which grows.
#[derive(Default)]
pub(super) struct FencesAtGrants {
    /// From which refresh on how many fences were known; both grow.
    turns: [(u64, u32); TURNS],
    len: usize,
    /// What was known before the first turn.
    before: u32,
}

impl FencesAtGrants {
    /// A lock, or more of it, was granted when so many fences were known.
    pub fn note(&mut self, refresh: u64, newest: u32) {
        let turns = self.turns.get(..self.len).unwrap_or_default();
        if newest <= turns.last().map_or(self.before, |(_, known)| *known) {
            return;
        }
        // That of a lock of which there was a part before tells of those after it too much, which does no harm.
        self.len = turns.iter().take_while(|(first, _)| *first < refresh).count();
        if self.len == TURNS {
            self.before = self.turns[0].1;
            self.turns.rotate_left(1);
            self.len -= 1;
        }
        if let Some(turn) = self.turns.get_mut(self.len) {
            *turn = (refresh, newest);
            self.len += 1;
        }
    }

    /// How many fences were known, at most, when a lock was granted.
    pub fn known(&self, refresh: u64) -> u32 {
        let turns = self.turns.get(..self.len).unwrap_or_default();
        turns.iter().rfind(|(first, _)| *first <= refresh).map_or(self.before, |(_, known)| *known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_as_old_as_the_fences_that_were_known_when_it_came() {
        let mut grants = FencesAtGrants::default();
        grants.note(1, 0);
        grants.note(5, 3);
        grants.note(6, 3);
        grants.note(9, 4);
        assert_eq!([1, 4, 5, 8, 9, 100].map(|refresh| grants.known(refresh)), [0, 0, 3, 3, 4, 4]);
        // More of a lock that is older: those since then count as newer than they are, never as older.
        grants.note(7, 6);
        assert_eq!([4, 6, 7, 9, 100].map(|refresh| grants.known(refresh)), [0, 3, 6, 6, 6]);
        for more in 0..20 {
            grants.note(200 + u64::from(more), 10 + more);
        }
        assert_eq!([219, 212].map(|refresh| grants.known(refresh)), [29, 22]);
        // Too old to be told apart.
        assert_eq!(grants.known(1), grants.known(211));
        assert!(grants.known(1) >= 21);
    }

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
