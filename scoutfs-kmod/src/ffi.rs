// SPDX-License-Identifier: GPL-2.0-only
//! Types and functions that the kernel's own bindings lack, made by bindgen of `helpers.h` on top of them.
// What bindgen writes is not ours to tidy.
#![allow(warnings, missing_docs, unsafe_op_in_unsafe_fn, clippy::all, clippy::undocumented_unsafe_blocks)]

include!(concat!(env!("SCOUTFS_OBJ_DIR"), "/bindings.rs"));
