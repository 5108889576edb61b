// SPDX-License-Identifier: GPL-2.0-only
//! How much memory a kernel takes for an inode that is cached after `stat`: of slabs, which hold inodes and names, and of all, with the
//! blocks that they were read from. Means something only where nothing else goes on.

use std::fs::{self, File};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

const FILES: usize = 20_000;

/// Bytes for an inode.
pub struct OfInode {
    /// Of slabs.
    pub slab: f64,
    /// Of all memory.
    pub all: f64,
}

/// Of `/proc/meminfo`, in KiB.
fn number(name: &str) -> f64 {
    let text = fs::read_to_string("/proc/meminfo").expect("/proc/meminfo");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let digits = line.and_then(|rest| rest.split_whitespace().next()).expect("a line of meminfo");
    digits.parse().expect("a number")
}

fn used() -> (f64, f64) {
    (number("Slab"), number("MemTotal") - number("MemFree"))
}

/// Empties all caches. Who spares what was used lately spares it once.
fn empty() {
    rustix::fs::sync();
    for _ in 0..3 {
        fs::write("/proc/sys/vm/drop_caches", "3").expect("drop_caches");
        // Memory goes back when nobody can be reading it.
        sleep(Duration::from_millis(300));
    }
}

/// Measures it in an empty directory.
pub fn of_inode(dir: &Path) -> OfInode {
    let file = |i: usize| dir.join(format!("file-{i:06}"));
    (0..FILES).for_each(|i| drop(File::create(file(i)).expect("create")));
    empty();
    let before = used();
    for i in 0..FILES {
        fs::symlink_metadata(file(i)).expect("stat");
    }
    let after = used();
    let each = |kib: f64| kib * 1024.0 / FILES as f64;
    OfInode { slab: each(after.0 - before.0), all: each(after.1 - before.1) }
}
