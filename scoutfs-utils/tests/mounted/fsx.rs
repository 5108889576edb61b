// SPDX-License-Identifier: GPL-2.0-only
//! The stress test of the name: random reads, writes, truncations and mapped accesses of one file, compared with memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use crate::run::run_well_for;
use crate::volume::Volume;

const VERSION: &str = "0.3.2";

/// The program; built on the first run and kept.
fn fsx() -> PathBuf {
    static BUILDING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = BUILDING.lock();
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tools");
    let path = root.join("bin/fsx");
    if !path.exists() {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.args(["install", "fsx", "--locked", "--version", VERSION, "--root"]).arg(&root);
        cargo.arg("--target-dir").arg(root.join("target"));
        run_well_for(&mut cargo, Duration::from_secs(600));
    }
    path
}

/// Runs it on a fresh volume.
fn stress(config: &str, seed: u64, operations: u32) {
    let fsx = fsx();
    let volume = Volume::new(128);
    let mounted = volume.mount();
    let (file, config_path) = (mounted.join("file"), volume.beside("fsx.toml"));
    fs::write(&config_path, config).unwrap();
    let mut command = Command::new(fsx);
    command.args(["-S", &seed.to_string(), "-N", &operations.to_string()]);
    command.arg("-f").arg(&config_path).arg("-P").arg(volume.directory("artifacts")).arg(&file);
    run_well_for(&mut command, Duration::from_secs(120));
    mounted.unmount();
}

#[test]
fn fsx_finds_no_wrong_byte_with_mapped_memory() {
    stress("", 20_240_601, 2000);
}

#[test]
fn fsx_finds_no_wrong_byte_with_holes_syncs_and_copies() {
    let weights = "[weights]\nclose_open = 1.0\ninvalidate = 1.0\nfsync = 0.5\nfdatasync = 0.5\nposix_fallocate = 5.0\n\
                   punch_hole = 5.0\nsendfile = 2.0\nposix_fadvise = 1.0\ncopy_file_range = 5.0\n";
    stress(weights, 7, 2000);
}
