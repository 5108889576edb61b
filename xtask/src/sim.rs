// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask sim`: the cluster simulation in `scoutfs-sim`.

use std::process::Command;

/// Runs seeds from `seed` on; `arguments` are the program's own.
pub fn run(seed: Option<u64>, arguments: &[String]) -> Result<(), String> {
    let status = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "-p", "scoutfs-sim", "--features", "cluster", "--bin", "cluster", "--"])
        .args(seed.map(|seed| seed.to_string()))
        .args(arguments)
        .status()
        .map_err(|e| format!("cargo: {e}"))?;
    if status.success() { Ok(()) } else { Err("a seed failed: see above".into()) }
}
