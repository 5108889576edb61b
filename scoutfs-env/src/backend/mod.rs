// SPDX-License-Identifier: GPL-2.0-only
//! The hosts that the crate runs on. This file selects one; nothing outside this folder knows which.
//!
//! | folder | host |
//! | --- | --- |
//! | `std` | a userspace process |
//! | `shuttle` | what differs from `std` under shuttle: locks, threads, random numbers |
//! | `sim` | what differs from `std` in threads of a simulation: the same, and clocks |
//! | `host` | hook functions that a kernel module defines, and locks over two of them |
//!
//! A back end provides the modules `auth`, `crc32c`, `log`, `random`, `sync`, `thread` and `time`, with the same
//! items in each.

// In tests of the std build, too: its locks run there over real futexes.
#[cfg(any(not(feature = "std"), test))]
pub(crate) mod host;
#[cfg(feature = "shuttle")]
mod shuttle;
#[cfg(all(feature = "sim", not(feature = "shuttle")))]
mod sim;
#[cfg(feature = "std")]
mod std;

#[cfg(feature = "shuttle")]
use ::shuttle::{sync as locks, thread as threads};
#[cfg(all(feature = "std", not(feature = "shuttle")))]
use ::std::{sync as locks, thread as threads};

#[cfg(not(feature = "std"))]
pub(crate) use host::{auth, crc32c, log, random, sync, thread, time};
#[cfg(feature = "shuttle")]
pub(crate) use shuttle::random;
#[cfg(all(feature = "sim", not(feature = "shuttle")))]
pub(crate) use sim::{random, sync, thread, time};
#[cfg(all(feature = "std", not(feature = "shuttle"), not(feature = "sim")))]
pub(crate) use std::random;
#[cfg(feature = "std")]
pub(crate) use std::{auth, crc32c, log};
#[cfg(all(feature = "std", not(all(feature = "sim", not(feature = "shuttle")))))]
pub(crate) use std::{sync, thread, time};
