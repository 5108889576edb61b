// SPDX-License-Identifier: GPL-2.0-only
//! mount(8) and its helper, which it looks for in `/sbin` alone.
//!
//! The helper is there only in a mount namespace that one thread of the test and its children have for themselves, so
//! that nothing of it is left on the machine, and nobody else sees it.
//!
//! A program of its own, since a new namespace begins with a copy of each mount that there is: another test's volume would
//! stay mounted there after its umount.

// The bed of the other mounted tests, of which this one needs a part.
#[allow(dead_code)]
#[path = "mounted/run.rs"]
mod run;
#[allow(dead_code)]
#[path = "mounted/volume.rs"]
mod volume;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread;

use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::run::{program, run, run_refused, scoutfs};
use crate::volume::{Volume, is_mount_point};

/// Runs `f` where `/sbin` also has what is in `extra`.
fn with_more_in_sbin(extra: &Path, f: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let alone = scope.spawn(|| {
            // SAFETY: only this thread gets a view of the mounts of its own; no memory and no descriptor is unshared.
            unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
            run(program("mount", ["--make-rprivate", "/"]));
            let sbin = fs::canonicalize("/sbin").unwrap();
            let layers = format!("lowerdir={}:{}", extra.display(), sbin.display());
            run(program("mount", ["-t", "overlay", "-o", &layers, "overlay"]).arg(&sbin));
            f();
        });
        // The test that fails is this one, with its own message.
        if let Err(panic) = alone.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn mount_8_mounts_by_its_helper_and_umount_leaves_the_volume_clean() {
    let volume = Volume::new(64);
    let extra = volume.directory("extra");
    symlink(env!("CARGO_BIN_EXE_scoutfs"), extra.join("mount.scoutfs")).unwrap();
    with_more_in_sbin(&extra, || {
        let mounted = volume.mount_with(|image, directory| {
            let mut command = program("mount", ["-t", "scoutfs", "-o", "noatime,server_addr=127.0.0.1"]);
            command.arg(image).arg(directory);
            command
        });
        assert!(is_mount_point(mounted.path()));
        fs::write(mounted.join("one"), "content").unwrap();
        run(program("sync", [] as [&str; 0]));
        let walked = run(scoutfs(["walk-inodes", "data_seq", "0", "-1"]).arg(mounted.path()));
        let ino = std::os::unix::fs::MetadataExt::ino(&fs::metadata(mounted.join("one")).unwrap());
        let listed: Vec<&str> = walked.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(listed.len(), 1, "{walked}");
        assert!(listed[0].trim_end().ends_with(&format!(" {ino}")), "inode {ino} in {walked}");
        mounted.unmount();

        // What the helper refuses, mount(8) refuses, and says why.
        let directory = volume.directory("mnt");
        let mut command = program("mount", ["-t", "scoutfs", "-o", "frobnicate"]);
        let message = run_refused(command.arg(volume.image()).arg(&directory));
        assert!(message.contains("frobnicate"), "{message}");
        assert!(!is_mount_point(&directory));

        // The mount of before is seen again.
        let mounted = volume.mount_with(|image, directory| {
            let mut command = program("mount", ["-t", "scoutfs", "-o", "server_addr=127.0.0.1"]);
            command.arg(image).arg(directory);
            command
        });
        assert_eq!(fs::read(mounted.join("one")).unwrap(), b"content");
        mounted.unmount();
    });
    assert!(!is_mount_point(&volume.directory("mnt")), "the mount came out of its namespace");
}
