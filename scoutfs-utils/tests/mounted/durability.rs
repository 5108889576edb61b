// SPDX-License-Identifier: GPL-2.0-only
//! What was synced survives the death of the daemon.
//!
//! A killed daemon loses all that it had in memory. That the device itself keeps what was flushed is proven elsewhere: by the
//! crash tests of the core, which know the device's cache.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;

use crate::pattern::content;
use crate::run::run;
use crate::volume::{Mounted, Volume};

/// Makes a change durable in one way, kills the daemon, and sees it in the next mount.
fn survives(change: impl FnOnce(&Mounted<'_>), is_there: impl FnOnce(&Mounted<'_>)) {
    let volume = Volume::new(64);
    let mut mounted = volume.mount_child();
    change(&mounted);
    mounted.kill_daemon();
    mounted.bury();
    let mounted = volume.mount();
    is_there(&mounted);
    mounted.unmount();
}

#[test]
fn sync_alone_makes_everything_durable() {
    survives(
        |m| {
            fs::create_dir(m.join("dir")).unwrap();
            for i in 0..100 {
                fs::write(m.join(format!("dir/{i}")), content(i, 100 * i as usize)).unwrap();
            }
            fs::remove_file(m.join("dir/7")).unwrap();
            fs::rename(m.join("dir/8"), m.join("moved")).unwrap();
            run(Command::new("sync"));
        },
        |m| {
            for i in (0..100).filter(|i| *i != 7 && *i != 8) {
                assert_eq!(fs::read(m.join(format!("dir/{i}"))).unwrap(), content(i, 100 * i as usize));
            }
            assert!(!m.join("dir/7").exists() && !m.join("dir/8").exists());
            assert_eq!(fs::read(m.join("moved")).unwrap(), content(8, 800));
        },
    );
}

#[test]
fn syncfs_makes_everything_durable() {
    survives(
        |m| {
            for i in 0..10 {
                fs::write(m.join(format!("{i}")), content(i, 9000)).unwrap();
            }
            m.sync();
        },
        |m| {
            for i in 0..10 {
                assert_eq!(fs::read(m.join(format!("{i}"))).unwrap(), content(i, 9000));
            }
        },
    );
}

#[test]
fn fsync_of_a_file_makes_it_durable() {
    survives(
        |m| {
            let synced = File::create(m.join("fsync")).unwrap();
            synced.write_all_at(&content(1, 300_000), 0).unwrap();
            synced.sync_all().unwrap();
            let data = File::create(m.join("fdatasync")).unwrap();
            data.write_all_at(&content(2, 5000), 10_000).unwrap();
            data.sync_data().unwrap();
            let mut each = OpenOptions::new()
                .create(true)
                .write(true)
                .custom_flags(libc::O_SYNC)
                .open(m.join("o_sync"))
                .unwrap();
            each.write_all(&content(3, 70_000)).unwrap();
        },
        |m| {
            assert_eq!(fs::read(m.join("fsync")).unwrap(), content(1, 300_000));
            let data = fs::read(m.join("fdatasync")).unwrap();
            assert_eq!((data.len(), &data[10_000..]), (15_000, &content(2, 5000)[..]));
            assert_eq!(fs::read(m.join("o_sync")).unwrap(), content(3, 70_000));
        },
    );
}

#[test]
fn fsync_of_a_directory_makes_its_names_durable() {
    survives(
        |m| {
            fs::create_dir(m.join("dir")).unwrap();
            File::create(m.join("dir/empty")).unwrap();
            File::create(m.join("dir/old")).unwrap();
            fs::rename(m.join("dir/old"), m.join("dir/new")).unwrap();
            File::open(m.join("dir")).unwrap().sync_all().unwrap();
        },
        |m| assert_eq!(names(&m.join("dir")).unwrap(), ["empty", "new"]),
    );
}

#[test]
fn memory_mapped_data_is_durable_after_msync() {
    survives(
        |m| {
            let file =
                OpenOptions::new().create_new(true).read(true).write(true).open(m.join("mapped")).unwrap();
            file.set_len(20_000).unwrap();
            crate::data::write_mapped(file.as_fd(), 20_000, 9000, &content(5, 6000));
        },
        |m| assert_eq!(&fs::read(m.join("mapped")).unwrap()[9000..15_000], content(5, 6000)),
    );
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.push(entry?.file_name().into_string().unwrap());
    }
    names.sort();
    Ok(names)
}
