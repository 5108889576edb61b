// SPDX-License-Identifier: GPL-2.0-only
//! Every read, write and flush of a workload fails, once or for good: the program gets an errno or notices nothing, the
//! volume stays sound, and what was acknowledged is there after the next mount.
//!
//! `SCOUTFS_FAIL_EVERY=1` fails every single request; the tests take each n-th.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use scoutfs_env::device::IoOp;
use scoutfs_fs::{Error, Fs};
use scoutfs_sim::disk::Disk;
use scoutfs_sim::failing::{FailingDisk, Plan};
use scoutfs_sim::model::{Model, Op};
use scoutfs_sim::reference::Content;
use scoutfs_sim::rng::Rng;
use scoutfs_sim::tree::{Tree, read_tree};
use scoutfs_sim::volume::{Pace, issues, mount, new_volume};

/// Most of the time of a mount is waiting.
const THREADS: u64 = 8;
const OPERATIONS: usize = 24;
/// Requests that fail one after the other: nobody needs to notice one.
const ONCE: u64 = 1;
/// A few times what is tried again.
const A_MOMENT: u64 = 10;
const FOR_GOOD: u64 = u64::MAX;

/// The trees that may be found, oldest first, and inodes whose contents were written over by writes that failed.
struct Allowed {
    states: Vec<Tree>,
    torn: Vec<u64>,
}

impl Allowed {
    fn only(&mut self, tree: &Tree) {
        self.states = vec![tree.clone()];
        self.torn.clear();
    }

    fn check(&self, fs: &Fs, when: &str) -> Result<(), String> {
        let mut failed = Vec::new();
        let found = read_tree(fs, &mut |ino, e| failed.push(format!("{when}: inode {ino}: {e}")));
        if !failed.is_empty() {
            return Err(failed.join("; "));
        }
        if self.states.iter().any(|state| self.same(&found, state)) {
            return Ok(());
        }
        Err(format!("{when}: none of {} trees that there may be", self.states.len()))
    }

    /// In place, contents may be newer than the rest, in part.
    fn same(&self, found: &Tree, state: &Tree) -> bool {
        found.keys().eq(state.keys())
            && found.iter().all(|(ino, node)| {
                let expected = &state[ino];
                let content = match (&node.content, &expected.content) {
                    (Content::File(found), Content::File(bytes)) => {
                        found.len() == bytes.len()
                            && (self.torn.contains(ino)
                                || (0..found.len()).all(|i| {
                                    let later =
                                        self.states.iter().filter_map(|s| match &s.get(ino)?.content {
                                            Content::File(bytes) => bytes.get(i),
                                            _ => None,
                                        });
                                    found[i] == bytes[i] || later.into_iter().any(|b| *b == found[i])
                                }))
                    }
                    (found, expected) => found == expected,
                };
                node.nlink == expected.nlink && node.xattrs == expected.xattrs && content
            })
    }
}

fn is_final(e: &Error) -> bool {
    matches!(e, Error::Shutdown(_))
}

/// Runs the workload with a plan. Gives whether anything failed, or what went wrong.
fn run(plan: Plan) -> Result<bool, String> {
    let disk: Disk = new_volume();
    let failing = FailingDisk::new(disk.clone());
    let first = mount(&failing, Pace::Fast).map_err(|e| format!("first mount: {e}"))?;
    let mut model = Model::set_up(first.fs()).map_err(|e| format!("set up: {e}"))?;
    first.unmount().map_err(|e| format!("first unmount: {e}"))?;
    let mut allowed = Allowed { states: vec![], torn: vec![] };
    allowed.only(&model.tree());

    // Whenever a disk begins to fail, a mount ends: at once, or when that went on for longer than it waits for others.
    failing.fail(plan);
    let mut shut_down = false;
    match mount(&failing, Pace::Merging) {
        Err(e) if failing.failed() == 0 => return Err(format!("mount: {e}")),
        Err(_) => {}
        Ok(mount) => {
            shut_down = work(mount.fs(), &failing, &mut model, &mut allowed)?;
            if shut_down && plan.count == ONCE {
                return Err("the mount shut down".into());
            }
            if !shut_down && plan.count != FOR_GOOD {
                // The failure is over: all works, and nothing is left of it.
                mount
                    .fs()
                    .sync()
                    .or_else(|e| if is_final(&e) { Ok(()) } else { Err(e) })
                    .map_err(|e| format!("sync at the end: {e}"))?;
            }
            match mount.unmount() {
                Ok(()) => allowed.only(&model.tree()),
                Err(e) if failing.failed() == 0 => return Err(format!("unmount: {e}")),
                Err(_) => {}
            }
        }
    }
    let failed = failing.heal() > 0;
    let torn = std::mem::take(&mut allowed.torn);
    allowed.torn = torn;
    let (_, found) = issues(&disk).map_err(|e| format!("check: {e}"))?;
    if !found.is_empty() {
        return Err(format!("check: {}", found.join("; ")));
    }
    let again = mount(&disk, Pace::Fast).map_err(|e| format!("mount again: {e}"))?;
    allowed.check(again.fs(), if shut_down { "after the shutdown" } else { "at the end" })?;
    again.unmount().map_err(|e| format!("last unmount: {e}"))?;
    let (_, found) = issues(&disk).map_err(|e| format!("last check: {e}"))?;
    if found.is_empty() { Ok(failed) } else { Err(format!("last check: {}", found.join("; "))) }
}

