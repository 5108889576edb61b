// SPDX-License-Identifier: GPL-2.0-only
//! A simulated cluster: hosts that mount one volume by the code that ships, on a simulated disk, network, clock and scheduler.
//!
//! | module | what |
//! | --- | --- |
//! | `disk` | the disk that all hosts share |
//! | `net` | the network between them |
//! | `host` | a host: one mount after another of the volume, its clock, and who knows that it died |
//! | `work` | the life of a mount, and programs on it |
//! | `ops` | what programs do |
//! | `history` | what they saw, and whether it could be so |
//! | `faults` | what is planted, and how soon it is found |
//! | `file_locks` | that locks of files exclude each other |
//! | `leaders` | that there is one leader at a time, by the super blocks that are written |
//! | `rules` | what holds at every moment: one leader, no two holders of a lock |
//! | `owners` | that nobody writes a block that another may write |
//! | `votes` | that a voter votes once in a term, by the blocks that are written |
//! | `nemesis` | what goes wrong |
//! | `run` | one seed: from mkfs to the last check |
//! | `batch` | many seeds, each in a process of its own |
//!
//! One seed is one run, in a process of its own ([`scoutfs_env::sim`]); `cargo xtask sim SEED` repeats it.
//!
//! # What must hold
//!
//! - No lock of this module is held where a task may be exchanged for another: they are std's, and would hang.
//! - Nothing here depends on addresses, on the host's clock or on the order of a hash map.

mod batch;
mod disk;
mod faults;
mod file_locks;
mod history;
mod host;
mod leaders;
mod nemesis;
mod net;
mod ops;
mod owners;
mod rules;
mod run;
mod votes;
mod work;

pub use batch::{Batch, Chosen, Failed, repeat};
pub use faults::{PLANTED, Planted};
pub use nemesis::Weather;
pub use run::{Options, Verdict, run};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex that no task waits for.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
