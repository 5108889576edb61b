// SPDX-License-Identifier: GPL-2.0-only
//! Sorting on a small stack.
//!
//! The library's unstable sort has buffers of dozens of elements on the stack, and recurses: too much for a kernel's. This one has
//! neither: short slices by insertion, longer ones, unless they are sorted already, by a heap.

/// Up to so many elements are sorted by insertion.
const SHORT: usize = 16;

/// Sorts by a key. Equal elements come in any order.
pub fn sort_by_key<T, K: Ord>(items: &mut [T], key: impl Fn(&T) -> K) {
    if items.len() <= SHORT {
        for end in 1..items.len() {
            let mut at = end;
            while at > 0 && key(&items[at - 1]) > key(&items[at]) {
                items.swap(at - 1, at);
                at -= 1;
            }
        }
        return;
    }
    if items.is_sorted_by_key(&key) {
        return;
    }
    for root in (0..items.len() / 2).rev() {
        sift_down(items, root, &key);
    }
    for last in (1..items.len()).rev() {
        items.swap(0, last);
        let (heap, _) = items.split_at_mut(last);
        sift_down(heap, 0, &key);
    }
}

/// Moves an element down until no child is greater.
fn sift_down<T, K: Ord>(heap: &mut [T], mut root: usize, key: &impl Fn(&T) -> K) {
    loop {
        let mut child = 2 * root + 1;
        if child >= heap.len() {
            return;
        }
        if child + 1 < heap.len() && key(&heap[child]) < key(&heap[child + 1]) {
            child += 1;
        }
        if key(&heap[root]) >= key(&heap[child]) {
            return;
        }
        heap.swap(root, child);
        root = child;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn it_sorts_as_the_library_does(mut items in prop::collection::vec(0u16..300, 0..200)) {
            let mut expected: Vec<_> = items.clone();
            expected.sort_unstable_by_key(|item| core::cmp::Reverse(*item));
            sort_by_key(&mut items, |item| core::cmp::Reverse(*item));
            prop_assert_eq!(items, expected);
        }
    }
}
