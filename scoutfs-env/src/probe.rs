// SPDX-License-Identifier: GPL-2.0-only
//! What the cluster simulation is told of the inside of mounts, so that it can check rules at the moment that they matter, and not only
//! by what programs see of it later. Only a build with the feature `sim` tells: in all others [`tell`] does nothing.

use crate::time::Mono;

/// What a mount has found or done that a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It has found that it may act as the leader now.
    Leads,
    /// Its lease as the leader ends then, by its own clock.
    LeaderLease(Mono),
    /// Its lease as a mount ends then, by its own clock.
    Lease(Mono),
    /// How it holds a cluster lock from now on.
    Lock {
        /// The first inode number of the group; [`u64::MAX`] is the lock of renames.
        first_ino: u64,
        /// How.
        held: Held,
    },
    /// It has failed or left: it uses no lock any more, and commits nothing.
    Ended,
}

/// How a cluster lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Not at all.
    No,
    /// Together with others.
    Read,
    /// Alone.
    Write,
}

/// Tells the simulation that this thread is a task of, if it is one.
#[cfg(feature = "sim")]
pub fn tell(event: Event) {
    crate::sim::tell(event);
}

/// Tells nobody.
#[cfg(not(feature = "sim"))]
#[inline(always)]
pub const fn tell(_: Event) {}
