// SPDX-License-Identifier: GPL-2.0-only
//! A volume on a device in memory.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc as StdArc, RwLock, RwLockWriteGuard};
use std::time::Duration;

use scoutfs_env::device::{BlockDevice, EIO, IoError, IoOp, MemDevice};
use scoutfs_env::net::{Network, TcpNetwork};
use scoutfs_env::{Arc, Box, try_box};
use scoutfs_format::voter::ProcessId;
use scoutfs_fs::check::Summary;
use scoutfs_fs::dir::NewInode;
use scoutfs_fs::mkfs::{Options, mkfs};
use scoutfs_fs::{Mount, MountOptions};
use scoutfs_server::DeathOracle;

/// All former mounts of these tests are dead, and those that live beat.
struct AllDead;

impl DeathOracle for AllDead {
    fn is_dead(&self, _: &ProcessId) -> bool {
        true
    }
}

/// Nobody is known to be dead.
struct NoneDead;

impl DeathOracle for NoneDead {
    fn is_dead(&self, _: &ProcessId) -> bool {
        false
    }
}

/// A device that several owners share, as a disk is. It hangs while `hung` is held for writing, and fails when no requests
/// are `left`. It may also fail all that is not a read.
struct Shared {
    memory: StdArc<MemDevice>,
    hung: StdArc<RwLock<()>>,
    slow_merges: StdArc<AtomicU64>,
    left: StdArc<AtomicU64>,
    only_reads: StdArc<AtomicBool>,
}

impl Shared {
    fn admit(&self, op: IoOp, offset: u64, len: usize) -> Result<&MemDevice, IoError> {
        drop(self.hung.read().unwrap());
        if op != IoOp::Read && self.only_reads.load(Ordering::Relaxed) {
            return Err(IoError { op, offset, len, errno: EIO });
        }
        let take = |left: u64| if left == u64::MAX { Some(left) } else { left.checked_sub(1) };
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Ok(&self.memory),
            Err(_) => Err(IoError { op, offset, len, errno: EIO }),
        }
    }
}

impl BlockDevice for Shared {
    fn size_bytes(&self) -> u64 {
        self.memory.size_bytes()
    }
    fn read_only(&self) -> bool {
        false
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        self.admit(IoOp::Read, offset, buf.len())?.read(offset, buf)
    }
    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        if std::thread::current().name() == Some("scoutfs-merge") {
            std::thread::sleep(Duration::from_millis(self.slow_merges.load(Ordering::Relaxed)));
        }
        self.admit(IoOp::Write, offset, buf.len())?.write(offset, buf)
    }
    fn flush(&self) -> Result<(), IoError> {
        self.admit(IoOp::Flush, 0, 0)?.flush()
    }
}

/// A volume in memory.
pub struct Volume {
    memory: StdArc<MemDevice>,
    hung: StdArc<RwLock<()>>,
    slow_merges: StdArc<AtomicU64>,
    left: StdArc<AtomicU64>,
    only_reads: StdArc<AtomicBool>,
}

// Each test file uses a part of this module.
#[allow(dead_code)]
impl Volume {
    /// A new volume that one mount makes work.
    pub fn new(bytes: u64) -> Volume {
        Self::with_quorum(bytes, 1)
    }

    /// A new volume that works when so many mounts are there.
    pub fn with_quorum(bytes: u64, quorum: u32) -> Volume {
        let volume = Volume::on(MemDevice::new(bytes));
        mkfs(&volume.device(), &Options { quorum, force: false }).unwrap();
        volume
    }

    fn on(memory: MemDevice) -> Volume {
        let left = StdArc::new(AtomicU64::new(u64::MAX));
        Volume {
            memory: StdArc::new(memory),
            hung: StdArc::default(),
            slow_merges: StdArc::default(),
            left,
            only_reads: StdArc::default(),
        }
    }

