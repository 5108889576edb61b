// SPDX-License-Identifier: GPL-2.0-only
//! The long form of the crash enumeration in `scoutfs-sim`.

use std::process::Command;

/// Runs it over `workloads` small workloads (0: all), with up to `images` images of each.
pub fn run(workloads: u64, images: u64, seed: u64) -> Result<(), String> {
    let status = Command::new(env!("CARGO"))
        .args(["test", "-p", "scoutfs-sim", "--test", "crash", "small_workloads", "--", "--nocapture"])
        .env("SCOUTFS_CRASH_WORKLOADS", workloads.to_string())
        .env("SCOUTFS_CRASH_IMAGES", images.to_string())
        .env("SCOUTFS_CRASH_SEED", seed.to_string())
        .status()
        .map_err(|e| format!("cargo: {e}"))?;
    if status.success() { Ok(()) } else { Err("an image was wrong: see above".into()) }
}
