// SPDX-License-Identifier: GPL-2.0-only
//! Known-bad protocols, and how soon the simulation finds each.
//!
//! A fault ([`scoutfs_env::fault`]) breaks one rule. Another rule often hides it in most weathers, so each has the weather in which its
//! rule matters. It is found within [`Planted::seeds`] seeds, from 1 on; the very seed that finds it ends well without it, which
//! `tests/cluster.rs` shows. By hand: `cargo xtask sim 1 --count N --weather W --fault F`.

use scoutfs_env::fault::Fault;

use super::nemesis::Weather;

/// A fault that is planted to be found.
#[derive(Clone, Copy, Debug)]
pub struct Planted {
    /// Which.
    pub fault: Fault,
    /// The rule that it breaks.
    pub rule: &'static str,
    /// The weather in which that matters.
    pub weather: Weather,
    /// So many seeds are enough to find it.
    pub seeds: u64,
}

const fn planted(fault: Fault, weather: Weather, seeds: u64, rule: &'static str) -> Planted {
    Planted { fault, rule, weather, seeds }
}

/// All of them.
///
/// How they show: `ServeAtOnce`, `LeadWithoutLease`, `GrantBeforeRevoke` and `ForgetLocks` by the rules that are looked at all the
/// time, as are the votes for `VoteTwice` and who writes where for `ReuseQuarantined`, `WriteInPlace` and `WriteUnnamed`; those about flushes, merges and
/// late records by what `check` or a mount finds damaged, or by what was synced and is gone; the others by a read that is out of date.
///
/// `VoteTwice` alone does hardly any harm: a winner shows its win to all, waits, and looks whether its majority still stands and nobody
/// else shows one, so of two with one voter's vote at least one gives up. So the votes themselves are watched.
pub const PLANTED: &[Planted] = &[
    planted(
        Fault::SkipDataFlush,
        Weather::Power,
        20,
        "data are durable before the commit record that refers to them",
    ),
    planted(
        Fault::SkipServerFlush,
        Weather::Power,
        60,
        "blocks are durable before the super block that refers to them",
    ),
    planted(Fault::VolatileRecord, Weather::Power, 60, "a commit that counts is durable"),
    planted(
        Fault::GrantBeforeRevoke,
        Weather::Mixed,
        10,
        "a lock is granted when those in its way have answered",
    ),
    planted(
        Fault::RevokeWithoutCommit,
        Weather::Mixed,
        20,
        "what was written under a lock is committed before the lock goes back",
    ),
    planted(
        Fault::KeepCacheOnRevoke,
        Weather::Mixed,
        10,
        "nothing is cached of what a lock covers when it goes back",
    ),
    planted(
        Fault::IgnoreNews,
        Weather::Mixed,
        10,
        "who gets a lock reads what others have committed under it",
    ),
    planted(
        Fault::ForgetLocks,
        Weather::Leaders,
        20,
        "a new server knows all locks that mounts hold before it grants any",
    ),
    planted(Fault::DropResend, Weather::Mixed, 10, "requests that were not answered are sent again"),
    planted(Fault::VoteTwice, Weather::Leaders, 10, "a voter votes once in a term"),
    planted(Fault::ServeAtOnce, Weather::Leaders, 20, "a winner waits for the end of an older lease"),
    planted(Fault::LeadWithoutLease, Weather::Leaders, 20, "a leader acts only while its lease is valid"),
    planted(Fault::ReuseHandOver, Weather::Mixed, 10, "each hand-over of space has a number of its own"),
    planted(Fault::SuperBeforeSlots, Weather::Slow, 100, "slots are read before the super block"),
    planted(
        Fault::IgnoreLease,
        Weather::Leaders,
        60,
        "a mount neither answers nor commits when its lease has ended",
    ),
    planted(
        Fault::FenceEarly,
        Weather::Late,
        20,
        "a mount is fenced when its lease and the margin are over, and no earlier",
    ),
    planted(
        Fault::LateRecordCounts,
        Weather::Late,
        60,
        "what a fenced mount writes to its slot does not count",
    ),
    planted(
        Fault::DropTombstones,
        Weather::Mixed,
        10,
        "a deletion stays until no log can hold what it hides",
    ),
    planted(Fault::MergeAgain, Weather::Slow, 60, "what was merged is never merged again"),
    planted(
        Fault::ReuseQuarantined,
        Weather::LateData,
        40,
        "what a fenced mount may still write is not used again before its death is confirmed",
    ),
    planted(
        Fault::WriteInPlace,
        Weather::LateData,
        30,
        "data that are older than a fence that is not confirmed are not written in place",
    ),
    planted(
        Fault::WriteUnnamed,
        Weather::Successors,
        15,
        "a leader after one that may live writes no block that no super block names as its own",
    ),
];
