// SPDX-License-Identifier: GPL-2.0-only
//! What a mount leaves on its device is sound, whenever one looks.

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::vec::Vec;
use std::{format, vec};

use scoutfs_env::device::{BlockDevice, MemDevice};
use scoutfs_env::{Arc, Box, try_box};
use scoutfs_format::item::ROOT_INO;
use scoutfs_format::voter::ProcessId;
use scoutfs_server::DeathOracle;

use super::super::{Issue, Summary};
use super::check_device;
use crate::data::AllocateMode;
use crate::dir::{NewInode, RenameFlags};
use crate::fs::Fs;
use crate::inode::SetAttr;
use crate::mkfs::{Options, mkfs};
use crate::node::{Mount, MountOptions};
use crate::xattr::SetXattrMode;

/// Every process is dead, but this one.
struct OthersDead(ProcessId);

impl DeathOracle for OthersDead {
    fn is_dead(&self, process: &ProcessId) -> bool {
        *process != self.0
    }
}

fn shared(device: Arc<MemDevice>) -> Arc<Box<dyn BlockDevice>> {
    let device: Box<dyn BlockDevice> = try_box(device).unwrap();
    Arc::new(device).unwrap()
}

fn new_volume() -> Arc<MemDevice> {
    let device = Arc::new(MemDevice::new(64 << 20)).unwrap();
    mkfs(&shared(device.clone()), &Options { quorum: 1, force: true }).unwrap();
    device
}

fn mount(device: &Arc<MemDevice>) -> Mount {
    let process = ProcessId { pid: scoutfs_env::random::u64().into(), ..ProcessId::default() };
    let mut options = MountOptions::new(process);
    options.server_addr = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 7001)));
    options.block_cache_bytes = 8 << 20;
    options.item_cache_bytes = 4 << 20;
    // Commits come now and then in the middle of things, and logs are merged.
    options.commit_interval = Duration::from_millis(5);
    options.idle_interval = Duration::from_millis(20);
    Mount::open(shared(device.clone()), &options, &OthersDead(process)).unwrap()
}

/// The issues of a device as it is in this moment, and what was looked at.
fn look(device: &Arc<MemDevice>) -> (Vec<Issue>, Summary) {
    let now = Arc::new(device.read_only_snapshot()).unwrap();
    check_device(&shared(now))
}

fn issues(device: &Arc<MemDevice>) -> Vec<Issue> {
    look(device).0
}

const FILE: NewInode = NewInode { mode: 0o100_644, umask: 0, rdev: 0, uid: 7, gid: 8 };
const DIR: NewInode = NewInode { mode: 0o040_755, umask: 0, rdev: 0, uid: 7, gid: 8 };

/// One of many operations, chosen and filled in by a number. Those that make no sense fail.
fn operation(fs: &Fs, n: u64) {
    let pick = |shift: u32, of: u64| (n >> shift) % of;
    let (dirs, names) = (["x", "y", "z"], ["a", "b", "c", "d"]);
    let dir = match pick(8, 4) {
        3 => ROOT_INO,
        i => match fs.lookup(ROOT_INO, dirs[i as usize].as_bytes()) {
            Ok(attr) => {
                fs.forget(attr.ino, 1);
                attr.ino
            }
            Err(_) => ROOT_INO,
        },
    };
    let name = names[pick(16, 4) as usize].as_bytes();
    let other = names[pick(20, 4) as usize].as_bytes();
    let found = fs.lookup(dir, name).map(|attr| attr.ino);
    let target = found.as_ref().copied().unwrap_or(0);
    let offset = pick(24, 40) * 3000;
    let forget = |attr: crate::inode::Attr| fs.forget(attr.ino, 1);
    match pick(0, 16) {
        0 => drop(fs.create(dir, name, &FILE).map(forget)),
        1 => drop(fs.mkdir(ROOT_INO, dirs[pick(16, 3) as usize].as_bytes(), &DIR).map(forget)),
        2 => drop(
            fs.symlink(dir, name, b"somewhere", &NewInode { mode: 0o120_777, umask: 0, ..FILE }).map(forget),
        ),
        3 => drop(fs.link(target, dir, other).map(forget)),
        4 => drop(fs.unlink(dir, name)),
        5 => drop(fs.rmdir(ROOT_INO, dirs[pick(16, 3) as usize].as_bytes())),
        6 | 7 => {
            let flags = if pick(30, 2) == 0 { RenameFlags::empty() } else { RenameFlags::EXCHANGE };
            drop(fs.rename(dir, name, ROOT_INO, other, flags));
        }
        8..=10 => drop(fs.write(target, offset, &vec![n as u8; 1 + pick(32, 20_000) as usize])),
        11 => drop(fs.setattr(target, &SetAttr { size: Some(offset), ..SetAttr::default() })),
        12 => {
            let mode = if pick(30, 2) == 0 { AllocateMode::Allocate } else { AllocateMode::PunchHole };
            drop(fs.fallocate(target, mode, pick(31, 2) == 0, offset, 30_000));
        }
        13 => {
            let name = format!("user.{}", pick(30, 3));
            drop(fs.setxattr(target, name.as_bytes(), &vec![1; pick(32, 9000) as usize], SetXattrMode::Any));
        }
        14 => drop(fs.removexattr(target, format!("user.{}", pick(30, 3)).as_bytes(), false)),
        _ => drop(fs.sync()),
    }
    if found.is_ok() {
        fs.forget(target, 1);
    }
}

#[test]
fn a_new_volume_is_sound() {
    assert_eq!(issues(&new_volume()), []);
}

#[test]
fn a_volume_in_use_is_sound_at_every_moment() {
    let device = new_volume();
    let (mut data_blocks, mut inodes) = (0, 0);
    let mut n = 0x1234_5678_9abc_def1u64;
    for round in 0..4 {
        let mount = mount(&device);
        for _ in 0..400 {
            // xorshift
            n ^= n << 13;
            n ^= n >> 7;
            n ^= n << 17;
            operation(mount.fs(), n);
            if n.is_multiple_of(8) {
                assert_eq!(issues(&device), []);
            }
        }
        if round % 3 != 1 {
            mount.unmount().unwrap();
        }
        drop(mount);
        let (issues, summary) = look(&device);
        assert_eq!(issues, [], "after round {round}");
        data_blocks += summary.data_blocks;
        inodes += summary.inodes;
    }
    assert!(data_blocks > 10 && inodes > 10, "the operations did something");
}

#[test]
fn an_unlinked_open_file_is_sound() {
    let device = new_volume();
    let mount = mount(&device);
    let fs = mount.fs();
    let ino = fs.create(ROOT_INO, b"a", &FILE).unwrap().ino;
    fs.write(ino, 0, &[1; 100_000]).unwrap();
    fs.open(ino, false).unwrap();
    fs.unlink(ROOT_INO, b"a").unwrap();
    fs.sync().unwrap();
    assert_eq!(issues(&device), []);
}
