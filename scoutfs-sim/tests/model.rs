// SPDX-License-Identifier: GPL-2.0-only
//! Random operations on the real stack, in this process, and on the reference: every answer is equal, also over remounts and
//! crashes.
//!
//! `PROPTEST_CASES=n` runs n cases instead of a few. The same operations on a mount: `scoutfs-utils/tests/mounted/model.rs`.

use proptest::prelude::*;
use scoutfs_sim::in_process::InProcess;
use scoutfs_sim::reference::{Run, any_op};

/// Cases in the tests of every day.
const CASES: u32 = 100;

fn config() -> ProptestConfig {
    let cases =
        if std::env::var_os("PROPTEST_CASES").is_some() { ProptestConfig::default().cases } else { CASES };
    ProptestConfig { cases, max_shrink_iters: 2000, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_operations_answer_as_the_reference_does(ops in prop::collection::vec(any_op(), 1..120)) {
        Run::new(InProcess::new()).run(&ops).end();
    }
}
