// SPDX-License-Identifier: GPL-2.0-only
//! The lock order, checked in debug builds of the std back end (not under shuttle, whose tasks share a
//! thread), and by a kernel with lockdep (`super::lockdep`). Elsewhere both types are empty and every method is nothing.

#[cfg(all(debug_assertions, feature = "std", not(feature = "shuttle")))]
mod checked {
    use core::cell::RefCell;
    use std::vec::Vec;

    use super::Use;

    std::thread_local! {
        /// The ranks that this thread holds, in the order in which it took them.
        static HELD: RefCell<Vec<u16>> = const { RefCell::new(Vec::new()) };
    }

    /// The place of a lock in the lock order; 0 for none.
    pub(crate) struct Rank(u16);

    /// Lives as long as a guard.
    pub(crate) struct Held(u16);

    impl Rank {
        pub(crate) const fn new(rank: u16) -> Self {
            Self(rank)
        }

        /// Called before waiting for the lock, which counts as held from then on.
        pub(crate) fn wait(&self, _: Use) -> Held {
            if self.0 != 0 {
                let highest = HELD.with_borrow(|held| held.iter().copied().max());
                if let Some(highest) = highest {
                    assert!(
                        highest < self.0,
                        "lock order: waiting for a lock of rank {} while holding one of rank {highest}",
                        self.0
                    );
                }
            }
            self.tried(Use::Alone)
        }

        /// Called when the lock has been taken without waiting.
        pub(crate) fn tried(&self, _: Use) -> Held {
            if self.0 != 0 {
                HELD.with_borrow_mut(|held| held.push(self.0));
            }
            Held(self.0)
        }
    }

    impl Held {
        /// Called before a condition variable gives the lock up and waits for it again.
        pub(crate) fn check_wait(&self) {
            if self.0 == 0 {
                return;
            }
            let highest = HELD.with_borrow(|held| held.iter().copied().max());
            assert!(
                highest == Some(self.0),
                "lock order: waiting to take a lock of rank {} again while holding one of rank {highest:?}",
                self.0
            );
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            if self.0 != 0 {
                // Guards may be dropped in any order. A thread that is ending may have lost its list.
                let _ = HELD.try_with(|held| {
                    let mut held = held.borrow_mut();
                    if let Some(at) = held.iter().rposition(|&rank| rank == self.0) {
                        held.remove(at);
                    }
                });
            }
        }
    }
}

#[cfg(not(any(
    all(debug_assertions, feature = "std", not(feature = "shuttle")),
    all(feature = "lockdep", not(feature = "std"))
)))]
mod unchecked {
    use super::Use;

    pub(crate) struct Rank;

    pub(crate) struct Held;

    impl Rank {
        pub(crate) const fn new(_rank: u16) -> Self {
            Self
        }

        pub(crate) fn wait(&self, _: Use) -> Held {
            Held
        }

        pub(crate) fn tried(&self, _: Use) -> Held {
            Held
        }
    }

    impl Held {
        pub(crate) fn check_wait(&self) {}
    }
}

/// How a lock is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// By one thread.
    Alone,
    /// The same, as the n-th of several locks that were made in one place and are always taken in one order.
    Nested(u8),
    /// By many readers. A reader that waits may be behind a writer, so this is not recursive.
    Shared,
}

#[cfg(all(feature = "lockdep", not(feature = "std")))]
pub(crate) use super::lockdep::{Held, Rank};
#[cfg(all(debug_assertions, feature = "std", not(feature = "shuttle")))]
pub(crate) use checked::{Held, Rank};
#[cfg(not(any(
    all(debug_assertions, feature = "std", not(feature = "shuttle")),
    all(feature = "lockdep", not(feature = "std"))
)))]
pub(crate) use unchecked::{Held, Rank};
