// SPDX-License-Identifier: GPL-2.0-only
//! A value shared by counting.

use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering, fence};

use super::{AllocError, allocate, release};

struct Shared<T> {
    count: AtomicUsize,
    value: T,
}

/// A value on the heap that lives as long as any of the pointers to it. As `std`'s, without weak pointers;
/// for a trait object use `Arc<Box<dyn Trait>>`.
pub struct Arc<T> {
    shared: NonNull<Shared<T>>,
    owns: PhantomData<Shared<T>>,
}

// SAFETY: a pointer gives shared access from every thread that has one (Sync), and the last of them drops
// the value wherever it is (Send).
unsafe impl<T: Send + Sync> Send for Arc<T> {}
// SAFETY: as above; a shared reference to a pointer can be cloned into a pointer.
unsafe impl<T: Send + Sync> Sync for Arc<T> {}

impl<T> Arc<T> {
    /// Moves a value to the heap. On failure the value is dropped.
    pub fn new(value: T) -> Result<Arc<T>, AllocError> {
        let shared = allocate::<Shared<T>>()?;
        // SAFETY: fresh memory of the right layout.
        unsafe { shared.write(Shared { count: AtomicUsize::new(1), value }) };
        Ok(Self { shared, owns: PhantomData })
    }

    fn shared(&self) -> &Shared<T> {
        // SAFETY: the value lives while there is a pointer to it, and this is one.
        unsafe { self.shared.as_ref() }
    }

    /// Whether two pointers point to the same value.
    pub fn ptr_eq(this: &Self, other: &Self) -> bool {
        this.shared == other.shared
    }

    /// How many pointers there are. Other threads may change it at any time.
    pub fn strong_count(this: &Self) -> usize {
        this.shared().count.load(Ordering::Relaxed)
    }

    /// The value, when this is the only pointer to it.
    pub fn get_mut(this: &mut Self) -> Option<&mut T> {
        // Acquire: what the last of the other pointers did before it was dropped has happened.
        if this.shared().count.load(Ordering::Acquire) != 1 {
            return None;
        }
        // SAFETY: there is no other pointer, and none can be made while this one is borrowed.
        Some(unsafe { &mut this.shared.as_mut().value })
    }

    /// Moves the value out when this is the only pointer to it; else gives the pointer back.
    pub fn try_unwrap(this: Self) -> Result<T, Self> {
        if this.shared().count.compare_exchange(1, 0, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return Err(this);
        }
        fence(Ordering::Acquire);
        let shared = this.shared;
        core::mem::forget(this);
        // SAFETY: the count was 1, so nobody else has a pointer; the value is moved out once, and the memory
        // is released without dropping it.
        unsafe {
            let value = (&raw const (*shared.as_ptr()).value).read();
            release(shared);
            Ok(value)
        }
    }
}

impl<T> Clone for Arc<T> {
    fn clone(&self) -> Self {
        // Relaxed: who clones already has a pointer, so the value cannot go away.
        let before = self.shared().count.fetch_add(1, Ordering::Relaxed);
        // Only forgotten clones get here. Wrapping the count would free a value in use.
        if before > isize::MAX as usize {
            self.shared().count.fetch_sub(1, Ordering::Relaxed);
            panic!("more than isize::MAX pointers to one value");
        }
        Self { shared: self.shared, owns: PhantomData }
    }
}

impl<T> Drop for Arc<T> {
    fn drop(&mut self) {
        // Release: all uses of the value through this pointer happen before it is dropped by the last one.
        if self.shared().count.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        fence(Ordering::Acquire);
        // SAFETY: this was the last pointer. The value is dropped once and then its memory released.
        unsafe {
            self.shared.drop_in_place();
            release(self.shared);
        }
    }
}

impl<T> Deref for Arc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.shared().value
    }
}

impl<T> AsRef<T> for Arc<T> {
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T: fmt::Debug> fmt::Debug for Arc<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: PartialEq> PartialEq for Arc<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Eq> Eq for Arc<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn the_last_pointer_drops_the_value() {
        // An Rc inside shows when the value goes away.
        let inside = Rc::new(());
        let one = Arc::new(inside.clone()).unwrap();
        let two = one.clone();
        assert!(Arc::ptr_eq(&one, &two));
        assert_eq!(Arc::strong_count(&one), 2);
        drop(one);
        assert_eq!(Rc::strong_count(&inside), 2);
        drop(two);
        assert_eq!(Rc::strong_count(&inside), 1);
    }

    #[test]
    fn only_a_sole_pointer_can_change_or_take_the_value() {
        let mut one = Arc::new(1).unwrap();
        *Arc::get_mut(&mut one).unwrap() = 2;
        let two = one.clone();
        assert!(Arc::get_mut(&mut one).is_none());
        let one = Arc::try_unwrap(one).unwrap_err();
        drop(two);
        assert_eq!(Arc::try_unwrap(one), Ok(2));
    }

    #[test]
    fn threads_share_a_value_and_drop_it_once() {
        struct CountsDrops<'a>(&'a AtomicUsize);
        impl Drop for CountsDrops<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let drops = AtomicUsize::new(0);
        let one = Arc::new(CountsDrops(&drops)).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let mine = one.clone();
                scope.spawn(move || {
                    for _ in 0..1000 {
                        drop(mine.clone());
                    }
                });
            }
            drop(one);
        });
        assert_eq!(drops.into_inner(), 1);
    }

    #[cfg(feature = "std")]
    #[test]
    fn a_failed_arc_drops_its_value() {
        let inside = Rc::new(());
        crate::alloc_fault::fail_after(0);
        assert!(Arc::new(inside.clone()).is_err());
        crate::alloc_fault::clear();
        assert_eq!(Rc::strong_count(&inside), 1);
    }
}
