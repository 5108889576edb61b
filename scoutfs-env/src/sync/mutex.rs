// SPDX-License-Identifier: GPL-2.0-only
//! Mutual exclusion.

use core::fmt;
use core::ops::{Deref, DerefMut};

use super::rank::{Held, Rank, Use};
use crate::backend::sync as host;

/// A value that one thread at a time may use. Not recursive; waiting threads sleep.
pub struct Mutex<T> {
    rank: Rank,
    inner: host::Mutex<T>,
}

/// Access to the value of a [`Mutex`], which is unlocked when this is dropped. Stays on its thread.
#[must_use = "the lock is given up at once if the guard is not kept"]
pub struct MutexGuard<'a, T> {
    /// Dropped first: nothing is known of the lock when it is free.
    pub(super) held: Held,
    pub(super) inner: host::MutexGuard<'a, T>,
}

impl<T> Mutex<T> {
    /// A mutex that takes no part in the lock order.
    #[cfg_attr(feature = "lockdep", track_caller)]
    pub const fn new(value: T) -> Self {
        Self::with_rank(value, 0)
    }

    /// A mutex with a place in the lock order, see [the module](super).
    #[cfg_attr(feature = "lockdep", track_caller)]
    pub const fn with_rank(value: T, rank: u16) -> Self {
        Self { rank: Rank::new(rank), inner: host::Mutex::new(value) }
    }

    /// Waits until the mutex is free and takes it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let held = self.rank.wait(Use::Alone);
        MutexGuard { held, inner: self.inner.lock() }
    }

    /// As [`lock`](Self::lock), but `None` when the program that the thread serves is killed before the mutex is free (see
    /// [`crate::thread::is_killed`]). In a process threads look for that only before they sleep.
    pub fn lock_unless_killed(&self) -> Option<MutexGuard<'_, T>> {
        let held = self.rank.wait(Use::Alone);
        Some(MutexGuard { held, inner: self.inner.lock_unless_killed()? })
    }

    /// Takes the mutex if it is free.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let inner = self.inner.try_lock()?;
        Some(MutexGuard { held: self.rank.tried(Use::Alone), inner })
    }

    /// The value, which nobody else can be using.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }

    /// The value, without the mutex.
    pub fn into_inner(self) -> T {
        self.inner.into_inner()
    }
}

impl<T: Default> Default for Mutex<T> {
    #[cfg_attr(feature = "lockdep", track_caller)]
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_lock() {
            Some(guard) => f.debug_tuple("Mutex").field(&*guard).finish(),
            None => f.write_str("Mutex(<locked>)"),
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T: fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
