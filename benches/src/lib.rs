// SPDX-License-Identifier: GPL-2.0-only
//! Benchmarks of scoutfs.
//!
//! | what | how to run it |
//! | --- | --- |
//! | trees, items, crc with criterion | `cargo bench -p scoutfs-benches` |
//! | writes, bytes and flushes for an operation | `cargo run --release -p scoutfs-benches --bin cost` |
//! | bytes written for random updates, with commits and merges | `cargo run --release -p scoutfs-benches --bin amplification` |
//! | updates, lookups and scans beside LMDB, redb and fjall | `cargo run --release -p scoutfs-benches --features others --bin beside-others` |
//! | a directory that grows to a million entries, and what memory they take | `cargo run --release -p scoutfs-benches --bin growth` |
//! | `check` of a million files | `cargo run --release -p scoutfs-benches --bin check` |
//! | operations of several threads in process, and their processor time | `cargo run --release -p scoutfs-benches --bin scaling` |
//! | nodes beside each other: messages, flushes and processor time for an operation; hand-overs of locks | `cargo run --release -p scoutfs-benches --bin cluster` (with a folder also mounted, with `--beside-cephfs` beside a CephFS; root) |
//! | mounting and looking up with logs that are not merged | `cargo run --release -p scoutfs-benches --bin logs` |
//! | a mount beside ext4, xfs and a filesystem in memory on the same FUSE layer, as ratios | `cargo run --release -p scoutfs-benches --bin mounted` (root) |
//! | filesystems that are mounted already, beside each other, as ratios, and what a cached inode takes; `cargo xtask kernel bench` runs it in a guest | `cargo run --release -p scoutfs-benches --bin folders` (root) |
//!
//! Times are only ever compared within one run; no test depends on them.

pub mod cephfs;
pub mod memory;
pub mod works;

use std::net::TcpListener;
use std::sync::Arc as Shared;

use scoutfs_env::device::{BlockDevice, IoError, MemDevice, MemStats};
use scoutfs_env::net::{Network, TcpNetwork};
use scoutfs_env::{Arc, Box, try_box};
use scoutfs_format::voter::ProcessId;
use scoutfs_fs::mkfs::{Options, mkfs};
use scoutfs_fs::{Mount, MountOptions};
use scoutfs_server::DeathOracle;

/// Nobody else ever mounts these volumes.
struct AllDead;

impl DeathOracle for AllDead {
    fn is_dead(&self, _: &ProcessId) -> bool {
        true
    }
}

/// A device in memory that the bench can look at while it is mounted.
struct Seen(Shared<MemDevice>);

impl BlockDevice for Seen {
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

/// A new volume in memory, mounted.
pub struct Bed {
    memory: Shared<MemDevice>,
    /// The mount.
    pub mount: Mount,
}

/// Makes a volume on a device and mounts it, with what `adjust` makes of the options.
pub fn mount_on(device: Box<dyn BlockDevice>, adjust: impl FnOnce(&mut MountOptions)) -> Mount {
    let device = Arc::new(device).expect("memory");
    mkfs(&device, &Options { quorum: 1, force: false }).expect("mkfs");
    let mut options = MountOptions {
        idle_interval: std::time::Duration::from_secs(2),
        server_addr: Some(([127, 0, 0, 1], 1).into()),
        ..MountOptions::new(ProcessId::default())
    };
    adjust(&mut options);
    Mount::open(device, &options, &AllDead).expect("mount")
}

/// Nobody is known to be dead.
struct NoneDead;

impl DeathOracle for NoneDead {
    fn is_dead(&self, _: &ProcessId) -> bool {
        false
    }
}

/// Mounts a volume as one node of several, which talk over this machine's network.
pub fn mount_node(device: &Arc<Box<dyn BlockDevice>>, options: &MountOptions) -> Mount {
    let network: Box<dyn Network> = try_box(TcpNetwork::default()).expect("memory");
    let oracle: Box<dyn DeathOracle + Send + Sync> = try_box(NoneDead).expect("memory");
    let (network, oracle) = (Arc::new(network).expect("memory"), Arc::new(oracle).expect("memory"));
    Mount::open_in(device.clone(), network, options, oracle).expect("mount")
}

/// Several mounts of one new volume in memory, which talk over this machine's network.
pub struct Cluster {
    /// The first one leads.
    pub mounts: Vec<Mount>,
}

impl Cluster {
    /// So many nodes on a volume of so many bytes.
    pub fn new(nodes: usize, bytes: u64) -> Cluster {
        let device: Box<dyn BlockDevice> = try_box(MemDevice::new(bytes)).expect("memory");
        let device = Arc::new(device).expect("memory");
        mkfs(&device, &Options { quorum: 1, force: false }).expect("mkfs");
        // A port that nobody else has.
        let address = TcpListener::bind(("127.0.0.1", 0)).and_then(|port| port.local_addr()).expect("a port");
        let mount = |node: usize| {
            let process = ProcessId { pid: (node as u64 + 1).into(), ..ProcessId::default() };
            let mut options = MountOptions::new(process);
            options.server_addr = (node == 0).then_some(address);
            mount_node(&device, &options)
        };
        Cluster { mounts: (0..nodes).map(mount).collect() }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for mount in self.mounts.iter().rev() {
            mount.unmount().expect("unmount");
        }
    }
}

impl Bed {
    /// Makes and mounts a volume.
    pub fn new(bytes: u64) -> Bed {
        let memory = Shared::new(MemDevice::new(bytes));
        let device: Box<dyn BlockDevice> = try_box(Seen(memory.clone())).expect("memory");
        Bed { memory, mount: mount_on(device, |_| ()) }
    }

    /// Waits until everything is merged and the mount rests.
    pub fn settle(&self) {
        self.mount.fs().sync().expect("sync");
        let mut last = self.stats().write_bytes;
        let mut quiet = 0;
        while quiet < 30 {
            std::thread::sleep(std::time::Duration::from_millis(100));
            let now = self.stats().write_bytes;
            // The voter beats all the time.
            quiet = if now - last < 64 << 10 { quiet + 1 } else { 0 };
            last = now;
        }
    }

    /// Unmounts, and gives the device.
    pub fn unmounted(self) -> Arc<Box<dyn BlockDevice>> {
        self.mount.unmount().expect("unmount");
        drop(self.mount);
        let device: Box<dyn BlockDevice> = try_box(Seen(self.memory)).expect("memory");
        Arc::new(device).expect("memory")
    }

    /// What the device has done so far.
    pub fn stats(&self) -> MemStats {
        self.memory.stats()
    }
}
