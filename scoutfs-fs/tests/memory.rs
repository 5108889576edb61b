// SPDX-License-Identifier: GPL-2.0-only
//! How much memory a mount takes. A file of its own, because it measures that of the process.

use std::time::Duration;

use scoutfs_env::device::{BlockDevice, FileDevice, OpenMode};
use scoutfs_env::{Arc, Box, try_box};
use scoutfs_format::item::ROOT_INO;
use scoutfs_format::voter::ProcessId;
use scoutfs_fs::dir::NewInode;
use scoutfs_fs::mkfs::{Options, mkfs};
use scoutfs_fs::xattr::SetXattrMode;
use scoutfs_fs::{Fs, Mount, MountOptions};
use scoutfs_server::DeathOracle;

struct AllDead;

impl DeathOracle for AllDead {
    fn is_dead(&self, _: &ProcessId) -> bool {
        true
    }
}

/// The image, which goes away with this value.
struct Image(std::path::PathBuf);

impl Drop for Image {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The most memory that the process had at once since [`forget_peak`], in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

fn counter(fs: &Fs, wanted: &str) -> u64 {
    let mut found = 0;
    fs.for_each_counter(&mut |name, value| {
        if name == wanted {
            found = value;
        }
        Ok(())
    })
    .unwrap();
    found
}

/// Invariants 49, 66: merges of many times what the caches may hold, with reads of all of it meanwhile, take the memory of
/// the caches and of the open transactions, and no more.
#[test]
fn a_big_merge_takes_no_more_memory_than_the_caches_may() {
    const FILES: u64 = 12_000;
    const VALUE: usize = 6_000;
    const LIMIT_KIB: u64 = 48 << 10;
    let image = Image(
        std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("memory-{}", std::process::id())),
    );
    std::fs::File::create(&image.0).unwrap().set_len(512 << 20).unwrap();
    let device: Box<dyn BlockDevice> =
        try_box(FileDevice::open(&image.0, OpenMode::Exclusive).unwrap()).unwrap();
    let device = Arc::new(device).unwrap();
    mkfs(&device, &Options { quorum: 1, force: false }).unwrap();
    let options = MountOptions {
        server_addr: Some("127.0.0.1:7001".parse().unwrap()),
        commit_interval: Duration::from_millis(500),
        idle_interval: Duration::from_millis(500),
        block_cache_bytes: 4 << 20,
        item_cache_bytes: 4 << 20,
        ..MountOptions::new(ProcessId::default())
    };
    let mount = Mount::open(device, &options, &AllDead).unwrap();
    let fs = mount.fs();
    let dir = NewInode { mode: 0o040_755, umask: 0, uid: 0, gid: 0, rdev: 0 };
    let file = NewInode { mode: 0o100_644, ..dir };
    let work = |from: u64, to: u64| {
        for n in from..to {
            let attr = fs.create(ROOT_INO, format!("{n}").as_bytes(), &file).unwrap();
            fs.setxattr(attr.ino, b"user.x", &vec![n as u8; VALUE], SetXattrMode::Any).unwrap();
            fs.forget(attr.ino, 1);
        }
    };
    // Whatever is made once has been made.
    work(0, 500);
    fs.sync().unwrap();
    forget_peak();
    let before = peak_kib();
    work(500, FILES);
    fs.sync().unwrap();
    let mut value = vec![0; VALUE];
    for n in 0..FILES {
        let attr = fs.lookup(ROOT_INO, format!("{n}").as_bytes()).unwrap();
        assert_eq!(fs.getxattr(attr.ino, b"user.x", &mut value).unwrap(), VALUE);
        assert_eq!(value[VALUE - 1], n as u8);
        fs.forget(attr.ino, 1);
    }
    let more = peak_kib() - before;
    let merged = counter(fs, "merge_pieces");
    mount.unmount().unwrap();
    assert!(merged > 10, "there were {merged} pieces of merges");
    assert!(LIMIT_KIB < FILES * VALUE as u64 / 1024, "all of it would fit");
    assert!(more < LIMIT_KIB, "{more} KiB more");
}
