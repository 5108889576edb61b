// SPDX-License-Identifier: GPL-2.0-only
//! One value on the heap.

use super::{AllocError, allocate};

/// The box of `alloc`, so that `Box<dyn Trait>` works. Make one with [`try_box`]; `Box::new` cannot fail and
/// therefore must not be used.
pub use alloc::boxed::Box;

/// Moves a value to the heap. On failure the value is dropped.
pub fn try_box<T>(value: T) -> Result<Box<T>, AllocError> {
    let memory = allocate::<T>()?;
    // SAFETY: the memory is fresh, has the layout that a box of T has (dangling when T has no size), comes from
    // the global allocator, and is written before the box takes it over.
    unsafe {
        memory.write(value);
        Ok(Box::from_raw(memory.as_ptr()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    trait Name {
        fn name(&self) -> &'static str;
    }

    struct Empty;

    impl Name for Empty {
        fn name(&self) -> &'static str {
            "empty"
        }
    }

    #[test]
    fn a_box_holds_its_value_and_coerces_to_a_trait_object() {
        assert_eq!(*try_box(7u64).unwrap(), 7);
        let named: Box<dyn Name> = try_box(Empty).unwrap();
        assert_eq!(named.name(), "empty");
    }

    #[cfg(feature = "std")]
    #[test]
    fn a_failed_box_drops_its_value() {
        use crate::alloc_fault;
        let shared = std::rc::Rc::new(());
        alloc_fault::fail_after(0);
        assert!(try_box(shared.clone()).is_err());
        alloc_fault::clear();
        assert_eq!(std::rc::Rc::strong_count(&shared), 1);
    }
}
