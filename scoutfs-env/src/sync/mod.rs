// SPDX-License-Identifier: GPL-2.0-only
//! Locks with the names of `std::sync`: [`Mutex`], [`RwLock`], [`Condvar`] and [`atomic`].
//!
//! | module | what |
//! | --- | --- |
//! | `mutex`, `rwlock`, `condvar` | the locks of the host, each with a rank |
//! | `rank` | the lock order that debug builds check |
//! | `lockdep` | the same as a kernel sees it that looks after the order of locks |
//!
//! There is no poisoning: `lock` gives the guard. All locks are made in `const` and need no tear-down.
//!
//! # Lock order
//!
//! A lock made `with_rank(value, rank)` may be waited for only by a thread that holds no lock of the same
//! or a higher rank; rank 0 takes no part. Each crate writes its ranks down in one place. Debug builds of
//! the std back end check this at each acquisition and panic with both ranks when it is broken; other
//! builds keep no rank at all. A `try_*` cannot wait, so it may go against the order, but what it
//! took counts as held.
//!
//! With the feature `lockdep`, which a kernel that has it wants, the host is told of each lock that is taken or given up. There every
//! place where locks are made is a class of its own, with a rank or without.

mod condvar;
#[cfg(any(all(feature = "lockdep", not(feature = "std")), test))]
mod lockdep;
mod mutex;
mod rank;
mod rwlock;

pub use crate::backend::sync::atomic;
pub use condvar::Condvar;
pub use mutex::{Mutex, MutexGuard};
pub use rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};

#[cfg(all(test, not(feature = "shuttle")))]
mod tests;
