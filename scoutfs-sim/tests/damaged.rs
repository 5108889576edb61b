// SPDX-License-Identifier: GPL-2.0-only
//! Damaged volumes: an error, never a panic, never a loop.
//!
//! Each case damages a few places of one volume so that all checksums are right, checks it, and mounts it; if that
//! works, everything is read and most of it is changed. Nothing is asked of the results but that there are any.
//!
//! `SCOUTFS_FUZZ_SEEDS=n` runs n cases; `SCOUTFS_FUZZ_SEED=n` repeats one and shows the log lines.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use scoutfs_env::device::MemDevice;
use scoutfs_env::log;
use scoutfs_format::item::ROOT_INO;
use scoutfs_format::key::{KIND_DATA_SEQ, KIND_META_SEQ};
use scoutfs_fs::data::AllocateMode;
use scoutfs_fs::dir::{NewInode, RenameFlags};
use scoutfs_fs::inode::SetAttr;
use scoutfs_fs::xattr::SetXattrMode;
use scoutfs_fs::{Fs, Result};
use scoutfs_sim::damage::{Unit, damage, units};
use scoutfs_sim::disk::Disk;
use scoutfs_sim::reference::{Content, Data};
use scoutfs_sim::rng::Rng;
use scoutfs_sim::tree::read_tree;
use scoutfs_sim::volume::{Pace, issues, mount, new_volume};

/// Most of the time of a case is waiting.
const THREADS: usize = 6;
/// A case that takes longer hangs. Sound ones take a tenth of a second.
const PATIENCE: Duration = Duration::from_secs(20);

const FILE: NewInode = NewInode { mode: 0o100_644, umask: 0, uid: 0, gid: 0, rdev: 0 };
const DIR: NewInode = NewInode { mode: 0o040_755, umask: 0, uid: 0, gid: 0, rdev: 0 };
const LINK: NewInode = NewInode { mode: 0o120_777, umask: 0, uid: 0, gid: 0, rdev: 0 };

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// Some of everything in a new directory.
fn fill(fs: &Fs, name: &[u8], files: usize) -> Result<()> {
    let dir = fs.mkdir(ROOT_INO, name, &DIR)?.ino;
    for i in 0..files {
        let name = format!("file-{i}-{}", "n".repeat(i % 100));
        let ino = fs.create(dir, name.as_bytes(), &FILE)?.ino;
        fs.forget(ino, 1);
        match i % 8 {
            0 => fs.write(ino, 0, &Data::new(i as u64, 100 + i * 50).bytes()).map(|_| ())?,
            1 => fs.write(ino, 1 << 20, &Data::new(i as u64, 9000).bytes()).map(|_| ())?,
            2 => fs.setxattr(ino, b"user.long", &Data::new(i as u64, 9000).bytes(), SetXattrMode::Any)?,
            3 => fs.setxattr(ino, b"user.short", b"value", SetXattrMode::Any)?,
            4 => fs.fallocate(ino, AllocateMode::Allocate, i % 16 == 4, 0, 100_000)?,
            5 => {
                let other = format!("link-{i}");
                fs.link(ino, dir, other.as_bytes())?;
                fs.forget(ino, 1);
            }
            6 => {
                let other = format!("symlink-{i}");
                let link = fs.symlink(dir, other.as_bytes(), &Data::new(1, 1 + i % 200).bytes(), &LINK)?;
                fs.forget(link.ino, 1);
            }
            _ => fs.unlink(dir, name.as_bytes())?,
        }
    }
    let below = fs.mkdir(dir, b"below", &DIR)?.ino;
    fs.forget(fs.create(below, b"file", &FILE)?.ino, 1);
    fs.forget(below, 1);
    fs.forget(dir, 1);
    Ok(())
}

/// A volume with merged items, log trees, records with items, orphans, and slots of mounts that left and that died.
fn volume() -> MemDevice {
    let disk = new_volume();
    let first = mount(&disk, Pace::Merging).unwrap();
    fill(first.fs(), b"first", 800).unwrap();
    first.fs().sync().unwrap();
    thread::sleep(Duration::from_millis(500));
    fill(first.fs(), b"second", 50).unwrap();
    first.unmount().unwrap();
    let second = mount(&disk, Pace::Real).unwrap();
    fill(second.fs(), b"third", 50).unwrap();
    second.fs().sync().unwrap();
    drop(second);
    let third = mount(&disk, Pace::Real).unwrap();
    fill(third.fs(), b"fourth", 30).unwrap();
    third.unmount().unwrap();
    let fourth = mount(&disk, Pace::Real).unwrap();
    let fs = fourth.fs();
    fill(fs, b"fifth", 300).unwrap();
    // Unlinked and open when the power fails.
    let orphan = fs.create(ROOT_INO, b"orphan", &FILE).unwrap().ino;
    fs.write(orphan, 0, &Data::new(1, 50_000).bytes()).unwrap();
    fs.unlink(ROOT_INO, b"orphan").unwrap();
    fs.sync().unwrap();
    for i in 0..20 {
        fill(fs, format!("small-{i}").as_bytes(), 3).unwrap();
        fs.sync().unwrap();
    }
    let memory = disk.memory().snapshot();
    fourth.unmount().unwrap();
    memory
}

