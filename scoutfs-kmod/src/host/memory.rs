// SPDX-License-Identifier: GPL-2.0-only
//! The module's allocator: the kernel's, without filesystem reclaim.
//!
//! Large blocks fall back to memory that is contiguous in addresses only; the block device deals with both. A patient thread of the
//! core tries again for as long as it said.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::null;

use kernel::bindings;

use super::{clock, thread};
use crate::ffi::SCOUTFS_GFP_NOFS;

/// Between attempts.
const PAUSE_NS: u64 = 5_000_000;

struct KernelMemory;

fn allocate(layout: Layout, flags: bindings::gfp_t) -> *mut u8 {
    let attempt = || {
        // SAFETY: a new block: there is no old one.
        unsafe {
            bindings::kvrealloc_node_align_noprof(
                null(),
                layout.size(),
                layout.align(),
                flags,
                bindings::NUMA_NO_NODE,
            )
        }
    };
    let mut memory = attempt();
    if memory.is_null() {
        let patience = thread::patience_ns();
        if patience > 0 {
            let end = clock::mono_ns().saturating_add(patience);
            while memory.is_null() && clock::mono_ns() < end {
                clock::sleep_ns(PAUSE_NS);
                memory = attempt();
            }
        }
    }
    memory.cast()
}

// SAFETY: the kernel's allocator honours size and alignment, and memory stays until it is freed.
unsafe impl GlobalAlloc for KernelMemory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        allocate(layout, SCOUTFS_GFP_NOFS)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        allocate(layout, SCOUTFS_GFP_NOFS | bindings::__GFP_ZERO)
    }

    unsafe fn dealloc(&self, memory: *mut u8, _: Layout) {
        // SAFETY: by the contract it came from `alloc`.
        unsafe { bindings::kvfree(memory.cast()) };
    }
}

#[global_allocator]
static MEMORY: KernelMemory = KernelMemory;