    /// The device does nothing until the result is dropped.
    pub fn hang(&self) -> RwLockWriteGuard<'_, ()> {
        self.hung.write().unwrap()
    }

    /// Each write of a merge takes so long from now on.
    pub fn slow_merges(&self, ms: u64) {
        self.slow_merges.store(ms, Ordering::Relaxed);
    }

    /// The device does so many requests from now on, and then fails all.
    pub fn die_after(&self, requests: u64) {
        self.left.store(requests, Ordering::Relaxed);
    }

    /// From now on the device fails all that is not a read.
    pub fn refuse_writes(&self) {
        self.only_reads.store(true, Ordering::Relaxed);
    }

    pub fn device(&self) -> Arc<Box<dyn BlockDevice>> {
        let shared = Shared {
            memory: self.memory.clone(),
            hung: self.hung.clone(),
            slow_merges: self.slow_merges.clone(),
            left: self.left.clone(),
            only_reads: self.only_reads.clone(),
        };
        let device: Box<dyn BlockDevice> = try_box(shared).unwrap();
        Arc::new(device).unwrap()
    }

    pub fn mount(&self) -> Mount {
        self.try_mount().unwrap()
    }

    pub fn try_mount(&self) -> scoutfs_fs::Result<Mount> {
        Mount::open(self.device(), &Self::options(), &AllDead)
    }

    /// With a lease of the leader that ends after so long.
    pub fn mount_with_lease(&self, lease_ms: u64) -> Mount {
        let mut options = Self::options();
        options.timing.lease_ms = lease_ms;
        Mount::open(self.device(), &options, &AllDead).unwrap()
    }

    /// A node of a cluster, which runs the server at an address, or joins one that another runs.
    pub fn node(&self, address: SocketAddr, runs_server: bool) -> Mount {
        self.try_node(address, runs_server).unwrap()
    }

    pub fn try_node(&self, address: SocketAddr, runs_server: bool) -> scoutfs_fs::Result<Mount> {
        self.join(runs_server.then_some(address), try_box(NoneDead).unwrap())
    }

    /// The node that runs the server, and knows that each process is dead that does not renew its lease.
    pub fn node_that_knows(&self, address: SocketAddr) -> Mount {
        self.join(Some(address), try_box(AllDead).unwrap()).unwrap()
    }

    /// A node of a cluster that another runs the server of.
    pub fn try_client(&self) -> scoutfs_fs::Result<Mount> {
        self.join(None, try_box(NoneDead).unwrap())
    }

    fn join(
        &self,
        server_addr: Option<SocketAddr>,
        oracle: Box<dyn DeathOracle + Send + Sync>,
    ) -> scoutfs_fs::Result<Mount> {
        let network: Box<dyn Network> = try_box(TcpNetwork::default()).unwrap();
        let options = MountOptions { server_addr, ..Self::options() };
        let (network, oracle) = (Arc::new(network).unwrap(), Arc::new(oracle).unwrap());
        Mount::open_in(self.device(), network, &options, oracle)
    }

    fn options() -> MountOptions {
        MountOptions {
            server_addr: Some("127.0.0.1:7001".parse().unwrap()),
            commit_interval: Duration::from_millis(500),
            idle_interval: Duration::from_millis(500),
            ..MountOptions::new(ProcessId::default())
        }
    }

    /// What the disk holds at this moment, as after a crash of everything.
    pub fn crash(&self) -> Volume {
        Volume::on(self.memory.snapshot())
    }

    /// The volume must be sound. Tells what is in it.
    pub fn check(&self) -> Summary {
        let mut issues = std::vec::Vec::new();
        let summary = scoutfs_fs::check::check(
            &self.device(),
            &mut |issue| issues.push(issue.to_string()),
            &mut |_, _| (),
        )
        .unwrap();
        assert_eq!((issues, summary.issues, summary.changed), (vec![], 0, false));
        summary
    }
}

/// A regular file of the super user.
pub fn file() -> NewInode {
    NewInode { mode: 0o100_644, umask: 0, uid: 0, gid: 0, rdev: 0 }
}

/// A directory of the super user.
// As above.
#[allow(dead_code)]
pub fn dir() -> NewInode {
    NewInode { mode: 0o040_755, ..file() }
}

/// A file's name.
// As above.
#[allow(dead_code)]
pub fn name(i: usize) -> Vec<u8> {
    format!("file-{i:06}").into_bytes()
}