/// Reads everything, and changes most of it. Errors are fine.
fn exercise(fs: &Fs, rng: &mut Rng) {
    let tree = read_tree(fs, &mut |_, _| ());
    for kind in [KIND_META_SEQ, KIND_DATA_SEQ] {
        let _ = fs.walk_index(kind, (0, 0), (u64::MAX, u64::MAX), 100_000, &mut |_, ino| {
            let _ = fs.stat_more(ino);
            Ok(())
        });
    }
    let _ = fs.statfs();
    let mut names: BTreeMap<u64, Vec<(u64, Vec<u8>)>> = BTreeMap::new();
    for (dir, node) in &tree {
        if let Content::Dir(entries) = &node.content {
            for (name, ino) in entries {
                names.entry(*ino).or_default().push((*dir, name.0.clone()));
            }
        }
    }
    let _ = fill(fs, b"new", 10);
    for (ino, node) in &tree {
        if tree.len() > 100 && !rng.one_in(1 + tree.len() / 100) {
            continue;
        }
        let _ = fs.setxattr(*ino, b"user.new", &Data::new(*ino, 100).bytes(), SetXattrMode::Any);
        if let Content::File(bytes) = &node.content {
            let _ = fs.open(*ino, false);
            let _ = fs.seek_data(*ino, 0);
            let _ = fs.seek_hole(*ino, 0);
            let _ = fs.write(*ino, bytes.len() as u64 / 2, &Data::new(*ino, 5000).bytes());
            let _ = fs.append(*ino, b"more");
            let _ = fs.fallocate(*ino, AllocateMode::PunchHole, true, 4096, 8192);
            let _ = fs.setattr(*ino, &SetAttr { size: Some(bytes.len() as u64 / 3), ..SetAttr::default() });
            fs.release(*ino, false);
        }
        for name in node.xattrs.keys() {
            let _ = fs.removexattr(*ino, name, false);
        }
        for (i, (dir, name)) in names.get(ino).into_iter().flatten().enumerate() {
            let _ = fs.lookup(*dir, name).map(|attr| fs.forget(attr.ino, 1));
            let _ = match (&node.content, i) {
                (Content::Dir(_), _) => fs.rmdir(*dir, name),
                (_, 0) => fs.rename(*dir, name, ROOT_INO, b"moved", RenameFlags::empty()),
                _ => fs.unlink(*dir, name),
            };
        }
        if rng.one_in(20) {
            let _ = fs.sync();
        }
    }
    let _ = fs.sync();
}

/// How far a case came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Refused,
    Mounted,
    Unmounted,
}

fn run_case(base: &MemDevice, units: &[Unit], seed: u64) -> Outcome {
    let mut rng = Rng::new(seed);
    let disk = Disk::new(base.snapshot());
    for _ in 0..=rng.below(3) {
        damage(disk.memory(), units, &mut rng);
    }
    match issues(&disk) {
        Ok((_, issues)) => issues.iter().for_each(|issue| log::info!("seed {seed}: {issue}")),
        Err(e) => log::info!("seed {seed}: check: {e}"),
    }
    let mounted = match mount(&disk, Pace::Fast) {
        Ok(mounted) => mounted,
        Err(e) => {
            log::info!("seed {seed}: mount: {e}");
            return Outcome::Refused;
        }
    };
    exercise(mounted.fs(), &mut rng);
    let unmounted = rng.one_in(4) || mounted.unmount().is_ok();
    drop(mounted);
    let _ = issues(&disk);
    if unmounted { Outcome::Unmounted } else { Outcome::Mounted }
}

/// Panics of all threads, the filesystem's own included.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());
static RUNNING: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());

#[test]
fn damage_gives_errors_and_never_a_panic_or_a_loop() {
    let one = setting("SCOUTFS_FUZZ_SEED");
    let seeds = match one {
        Some(seed) => seed..seed + 1,
        None => 0..setting("SCOUTFS_FUZZ_SEEDS").unwrap_or(250),
    };
    if one.is_none() {
        log::set_sink(|_, _| ());
    }
    let base = Arc::new(volume());
    let units: Arc<Vec<Unit>> = Arc::new(units(&base));
    std::panic::set_hook(Box::new(|info| {
        let running = RUNNING.lock().unwrap();
        let thread = thread::current();
        let line = format!("thread {:?}: {info}; seeds at work: {running:?}", thread.name());
        eprintln!("{line}\n{}", std::backtrace::Backtrace::force_capture());
        PANICS.lock().unwrap().push(line);
    }));
    let next = Arc::new(AtomicU64::new(seeds.start));
    let hangs = Mutex::new(Vec::new());
    let outcomes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) {
                        return;
                    }
                    let (done, result) = mpsc::channel();
                    let (base, units) = (base.clone(), units.clone());
                    RUNNING.lock().unwrap().insert(seed);
                    // Not waited for: it may hang.
                    thread::spawn(move || {
                        let outcome = catch_unwind(AssertUnwindSafe(|| run_case(&base, &units, seed)));
                        let _ = done.send(outcome.ok());
                    });
                    match result.recv_timeout(PATIENCE) {
                        Ok(outcome) => outcomes.lock().unwrap().extend(outcome),
                        Err(_) => hangs.lock().unwrap().push(seed),
                    }
                    RUNNING.lock().unwrap().remove(&seed);
                }
            });
        }
    });
    let _ = std::panic::take_hook();
    let outcomes = outcomes.into_inner().unwrap();
    let count = |outcome| outcomes.iter().filter(|o| **o == outcome).count();
    let counts = [Outcome::Refused, Outcome::Mounted, Outcome::Unmounted].map(count);
    println!("refused, failed later, and unmounted: {counts:?}");
    let (panics, hangs) = (PANICS.lock().unwrap(), hangs.into_inner().unwrap());
    assert!(panics.is_empty() && hangs.is_empty(), "hanging seeds: {hangs:?}; panics: {panics:#?}");
    if outcomes.len() >= 100 {
        // Else the damage is not of the kind that tests anything.
        assert!(counts[0] > 0 && counts[2] > 0, "{counts:?}");
    }
}
