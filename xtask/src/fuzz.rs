// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask fuzz`: the decoders, with the optimised program whose arithmetic is checked as in tests.

use crate::setup;

/// Builds and runs the fuzzer of the test beds.
pub fn run(seconds: u64, seed: Option<u64>, targets: &[String]) -> Result<(), String> {
    let seconds = seconds.to_string();
    let seed = seed.map(|seed| seed.to_string());
    let mut arguments = vec![
        "run",
        "--quiet",
        "--release",
        "--package",
        "scoutfs-sim",
        "--bin",
        "fuzz",
        "--",
        "--seconds",
        &seconds,
    ];
    if let Some(seed) = &seed {
        arguments.extend(["--seed", seed]);
    }
    arguments.extend(targets.iter().map(String::as_str));
    setup::run(setup::cargo(), &arguments)
}
