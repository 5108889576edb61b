// SPDX-License-Identifier: GPL-2.0-only
//! Several threads and processes at once: listing, appending, waiting for locks, and what a stranger's change takes away.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::thread::JoinHandleExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat};
use rustix::io::Errno;
use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::cluster::{leave, nodes};
use crate::run::{SOON, open_at, program, run, run_or_kill};
use crate::volume::Volume;

#[test]
fn a_listing_shows_what_stays_exactly_once_while_others_create_and_unlink() {
    let volume = Volume::new(128);
    let mounted = volume.mount();
    let dir = mounted.join("dir");
    fs::create_dir(&dir).unwrap();
    // What comes and goes lies between what stays.
    let kept: BTreeSet<String> = (0..1500).map(|n| format!("kept{n}")).collect();
    for (n, name) in kept.iter().enumerate() {
        File::create(dir.join(name)).unwrap();
        File::create(dir.join(format!("gone{n}"))).unwrap();
    }
    let (done, dir) = (AtomicBool::new(false), dir.as_path());
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in (0..kept.len()).rev().take_while(|_| !done.load(Relaxed)) {
                fs::remove_file(dir.join(format!("gone{n}"))).unwrap();
            }
        });
        for churner in 0..2 {
            let done = &done;
            scope.spawn(move || {
                // No name comes twice.
                for n in (0..).take_while(|_| !done.load(Relaxed)) {
                    let path = dir.join(format!("churn{churner}-{n}"));
                    File::create(&path).unwrap();
                    if n % 4 != 0 {
                        fs::remove_file(&path).unwrap();
                    }
                }
            });
        }
        let lister = scope.spawn(|| {
            for round in 0..20 {
                let mut seen = BTreeSet::new();
                for entry in fs::read_dir(dir).unwrap() {
                    let name = entry.unwrap().file_name().into_string().unwrap();
                    assert!(!seen.contains(&name), "{name} twice in round {round}");
                    seen.insert(name);
                }
                let missing: Vec<_> = kept.difference(&seen).collect();
                assert!(missing.is_empty(), "round {round}: {missing:?}");
            }
        });
        let listed = lister.join();
        // Also when that failed, or the others would go on.
        done.store(true, Relaxed);
        listed.unwrap();
    });
    mounted.unmount();
}

#[test]
fn records_appended_by_many_processes_are_all_there_and_whole() {
    const PROCESSES: usize = 6;
    const RECORDS: usize = 150;
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let log = mounted.join("log");
    let record = |process: usize| char::from(b'a' + process as u8).to_string().repeat(97);
    let script = r#"n=0; while [ $n -lt $2 ]; do echo "$3"; n=$((n+1)); done >>"$1""#;
    thread::scope(|scope| {
        for process in 0..PROCESSES {
            let (log, record) = (&log, record(process));
            scope.spawn(move || {
                let mut shell = program("sh", ["-c", script, "sh"]);
                run(shell.arg(log).arg(RECORDS.to_string()).arg(record));
            });
        }
    });
    mounted.unmount();
    let mounted = volume.mount();
    let text = fs::read_to_string(&log).unwrap();
    for process in 0..PROCESSES {
        let record = record(process);
        assert_eq!(text.lines().filter(|line| *line == record).count(), RECORDS);
    }
    assert_eq!(text.lines().count(), PROCESSES * RECORDS);
    mounted.unmount();
}

/// A lock of a whole file that belongs to the open file, not to the process.
fn lock_description(file: &File) {
    // SAFETY: all zeros are a lock of the whole file.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as i16;
    // SAFETY: an open descriptor and a lock that lives.
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) }, 0);
}

/// Waits for a lock in a thread, and sends it signals until it gives up. Gives its errno.
fn wait_and_interrupt(file: RawFd, wait: fn(RawFd) -> i32) -> Option<i32> {
    let waiter = thread::spawn(move || {
        (wait(file) != 0).then(|| std::io::Error::last_os_error().raw_os_error().unwrap())
    });
    let start = Instant::now();
    // Another signal for the one that came before the thread waited.
    while !waiter.is_finished() {
        assert!(start.elapsed() < SOON, "signals do not interrupt the wait for a lock");
        // SAFETY: the thread was not joined yet.
        unsafe { libc::pthread_kill(waiter.as_pthread_t(), libc::SIGUSR1) };
        sleep(Duration::from_millis(50));
    }
    waiter.join().unwrap()
}

