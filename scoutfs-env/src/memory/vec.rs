// SPDX-License-Identifier: GPL-2.0-only
//! A growing array.

use core::borrow::Borrow;
use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::ops::{Deref, DerefMut, RangeBounds};

use super::patience::attempt;
use super::{AllocError, permit};

/// As the one of `std`, but everything that may allocate returns a `Result` and changes nothing on failure.
pub struct Vec<T>(alloc::vec::Vec<T>);

/// Elements on their way out of a [`Vec`], see [`Vec::drain`].
pub type Drain<'a, T> = alloc::vec::Drain<'a, T>;

impl<T> Vec<T> {
    /// An empty one; allocates nothing.
    pub const fn new() -> Self {
        Self(alloc::vec::Vec::new())
    }

    /// An empty one with room for at least `capacity` elements.
    pub fn with_capacity(capacity: usize) -> Result<Self, AllocError> {
        let mut vec = Self::new();
        if capacity > vec.capacity() {
            attempt(|| {
                permit()?;
                vec.0.try_reserve_exact(capacity).map_err(|_| AllocError)
            })?;
        }
        Ok(vec)
    }

    /// A copy of a slice.
    pub fn from_slice(slice: &[T]) -> Result<Self, AllocError>
    where
        T: Clone,
    {
        let mut vec = Self::with_capacity(slice.len())?;
        vec.extend_from_slice(slice)?;
        Ok(vec)
    }

    /// A copy. Elements must clone without allocating; nested containers have a `try_clone` of their own.
    pub fn try_clone(&self) -> Result<Self, AllocError>
    where
        T: Clone,
    {
        Self::from_slice(self)
    }

    /// How many elements fit without allocating.
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// Makes sure that `additional` more elements can be added without allocating.
    pub fn reserve(&mut self, additional: usize) -> Result<(), AllocError> {
        if additional > self.0.capacity().wrapping_sub(self.0.len()) {
            attempt(|| {
                permit()?;
                self.0.try_reserve(additional).map_err(|_| AllocError)
            })?;
        }
        Ok(())
    }

    /// Adds an element at the end. On failure the element is dropped; to keep it, [`reserve`](Self::reserve)
    /// first and use [`push_within_capacity`](Self::push_within_capacity).
    pub fn push(&mut self, value: T) -> Result<(), AllocError> {
        self.reserve(1)?;
        self.push_within_capacity(value).map_err(|_| AllocError)
    }

    /// Adds an element at the end if there is room for it; else gives it back.
    pub fn push_within_capacity(&mut self, value: T) -> Result<(), T> {
        let len = self.0.len();
        match self.0.spare_capacity_mut().first_mut() {
            None => Err(value),
            Some(slot) => {
                slot.write(value);
                // SAFETY: the element at `len` has just been written, and is within the capacity.
                unsafe { self.0.set_len(len + 1) };
                Ok(())
            }
        }
    }

    /// Puts an element before the one at `index`. Panics when `index` is beyond the end.
    pub fn insert(&mut self, index: usize, value: T) -> Result<(), AllocError> {
        assert!(index <= self.len(), "insert at {index} into {} elements", self.len());
        self.push(value)?;
        self[index..].rotate_right(1);
        Ok(())
    }

    /// Adds copies of all elements of a slice at the end.
    pub fn extend_from_slice(&mut self, slice: &[T]) -> Result<(), AllocError>
    where
        T: Clone,
    {
        self.reserve(slice.len())?;
        let len = self.0.len();
        for (slot, value) in self.0.spare_capacity_mut().iter_mut().zip(slice) {
            slot.write(value.clone());
        }
        // SAFETY: that many elements were reserved and have just been written. (Had a clone panicked, those
        // written before it would have leaked, no more.)
        unsafe { self.0.set_len(len + slice.len()) };
        Ok(())
    }

    /// Adds all elements of an iterator at the end. On failure those that it gave before remain.
    pub fn try_extend(&mut self, iter: impl IntoIterator<Item = T>) -> Result<(), AllocError> {
        let iter = iter.into_iter();
        self.reserve(iter.size_hint().0)?;
        for value in iter {
            self.push(value)?;
        }
        Ok(())
    }

    /// Makes the length `len`, dropping elements at the end or adding copies of `value`.
    pub fn resize(&mut self, len: usize, value: T) -> Result<(), AllocError>
    where
        T: Clone,
    {
        let Some(additional) = len.checked_sub(self.len()) else {
            self.truncate(len);
            return Ok(());
        };
        self.reserve(additional)?;
        for slot in self.0.spare_capacity_mut().iter_mut().take(additional) {
            slot.write(value.clone());
        }
        // SAFETY: the elements up to `len` were reserved and have just been written.
        unsafe { self.0.set_len(len) };
        Ok(())
    }

    /// Takes the last element.
    pub fn pop(&mut self) -> Option<T> {
        self.0.pop()
    }

    /// Takes the element at `index`, moving later ones up. Panics when there is none.
    pub fn remove(&mut self, index: usize) -> T {
        self.0.remove(index)
    }

    /// Takes the element at `index` and puts the last in its place. Panics when there is none.
    pub fn swap_remove(&mut self, index: usize) -> T {
        self.0.swap_remove(index)
    }

