// SPDX-License-Identifier: GPL-2.0-only
//! What log trees that are not merged cost those who read: the time to mount, and to look a name up for the first time, with 0, 16 and
//! 256 of them.
//!
//! Nine nodes on one volume in memory; the merges are held up meanwhile. Each log has a few items of a directory of its node; the names that
//! are looked up lie in the merged tree, and a reader must look into each log that could have something newer.

use std::net::TcpListener;
use std::sync::Arc as Shared;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use scoutfs_benches::mount_node;
use scoutfs_btree::BlockCache;
use scoutfs_env::device::{BlockDevice, IoError, MemDevice};
use scoutfs_env::{Arc, Box, try_box};
use scoutfs_format::item::ROOT_INO;
use scoutfs_format::voter::ProcessId;
use scoutfs_fs::dir::NewInode;
use scoutfs_fs::mkfs::{Options, mkfs};
use scoutfs_fs::{Mount, MountOptions};
use scoutfs_server::roots::read_roots;
use scoutfs_server::super_block::read_super;

/// Nodes that make logs; a mount has room for some 40.
const WRITERS: usize = 8;
/// Names in the merged tree.
const NAMES: usize = 50_000;
/// Of them, those that are looked up.
const LOOKUPS: usize = 5_000;
/// After so long a mount commits, and after as long without a change finalizes its log.
const IDLE: Duration = Duration::from_millis(50);

/// How long each write of a merge then takes.
const HELD_UP: Duration = Duration::from_millis(2500);

const FILE: NewInode = NewInode { mode: 0o100644, umask: 0, rdev: 0, uid: 0, gid: 0 };
const DIR: NewInode = NewInode { mode: 0o040755, umask: 0, rdev: 0, uid: 0, gid: 0 };

/// A device in memory on which merges are held up.
#[derive(Clone)]
struct Device(Shared<MemDevice>, Shared<AtomicBool>);

impl BlockDevice for Device {
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
        if std::thread::current().name() == Some("scoutfs-merge") {
            // Not for ever: a mount whose device does nothing loses its lease.
            let end = Instant::now() + HELD_UP;
            while self.1.load(Ordering::Relaxed) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        self.0.write(offset, buf)
    }
    fn flush(&self) -> Result<(), IoError> {
        self.0.flush()
    }
}

fn name(i: usize) -> Vec<u8> {
    format!("name-{i:06}").into_bytes()
}

fn main() {
    let held = Shared::new(AtomicBool::new(false));
    let device: Box<dyn BlockDevice> =
        try_box(Device(Shared::new(MemDevice::new(4 << 30)), held.clone())).expect("memory");
    let device = Arc::new(device).expect("memory");
    mkfs(&device, &Options { quorum: 1, force: false }).expect("mkfs");
    let address = TcpListener::bind(("127.0.0.1", 0)).and_then(|port| port.local_addr()).expect("a port");
    let mut mounted = 0;
    let mut mount = || {
        mounted += 1;
        let mut options = MountOptions {
            commit_interval: IDLE,
            idle_interval: IDLE,
            ..MountOptions::new(ProcessId { pid: mounted.into(), ..ProcessId::default() })
        };
        options.server_addr = (mounted == 1).then_some(address);
        mount_node(&device, &options)
    };
    let geometry = read_super(&**device).expect("a super block").geometry;
    let logs = || {
        let sb = read_super(&**device).expect("a super block");
        let cache = BlockCache::new(device.clone(), sb.sb.id.fsid.get(), geometry, 64).expect("memory");
        read_roots(&**device, &cache, &geometry).expect("roots").forest.logs.len()
    };
    let server = mount();
    let names = server.fs().mkdir(ROOT_INO, b"names", &DIR).expect("mkdir").ino;
    for i in 0..NAMES {
        let ino = server.fs().create(names, &name(i), &FILE).expect("create").ino;
        server.fs().forget(ino, 1);
    }
    server.fs().sync().expect("sync");
    while logs() > 0 {
        std::thread::sleep(Duration::from_millis(50));
    }
    let writers: Vec<Mount> = (0..WRITERS).map(|_| mount()).collect();
    let dirs: Vec<u64> = (0..WRITERS)
        .map(|n| writers[n].fs().mkdir(ROOT_INO, format!("dir{n}").as_bytes(), &DIR).expect("mkdir").ino)
        .collect();
    while logs() > 0 {
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("logs    mount ms   lookup us, first time   again");
    for wanted in [0, 16, 256] {
        held.store(true, Ordering::Relaxed);
        let mut made = 0;
        while logs() < wanted {
            for (writer, dir) in writers.iter().zip(&dirs) {
                let ino = writer.fs().create(*dir, &name(wanted * 1000 + made), &FILE).expect("create").ino;
                writer.fs().forget(ino, 1);
                made += 1;
            }
            // The worker looks after it so often.
            std::thread::sleep(Duration::from_millis(300));
        }
        let start = Instant::now();
        let reader = mount();
        let mounting = start.elapsed();
        let there = logs();
        let mut times = [Duration::ZERO; 2];
        for time in &mut times {
            let start = Instant::now();
            for i in 0..LOOKUPS {
                let ino = reader.fs().lookup(names, &name(i * 7919 % NAMES)).expect("lookup").ino;
                reader.fs().forget(ino, 1);
            }
            *time = start.elapsed() / LOOKUPS as u32;
        }
        println!(
            "{there:>4} {:>11.1} {:>23.1} {:>7.1}",
            mounting.as_secs_f64() * 1e3,
            times[0].as_secs_f64() * 1e6,
            times[1].as_secs_f64() * 1e6
        );
        held.store(false, Ordering::Relaxed);
        reader.unmount().expect("unmount");
        while logs() > 0 {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    for mount in writers.iter().rev().chain([&server]) {
        mount.unmount().expect("unmount");
    }
}
