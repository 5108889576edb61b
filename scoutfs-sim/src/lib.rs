// SPDX-License-Identifier: GPL-2.0-only
//! Test beds for scoutfs: the real stack on simulated disks.
//!
//! | module | what |
//! | --- | --- |
//! | [`disk`] | a disk that records what it is asked, and what a power failure may leave of it |
//! | [`site`] | the places in the program that make something durable |
//! | [`volume`] | a volume on such a disk, mounted in this process |
//! | [`tree`] | all that a mounted filesystem shows, to be compared |
//! | [`model`] | a small workload, and what the tree must be after each of its operations |
//! | [`small`] | all workloads of a few operations |
//! | [`failing`] | a disk on which requests fail |
//! | [`in_process`] | calls on a volume that is mounted in this process |
//! | [`reference`] | a filesystem in memory, random operations on both, and what a crash may leave |
//! | `cluster` | (feature `cluster`) hosts that share a simulated disk and network |
//! | [`damage`] | damage to a volume that no checksum shows |
//! | [`fuzz`] | every decoder with any bytes |
//! | [`rng`] | random numbers from a seed |
//!
//! The tests are in `tests`: `crash.rs` (power failures), `failing.rs` (requests that fail), `server_memory.rs`
//! (a server without memory), `hostile.rs` (messages),
//! `damaged.rs` (fuzz of whole images), `fuzz.rs` (of each decoder) and `model.rs` (random operations).
//!
//! What must hold: whatever is random comes from one seed that a failure prints.
#![forbid(unsafe_code)]

#[cfg(feature = "cluster")]
pub mod cluster;
pub mod damage;
pub mod disk;
pub mod failing;
pub mod fuzz;
pub mod in_process;
pub mod model;
pub mod reference;
pub mod rng;
pub mod site;
pub mod small;
pub mod tree;
pub mod volume;
