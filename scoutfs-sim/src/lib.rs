// SPDX-License-Identifier: GPL-2.0-only
//! Test beds for scoutfs: the real stack on simulated disks.
//!
//! | module | what |
//! | --- | --- |
//! | [`disk`] | a disk that records what it is asked, and what a power failure may leave of it |
//! | [`volume`] | a volume on such a disk, mounted in this process |
//! | [`tree`] | all that a mounted filesystem shows, to be compared |
//! | [`model`] | a small workload, and what the tree must be after each of its operations |
//! | [`in_process`] | calls of the reference on a volume that is mounted in this process |
//! | [`in_process`] | calls on a volume that is mounted in this process |
//! | [`reference`] | a filesystem in memory, random operations on both, and what a crash may leave |
//! | [`damage`] | damage to a volume that no checksum shows |
//! | [`rng`] | random numbers from a seed |
//!
//! The tests are in `tests`: `crash.rs` (power failures) and `damaged.rs` (fuzz of whole images).
//!
//! What must hold: whatever is random comes from one seed that a failure prints.
#![forbid(unsafe_code)]

pub mod damage;
pub mod disk;
pub mod in_process;
pub mod model;
pub mod reference;
pub mod rng;
pub mod tree;
pub mod volume;
