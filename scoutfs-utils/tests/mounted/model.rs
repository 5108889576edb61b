// SPDX-License-Identifier: GPL-2.0-only
//! Random operations by system calls on a mount, and on the reference in memory: every answer and every `stat` is equal, also over
//! remounts and over deaths of the daemon, after each of which the tree is as it was after one of the operations that were not
//! acknowledged yet, or the last that was. What exactly is promised is in `scoutfs-sim/src/reference/history.rs`.
//!
//! A failing run is printed as a short list of operations, and kept in `model.proptest-regressions`.
//! `PROPTEST_CASES=n` runs n cases instead of a few:
//! `PROPTEST_CASES=5000 cargo test -p scoutfs-utils --test mounted model::`.

use proptest::prelude::*;
use scoutfs_sim::reference::{Op, Run, any_op};

use crate::syscalls::OnMount;
use crate::volume::Volume;

/// Cases in the tests of every day.
const CASES: u32 = 20;

fn config() -> ProptestConfig {
    let cases =
        if std::env::var_os("PROPTEST_CASES").is_some() { ProptestConfig::default().cases } else { CASES };
    ProptestConfig { cases, max_shrink_time: 120_000, ..ProptestConfig::default() }
}

fn same(commit_interval_ms: u32, ops: &[Op]) {
    let volume = Volume::new(64);
    Run::new(OnMount::new(&volume, commit_interval_ms)).run(ops).end();
}

proptest! {
    #![proptest_config(config())]

    /// Commits come at any moment, or only when they are asked for.
    #[test]
    fn system_calls_answer_as_the_reference_does(
        commit_interval_ms in prop_oneof![Just(100u32), Just(60_000)],
        ops in prop::collection::vec(any_op(), 1..100),
    ) {
        same(commit_interval_ms, &ops);
    }
}
