// SPDX-License-Identifier: GPL-2.0-only
//! Symbols that rustc would make at a final link; a kernel module has none.
//!
//! The second is needed by name only: `alloc` is built without infallible allocation, so nothing calls it.
#![no_std]
#![feature(rustc_attrs)]
// Only by the attribute can these two be named; nobody reads them.
#![allow(internal_features, missing_docs)]

#[rustc_std_internal_symbol]
pub unsafe fn __rust_no_alloc_shim_is_unstable_v2() {}

#[rustc_std_internal_symbol]
pub unsafe fn __rust_alloc_error_handler(size: usize, _align: usize) -> ! {
    panic!("scoutfs: out of memory ({size} bytes)")
}
