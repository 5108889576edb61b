// SPDX-License-Identifier: GPL-2.0-only
//! Telling the host, a kernel with lockdep, of each lock that is taken or given up.
//!
//! The class of a lock is the place in the sources where it was made, so that locks with different parts to play are told apart
//! without anybody naming them. Two locks of one class are waited for one under the other only where that says which is the how many-th.

use core::cell::UnsafeCell;
use core::panic::Location;
use core::ptr::from_ref;

use super::rank::Use;
use crate::backend::host::hooks::{LockNotes, scoutfs_host_lock_given_up, scoutfs_host_lock_taken};

/// The class of a lock, and the host's notes of it.
pub(crate) struct Rank {
    site: &'static Location<'static>,
    notes: UnsafeCell<LockNotes>,
}

// SAFETY: the notes are the host's, which any thread tells of the lock.
unsafe impl Send for Rank {}
// SAFETY: as above.
unsafe impl Sync for Rank {}

/// Lives as long as a guard.
pub(crate) struct Held {
    notes: *mut LockNotes,
    site: &'static Location<'static>,
    used: Use,
}

// SAFETY: a shared reference tells the host of the thread that uses it. Guards stay on theirs.
unsafe impl Sync for Held {}

impl Rank {
    #[track_caller]
    pub(crate) const fn new(_rank: u16) -> Self {
        Self { site: Location::caller(), notes: UnsafeCell::new([0; 8]) }
    }

    /// Called before waiting for the lock, which counts as held from then on.
    pub(crate) fn wait(&self, used: Use) -> Held {
        self.taken(used, false)
    }

    /// Called when the lock has been taken without waiting.
    pub(crate) fn tried(&self, used: Use) -> Held {
        self.taken(used, true)
    }

    fn taken(&self, used: Use, tried: bool) -> Held {
        let held = Held { notes: self.notes.get(), site: self.site, used };
        held.tell(tried);
        held
    }
}

impl Held {
    fn tell(&self, tried: bool) {
        let file = self.site.file();
        let (shared, nth) = match self.used {
            Use::Alone => (false, 0),
            Use::Shared => (true, 0),
            Use::Nested(nth) => (false, nth),
        };
        // SAFETY: the notes lie in a lock, which outlives its guards and whoever waits for it; the place is in the program's own data.
        unsafe {
            scoutfs_host_lock_taken(
                self.notes,
                from_ref(self.site).cast(),
                file.as_ptr(),
                file.len(),
                self.site.line(),
                nth.into(),
                shared.into(),
                tried.into(),
            );
        }
    }

    /// Called before a condition variable gives the lock up and waits for it again.
    pub(crate) fn check_wait(&self) {
        // SAFETY: as in `tell`.
        unsafe { scoutfs_host_lock_given_up(self.notes) };
        self.tell(false);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: the lock is still held, so it is there.
        unsafe { scoutfs_host_lock_given_up(self.notes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::host::test_hooks::{LockEvent, lock_events};

    /// Made in one place.
    fn make() -> Rank {
        Rank::new(0)
    }

    #[test]
    fn locks_that_are_made_in_one_place_are_one_class() {
        let (one, other) = (make(), make());
        let elsewhere = Rank::new(0);
        drop([one.wait(Use::Alone), other.wait(Use::Alone), elsewhere.wait(Use::Alone)]);
        let taken: std::vec::Vec<_> = lock_events().iter().filter_map(LockEvent::taken).collect();
        assert_eq!(taken[0].class, taken[1].class);
        assert_ne!(taken[0].class, taken[2].class);
        assert_ne!(taken[0].notes, taken[1].notes);
        assert!(taken.iter().all(|taken| taken.file.ends_with("lockdep.rs")), "{taken:?}");
        assert_eq!(taken[2].line, elsewhere.site.line());
    }

    #[test]
    fn the_host_is_told_how_a_lock_is_taken_and_when_it_is_given_up() {
        let rank = make();
        let waiting = rank.wait(Use::Alone);
        // As a condition variable does.
        waiting.check_wait();
        drop(waiting);
        drop(rank.tried(Use::Shared));
        drop(rank.wait(Use::Nested(2)));
        let events = lock_events();
        let told: std::vec::Vec<_> =
            events.iter().map(|event| event.taken().map(|t| (t.shared, t.nth, t.tried))).collect();
        let alone = Some((false, 0, false));
        assert_eq!(
            told,
            [alone, None, alone, None, Some((true, 0, true)), None, Some((false, 2, false)), None]
        );
        assert!(events.iter().all(|event| event.notes() == rank.notes.get().addr()));
    }
}
