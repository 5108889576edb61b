// SPDX-License-Identifier: GPL-2.0-only
//! What the core asks of its host, over the kernel's primitives.
//!
//! | module | what |
//! | --- | --- |
//! | `sync` | sleeping on a word of memory, and waking: the core's locks stand on these two |
//! | `lockdep` | telling a kernel that checks the order of locks of the core's |
//! | `thread` | kernel threads |
//! | `stack` | room on their stacks |
//! | `memory` | the module's allocator |
//! | `clock` | clocks and sleeping |
//! | `crypto` | random numbers, CRC-32C, HMAC-SHA-256 |
//! | `log` | lines for the kernel log |
//! | `device` | the shared block device |
//! | `network` | the network, of a node that is alone |
//! | `process` | naming a mount, and knowing which mounts of this machine are dead |
//!
//! The hooks are declared in `scoutfs-env/src/backend/host/hooks.rs`; what each must do is said there.

pub(crate) mod clock;
mod crypto;
pub(crate) mod device;
#[cfg(CONFIG_LOCKDEP)]
pub(crate) mod lockdep;
mod log;
mod memory;
pub(crate) mod network;
pub(crate) mod process;
pub(crate) mod stack;
mod sync;
mod thread;

use kernel::bindings;
use kernel::types::Opaque;

extern "C" {
    /// The kernel's object of this module, which the build makes.
    #[allow(improper_ctypes)] // It is the kernel's, of which only the address is used.
    static __this_module: Opaque<bindings::module>;
}

/// This module, for references that keep it loaded.
pub(crate) fn this_module() -> *mut bindings::module {
    // SAFETY: the kernel made it before it ran any code of the module.
    unsafe { __this_module.get() }
}
