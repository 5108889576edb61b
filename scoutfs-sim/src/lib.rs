// SPDX-License-Identifier: GPL-2.0-only
//! Test beds for scoutfs: the real stack on simulated disks.
//!
//! | module | what |
//! | --- | --- |
//! | [`disk`] | a disk that records what it is asked, and what a power failure may leave of it |
//! | [`volume`] | a volume on such a disk, mounted in this process |
//! | [`tree`] | all that a mounted filesystem shows, to be compared |
//! | [`model`] | a small workload, and what the tree must be after each of its operations |
//! | [`small`] | all workloads of a few operations |
//! | [`failing`] | a disk on which requests fail |
//! | [`damage`] | damage to a volume that no checksum shows |
//! | [`rng`] | random numbers from a seed |
//!
//! The tests are in `tests`: `crash.rs` (power failures), `failing.rs` (requests that fail) and `damaged.rs` (fuzz of whole images).
//!
//! What must hold: whatever is random comes from one seed that a failure prints.
#![forbid(unsafe_code)]

pub mod damage;
pub mod disk;
pub mod failing;
pub mod model;
pub mod rng;
pub mod small;
pub mod tree;
pub mod volume;