/// The operations. True when the mount shut down.
fn work(fs: &Fs, failing: &FailingDisk, model: &mut Model, allowed: &mut Allowed) -> Result<bool, String> {
    let mut rng = Rng::new(7);
    for i in 1..=OPERATIONS {
        let op = model.random_op(&mut rng);
        let before = model.clone();
        match model.apply(fs, &op) {
            Ok(_) => allowed.states.push(model.tree()),
            Err(e) if failing.failed() == 0 => return Err(format!("{op:?}: {e}")),
            Err(e) if failing.once() => return Err(format!("{op:?}: {e}")),
            Err(e) => {
                // It did nothing, but for what it wrote in place.
                if let (Op::Write(place, ..) | Op::Truncate(place, _), model) = (&op, &before) {
                    allowed.torn.extend(model.find(*place));
                }
                if is_final(&e) {
                    return Ok(true);
                }
            }
        }
        if i % 3 == 0 {
            match fs.sync() {
                Ok(()) => {
                    let torn = allowed.torn.clone();
                    allowed.only(&model.tree());
                    allowed.torn = torn;
                }
                Err(e) if failing.failed() == 0 => return Err(format!("sync: {e}")),
                Err(e) if is_final(&e) => return Ok(true),
                Err(_) => {}
            }
        }
        if i % 6 == 0 {
            // For the merges.
            thread::sleep(Duration::from_millis(120));
        }
    }
    Ok(false)
}

/// Fails each request of a kind, `count` times in a row, until there are no more of them.
fn fail_each(op: IoOp, count: u64, every: u64) {
    let every = std::env::var("SCOUTFS_FAIL_EVERY").map_or(every, |n| n.parse().expect("a number"));
    let (next, end) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let after = next.fetch_add(1, Ordering::Relaxed) * every;
                    if after >= end.load(Ordering::Relaxed) || !wrong.lock().unwrap().is_empty() {
                        break;
                    }
                    let plan = Plan { op, after, count };
                    match catch_unwind(AssertUnwindSafe(|| run(plan)))
                        .unwrap_or_else(|_| Err("a panic".into()))
                    {
                        Ok(true) => {}
                        Ok(false) => drop(end.fetch_min(after, Ordering::Relaxed)),
                        Err(why) => wrong.lock().unwrap().push(format!("{plan:?}: {why}")),
                    }
                }
            });
        }
    });
    let end = end.into_inner();
    println!("{op:?}: {end} requests");
    assert_eq!(*wrong.lock().unwrap(), Vec::<String>::new());
    assert!(end > 3 * every, "{op:?}: hardly anything failed");
}

#[test]
fn a_read_that_fails_once_is_tried_again() {
    fail_each(IoOp::Read, ONCE, 3);
}

#[test]
fn a_write_that_fails_once_is_tried_again() {
    fail_each(IoOp::Write, ONCE, 3);
}

#[test]
fn a_flush_that_fails_once_is_tried_again() {
    fail_each(IoOp::Flush, ONCE, 2);
}

#[test]
fn reads_that_fail_for_a_moment_are_errors_and_no_more() {
    fail_each(IoOp::Read, A_MOMENT, 5);
}

#[test]
fn writes_that_fail_for_a_moment_are_errors_and_no_more() {
    fail_each(IoOp::Write, A_MOMENT, 5);
}

#[test]
fn a_disk_that_reads_no_more_shuts_the_mount_down() {
    fail_each(IoOp::Read, FOR_GOOD, 7);
}

#[test]
fn a_disk_that_writes_no_more_shuts_the_mount_down() {
    fail_each(IoOp::Write, FOR_GOOD, 7);
}

#[test]
fn a_disk_that_flushes_no_more_shuts_the_mount_down() {
    fail_each(IoOp::Flush, FOR_GOOD, 5);
}
