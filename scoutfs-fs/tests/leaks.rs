// SPDX-License-Identifier: GPL-2.0-only
//! What a mount leaves in its process when it ends, however it ends: nothing. A file of its own, because it counts threads.

use std::sync::Arc as StdArc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use scoutfs_env::device::{BlockDevice, IoError, IoOp, MemDevice};
use scoutfs_env::{Arc, Box, try_box};
use scoutfs_format::geometry::Geometry;
use scoutfs_format::item::ROOT_INO;
use scoutfs_format::voter::ProcessId;
use scoutfs_fs::mkfs::{Options, mkfs};
use scoutfs_fs::{Mount, MountOptions};
use scoutfs_net::quorum::Timing;
use scoutfs_server::DeathOracle;

struct AllDead;

impl DeathOracle for AllDead {
    fn is_dead(&self, _: &ProcessId) -> bool {
        true
    }
}

/// A device that fails at one request, or from then on at each that is not the election's: that one waits for a device that
/// cannot be read. Everything that a mount makes holds it: threads, caches, the store.
struct Failing {
    memory: MemDevice,
    /// Requests until then.
    left: AtomicI64,
    /// It fails for once only.
    once: bool,
    /// Where the voters' part of the volume ends.
    slots_at: u64,
    /// Somebody has it.
    held: StdArc<AtomicBool>,
    failed: StdArc<AtomicBool>,
}

impl Failing {
    fn count(&self, op: IoOp, offset: u64, len: usize) -> Result<(), IoError> {
        let of_election = op == IoOp::Flush || offset < self.slots_at;
        if !self.once && of_election {
            return Ok(());
        }
        let left = self.left.fetch_sub(1, Ordering::Relaxed);
        if left > 0 || (self.once && left < 0) {
            return Ok(());
        }
        self.failed.store(true, Ordering::Relaxed);
        Err(IoError { op, offset, len, errno: 5 })
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        self.held.store(false, Ordering::Release);
    }
}

impl BlockDevice for Failing {
    fn size_bytes(&self) -> u64 {
        self.memory.size_bytes()
    }
    fn read_only(&self) -> bool {
        false
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        self.count(IoOp::Read, offset, buf.len())?;
        self.memory.read(offset, buf)
    }
    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.count(IoOp::Write, offset, buf.len())?;
        self.memory.write(offset, buf)
    }
    fn flush(&self) -> Result<(), IoError> {
        self.count(IoOp::Flush, 0, 0)?;
        self.memory.flush()
    }
}

/// Names of the threads that mounts of this process run.
fn threads() -> Vec<String> {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok())
        .filter(|name| name.starts_with("scoutfs"))
        .collect()
}

fn options() -> MountOptions {
    let timing = Timing {
        beat_ms: 10,
        lease_ms: 1000,
        patience_ms: 1000,
        isolation_ms: 2000,
        margin_ms: 100,
        dead_ms: 1200,
        confirmed_ms: 20,
        presumed_ms: None,
        prompt_ms: 5,
        settle_ms: 6,
    };
    MountOptions {
        server_addr: Some("127.0.0.1:7001".parse().unwrap()),
        timing,
        ..MountOptions::new(ProcessId::default())
    }
}

/// Mounts, works, and ends by unmounting or as by a crash, on a device that fails after `requests`. Says whether it failed.
fn mount_and_end(volume: &MemDevice, requests: i64, once: bool, unmount: bool) -> bool {
    let (held, failed) = (StdArc::new(AtomicBool::new(true)), StdArc::new(AtomicBool::new(false)));
    let device = Failing {
        memory: volume.snapshot(),
        left: AtomicI64::new(requests),
        once,
        slots_at: Geometry::new(volume.size_bytes(), 1).unwrap().slot_offset(0),
        held: held.clone(),
        failed: failed.clone(),
    };
    let device: Box<dyn BlockDevice> = try_box(device).unwrap();
    let what = format!("requests {requests}, once {once}, unmount {unmount}");
    match Mount::open(Arc::new(device).unwrap(), &options(), &AllDead) {
        Ok(mount) => {
            assert!(
                !threads().is_empty() || failed.load(Ordering::Relaxed),
                "{what}: there is nothing to see"
            );
            let file = scoutfs_fs::dir::NewInode { mode: 0o100_644, umask: 0, uid: 0, gid: 0, rdev: 0 };
            // A mount that cannot go on says so: whatever each of these answers.
            if let Ok(attr) = mount.fs().create(ROOT_INO, b"file", &file) {
                let _ = mount.fs().write(attr.ino, 0, &[1; 10_000]);
            }
            let _ = mount.fs().sync();
            if unmount {
                let _ = mount.unmount();
            }
        }
        Err(_) => assert!(failed.load(Ordering::Relaxed), "{what}: refused without a failure"),
    }
    // A thread that has ended can be seen for a moment, and those of a connection end by themselves.
    let start = Instant::now();
    while !threads().is_empty() && start.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(threads(), Vec::<String>::new(), "{what}");
    assert!(!held.load(Ordering::Acquire), "{what}: something still has the device");
    failed.load(Ordering::Relaxed)
}

/// Invariant 67: an unmount, a crash, and a mount that fails at any request leave no thread, and nothing that holds the device.
#[test]
fn a_mount_leaves_nothing_however_it_ends() {
    let device: Box<dyn BlockDevice> = try_box(MemDevice::new(64 << 20)).unwrap();
    let device = Arc::new(device).unwrap();
    mkfs(&device, &Options { quorum: 1, force: false }).unwrap();
    let volume = MemDevice::new(64 << 20);
    let mut part = scoutfs_env::IoBuf::zeroed(1 << 20).unwrap();
    for offset in (0..64 << 20).step_by(part.len()) {
        device.read(offset, &mut part).unwrap();
        volume.write(offset, &part).unwrap();
    }
    for unmount in [true, false] {
        assert!(!mount_and_end(&volume, i64::MAX, false, unmount));
    }
    for once in [false, true] {
        let mut requests = 0;
        while mount_and_end(&volume, requests, once, requests % 2 == 0) {
            requests += 1 + requests / 16;
        }
        assert!(requests > 20, "all is done after {requests} requests");
    }
}
