// SPDX-License-Identifier: GPL-2.0-only
//! Operations of one, two and four threads, in directories of their own and in one, in process, without a kernel between.
//!
//! `scaling [WORK|THREADS...]` prints operations a second, and the processor time of an operation: that of the threads that call, and
//! that of all others, which commit and merge. Processor time tells what an operation costs also where other programs run beside.
//!
//! Instructions are the same in each run: with the word `uncounted` no processor time is read, which rustix cannot do under valgrind, and
//! `valgrind --fair-sched=yes --tool=callgrind --toggle-collect=scaling::unlink scaling uncounted 1 unlink` counts those of the callers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use scoutfs_benches::Bed;
use scoutfs_format::item::ROOT_INO;
use scoutfs_fs::Fs;
use scoutfs_fs::dir::{NewInode, RenameFlags};

/// Files of a thread; few where processor time is not read, for valgrind is slow and leases run out.
fn files() -> usize {
    if COUNTED.load(Relaxed) { 20_000 } else { 2_000 }
}

/// Does its work on the file of a number in a directory.
type Work = fn(&Fs, u64, usize);

const NEW: NewInode = NewInode { mode: 0o100_644, rdev: 0, uid: 0, gid: 0, umask: 0 };

fn name(i: usize) -> Vec<u8> {
    format!("file-{i:06}").into_bytes()
}

fn renamed(i: usize) -> Vec<u8> {
    format!("renamed-{i:06}").into_bytes()
}

fn create(fs: &Fs, dir: u64, i: usize) {
    let ino = fs.create(dir, &name(i), &NEW).expect("create").ino;
    fs.forget(ino, 1);
}

fn lookup(fs: &Fs, dir: u64, i: usize) {
    let ino = fs.lookup(dir, &name(i)).expect("lookup").ino;
    fs.forget(ino, 1);
}

fn rename(fs: &Fs, dir: u64, i: usize) {
    fs.rename(dir, &name(i), dir, &renamed(i), RenameFlags::empty()).expect("rename");
}

fn unlink(fs: &Fs, dir: u64, i: usize) {
    fs.unlink(dir, &renamed(i)).expect("unlink");
}

const WORKS: &[(&str, Work)] =
    &[("create", create), ("lookup", lookup), ("rename", rename), ("unlink", unlink)];

/// Whether processor time is read.
static COUNTED: AtomicBool = AtomicBool::new(true);

fn clock(id: ClockId) -> Duration {
    if !COUNTED.load(Relaxed) {
        return Duration::ZERO;
    }
    let now = clock_gettime(id);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

/// Runs the work in threads, each in its directory; where they share one, each has files of its own.
fn run(fs: &Fs, work: Work, dirs: &[u64]) -> (Duration, Duration, Duration) {
    let callers_ns = AtomicU64::new(0);
    let process = clock(ClockId::ProcessCPUTime);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for (thread, &dir) in dirs.iter().enumerate() {
            let callers_ns = &callers_ns;
            scope.spawn(move || {
                (0..files()).for_each(|i| work(fs, dir, thread * files() + i));
                callers_ns.fetch_add(clock(ClockId::ThreadCPUTime).as_nanos() as u64, Relaxed);
            });
        }
    });
    let time = began.elapsed();
    let callers = Duration::from_nanos(callers_ns.into_inner());
    (time, callers, (clock(ClockId::ProcessCPUTime) - process).saturating_sub(callers))
}

fn main() {
    let (uncounted, wanted): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|word| word == "uncounted");
    COUNTED.store(uncounted.is_empty(), Relaxed);
    println!(
        "{:<10} {:>7} {:>16} {:>12} {:>14} {:>14}",
        "", "threads", "directories", "thousands/s", "us CPU, own", "us CPU, others"
    );
    let bed = Bed::new(8 << 30);
    let fs = bed.mount.fs();
    let numbers: Vec<usize> = wanted.iter().filter_map(|word| word.parse().ok()).collect();
    let wanted: Vec<&String> = wanted.iter().filter(|word| word.parse::<usize>().is_err()).collect();
    for (threads, one) in [(1, false), (2, false), (4, false), (2, true), (4, true)] {
        if !numbers.is_empty() && !numbers.contains(&threads) {
            continue;
        }
        let dirs: Vec<u64> = (0..threads)
            .map(|t| {
                let dir = NewInode { mode: 0o040_755, ..NEW };
                let t = if one { 0 } else { t };
                let name = format!("dir-{threads}-{one}-{t}");
                fs.lookup(ROOT_INO, name.as_bytes())
                    .or_else(|_| fs.mkdir(ROOT_INO, name.as_bytes(), &dir))
                    .expect("mkdir")
                    .ino
            })
            .collect();
        for (name, work) in WORKS {
            let (time, callers, others) = run(fs, *work, &dirs);
            // What the work builds on is done whether it is asked for or not.
            if !wanted.is_empty() && !wanted.iter().any(|w| *w == name) {
                continue;
            }
            let count = (threads * files()) as f64;
            println!(
                "{name:<10} {threads:>7} {:>16} {:>12.1} {:>14.1} {:>14.1}",
                if one { "one" } else { "their own" },
                count / time.as_secs_f64() / 1e3,
                callers.as_secs_f64() * 1e6 / count,
                others.as_secs_f64() * 1e6 / count,
            );
        }
    }
    bed.mount.unmount().expect("unmount");
}
