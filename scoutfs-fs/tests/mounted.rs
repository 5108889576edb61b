// SPDX-License-Identifier: GPL-2.0-only
//! The whole stack on a device in memory: mkfs, mount, work, unmount, crash, mount again.

mod common;

use common::{Volume, file, name};
use scoutfs_format::item::ROOT_INO;
use scoutfs_format::key::{KIND_DATA_SEQ, KIND_META_SEQ};
use scoutfs_fs::Fs;

/// All entries of a change index.
fn walk(fs: &Fs, kind: u8) -> Vec<(u64, u64)> {
    let mut entries = Vec::new();
    fs.walk_index(kind, (0, 0), (u64::MAX, u64::MAX), usize::MAX, &mut |seq, ino| {
        entries.push((seq, ino));
        Ok(())
    })
    .unwrap();
    entries
}

#[test]
fn an_empty_volume_mounts_unmounts_and_mounts_again() {
    let volume = Volume::new(64 << 20);
    for _ in 0..3 {
        let mount = volume.mount();
        let root = mount.fs().getattr(ROOT_INO).unwrap();
        assert_eq!((root.ino, root.nlink), (ROOT_INO, 2));
        mount.unmount().unwrap();
        volume.check();
    }
}

#[test]
fn files_survive_an_unmount() {
    let volume = Volume::new(64 << 20);
    let mount = volume.mount();
    let fs = mount.fs();
    let data: Vec<u8> = (0..300_000u32).map(|i| (i * 7 % 251) as u8).collect();
    let mut inos = Vec::new();
    for i in 0..100 {
        let attr = fs.create(ROOT_INO, &name(i), &file()).unwrap();
        assert_eq!(fs.write(attr.ino, 0, &data[..i * 1000]).unwrap(), i * 1000);
        inos.push(attr.ino);
    }
    mount.unmount().unwrap();
    volume.check();
    let mount = volume.mount();
    let fs = mount.fs();
    for i in 0..100 {
        let attr = fs.lookup(ROOT_INO, &name(i)).unwrap();
        assert_eq!((attr.ino, attr.size), (inos[i], i as u64 * 1000));
        let mut read = vec![0; 400_000];
        let n = fs.read(attr.ino, 0, &mut read).unwrap();
        assert_eq!(read[..n], data[..i * 1000]);
    }
    mount.unmount().unwrap();
}

#[test]
fn what_sync_acknowledged_survives_a_crash() {
    let volume = Volume::new(64 << 20);
    let mount = volume.mount();
    let fs = mount.fs();
    for i in 0..500 {
        let attr = fs.create(ROOT_INO, &name(i), &file()).unwrap();
        fs.write(attr.ino, 0, &name(i)).unwrap();
        if i % 50 == 0 {
            fs.sync().unwrap();
        }
    }
    fs.sync().unwrap();
    let crashed = volume.crash();
    drop(mount);
    crashed.check();
    let mount = crashed.mount();
    for i in 0..500 {
        let attr = mount.fs().lookup(ROOT_INO, &name(i)).unwrap();
        let mut read = [0; 100];
        let n = mount.fs().read(attr.ino, 0, &mut read).unwrap();
        assert_eq!(read[..n], name(i)[..]);
    }
    mount.unmount().unwrap();
    crashed.check();
}

#[test]
fn the_change_index_shows_each_inode_once_at_its_newest_seq() {
    let volume = Volume::new(64 << 20);
    let mount = volume.mount();
    let fs = mount.fs();
    let one = fs.create(ROOT_INO, b"one", &file()).unwrap().ino;
    let two = fs.create(ROOT_INO, b"two", &file()).unwrap().ino;
    fs.sync().unwrap();
    let inos = |entries: &[(u64, u64)]| entries.iter().map(|e| e.1).collect::<Vec<_>>();
    let before = walk(fs, KIND_META_SEQ);
    assert_eq!(before.len(), 3, "{before:?}");
    fs.write(one, 0, b"again").unwrap();
    fs.sync().unwrap();
    let after = walk(fs, KIND_META_SEQ);
    assert_eq!(after.len(), 3, "{after:?}");
    assert_eq!(*inos(&after).last().unwrap(), one, "an inode that changed again moves to the end");
    assert_eq!(inos(&walk(fs, KIND_DATA_SEQ)), [one]);
    fs.forget(two, 1);
    fs.unlink(ROOT_INO, b"two").unwrap();
    fs.sync().unwrap();
    assert!(!inos(&walk(fs, KIND_META_SEQ)).contains(&two), "a deleted inode is gone");
    mount.unmount().unwrap();
    volume.check();
}

#[test]
fn logs_are_merged_while_the_mount_works() {
    let volume = Volume::new(128 << 20);
    let mount = volume.mount();
    let fs = mount.fs();
    for i in 0..20_000 {
        let attr = fs.create(ROOT_INO, &name(i), &file()).unwrap();
        fs.forget(attr.ino, 1);
    }
    for i in 0..20_000 {
        assert!(fs.lookup(ROOT_INO, &name(i)).is_ok(), "{i}");
    }
    for i in (0..20_000).step_by(2) {
        fs.unlink(ROOT_INO, &name(i)).unwrap();
    }
    fs.sync().unwrap();
    for i in 0..20_000 {
        assert_eq!(fs.lookup(ROOT_INO, &name(i)).is_ok(), i % 2 == 1, "{i}");
    }
    mount.unmount().unwrap();
    volume.check();
}

#[test]
fn a_full_volume_says_so_and_space_comes_back() {
    let volume = Volume::new(64 << 20);
    let mount = volume.mount();
    let fs = mount.fs();
    let chunk = vec![7u8; 1 << 20];
    for round in 0..3 {
        let ino = fs.create(ROOT_INO, b"big", &file()).unwrap().ino;
        let mut size = 0u64;
        let full = loop {
            match fs.write(ino, size, &chunk) {
                Ok(n) => size += n as u64,
                Err(e) => break e,
            }
        };
        assert_eq!(full.errno(), 28, "{full}");
        assert!(size > 30 << 20, "round {round}: only {size} bytes fit");
        fs.unlink(ROOT_INO, b"big").unwrap();
        fs.forget(ino, 1);
        fs.sync().unwrap();
    }
    mount.unmount().unwrap();
    volume.check();
}

/// Deletes always work on a full volume (invariant 40).
#[test]
fn a_volume_full_of_empty_files_can_be_emptied() {
    let volume = Volume::new(64 << 20);
    let mount = volume.mount();
    let fs = mount.fs();
    for round in 0..2 {
        let mut count = 0;
        let full = loop {
            match fs.create(ROOT_INO, &name(count), &file()) {
                Ok(attr) => fs.forget(attr.ino, 1),
                Err(e) => break e,
            }
            count += 1;
        };
        assert_eq!(full.errno(), 28, "{full}");
        assert!(count > 50_000, "round {round}: only {count} files");
        for i in 0..count {
            if let Err(e) = fs.unlink(ROOT_INO, &name(i)) {
                panic!("round {round}, file {i} of {count}: {e}, {:?}", fs.statfs());
            }
        }
    }
    mount.unmount().unwrap();
    volume.check();
}