#[test]
fn waiting_locks_are_interrupted_by_signals_and_hang_nothing() {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: a handler that does nothing, without SA_RESTART, for a signal that nothing else here uses.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()), 0);
    }
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let path = mounted.join("file");
    File::create(&path).unwrap();
    let open = || OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let works = |n: u64| {
        fs::write(mounted.join(format!("other{n}")), "content").unwrap();
        mounted.sync();
    };

    // A process's lock behind an open file's.
    let (holder, waiter) = (open(), open());
    lock_description(&holder);
    let wait_fcntl = |fd| {
        // SAFETY: all zeros are a lock of the whole file; the descriptor is open until the thread has ended.
        unsafe {
            let mut lock: libc::flock = std::mem::zeroed();
            lock.l_type = libc::F_WRLCK as i16;
            libc::fcntl(fd, libc::F_SETLKW, &lock)
        }
    };
    assert_eq!(wait_and_interrupt(waiter.as_raw_fd(), wait_fcntl), Some(libc::EINTR));
    works(1);
    drop(holder);
    assert_eq!(wait_fcntl(waiter.as_raw_fd()), 0, "the lock is free");
    drop(waiter);

    // flock.
    let (holder, waiter) = (open(), open());
    // SAFETY: the descriptor is open until the thread has ended.
    let wait_flock = |fd| unsafe { libc::flock(fd, libc::LOCK_EX) };
    assert_eq!(wait_flock(holder.as_raw_fd()), 0);
    assert_eq!(wait_and_interrupt(waiter.as_raw_fd(), wait_flock), Some(libc::EINTR));
    works(2);

    // Another process that waits is killed.
    let mut command = program("flock", ["-x"]);
    command.arg(&path).arg("true");
    let (_, ended_by_itself) = run_or_kill(&mut command, Duration::from_secs(1));
    assert!(!ended_by_itself, "the lock was held");
    works(3);
    drop(holder);
    assert_eq!(wait_flock(waiter.as_raw_fd()), 0, "the lock is free");
    drop(waiter);
    run(&mut command);
    mounted.unmount();
}

#[test]
fn a_temporary_file_gets_a_name_once_and_only_if_it_may() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let temporary = |flags| {
        let flags = OFlags::TMPFILE | OFlags::RDWR | flags;
        File::from(open_at(CWD, mounted.path(), flags, Mode::from_raw_mode(0o640)).unwrap())
    };
    let link = |file: &File, name: &str| {
        let source = format!("/proc/self/fd/{}", file.as_raw_fd());
        linkat(CWD, &source, CWD, mounted.join(name), AtFlags::SYMLINK_FOLLOW)
    };
    let file = temporary(OFlags::empty());
    file.write_all_at(b"content", 0).unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    assert_eq!(fs::read_dir(mounted.path()).unwrap().count(), 0);
    fs::write(mounted.join("taken"), "").unwrap();
    assert_eq!(link(&file, "taken"), Err(Errno::EXIST));
    link(&file, "name").unwrap();
    link(&file, "second").unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 2);
    let private = temporary(OFlags::EXCL);
    private.write_all_at(b"private", 0).unwrap();
    assert_eq!(link(&private, "never"), Err(Errno::NOENT));
    // Once unlinked, a file stays so.
    let unlinked = File::create(mounted.join("unlinked")).unwrap();
    fs::remove_file(mounted.join("unlinked")).unwrap();
    assert_eq!(link(&unlinked, "never"), Err(Errno::NOENT));
    drop((file, private, unlinked));
    mounted.unmount();

    let mounted = volume.mount();
    let metadata = fs::metadata(mounted.join("name")).unwrap();
    assert_eq!((metadata.nlink(), metadata.mode() & 0o7777), (2, 0o640));
    assert_eq!(fs::read(mounted.join("second")).unwrap(), b"content");
    assert_eq!(fs::read_dir(mounted.path()).unwrap().count(), 3);
    mounted.unmount();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// A kernel that knows that a file has no capabilities does not ask again: another node may give it some meanwhile.
