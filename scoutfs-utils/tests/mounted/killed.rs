// SPDX-License-Identifier: GPL-2.0-only
//! `kill -9` of the daemon at any moment under load: a hundred times. The volume is sound each time, without recovery, the next
//! mount has all that was acknowledged, and of the operation that was under way nothing or all (of contents: some blocks).
//!
//! Most of a mount after a death is waiting (for the dead one's voter slot, which might beat), so several volumes go at once.
//! The loads are in `load`.

use std::path::Path;
use std::thread::{self, sleep};
use std::time::Duration;

use crate::load::{self, Load};
use crate::pattern::Random;
use crate::volume::{Mounted, Volume};

/// Volumes at once, and deaths of each.
const VOLUMES: u64 = 4;
const ROUNDS: u64 = 25;

/// The longest that a mount works before its daemon is killed.
const LONGEST_WORK_MS: u64 = 400;

/// All loads work in directories of their own, each until the mount is dead.
fn work_until_death(mut mounted: Mounted<'_>, loads: &mut [Box<dyn Load>], after: Duration) {
    let root = mounted.path().to_owned();
    thread::scope(|scope| {
        for (which, load) in loads.iter_mut().enumerate() {
            let dir = directory(&root, which);
            scope.spawn(move || {
                let error = loop {
                    if let Err(e) = load.step(&dir) {
                        break e;
                    }
                };
                // A dead mount. Anything else is a failure of the filesystem.
                let errno = error.raw_os_error();
                let dead = matches!(errno, Some(libc::ENOTCONN | libc::ECONNABORTED));
                assert!(dead, "{}: {error}", dir.display());
            });
        }
        sleep(after);
        mounted.kill_daemon();
    });
    mounted.bury();
}

fn directory(root: &Path, which: usize) -> std::path::PathBuf {
    root.join(format!("load{which}"))
}

fn rounds(seed: u64) {
    let mut random = Random::new(seed);
    let volume = Volume::new(256);
    let mut loads = load::all(seed);
    let mounted = volume.mount_child();
    for (which, load) in loads.iter_mut().enumerate() {
        let dir = directory(mounted.path(), which);
        std::fs::create_dir(&dir).unwrap();
        load.begin(&dir);
    }
    mounted.unmount();
    for round in 0..ROUNDS {
        let mounted = volume.mount_child();
        for (which, load) in loads.iter_mut().enumerate() {
            load.verify(&directory(mounted.path(), which));
        }
        // What recovery has brought stands by itself, also when nobody unmounts.
        if round % 5 == 4 {
            mounted.unmount();
            let mounted = volume.mount_child();
            work_until_death(mounted, &mut loads, Duration::from_millis(random.below(LONGEST_WORK_MS)));
        } else {
            work_until_death(mounted, &mut loads, Duration::from_millis(random.below(LONGEST_WORK_MS)));
        }
    }
    let mounted = volume.mount_child();
    for (which, load) in loads.iter_mut().enumerate() {
        load.verify(&directory(mounted.path(), which));
        assert!(load.acknowledged() > ROUNDS / 2, "load {which} did next to nothing");
    }
    mounted.unmount();
}

#[test]
fn whatever_was_acknowledged_survives_a_hundred_kills_at_any_moment() {
    thread::scope(|scope| {
        let volumes: Vec<_> = (0..VOLUMES).map(|n| scope.spawn(move || rounds(0x5c00_7f5d + n))).collect();
        for volume in volumes {
            volume.join().unwrap_or_else(|e| std::panic::resume_unwind(e));
        }
    });
}
