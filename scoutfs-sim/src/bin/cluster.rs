// SPDX-License-Identifier: GPL-2.0-only
//! The cluster simulation by hand: `cluster SEED [--nodes N] [--count N] [--trace]`.
//!
//! Each seed runs in a process of its own, several at a time. Prints those that fail, and how to repeat them.

use std::process::ExitCode;

use scoutfs_sim::cluster::{Options, run};

fn main() -> ExitCode {
    let seed = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(1);
    let mut options = Options::of_seed(seed);
    options.trace = std::env::args().any(|a| a == "--trace");
    let began = std::time::Instant::now();
    let v = run(&options);
    println!("{:?} {v:?} {:?}", options, began.elapsed());
    std::process::exit(i32::from(v.wrong.is_some()))
}
