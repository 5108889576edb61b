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

/// Two voters are needed and there: one of the mounts leads and works, also when the other has gone; the other cannot
/// join it yet, and says so instead of waiting for ever.
#[test]
fn of_two_mounts_that_elect_a_leader_the_other_is_refused_as_long_as_only_one_can_work() {
    let volume = Volume::with_quorum(64 << 20, 2);
    let (one, two) = std::thread::scope(|scope| {
        let one = scope.spawn(|| volume.try_mount());
        let two = scope.spawn(|| volume.try_mount());
        (one.join().unwrap(), two.join().unwrap())
    });
    let (mount, refusal) = match (one, two) {
        (Ok(mount), Err(e)) | (Err(e), Ok(mount)) => (mount, e),
        (one, two) => panic!("{:?}, {:?}", one.err(), two.err()),
    };
    assert!(matches!(refusal, scoutfs_fs::Error::InUse { .. }), "{refusal}");
    mount.fs().create(ROOT_INO, b"file", &file()).unwrap();
    mount.unmount().unwrap();
    volume.check();
}

/// Nobody else led while the device hung (or the machine slept), so the leader goes on, and so does its mount.
#[test]
fn a_device_that_hangs_for_longer_than_the_leaders_lease_delays_what_waits_and_loses_nothing() {
    let volume = Volume::new(64 << 20);
    let mount = volume.mount_with_lease(700);
    let fs = mount.fs();
    fs.create(ROOT_INO, b"before", &file()).unwrap();
    fs.sync().unwrap();
    fs.create(ROOT_INO, b"while", &file()).unwrap();
    let hung = volume.hang();
    std::thread::scope(|scope| {
        let synced = scope.spawn(|| fs.sync());
        let walked = scope.spawn(|| walk(fs, KIND_META_SEQ).len());
        std::thread::sleep(std::time::Duration::from_millis(2_000));
        assert!(!synced.is_finished(), "acknowledged by a device that hangs");
        drop(hung);
        synced.join().unwrap().unwrap();
        assert!(walked.join().unwrap() >= 2);
    });
    fs.create(ROOT_INO, b"after", &file()).unwrap();
    fs.sync().unwrap();
    mount.unmount().unwrap();
    volume.check();
    let mount = volume.mount();
    for name in [b"before".as_slice(), b"while", b"after"] {
        mount.fs().lookup(ROOT_INO, name).unwrap();
    }
    mount.unmount().unwrap();
}

/// Invariant 48: however busy the mount is.
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
    let mut pieces = 0;
    fs.for_each_counter(&mut |name, value| {
        if name == "merge_pieces" {
            pieces = value;
        }
        Ok(())
    })
    .unwrap();
    fs.sync().unwrap();
    for i in 0..20_000 {
        assert_eq!(fs.lookup(ROOT_INO, &name(i)).is_ok(), i % 2 == 1, "{i}");
    }
    assert_ne!(pieces, 0, "nothing was merged");
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

/// Fills the smallest volume with files that are metadata only and deletes them all, in another order each round, and every
/// other time by another mount. Each round has room for as many as the first, all but a few.
fn fill_and_empty(rounds: usize, make: impl Fn(&scoutfs_fs::Fs, usize) -> scoutfs_fs::Result<()>) {
    let volume = Volume::new(64 << 20);
    let mut mount = volume.mount();
    let mut first = None;
    for round in 0..rounds {
        let mut count = 0;
        let full = loop {
            match make(mount.fs(), count) {
                Ok(()) => count += 1,
                Err(e) => break e,
            }
        };
        assert_eq!(full.errno(), 28, "{full}");
        let expected = first.map_or(10_000, |first: usize| first / 100 * 95);
        assert!(
            count >= expected,
            "round {round}: only {count} of {expected} files, {:?}",
            mount.fs().statfs()
        );
        first.get_or_insert(count);
        if round % 2 == 1 {
            mount.unmount().unwrap();
            volume.check();
            mount = volume.mount();
        }
        // The last one may have been made in part.
        let count = count + 1;
        let stride = [1, count - 1, 7919][round % 3];
        let strided = (0..count).map(|i| i * stride % count);
        for which in strided.chain(0..count) {
            match mount.fs().unlink(ROOT_INO, &name(which)) {
                Ok(()) | Err(scoutfs_fs::Error::NotFound) => {}
                Err(e) => panic!("round {round}, file {which} of {count}: {e}, {:?}", mount.fs().statfs()),
            }
        }
    }
    mount.unmount().unwrap();
    volume.check();
}

