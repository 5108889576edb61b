// SPDX-License-Identifier: GPL-2.0-only
//! Many readers or one writer.

use core::fmt;
use core::ops::{Deref, DerefMut};

use super::rank::{Held, Rank, Use};
use crate::backend::sync as host;

/// A value that many threads may read or one may change. Not recursive, for readers either: a waiting
/// writer may hold new readers back.
pub struct RwLock<T> {
    rank: Rank,
    inner: host::RwLock<T>,
}

/// Shared access to the value of a [`RwLock`]. Stays on its thread.
#[must_use = "the lock is given up at once if the guard is not kept"]
pub struct RwLockReadGuard<'a, T> {
    /// Dropped first: nothing is known of the lock when it is free.
    _held: Held,
    inner: host::RwLockReadGuard<'a, T>,
}

/// Exclusive access to the value of a [`RwLock`]. Stays on its thread.
#[must_use = "the lock is given up at once if the guard is not kept"]
pub struct RwLockWriteGuard<'a, T> {
    /// Dropped first: nothing is known of the lock when it is free.
    _held: Held,
    inner: host::RwLockWriteGuard<'a, T>,
}

impl<T> RwLock<T> {
    /// A lock that takes no part in the lock order.
    #[cfg_attr(feature = "lockdep", track_caller)]
    pub const fn new(value: T) -> Self {
        Self::with_rank(value, 0)
    }

    /// A lock with a place in the lock order, see [the module](super).
    #[cfg_attr(feature = "lockdep", track_caller)]
    pub const fn with_rank(value: T, rank: u16) -> Self {
        Self { rank: Rank::new(rank), inner: host::RwLock::new(value) }
    }

    /// Waits until nobody writes and takes shared access.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        let _held = self.rank.wait(Use::Shared);
        RwLockReadGuard { _held, inner: self.inner.read() }
    }

    /// Waits until nobody reads or writes and takes exclusive access.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        let _held = self.rank.wait(Use::Alone);
        RwLockWriteGuard { _held, inner: self.inner.write() }
    }

    /// As [`write`](Self::write), for the n-th lock, from 0, of several without a rank that were made in one place: all threads take such
    /// locks in one order.
    pub fn write_nested(&self, nth: u8) -> RwLockWriteGuard<'_, T> {
        let _held = self.rank.wait(Use::Nested(nth));
        RwLockWriteGuard { _held, inner: self.inner.write() }
    }

    /// Takes shared access if it is free.
    pub fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        let inner = self.inner.try_read()?;
        Some(RwLockReadGuard { _held: self.rank.tried(Use::Shared), inner })
    }

    /// Takes exclusive access if it is free.
    pub fn try_write(&self) -> Option<RwLockWriteGuard<'_, T>> {
        let inner = self.inner.try_write()?;
        Some(RwLockWriteGuard { _held: self.rank.tried(Use::Alone), inner })
    }

    /// The value, which nobody else can be using.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }

    /// The value, without the lock.
    pub fn into_inner(self) -> T {
        self.inner.into_inner()
    }
}

impl<T: Default> Default for RwLock<T> {
    #[cfg_attr(feature = "lockdep", track_caller)]
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_read() {
            Some(guard) => f.debug_tuple("RwLock").field(&*guard).finish(),
            None => f.write_str("RwLock(<locked>)"),
        }
    }
}

impl<T> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T: fmt::Debug> fmt::Debug for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: fmt::Debug> fmt::Debug for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