#[test]
fn capabilities_of_a_file_go_when_any_node_writes_it() {
    const NAME: &str = "security.capability";
    // Version 2 of Linux' format: all bits of the lower half permitted.
    let mut all = [0u8; 20];
    all[..8].copy_from_slice(&[0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff]);
    let volume = Volume::new(256);
    let nodes = nodes(&volume, 2);
    let files = [0, 1].map(|n| nodes[n].join("program"));
    let has = |n: usize| rustix::fs::getxattr(&files[n], NAME, &mut [0u8; 64][..]);
    fs::write(&files[0], "code").unwrap();
    let open = OpenOptions::new().write(true).open(&files[0]).unwrap();
    for (giver, change) in [
        (0, (|file| file.write_all_at(b"more", 4).unwrap()) as fn(&File)),
        (1, |file| file.write_all_at(b"more", 8).unwrap()),
        (1, |file| file.write_all_at(&[7; 256 << 10], 12).unwrap()),
        (0, |file| file.set_len(100_000).unwrap()),
        (1, |file| rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, 200_000).unwrap()),
    ] {
        open.write_all_at(b"code", 0).unwrap();
        rustix::fs::setxattr(&files[giver], NAME, &all, rustix::fs::XattrFlags::empty()).unwrap();
        assert_eq!((has(0), has(1)), (Ok(20), Ok(20)));
        change(&open);
        assert_eq!((has(0), has(1)), (Err(rustix::io::Errno::NODATA), Err(rustix::io::Errno::NODATA)));
    }
    drop(open);
    leave(&volume, nodes);
}

#[test]
fn set_id_bits_go_when_the_owner_or_the_content_changes() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let make = |name: &str, mode| {
        let path = mounted.join(name);
        fs::write(&path, "content").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    };
    // Root's chown too; of a set-group-ID bit only where the group may execute, and never of a directory.
    let chowned = make("chowned", 0o6755);
    chown(&chowned, Some(4711), None).unwrap();
    assert_eq!(mode(&chowned), 0o755);
    let not_executable = make("not_executable", 0o6744);
    chown(&not_executable, None, Some(4712)).unwrap();
    assert_eq!(mode(&not_executable), 0o2744);
    let dir = mounted.join("dir");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, Permissions::from_mode(0o6755)).unwrap();
    chown(&dir, Some(4711), Some(4712)).unwrap();
    assert_eq!(mode(&dir), 0o6755);

    // Root's write does not.
    let [written, truncated, allocated, by_root] =
        ["written", "truncated", "allocated", "by_root"].map(|name| make(name, 0o6777));
    OpenOptions::new().write(true).open(&by_root).unwrap().write_all_at(b"x", 0).unwrap();
    assert_eq!(mode(&by_root), 0o6777);
    // A stranger's does, as does each other way to change the content.
    let [to_write, to_truncate, to_allocate] =
        [&written, &truncated, &allocated].map(|path| OpenOptions::new().write(true).open(path).unwrap());
    thread::scope(|scope| {
        scope.spawn(|| {
            let (uid, gid) = (Uid::from_raw(4711), Gid::from_raw(4712));
            set_thread_groups(&[]).unwrap();
            set_thread_res_gid(gid, gid, gid).unwrap();
            set_thread_res_uid(uid, uid, uid).unwrap();
            to_write.write_all_at(b"x", 0).unwrap();
            to_truncate.set_len(3).unwrap();
            rustix::fs::fallocate(&to_allocate, rustix::fs::FallocateFlags::empty(), 0, 10_000).unwrap();
        });
    });
    drop((to_write, to_truncate, to_allocate));
    for path in [&written, &truncated, &allocated] {
        assert_eq!(mode(path), 0o777, "{}", path.display());
    }
    mounted.unmount();
    let mounted = volume.mount();
    for name in ["written", "truncated", "allocated"] {
        assert_eq!(mode(&mounted.join(name)), 0o777);
    }
    mounted.unmount();
}
