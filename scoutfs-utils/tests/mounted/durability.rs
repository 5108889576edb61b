// SPDX-License-Identifier: GPL-2.0-only
//! What was synced survives the death of the daemon.
//!
//! A killed daemon loses all that it had in memory. That the device itself keeps what was flushed is proven elsewhere: by the
//! crash tests of the core, which know the device's cache.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;
use std::thread::{self, sleep};
use std::time::Duration;

use crate::pattern::{Random, content};
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

/// Names of a directory, and the seed and length of the content behind each.
type Model = BTreeMap<String, (u64, usize)>;

/// Record of the log that each worker appends to.
const RECORD: usize = 512;

/// One worker's directory, as it must be after a crash.
struct Acknowledged {
    /// All that is acknowledged.
    before: Model,
    /// The same and the operation that was not: it is there as a whole or not at all.
    after: Model,
    /// Records of the log.
    records: u64,
}

/// Changes a directory, and makes each change durable, until the daemon is dead.
fn work_until_death(
    dir: &Path,
    worker: u64,
    mut model: Model,
    mut records: u64,
    mut random: Random,
) -> Acknowledged {
    loop {
        let before = model.clone();
        let mut step = || -> io::Result<()> {
            let name = |n: u64| format!("f{n}");
            let (a, b) = (name(random.below(12)), name(random.below(12)));
            match random.below(8) {
                0 | 1 if model.contains_key(&a) => {
                    model.remove(&a);
                    fs::remove_file(dir.join(&a))?;
                }
                2 if model.contains_key(&a) && a != b => {
                    let moved = model.remove(&a).unwrap();
                    model.insert(b.clone(), moved);
                    fs::rename(dir.join(&a), dir.join(&b))?;
                }
                3 | 4 => {
                    let log = OpenOptions::new().append(true).create(true).open(dir.join("log"))?;
                    (&log).write_all(&content(worker << 32 | records, RECORD))?;
                    log.sync_all()?;
                    records += 1;
                    return Ok(());
                }
                _ => {
                    // In place of what is there, by rename, as programs do that must not lose anything.
                    let (seed, len) = (random.next(), random.below(40_000) as usize);
                    let new = File::create(dir.join("new"))?;
                    (&new).write_all(&content(seed, len))?;
                    new.sync_all()?;
                    model.insert(a.clone(), (seed, len));
                    fs::rename(dir.join("new"), dir.join(&a))?;
                }
            }
            File::open(dir)?.sync_all()
        };
        if let Err(e) = step() {
            // A dead mount. Anything else is a failure of the filesystem.
            let errno = e.raw_os_error();
            assert!(matches!(errno, Some(libc::ENOTCONN | libc::ECONNABORTED)), "worker {worker}: {e}");
            return Acknowledged { before, after: model, records };
        }
    }
}

/// The directory is as it was acknowledged, with or without the last operation. Gives what it is and the log's records.
fn verify(dir: &Path, worker: u64, acknowledged: &Acknowledged) -> (Model, u64) {
    let found = names(dir).unwrap();
    let found: Vec<&String> = found.iter().filter(|n| *n != "new" && *n != "log").collect();
    let is = |model: &Model| {
        found.iter().copied().eq(model.keys())
            && model
                .iter()
                .all(|(name, (seed, len))| fs::read(dir.join(name)).unwrap() == content(*seed, *len))
    };
    let Acknowledged { before, after, records } = acknowledged;
    let model = [after, before].into_iter().find(|model| is(model)).unwrap_or_else(|| {
        panic!("worker {worker}: found {found:?}, acknowledged {before:?}, perhaps {after:?}")
    });
    let log = fs::read(dir.join("log")).unwrap_or_default();
    let there = (log.len() / RECORD) as u64;
    assert!(there >= *records, "worker {worker}: {records} records are acknowledged, but there are {there}");
    for (record, bytes) in (0..*records).zip(log.chunks(RECORD)) {
        assert!(bytes == content(worker << 32 | record, RECORD), "worker {worker}: record {record}");
    }
    // What came after was not acknowledged; the next round begins where this ends.
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(dir.join("log"))
        .unwrap()
        .set_len(records * RECORD as u64)
        .unwrap();
    (model.clone(), *records)
}

#[test]
fn whatever_was_acknowledged_survives_a_kill_at_any_moment() {
    const ROUNDS: u64 = 20;
    const WORKERS: u64 = 3;
    let seed = 0x5c00_7f5d;
    let mut random = Random::new(seed);
    let volume = Volume::new(128);
    let mut states = vec![(Model::new(), 0); WORKERS as usize];
    let mounted = volume.mount_child();
    for worker in 0..WORKERS {
        fs::create_dir(mounted.join(format!("worker{worker}"))).unwrap();
    }
    mounted.unmount();
    for round in 0..ROUNDS {
        let mut mounted = volume.mount_child();
        let root = mounted.path().to_owned();
        let acknowledged: Vec<Acknowledged> = thread::scope(|scope| {
            let workers: Vec<_> = (0..WORKERS)
                .zip(states.drain(..))
                .map(|(worker, (model, records))| {
                    let dir = root.join(format!("worker{worker}"));
                    let random = Random::new(seed ^ (round << 8 | worker));
                    scope.spawn(move || work_until_death(&dir, worker, model, records, random))
                })
                .collect();
            sleep(Duration::from_millis(random.below(600)));
            mounted.kill_daemon();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        mounted.bury();
        let mounted = volume.mount_child();
        for (worker, acknowledged) in (0..).zip(&acknowledged) {
            states.push(verify(&mounted.join(format!("worker{worker}")), worker, acknowledged));
        }
        // Leaving by a crash every other time, what recovery wrote must stand by itself.
        if round % 2 == 0 {
            mounted.unmount();
        } else {
            mounted.sync();
            mounted.bury();
        }
    }
    let records: u64 = states.iter().map(|(_, records)| records).sum();
    assert!(records > ROUNDS, "the workers did next to nothing: {records} records");
}
