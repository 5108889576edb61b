// SPDX-License-Identifier: GPL-2.0-only
//! Programs made to stress a filesystem, which verify what they read.

use std::process::Command;
use std::time::Duration;

use super::stage::{Stage, run, run_any, tail};

/// fio's ways to write, with what each needs. All verify what they wrote, at once and after a remount.
const FIO_JOBS: &[(&str, &[&str])] = &[
    ("psync", &["--bs=4k", "--fsync=256"]),
    ("mmap", &["--bs=4k"]),
    ("libaio", &["--bs=16k", "--direct=1", "--iodepth=8"]),
];

/// fio: random writes in three ways, each block with a checksum and its place in it.
pub fn fio(stage: &mut Stage) -> Result<String, String> {
    let limit = Duration::from_secs(300);
    let job = |stage: &Stage, engine: &str, more: &[&str]| {
        let mut command = Command::new("fio");
        command.arg(format!("--name={engine}")).arg(format!("--ioengine={engine}"));
        command.arg(format!("--directory={}", stage.mount_point().display()));
        command.args([
            "--rw=randwrite",
            "--size=32m",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--randrepeat=1",
        ]);
        command.args(["--fallocate=none", "--end_fsync=1", "--output-format=terse"]).args(more);
        // Its state would land in the folder that this runs in.
        command.args(["--verify_state_save=0"]).current_dir(stage.outside());
        command
    };
    for (engine, more) in FIO_JOBS {
        run(job(stage, engine, more).arg("--do_verify=1"), limit)?;
    }
    stage.remount()?;
    for (engine, more) in FIO_JOBS {
        run(job(stage, engine, more).arg("--verify_only=1"), limit)?;
    }
    Ok(format!("{} x 32 MiB verified, also after a remount", FIO_JOBS.len()))
}

/// stress-ng's stressors that work on files and directories and need nothing that FUSE does not have
/// (FIEMAP is not passed on).
const STRESSORS: &[&str] = &[
    "access",
    "chdir",
    "chmod",
    "chown",
    "copy-file",
    "dentry",
    "dir",
    "dirdeep",
    "dirmany",
    "dnotify",
    "dup",
    "fallocate",
    "fcntl",
    "file-ioctl",
    "filename",
    "flock",
    "fpunch",
    "fsize",
    "fstat",
    "getdent",
    "hdd",
    "inotify",
    "io",
    "iomix",
    "lease",
    "link",
    "locka",
    "lockf",
    "lockofd",
    "mknod",
    "mmap",
    "msync",
    "open",
    "readahead",
    "rename",
    "seek",
    "sendfile",
    "splice",
    "symlink",
    "sync-file",
    "touch",
    "utime",
    "xattr",
];

/// stress-ng: two of each stressor for two seconds.
pub fn stress_ng(stage: &mut Stage) -> Result<String, String> {
    let mut failures = Vec::new();
    for stressor in STRESSORS {
        let mut command = Command::new("stress-ng");
        command.args([&format!("--{stressor}"), "2", "--timeout", "2s", "--verify"]);
        command.arg("--temp-path").arg(stage.mount_point()).current_dir(stage.outside());
        let (succeeded, output) = run_any(&command, Duration::from_secs(120))?;
        // It also succeeds when it skips what the system does not have.
        let skipped = output.contains("skipping") || output.contains("not implemented");
        if !succeeded || skipped {
            println!("{}", tail(&command, &output));
            failures.push(*stressor);
        }
    }
    if failures.is_empty() {
        Ok(format!("{} stressors verified", STRESSORS.len()))
    } else {
        Err(format!("stressors that failed: {}", failures.join(", ")))
    }
}

/// dbench: the file operations of office programs from four clients.
pub fn dbench(stage: &mut Stage) -> Result<String, String> {
    let mut command = Command::new("dbench");
    command.arg("-D").arg(stage.mount_point()).args(["-t", "20", "4"]);
    let output = run(&command, Duration::from_secs(300))?;
    let result = output.lines().find(|line| line.starts_with("Throughput"));
    result.map(str::to_owned).ok_or_else(|| tail(&command, &output))
}
