// SPDX-License-Identifier: GPL-2.0-only
//! Hosts on a simulated disk, network, clock and scheduler, with what can go wrong: every seed must end well, and each fault that
//! is planted in the protocols must be found.
//!
//! `SCOUTFS_SIM_SEEDS` says how many seeds, `SCOUTFS_SIM_FIRST` where they begin. For one by hand: `cargo xtask sim SEED`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use scoutfs_env::fault::Fault;
use scoutfs_sim::cluster::{Batch, Chosen, PLANTED, Planted, Weather, repeat};

const PROGRAM: &str = env!("CARGO_BIN_EXE_cluster");

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn batch(first: u64, count: u64, weather: Option<Weather>, fault: Fault) -> Batch<'static> {
    let longest = Duration::from_secs(3600);
    let chosen = Chosen { weather, fault, ..Chosen::default() };
    Batch { program: Path::new(PROGRAM), first, count, chosen, enough: 1, longest }
}

fn run_well(first: u64, count: u64, weather: Option<Weather>) {
    let batch = batch(first, count, weather, Fault::None);
    let (done, failed) = batch.run();
    for (seed, why) in &failed {
        eprintln!("{why}\n    to repeat it: {}", repeat(*seed, &batch.chosen));
    }
    assert!(failed.is_empty(), "seeds failed: see above");
    assert_eq!(done, count);
}

/// First, so that what it finds is told before the others take their time.
///
/// Invariants 18 (connections that break, mounts that leave and servers that change, in any order, fence nobody who lives) and
/// 65 (a message to a mount that is gone is nothing to the server).
#[test]
fn hundreds_of_seeds_end_well() {
    let (first, count) = (number("SCOUTFS_SIM_FIRST", 1), number("SCOUTFS_SIM_SEEDS", 150));
    run_well(first, count, None);
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

/// Each within so many seeds; and the seed that finds it ends well without it.
#[test]
fn planted_faults_are_found() {
    let mut wrong = Vec::new();
    for Planted { fault, weather, seeds, .. } in PLANTED {
        let (_, found) = batch(1, *seeds, Some(*weather), *fault).run();
        let Some((seed, why)) = found.first() else {
            wrong.push(format!("{fault:?} is not found in {seeds} seeds of weather {weather:?}"));
            continue;
        };
        println!("{fault:?}: {why}");
        let (_, failed) = batch(*seed, 1, Some(*weather), Fault::None).run();
        wrong.extend(failed.iter().map(|(_, why)| format!("{weather:?} without {fault:?}: {why}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_fault_is_planted() {
    for fault in Fault::ALL {
        assert!(PLANTED.iter().any(|planted| planted.fault == *fault), "{fault:?}");
    }
    assert_eq!(PLANTED.len(), Fault::ALL.len());
}

/// A write that a mount had asked for, or asks for when it goes on, lands when others have its locks. Data that were written since, even
/// synced, are not in its way, and a leader's first commit is not where its successor writes.
#[test]
fn a_late_write_of_data_harms_nothing() {
    run_well(1, 60, Some(Weather::LateData));
}

/// A leader whose cable is pulled is silent to all, and all to it. It is the one who must go.
#[test]
fn a_leader_that_reaches_nobody_fences_nobody() {
    run_well(1, 40, Some(Weather::Unplugged));
}

/// Leaders that follow one which may live stand still before or at their first commit, and write later.
#[test]
fn leaders_that_come_to_nothing_harm_nothing() {
    run_well(1, 40, Some(Weather::Successors));
}
