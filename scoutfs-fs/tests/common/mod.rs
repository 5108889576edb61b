// SPDX-License-Identifier: GPL-2.0-only
//! A volume on a device in memory.

use std::sync::Arc as StdArc;
use std::time::Duration;

use scoutfs_env::device::{BlockDevice, IoError, MemDevice};
use scoutfs_env::{Arc, Box, try_box};
use scoutfs_format::voter::ProcessId;
use scoutfs_fs::dir::NewInode;
use scoutfs_fs::mkfs::{Options, mkfs};
use scoutfs_fs::{Mount, MountOptions};
use scoutfs_server::DeathOracle;

/// All former mounts of these tests are dead.
struct AllDead;

impl DeathOracle for AllDead {
    fn is_dead(&self, _: &ProcessId) -> bool {
        true
    }
}

/// A device that several owners share, as a disk is.
struct Shared(StdArc<MemDevice>);

impl BlockDevice for Shared {
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }
    fn read_only(&self) -> bool {
        false
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        self.0.read(offset, buf)
    }
    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.0.write(offset, buf)
    }
    fn flush(&self) -> Result<(), IoError> {
        self.0.flush()
    }
}

/// A volume in memory.
pub struct Volume {
    memory: StdArc<MemDevice>,
}

#[allow(dead_code)]
impl Volume {
    /// A new volume.
    pub fn new(bytes: u64) -> Volume {
        let volume = Volume { memory: StdArc::new(MemDevice::new(bytes)) };
        mkfs(&volume.device(), &Options { quorum: 1, force: false }).unwrap();
        volume
    }

    pub fn device(&self) -> Arc<Box<dyn BlockDevice>> {
        let device: Box<dyn BlockDevice> = try_box(Shared(self.memory.clone())).unwrap();
        Arc::new(device).unwrap()
    }

    pub fn mount(&self) -> Mount {
        let options = MountOptions {
            server_addr: Some("127.0.0.1:7001".parse().unwrap()),
            commit_interval: Duration::from_millis(500),
            idle_interval: Duration::from_millis(500),
            ..MountOptions::new(ProcessId::default())
        };
        Mount::open(self.device(), &options, &AllDead).unwrap()
    }

    /// What the disk holds at this moment, as after a crash of everything.
    pub fn crash(&self) -> Volume {
        Volume { memory: StdArc::new(self.memory.snapshot()) }
    }

    /// The volume must be sound.
    pub fn check(&self) {
        let mut issues = std::vec::Vec::new();
        let summary = scoutfs_fs::check::check(
            &self.device(),
            &mut |issue| issues.push(issue.to_string()),
            &mut |_, _| (),
        )
        .unwrap();
        assert_eq!((issues, summary.issues, summary.changed), (vec![], 0, false));
    }
}

/// A regular file of the super user.
pub fn file() -> NewInode {
    NewInode { mode: 0o100_644, umask: 0, uid: 0, gid: 0, rdev: 0 }
}

/// A file's name.
pub fn name(i: usize) -> Vec<u8> {
    format!("file-{i:06}").into_bytes()
}