/// Deletes work on a full volume (invariant 40).
#[test]
fn a_volume_full_of_empty_files_can_be_emptied_again_and_again() {
    fill_and_empty(4, |fs, i| {
        let attr = fs.create(ROOT_INO, &name(i), &file())?;
        fs.forget(attr.ino, 1);
        Ok(())
    });
}

/// The same with items of all sizes, and with items that are added later to leaves that are full.
#[test]
fn a_volume_full_of_attributes_can_be_emptied_again_and_again() {
    fill_and_empty(3, |fs, i| {
        let attr = fs.create(ROOT_INO, &name(i), &file())?;
        let value = vec![7; i * 31 % 3000];
        let set = fs.setxattr(attr.ino, b"user.x", &value, scoutfs_fs::xattr::SetXattrMode::Any);
        fs.forget(attr.ino, 1);
        set?;
        if i > 100 {
            let old = fs.lookup(ROOT_INO, &name(i * 7919 % i))?;
            let set = fs.setxattr(old.ino, b"user.later", &value, scoutfs_fs::xattr::SetXattrMode::Any);
            fs.forget(old.ino, 1);
            set?;
        }
        Ok(())
    });
}

/// A commit never needs more blocks than are kept for it, even with one changed item in each leaf (invariant 9): a big
/// directory on the smallest volume, renamed at random.
#[test]
fn random_renames_in_a_big_directory_never_outgrow_a_commit() {
    let volume = Volume::new(64 << 20);
    let mount = volume.mount();
    let fs = mount.fs();
    const FILES: usize = 20_000;
    for i in 0..FILES {
        let attr = fs.create(ROOT_INO, &name(i), &file()).unwrap();
        fs.forget(attr.ino, 1);
    }
    let mut at: Vec<usize> = (0..FILES).collect();
    let mut random = 12345u64;
    for round in 0..10_000 {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let which = (random >> 33) as usize % FILES;
        let to = FILES + round;
        let flags = scoutfs_fs::dir::RenameFlags::empty();
        fs.rename(ROOT_INO, &name(at[which]), ROOT_INO, &name(to), flags).unwrap();
        at[which] = to;
    }
    fs.sync().unwrap();
    for i in &at {
        assert!(fs.lookup(ROOT_INO, &name(*i)).is_ok(), "{i}");
    }
    mount.unmount().unwrap();
    volume.check();
}

/// Free space in as many pieces as there can be is written down, given back and used again (invariants 24, 29, 34): every
/// second block of a full volume.
#[test]
fn a_full_volume_in_fragments_goes_on() {
    let volume = Volume::new(64 << 20);
    let mount = volume.mount();
    let fs = mount.fs();
    let block = [5u8; 4096];
    let fill = |from: usize| {
        let mut count = from;
        loop {
            let made = fs.create(ROOT_INO, &name(count), &file()).and_then(|attr| {
                let written = fs.write(attr.ino, 0, &block);
                fs.forget(attr.ino, 1);
                written
            });
            match made {
                Ok(_) => count += 1,
                Err(e) => {
                    assert_eq!(e.errno(), 28, "{e}");
                    // The file without its block.
                    let _ = fs.unlink(ROOT_INO, &name(count));
                    return count;
                }
            }
        }
    };
    let count = fill(0);
    assert!(count > 5_000, "only {count} files");
    for i in (0..count).step_by(2) {
        fs.unlink(ROOT_INO, &name(i)).unwrap();
    }
    fs.sync().unwrap();
    let end = fill(count);
    assert!(end - count > count / 4, "only {} of {} blocks came back", end - count, count / 2);
    for i in (1..count).step_by(2).chain(count..end) {
        fs.unlink(ROOT_INO, &name(i)).unwrap();
    }
    mount.unmount().unwrap();
    volume.check();
}
