// SPDX-License-Identifier: GPL-2.0-only
//! A volume on a simulated disk, mounted in this process.

use std::time::Duration;

use scoutfs_env::device::{BlockDevice, MemDevice};
use scoutfs_env::{Arc, Box, try_box};
use scoutfs_format::geometry::Geometry;
use scoutfs_format::voter::ProcessId;
use scoutfs_fs::check::{CheckError, Summary, check};
use scoutfs_fs::mkfs::{Options, mkfs};
use scoutfs_fs::{Error, Mount, MountOptions};
use scoutfs_net::quorum::Timing;
use scoutfs_server::DeathOracle;

use crate::disk::Disk;

/// Bytes of the volumes of these tests: the smallest.
pub const VOLUME_BYTES: u64 = 64 << 20;

/// The times of an election in which nobody else takes part, on a disk that is memory.
const FAST: Timing = Timing {
    beat_ms: 10,
    lease_ms: 5000,
    patience_ms: 5000,
    isolation_ms: 2000,
    margin_ms: 100,
    dead_ms: 5200,
    confirmed_ms: 20,
    presumed_ms: Some(5200),
    prompt_ms: 20,
    settle_ms: 22,
};

/// All former mounts are dead: they were in this process.
struct AllDead;

impl DeathOracle for AllDead {
    fn is_dead(&self, _: &ProcessId) -> bool {
        true
    }
}

/// How a test mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As programs do: few beats, and commits only when asked for.
    Real,
    /// As soon as possible.
    Fast,
    /// As programs do, but what was logged is merged after a moment.
    Merging,
}

/// The geometry of the volumes of these tests.
pub fn geometry() -> Geometry {
    Geometry::new(VOLUME_BYTES, 1).expect("a good size")
}

/// A new volume.
pub fn new_volume() -> Disk {
    let disk = Disk::new(MemDevice::new(VOLUME_BYTES));
    mkfs(&device(&disk), &Options { quorum: 1, force: false }).expect("an empty disk");
    disk
}

/// A disk as the filesystem wants it.
pub fn device<D: BlockDevice + Clone + 'static>(disk: &D) -> Arc<Box<dyn BlockDevice>> {
    let device: Box<dyn BlockDevice> = try_box(disk.clone()).expect("memory");
    Arc::new(device).expect("memory")
}

/// Mounts a volume; all former mounts of it are gone.
pub fn mount<D: BlockDevice + Clone + 'static>(disk: &D, pace: Pace) -> Result<Mount, Error> {
    let mut options = MountOptions::new(ProcessId::default());
    options.server_addr = Some(([127, 0, 0, 1], 7001).into());
    options.block_cache_bytes = 8 << 20;
    options.item_cache_bytes = 4 << 20;
    options.commit_interval = Duration::from_secs(60);
    options.idle_interval = Duration::from_secs(60);
    match pace {
        Pace::Real => {}
        Pace::Fast => options.timing = FAST,
        Pace::Merging => options.idle_interval = Duration::from_millis(50),
    }
    Mount::open(device(disk), &options, &AllDead)
}

/// Checks a volume that is not mounted. Gives the issues as text.
pub fn issues<D: BlockDevice + Clone + 'static>(disk: &D) -> Result<(Summary, Vec<String>), CheckError> {
    let mut issues = Vec::new();
    let summary = check(&device(disk), &mut |issue| issues.push(issue.to_string()), &mut |_, _| ())?;
    Ok((summary, issues))
}