    /// Drops all elements from `len` on, if there are any.
    pub fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// Drops all elements and keeps the memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes the elements of a range out, one by one; those not asked for are dropped. Panics when the range is
    /// not within the vector.
    pub fn drain(&mut self, range: impl RangeBounds<usize>) -> Drain<'_, T> {
        self.0.drain(range)
    }

    /// Drops the elements for which `keep` is false.
    pub fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        self.0.retain(keep);
    }

    /// As [`retain`](Self::retain); `keep` may change the elements.
    pub fn retain_mut(&mut self, keep: impl FnMut(&mut T) -> bool) {
        self.0.retain_mut(keep);
    }

    /// Drops elements that are equal to the one before them.
    pub fn dedup(&mut self)
    where
        T: PartialEq,
    {
        self.0.dedup();
    }

    /// All elements.
    pub fn as_slice(&self) -> &[T] {
        &self.0
    }

    /// All elements.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<T> Default for Vec<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Deref for Vec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> DerefMut for Vec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<T> IntoIterator for Vec<T> {
    type Item = T;
    type IntoIter = alloc::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, T> IntoIterator for &'a Vec<T> {
    type Item = &'a T;
    type IntoIter = core::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, T> IntoIterator for &'a mut Vec<T> {
    type Item = &'a mut T;
    type IntoIter = core::slice::IterMut<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

impl<T: fmt::Debug> fmt::Debug for Vec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: PartialEq<U>, U> PartialEq<Vec<U>> for Vec<T> {
    fn eq(&self, other: &Vec<U>) -> bool {
        **self == **other
    }
}

impl<T: PartialEq<U>, U> PartialEq<[U]> for Vec<T> {
    fn eq(&self, other: &[U]) -> bool {
        **self == *other
    }
}

impl<T: PartialEq<U>, U> PartialEq<&[U]> for Vec<T> {
    fn eq(&self, other: &&[U]) -> bool {
        **self == **other
    }
}

impl<T: PartialEq<U>, U, const N: usize> PartialEq<[U; N]> for Vec<T> {
    fn eq(&self, other: &[U; N]) -> bool {
        **self == *other
    }
}

impl<T: Eq> Eq for Vec<T> {}

impl<T: PartialOrd> PartialOrd for Vec<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (**self).partial_cmp(&**other)
    }
}

impl<T: Ord> Ord for Vec<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl<T: Hash> Hash for Vec<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

// Equal, ordered and hashed as its slice is, so that a map may be asked with a slice.
impl<T> Borrow<[T]> for Vec<T> {
    fn borrow(&self) -> &[T] {
        self
    }
}

impl<T> AsRef<[T]> for Vec<T> {
    fn as_ref(&self) -> &[T] {
        self
    }
}

impl<T> AsMut<[T]> for Vec<T> {
    fn as_mut(&mut self) -> &mut [T] {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_keep_their_order() {
        let mut vec = Vec::from_slice(&[1, 2, 4]).unwrap();
        vec.insert(2, 3).unwrap();
        vec.insert(4, 5).unwrap();
        vec.insert(0, 0).unwrap();
        assert_eq!(vec, [0, 1, 2, 3, 4, 5]);
        assert_eq!(vec.remove(1), 1);
        assert_eq!(vec.swap_remove(0), 0);
        assert_eq!(vec, [5, 2, 3, 4]);
        vec.extend_from_slice(&[6, 7]).unwrap();
        vec.try_extend(8..10).unwrap();
        vec.retain(|n| n % 2 == 1);
        assert_eq!(vec, [5, 3, 7, 9]);
        assert!(vec.drain(1..3).eq([3, 7]));
        vec.resize(4, 1).unwrap();
        assert_eq!(vec, [5, 9, 1, 1]);
        vec.resize(1, 1).unwrap();
        assert_eq!(vec.pop(), Some(5));
        assert!(vec.is_empty());
    }

    #[test]
    fn elements_without_size_need_no_memory() {
        let mut vec = Vec::new();
        for _ in 0..100 {
            vec.push(()).unwrap();
        }
        vec.resize(200, ()).unwrap();
        assert_eq!(vec.len(), 200);
    }

    #[test]
    fn an_impossible_capacity_is_out_of_memory() {
        assert_eq!(Vec::<u64>::with_capacity(usize::MAX), Err(AllocError));
        let mut vec = Vec::from_slice(&[1u64]).unwrap();
        assert_eq!(vec.reserve(usize::MAX), Err(AllocError));
        assert_eq!(vec, [1]);
    }

    #[test]
    fn what_was_reserved_can_be_pushed() {
        let mut vec = Vec::new();
        assert_eq!(vec.push_within_capacity(1), Err(1));
        vec.reserve(3).unwrap();
        for n in 0..3 {
            assert_eq!(vec.push_within_capacity(n), Ok(()));
        }
    }

    #[cfg(feature = "std")]
    #[test]
    fn a_failed_allocation_changes_nothing() {
        use crate::alloc_fault;
        type Grow = fn(&mut Vec<u32>) -> Result<(), AllocError>;
        let grow: [Grow; 5] = [
            |vec| vec.push(1),
            |vec| vec.insert(0, 1),
            |vec| vec.reserve(1),
            |vec| vec.extend_from_slice(&[1, 2]),
            |vec| vec.resize(9, 1),
        ];
        for grow in grow {
            let mut vec = Vec::with_capacity(2).unwrap();
            vec.extend_from_slice(&[7, 8]).unwrap();
            let before = vec.try_clone().unwrap();
            let capacity = vec.capacity();
            alloc_fault::fail_after(0);
            assert_eq!(grow(&mut vec), Err(AllocError));
            assert!(alloc_fault::tripped());
            assert_eq!((&vec, vec.capacity()), (&before, capacity));
            assert_eq!(grow(&mut vec), Ok(()));
            assert_eq!(alloc_fault::count(), 2);
            alloc_fault::clear();
        }
    }
}
