// SPDX-License-Identifier: GPL-2.0-only
//! Operations that meet: none waits for another in a circle, and each answers what may be answered.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use common::{Volume, file, name};
use scoutfs_format::item::ROOT_INO;
use scoutfs_fs::Error;
use scoutfs_fs::data::AllocateMode;
use scoutfs_fs::dir::RenameFlags;
use scoutfs_fs::inode::SetAttr;

/// Runs `f`, which must come to its end: threads that wait for each other cannot be ended, so the process is.
fn in_time(f: impl FnOnce()) {
    let (done, is_done) = channel::<()>();
    thread::spawn(move || {
        if is_done.recv_timeout(Duration::from_secs(300)) == Err(RecvTimeoutError::Timeout) {
            eprintln!("operations wait for each other");
            std::process::abort();
        }
    });
    f();
    drop(done);
}

/// Invariant 16: all that works on one file and its directory, at once, with commits in between.
#[test]
fn operations_on_one_file_never_wait_for_each_other_in_a_circle() {
    const ROUNDS: u64 = 300;
    let volume = Volume::new(64 << 20);
    let mount = volume.mount();
    let fs = mount.fs();
    let ino = fs.create(ROOT_INO, b"a", &file()).unwrap().ino;
    let other = fs.create(ROOT_INO, b"b", &file()).unwrap().ino;
    let size = |size| SetAttr { size: Some(size), ..SetAttr::default() };
    let fits = |result: Result<(), Error>| {
        if let Err(e) = result {
            assert!(matches!(e, Error::NoSpace), "{e}");
        }
    };
    in_time(|| {
        thread::scope(|s| {
            let run = |f: &'static str, op: &(dyn Fn(u64) + Sync)| {
                for n in 0..ROUNDS {
                    op(n);
                }
                f
            };
            s.spawn(move || run("write", &|n| fits(fs.write(ino, n % 9 * 50_000, &[1; 90_000]).map(drop))));
            s.spawn(move || run("append", &|_| fits(fs.append(ino, &[2; 5_000]).map(drop))));
            s.spawn(move || {
                run("read", &|n| {
                    let mut data = vec![0; 100_000];
                    fs.read(ino, n % 7 * 40_000, &mut data).unwrap();
                })
            });
            s.spawn(move || {
                run("truncate", &|n| {
                    fs.setattr(ino, &size(n % 5 * 60_000)).unwrap();
                })
            });
            s.spawn(move || {
                run("fallocate", &|n| {
                    let mode = [AllocateMode::Allocate, AllocateMode::PunchHole, AllocateMode::ZeroRange];
                    let mode = mode[n as usize % 3];
                    fits(fs.fallocate(
                        ino,
                        mode,
                        n % 2 == 0 || mode == AllocateMode::PunchHole,
                        n * 1000,
                        70_000,
                    ));
                })
            });
            s.spawn(move || run("fiemap", &|_| drop(fs.fiemap(ino, 0, u64::MAX, 100).unwrap())));
            s.spawn(move || {
                run("list", &|_| {
                    fs.readdir(ROOT_INO, 0, &mut |entry| {
                        // Who lists may look at what it lists.
                        entry.ino == ROOT_INO || fs.getattr(entry.ino).is_ok()
                    })
                    .unwrap();
                })
            });
            s.spawn(move || {
                run("exchange", &|_| {
                    fs.rename(ROOT_INO, b"a", ROOT_INO, b"b", RenameFlags::EXCHANGE).unwrap();
                })
            });
            s.spawn(move || {
                run("sync", &|n| if n % 10 == 0 { fs.sync().unwrap() } else { fs.fsync(other).unwrap() })
            });
        });
    });
    fs.sync().unwrap();
    mount.unmount().unwrap();
    volume.check();
}

/// Invariant 28: the sums hold while files come and go, logs are merged and space moves between the mount and its server; and
/// in the end they are what they were.
#[test]
fn statfs_tells_sums_that_hold_while_everything_changes() {
    let volume = Volume::new(64 << 20);
    let mount = volume.mount();
    let fs = mount.fs();
    fs.sync().unwrap();
    let before = fs.statfs().unwrap();
    let stop = AtomicBool::new(false);
    let asked = in_scope(
        &stop,
        |stop| {
            let mut asked = 0;
            while !stop.load(Ordering::Acquire) {
                let s = fs.statfs().unwrap();
                assert!(s.free_meta <= s.total_meta && s.free_data <= s.total_data, "{s:?}");
                assert!(s.server_free_meta <= s.free_meta && s.server_free_data <= s.free_data, "{s:?}");
                assert!((1..=before.inodes + 8_000).contains(&s.inodes), "{s:?}");
                asked += 1;
            }
            asked
        },
        || {
            thread::scope(|s| {
                for who in 0..3 {
                    s.spawn(move || {
                        for n in 0..2_500 {
                            let name = name(who * 10_000 + n);
                            let ino = fs.create(ROOT_INO, &name, &file()).unwrap().ino;
                            fs.write(ino, 0, &vec![1; n % 30_000]).unwrap();
                            fs.unlink(ROOT_INO, &name).unwrap();
                            fs.forget(ino, 1);
                            if n % 200 == 0 {
                                fs.sync().unwrap();
                            }
                        }
                    });
                }
            });
        },
    );
    assert!(asked > 10, "asked {asked} times");
    fs.sync().unwrap();
    let after = fs.statfs().unwrap();
    assert_eq!(after.inodes, before.inodes);
    // Nothing is left in files, so what is not free is what it was: nothing.
    assert_eq!(after.total_data - after.free_data, before.total_data - before.free_data);
    mount.unmount().unwrap();
    volume.check();
}

/// Runs `aside` in a thread until `f` is done, also when that fails. Gives what `aside` found.
fn in_scope<T: Send>(stop: &AtomicBool, aside: impl FnOnce(&AtomicBool) -> T + Send, f: impl FnOnce()) -> T {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    thread::scope(|s| {
        let aside = s.spawn(|| aside(stop));
        let ending = Stop(stop);
        f();
        drop(ending);
        aside.join().unwrap()
    })
}
