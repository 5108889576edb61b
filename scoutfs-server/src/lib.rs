// SPDX-License-Identifier: GPL-2.0-only
//! What the elected scoutfs node runs for all mounts, and what every party does with the volume's roots.
//!
//! | module | what |
//! | --- | --- |
//! | [`super_block`] | reading and writing super blocks |
//! | [`mkfs`] | making a volume |
//! | [`roots`] | slots, super block and members, read in the order that readers need |
//! | [`server`] | [`Server`]: members, seqs, space, locks, horizons, merges and reclaiming, in one owner struct |
//! | [`merge_job`] | a piece of a merge, which any thread may run |
//! | `audit` | (tests) proof that each block of a volume has exactly one owner |
//! | [`error`] | [`ServerError`] |
//!
//! # What must hold
//!
//! - The super block is the only thing that is overwritten in place, and never over its newest valid copy alone: two
//!   copies, one after the other, the older one first.
//! - What a reply promises is durable before the reply can be polled.
//! - The server allocates only from the working set that the durable super block of its own term names, and what it
//!   frees becomes usable only after the super block that no longer refers to it is durable.
//! - Every step of background work (merging, freeing, taking back) is published by one super block write together
//!   with its progress, so it happens exactly once, whatever crashes.
//!
//! # Locking
//!
//! None: [`Server`] is owned by one thread. [`merge_job::MergeJob::run`] needs no server and may run in another.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

#[cfg(test)]
mod audit;
pub mod error;
pub mod merge_job;
pub mod mkfs;
pub mod roots;
pub mod server;
pub mod super_block;

pub use error::ServerError;
pub use server::{DeathOracle, Leader, LeaderLease, LeaseState, Outgoing, Server, Suspect};
