// SPDX-License-Identifier: GPL-2.0-only
//! Random operations on the real stack, in this process, and on the reference: every answer is equal, also over remounts and
//! crashes.
//!
//! `PROPTEST_CASES=n` runs n cases instead of a few. The same operations on a mount: `scoutfs-utils/tests/mounted/model.rs`.

use proptest::prelude::*;
use scoutfs_sim::in_process::InProcess;
use scoutfs_sim::reference::{Allocate, Call, Data, Name, Run, Way, any_op};

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

/// A crash undoes a write to blocks that had none: that is no part of the write, whose first block would be data.
#[test]
fn a_write_that_a_crash_undid_is_not_taken_for_a_part_of_it() {
    let mut run = Run::new(InProcess::new());
    let file = 1024;
    for call in [
        Call::Create((1, Name(b"a".to_vec())), 0o100_644, 0),
        Call::Allocate(file, Allocate::Fill, false, 0, 77_825),
        Call::Fsync(1),
        Call::Allocate(file, Allocate::Fill, true, 0, 1),
        Call::Write(file, 0, Data { seed: 8, len: 8192 }, Way::Buffered),
        Call::Crash,
        Call::Seek(file, 0, false),
    ] {
        run.step(&call);
    }
}
