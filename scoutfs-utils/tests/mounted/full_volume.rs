// SPDX-License-Identifier: GPL-2.0-only
//! A full volume says so, loses nothing, and gives the space back.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::pattern::content;
use crate::run::wait_until;
use crate::volume::{Mounted, Volume};

/// Space comes back with the commits that follow the deletion.
const PATIENCE: Duration = Duration::from_secs(60);

fn is_full(e: &io::Error) -> bool {
    e.raw_os_error() == Some(libc::ENOSPC)
}

/// At least 95 in 100 of `bytes` are available again. What is counted is what was really there for programs: the mount
/// takes some of a fresh volume for metadata.
fn wait_for_space(mounted: &Mounted<'_>, bytes: u64) {
    mounted.sync();
    wait_until(&format!("95 % of {bytes} bytes available"), PATIENCE, || {
        mounted.available_bytes() >= bytes / 100 * 95
    });
}

/// Writes files until the volume is full. Gives those that were written whole, by number.
fn fill_with_data(dir: &Path) -> Vec<(PathBuf, u64)> {
    fs::create_dir(dir).unwrap();
    let mut whole = Vec::new();
    for i in 0.. {
        let path = dir.join(format!("{i}"));
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(&content(i, 1 << 20))?;
            file.sync_all()
        });
        match written {
            Ok(()) => whole.push((path, i)),
            Err(e) => {
                assert!(is_full(&e), "{e}");
                return whole;
            }
        }
    }
    unreachable!()
}

#[test]
fn a_volume_full_of_data_keeps_it_and_gives_the_space_back() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let available = mounted.available_bytes();
    let mut first = None;
    // That every block comes back is proven in process, where that takes less time: `scoutfs-fs/tests/full.rs`.
    for round in 0..10 {
        let dir = mounted.join("dir");
        let files = fill_with_data(&dir);
        let bytes = (files.len() as u64) << 20;
        let expected = first.map_or(available / 100 * 75, |first: u64| first / 100 * 95);
        assert!(bytes >= expected, "round {round}: full with {bytes} of {expected} bytes");
        first.get_or_insert(bytes);
        for (path, seed) in &files {
            assert!(fs::read(path).unwrap() == content(*seed, 1 << 20), "{}", path.display());
        }
        // A full volume can be read, and emptied.
        fs::remove_dir_all(&dir).unwrap();
        wait_for_space(&mounted, bytes);
    }
    mounted.unmount();
}

#[test]
fn a_full_volume_can_be_rewritten_unmounted_and_mounted() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let files = fill_with_data(&mounted.join("dir"));
    // What is written already can be written again.
    let (path, _) = &files[files.len() / 2];
    fs::OpenOptions::new().write(true).open(path).unwrap().write_all(&content(4711, 1 << 20)).unwrap();
    mounted.sync();
    mounted.unmount();

    let mounted = volume.mount();
    assert!(fs::read(path).unwrap() == content(4711, 1 << 20));
    let error = fs::write(mounted.join("more"), content(1, 8 << 20)).unwrap_err();
    assert!(is_full(&error), "{error}");
    fs::remove_file(mounted.join("more")).unwrap();
    fs::remove_dir_all(mounted.join("dir")).unwrap();
    wait_for_space(&mounted, (files.len() as u64) << 20);
    mounted.unmount();
}

#[test]
fn a_volume_full_of_empty_files_can_be_emptied_again() {
    fill_with_empty_files(2);
}

fn fill_with_empty_files(rounds: usize) {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    // What stays makes the volume small, and a round short.
    let ballast = File::create(mounted.join("ballast")).unwrap();
    rustix::fs::fallocate(&ballast, rustix::fs::FallocateFlags::empty(), 0, 44 << 20).unwrap();
    drop(ballast);
    for round in 0..rounds {
        let dir = mounted.join("dir");
        fs::create_dir(&dir).unwrap();
        let mut count = 0u64;
        loop {
            match File::create(dir.join(format!("{count}"))) {
                Ok(_) => count += 1,
                Err(e) => {
                    assert!(is_full(&e), "{e}");
                    break;
                }
            }
        }
        assert!(count > 5_000, "round {round}: full with {count} empty files");
        assert_eq!(fs::read_dir(&dir).unwrap().count() as u64, count);
        fs::remove_dir_all(&dir).unwrap();
        fs::write(mounted.join("after"), vec![1; 1 << 20]).unwrap();
        fs::remove_file(mounted.join("after")).unwrap();
    }
    mounted.unmount();
}
