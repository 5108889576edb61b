// SPDX-License-Identifier: GPL-2.0-only
//! What the core asks of its host, under one set of names.
//!
//! Core crates are `no_std` and hold no `unsafe`; everything that they need of the machine they take
//! from here, so the same source runs in a Linux kernel module and in a userspace process. Names are
//! those of `std` wherever `std` has the thing.
//!
//! | module | what |
//! | --- | --- |
//! | [`memory`] | [`Vec`], [`Box`], [`Arc`], [`OrdMap`], [`IoBuf`]: containers whose growth can fail |
//! | [`alloc_fault`] | (std) make the n-th allocation of this thread fail |
//! | [`sync`] | Mutex, RwLock, Condvar, atomics; a lock order checked in debug builds |
//! | [`thread`] | spawn and join |
//! | [`time`] | [`Mono`](time::Mono), [`Timespec`](time::Timespec), the two clocks, sleep |
//! | [`sort`] | sorting on a small stack |
//! | [`random`] | random bytes for keys and nonces |
//! | [`crc32c`] | Castagnoli checksum on the host's fastest code |
//! | [`auth`] | keyed checksums that prove the knowledge of a secret |
//! | [`net`] | streams of bytes between nodes; (std) TCP |
//! | [`device`] | the [`BlockDevice`](device::BlockDevice) trait; (std) files, block devices, memory |
//! | [`log`] | `error!`, `warn!`, `info!`, `debug!` |
//! | [`fault`] | faults that tests plant in the protocols; none otherwise |
//! | [`probe`] | what simulations are told of the inside of mounts; nobody otherwise |
//! | `sim` | (sim) a simulation: its scheduler, its clock, its nodes |
//! | `backend` | the hosts behind these names, selected in one place |
//!
//! | feature | host |
//! | --- | --- |
//! | none | hook functions `scoutfs_host_*`, which the kernel module defines (`backend/host/hooks.rs`) |
//! | `std` | a userspace process on Linux |
//! | `shuttle` | the same, with the locks, threads and random numbers of shuttle, for tests of schedules |
//! | `sim` | a userspace process; threads that a simulation started live on its scheduler and clock |
//! | `lockdep` | as none; the hooks are also told of each lock that is taken or given up |
//!
//! # What must hold
//!
//! - Nothing here allocates infallibly: the crate builds over an `alloc` without infallible allocation
//!   (`--cfg no_global_oom_handling`). The std back end is the exception where `std` itself allocates
//!   (threads, paths); none of that is on a path of the core.
//! - This is the only crate below the kernel module that may hold `unsafe`. Each block says why it is sound.
//! - State machines take time and random numbers as arguments; only what runs them calls [`time`] and
//!   [`random`].
#![no_std]

extern crate alloc;
#[cfg(any(feature = "std", test))]
extern crate std;

pub mod auth;
mod backend;
pub mod crc32c;
pub mod device;
pub mod fault;
pub mod log;
pub mod memory;
pub mod net;
pub mod probe;
pub mod random;
#[cfg(all(feature = "sim", not(feature = "shuttle")))]
pub mod sim;
pub mod sort;
pub mod sync;
pub mod thread;
pub mod time;

#[cfg(feature = "std")]
pub use memory::alloc_fault;
pub use memory::{AllocError, Arc, Box, IoBuf, OrdMap, Vec, try_box};
