// SPDX-License-Identifier: GPL-2.0-only
//! Values at places that can be named by a number, and found again without a search.
//!
//! A place is used again after its value was taken out; who keeps its number must know the value when it sees it. Places are in
//! chunks, so that a slab that grows moves nothing, and are not given back: they are two words each.

use scoutfs_env::{AllocError, Box, Vec};

/// Places of a chunk.
const CHUNK: usize = 512;

/// See the module.
pub(crate) struct Slab<T> {
    chunks: Vec<Vec<Place<T>>>,
    /// The first free place; each names the next one.
    free: Option<u32>,
}

enum Place<T> {
    Used(Box<T>),
    Free { next: Option<u32> },
}

impl<T> Slab<T> {
    /// Bytes of a place.
    pub(crate) const PLACE_BYTES: usize = size_of::<Place<T>>();

    pub(crate) const fn new() -> Self {
        Slab { chunks: Vec::new(), free: None }
    }

    /// Puts a value somewhere, and gives the number of its place. Cannot fail after [`reserve`](Self::reserve).
    pub(crate) fn insert(&mut self, value: Box<T>) -> Result<u32, AllocError> {
        self.reserve()?;
        let number = self.free.ok_or(AllocError)?;
        if let Some(place) = self.place_mut(number)
            && let Place::Free { next } = *place
        {
            *place = Place::Used(value);
            self.free = next;
        }
        Ok(number)
    }

    /// Makes sure that there is a free place.
    pub(crate) fn reserve(&mut self) -> Result<(), AllocError> {
        if self.free.is_some() {
            return Ok(());
        }
        let first = u32::try_from(self.chunks.len() * CHUNK).map_err(|_| AllocError)?;
        let end = first.checked_add(CHUNK as u32).ok_or(AllocError)?;
        let mut chunk = Vec::with_capacity(CHUNK)?;
        for number in first..end {
            let next = number + 1;
            chunk.push(Place::Free { next: (next < end).then_some(next) })?;
        }
        self.chunks.push(chunk)?;
        self.free = Some(first);
        Ok(())
    }

    /// Takes the value out of a place.
    pub(crate) fn remove(&mut self, number: u32) -> Option<Box<T>> {
        let next = self.free;
        let place = self.place_mut(number)?;
        match core::mem::replace(place, Place::Free { next }) {
            Place::Used(value) => {
                self.free = Some(number);
                Some(value)
            }
            free => {
                *place = free;
                None
            }
        }
    }

    /// The value of a place.
    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        let number = number as usize;
        match self.chunks.get(number / CHUNK)?.get(number % CHUNK)? {
            Place::Used(value) => Some(value),
            Place::Free { .. } => None,
        }
    }

    /// The value of a place, to be changed.
    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        match self.place_mut(number)? {
            Place::Used(value) => Some(value),
            Place::Free { .. } => None,
        }
    }

    fn place_mut(&mut self, number: u32) -> Option<&mut Place<T>> {
        let number = number as usize;
        self.chunks.get_mut(number / CHUNK)?.get_mut(number % CHUNK)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use scoutfs_env::try_box;

    use super::*;

    #[test]
    fn values_are_found_at_their_places_until_they_are_taken_out() {
        let mut slab = Slab::new();
        let mut model = BTreeMap::new();
        for round in 0..3 * CHUNK as u64 {
            let number = slab.insert(try_box(round).unwrap()).unwrap();
            assert_eq!(model.insert(number, round), None, "no place is given twice");
            // Takes some out, not in the order in which they came.
            if round % 3 != 0 {
                let number = *model.keys().nth((round * 7919) as usize % model.len()).unwrap();
                assert_eq!(slab.remove(number).map(|value| *value), model.remove(&number));
                assert_eq!(slab.remove(number), None);
            }
            for (number, value) in &model {
                assert_eq!(slab.get(*number), Some(value));
            }
        }
        let used = (0..slab.chunks.len() * CHUNK).filter(|n| slab.get(*n as u32).is_some()).count();
        assert_eq!(used, model.len());
        assert!(slab.chunks.len() <= 2, "places are used again");
        assert_eq!(slab.get_mut(u32::MAX), None);
    }
}
