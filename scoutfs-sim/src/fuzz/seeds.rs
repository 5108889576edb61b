// SPDX-License-Identifier: GPL-2.0-only
//! Pieces of a real volume: one that was filled, merged, left, and that died in the middle of things.

use std::sync::{Arc, LazyLock};

use scoutfs_env::IoBuf;
use scoutfs_env::device::{BlockDevice, MemDevice};
use scoutfs_format::SECTOR_SIZE;
use scoutfs_format::geometry::RING_FRAMES;
use scoutfs_format::item::ROOT_INO;
use scoutfs_fs::Fs;
use scoutfs_fs::dir::NewInode;
use scoutfs_fs::xattr::SetXattrMode;

use crate::damage::{Kind, Unit, units};
use crate::reference::Data;
use crate::volume::{Pace, geometry, mount, new_volume};

const FILE: NewInode = NewInode { mode: 0o100_644, umask: 0, uid: 0, gid: 0, rdev: 0 };

/// The volume, and what a check of it reads.
static VOLUME: LazyLock<Arc<(MemDevice, Vec<Unit>)>> = LazyLock::new(|| {
    let disk = new_volume();
    let first = mount(&disk, Pace::Merging).expect("mount");
    fill(first.fs(), 0, 700);
    first.fs().sync().expect("sync");
    std::thread::sleep(std::time::Duration::from_millis(300));
    fill(first.fs(), 1, 40);
    first.unmount().expect("unmount");
    drop(first);
    let second = mount(&disk, Pace::Real).expect("mount");
    for round in 2..12 {
        fill(second.fs(), round, 5);
        second.fs().sync().expect("sync");
    }
    let memory = disk.memory().snapshot();
    second.unmount().expect("unmount");
    let units = units(&memory);
    Arc::new((memory, units))
});

fn fill(fs: &Fs, round: usize, files: usize) {
    for i in 0..files {
        let ino = fs.create(ROOT_INO, format!("{round}-{i}").as_bytes(), &FILE).expect("create").ino;
        if i % 3 == 0 {
            fs.write(ino, 4096 * (i as u64 % 7), &Data::new(i as u64, 5000).bytes()).expect("write");
        }
        if i % 4 == 0 {
            fs.setxattr(ino, b"user.some", &Data::new(1, 10 + i * 40 % 6000).bytes(), SetXattrMode::Any)
                .expect("setxattr");
        }
        fs.forget(ino, 1);
    }
}

fn read(offset: u64, len: usize) -> Vec<u8> {
    let mut buf = IoBuf::zeroed(len).expect("memory");
    VOLUME.0.read(offset, &mut buf).expect("within the volume");
    buf.to_vec()
}

/// Most pieces of one kind.
const MOST: usize = 8;

fn of_kind(kind: Kind, len: usize) -> Vec<Vec<u8>> {
    VOLUME.1.iter().filter(|unit| unit.kind == kind).take(MOST).map(|unit| read(unit.offset, len)).collect()
}

pub fn supers() -> Vec<Vec<u8>> {
    of_kind(Kind::Super, SECTOR_SIZE)
}

pub fn quorum_blocks() -> Vec<Vec<u8>> {
    of_kind(Kind::Quorum, SECTOR_SIZE)
}

pub fn nodes() -> Vec<Vec<u8>> {
    of_kind(Kind::Node, scoutfs_format::BLOCK_SIZE)
}

pub fn space_lists() -> Vec<Vec<u8>> {
    of_kind(Kind::SpaceList, scoutfs_format::BLOCK_SIZE)
}

/// Whole rings, without the frames at the end that were never written.
pub fn rings() -> Vec<Vec<u8>> {
    let geometry = geometry();
    let len = RING_FRAMES as usize * SECTOR_SIZE;
    let rings = (0..geometry.nr_slots()).map(|slot| read(geometry.slot_offset(slot), len));
    let written = rings.filter_map(|mut ring| {
        let last = ring.iter().rposition(|b| *b != 0)?;
        ring.truncate((last + 1).next_multiple_of(SECTOR_SIZE));
        Some(ring)
    });
    written.take(2).collect()
}
