// SPDX-License-Identifier: GPL-2.0-only
//! Hosts on a simulated disk, network, clock and scheduler, with what can go wrong: every seed must end well, and each fault that
//! is planted in the protocols must be found.
//!
//! `SCOUTFS_SIM_SEEDS` says how many seeds, `SCOUTFS_SIM_FIRST` where they begin. For one by hand: `cargo xtask sim SEED`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use scoutfs_env::fault::Fault;
use scoutfs_sim::cluster::{Batch, repeat};

const PROGRAM: &str = env!("CARGO_BIN_EXE_cluster");

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn batch(first: u64, count: u64, fault: Fault) -> Batch<'static> {
    let longest = Duration::from_secs(3600);
    Batch { program: Path::new(PROGRAM), first, count, nodes: None, fault, enough: 1, longest }
}

/// First, so that what it finds is told before the others take their time.
#[test]
fn hundreds_of_seeds_end_well() {
    let (first, count) = (number("SCOUTFS_SIM_FIRST", 1), number("SCOUTFS_SIM_SEEDS", 150));
    let (done, failed) = batch(first, count, Fault::None).run();
    for (seed, why) in &failed {
        eprintln!("{why}\n    to repeat it: {}", repeat(*seed, None, Fault::None));
    }
    assert!(failed.is_empty(), "seeds failed: see above");
    assert_eq!(done, count);
}

/// The trace is a hash of all that happened, in order; two processes have nothing else in common than the seed.
#[test]
fn one_seed_is_one_run() {
    let trace = |seed: &str| {
        let output = Command::new(PROGRAM).args([seed, "--nodes", "3"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split("trace ").nth(1).expect("a trace").split(';').next().unwrap().to_owned()
    };
    let traces: Vec<_> = ["12", "13", "14"].map(trace).into();
    for (seed, first) in ["12", "13", "14"].into_iter().zip(&traces) {
        assert_eq!(trace(seed), *first, "seed {seed}");
    }
    assert!(traces[0] != traces[1] && traces[1] != traces[2]);
}

/// Each within so many seeds.
/// Those of `faults` that none of the first so many seeds finds.
fn missed(faults: &[(Fault, u64)]) -> Vec<(Fault, u64)> {
    let is_missed = |(fault, seeds): &&(Fault, u64)| batch(1, *seeds, *fault).run().1.is_empty();
    faults.iter().filter(is_missed).copied().collect()
}

#[test]
fn planted_faults_are_found() {
    let missed = missed(&[
        (Fault::GrantBeforeRevoke, 4),
        (Fault::KeepCacheOnRevoke, 4),
        (Fault::IgnoreNews, 4),
        (Fault::DropResend, 4),
        (Fault::DropTombstones, 4),
    ]);
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
#[ignore = "takes minutes: each fault shows in few of many seeds; `cargo xtask sim 1 --count N --fault F` runs one by hand"]
fn planted_faults_that_hide_are_found() {
    let missed = missed(&[
        (Fault::SkipDataFlush, 60),
        (Fault::VolatileRecord, 120),
        (Fault::RevokeWithoutCommit, 30),
        (Fault::ForgetLocks, 60),
        (Fault::FenceEarly, 120),
    ]);
    assert!(missed.is_empty(), "not found: {missed:?}");
}
