// SPDX-License-Identifier: GPL-2.0-only
//! Power failures: every image that one may leave is a sound volume that holds what was acknowledged, and all or
//! nothing of each later operation.
//!
//! A workload runs on a disk that records. At each request of the record power is cut; images that this may leave
//! are checked, mounted, and compared with the trees that are allowed: those after each number of
//! operations between the last that was acknowledged and the last that had begun. Contents that are written in place
//! may be newer than the rest, in part.
//!
//! `SCOUTFS_CRASH_IMAGES=n` looks at n images of each workload instead of a few; `SCOUTFS_CRASH_SEED=n` runs another
//! workload. `cargo xtask crash` runs all small workloads, for hours.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use scoutfs_env::device::MemDevice;
use scoutfs_format::item::ROOT_INO;
use scoutfs_fs::Fs;
use scoutfs_fs::dir::NewInode;
use scoutfs_sim::disk::{CrashPoint, Disk, Fault, Recording, Request, Survival};
use scoutfs_sim::model::{Model, Op, Place};
use scoutfs_sim::reference::{Content, Data};
use scoutfs_sim::rng::Rng;
use scoutfs_sim::small;
use scoutfs_sim::tree::{Node, Tree, read_tree};
use scoutfs_sim::volume::{Pace, issues, mount, new_volume};

/// Most of the time of a mount is waiting.
const THREADS: usize = 4;

/// So many requests after something that should be durable it matters most.
const SOON: usize = 16;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// A workload that ran, and what it promises.
struct Run {
    seed: u64,
    recording: Recording,
    /// The tree after each number of operations.
    states: Vec<Tree>,
    /// Where in the record each operation began.
    begun: Vec<usize>,
    /// Where in the record it was known that so many operations are durable.
    acknowledged: Vec<(usize, usize)>,
    /// Where in the record it was known that an inode's contents after so many operations are durable, without a commit.
    contents: Vec<(usize, usize, u64)>,
}

/// What is done between operations.
#[derive(Clone, Copy)]
struct Plan {
    operations: usize,
    /// A sync or fsync after so many operations.
    sync_every: usize,
    /// The log is merged in between, and the volume unmounted at the end.
    merge: bool,
}

/// How often a mount has committed.
fn commits(fs: &Fs) -> u64 {
    let mut commits = 0;
    fs.for_each_counter(&mut |name: &str, value| {
        commits += if name == "commits" { value } else { 0 };
        Ok(())
    })
    .unwrap();
    commits
}

fn run(seed: u64, plan: Plan) -> Run {
    run_on(seed, plan, Disk::new)
}

/// As [`run`], on a disk that is made of what an empty volume holds.
fn run_on(seed: u64, plan: Plan, disk: fn(MemDevice) -> Disk) -> Run {
    let seed = seed + setting("SCOUTFS_CRASH_SEED").unwrap_or(0);
    let mut rng = Rng::new(seed);
    let volume = new_volume();
    let first = mount(&volume, Pace::Real).unwrap();
    let mut model = Model::set_up(first.fs()).unwrap();
    first.unmount().unwrap();
    let disk = disk(volume.memory().snapshot());
    // The mount is part of what may be cut short.
    disk.start_recording();
    let mount = mount(&disk, if plan.merge { Pace::Merging } else { Pace::Real }).unwrap();
    let fs = mount.fs();
    let mut run = Run {
        seed,
        recording: Recording { start: MemDevice::new(0), entries: Vec::new() },
        states: vec![model.tree()],
        begun: vec![],
        acknowledged: vec![(0, 0)],
        contents: vec![],
    };
    for i in 1..=plan.operations {
        let op = model.random_op(&mut rng);
        run.begun.push(disk.position());
        let changed = model.apply(fs, &op).unwrap_or_else(|e| panic!("seed {seed}: {op:?}: {e}"));
        run.states.push(model.tree());
        if i % plan.sync_every == 0 {
            run.sync(&disk, fs, changed.filter(|_| rng.one_in(2)), i);
        }
        if plan.merge && i % 4 == 0 {
            thread::sleep(Duration::from_millis(150));
        }
    }
    if plan.merge {
        mount.unmount().unwrap();
        run.acknowledged.push((disk.position(), plan.operations));
    }
    run.recording = disk.stop_recording();
    drop(mount);
    run
}

impl Run {
    /// Makes all durable after so many operations, or an inode, and notes what that was.
    fn sync(&mut self, disk: &Disk, fs: &Fs, ino: Option<u64>, count: usize) {
        let before = commits(fs);
        match ino {
            Some(ino) => fs.fsync(ino).unwrap(),
            None => fs.sync().unwrap(),
        }
        match ino.filter(|_| commits(fs) == before) {
            // Nothing but its data was to be made durable.
            Some(ino) => self.contents.push((disk.position(), count, ino)),
            None => self.acknowledged.push((disk.position(), count)),
        }
    }

    /// Mounts an image and says what is wrong with it.
    fn verify(&self, point: &CrashPoint, image: MemDevice) -> Result<(), String> {
        let disk = Disk::new(image);
        check(&disk, "after the crash")?;
        let mount = mount(&disk, Pace::Fast).map_err(|e| format!("mount: {e}"))?;
        let fs = mount.fs();
        let mut failed = Vec::new();
        let tree = read_tree(fs, &mut |ino, e| failed.push(format!("inode {ino}: {e}")));
        if !failed.is_empty() {
            return Err(failed.join("; "));
        }
        let before = |at: &&(usize, usize)| at.0 < point.position || at.0 == 0;
        let first = self.acknowledged.iter().filter(before).map(|(_, count)| *count).max().unwrap_or(0);
        let last = self.begun.iter().filter(|at| **at < point.position).count();
        if let Err(why) = allowed(&tree, &self.states[first..=last]) {
            return Err(format!("not the tree after any of {first} to {last} operations: {why}"));
        }
        for (position, count, ino) in &self.contents {
            if *position < point.position
                && let Some(at) =
                    tree.get(ino).and_then(|node| strange_byte(node, *ino, &self.states[*count..=last]))
            {
                return Err(format!(
                    "inode {ino}: byte {at} is older than what was synced after {count} operations"
                ));
            }
        }
        let probe = || {
            let file = NewInode { mode: 0o100_644, umask: 0, uid: 0, gid: 0, rdev: 0 };
            let ino = fs.create(ROOT_INO, b"probe", &file)?.ino;
            fs.write(ino, 0, &Data::new(1, 70_000).bytes())?;
            fs.forget(ino, 1);
            mount.unmount()
        };
        probe().map_err(|e| format!("working on: {e}"))?;
        check(&disk, "after working on")
    }

    /// Verifies a number of the images that power failures may leave, those first that come soon after one of `near`. Gives
    /// the first failure.
    fn verify_images(&self, recording: &Recording, max: usize, near: &[usize]) -> Option<String> {
        let mut rng = Rng::new(self.seed);
        let mut jobs = Vec::new();
        for point in recording.crashes() {
            let point = std::sync::Arc::new(point);
            let kinds: &[_] = match point.has_choice() {
                true => &[Survival::None, Survival::Torn, Survival::Some, Survival::All],
                false => &[Survival::None],
            };
            jobs.extend(kinds.iter().map(|kind| (point.clone(), *kind, rng.next_u64())));
        }
        // A random choice, without repeats.
        for i in 0..jobs.len() {
            let other = i + rng.below(jobs.len() - i);
            jobs.swap(i, other);
        }
        let soon = |position| near.iter().any(|at| (*at..at + SOON).contains(&position));
        jobs.sort_by_key(|(point, ..)| !soon(point.position));
        jobs.truncate(max);
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let failure = Mutex::new(None);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed)
                        && let Some((point, survival, seed)) = jobs.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        let image = point.image(*survival, &mut Rng::new(*seed));
                        let result = catch_unwind(AssertUnwindSafe(|| self.verify(point, image)))
                            .unwrap_or_else(|_| Err("a panic".into()));
                        if let Err(why) = result {
                            stop.store(true, Ordering::Relaxed);
                            let place = format!(
                                "workload {}, power cut at request {} of {}, survival {survival:?} {seed}",
                                self.seed,
                                point.position,
                                recording.entries.len()
                            );
                            *failure.lock().unwrap() = Some(format!("{place}: {why}"));
                        }
                    }
                });
            }
        });
        failure.into_inner().unwrap()
    }
}

/// Runs one of the small workloads, with a sync after those operations whose bit is set in `syncs`, from what `start` holds.
fn run_small(start: &MemDevice, model: &Model, number: usize, ops: &[Op], syncs: usize) -> Run {
    let disk = Disk::new(start.snapshot());
    let mount = mount(&disk, Pace::Fast).unwrap();
    let fs = mount.fs();
    let mut model = model.clone();
    fs.sync().unwrap();
    disk.start_recording();
    let mut run = Run {
        seed: number as u64,
        recording: Recording { start: MemDevice::new(0), entries: Vec::new() },
        states: vec![model.tree()],
        begun: vec![],
        acknowledged: vec![(0, 0)],
        contents: vec![],
    };
    for (i, op) in ops.iter().enumerate() {
        run.begun.push(disk.position());
        model.apply(fs, op).unwrap_or_else(|e| panic!("workload {number}: {op:?}: {e}"));
        run.states.push(model.tree());
        if syncs & (1 << i) != 0 {
            fs.sync().unwrap();
            run.acknowledged.push((disk.position(), i + 1));
        }
    }
    run.recording = disk.stop_recording();
    drop(mount);
    run
}

/// All workloads of up to three operations, with a sync at each place: a sample of them by default.
///
/// `SCOUTFS_CRASH_WORKLOADS=n` takes n of them, 0 all; `SCOUTFS_CRASH_SEED=n` takes others.
#[test]
fn small_workloads_survive_power_failures_at_every_place() {
    let disk = new_volume();
    let first = mount(&disk, Pace::Fast).unwrap();
    let model = small::set_up(first.fs());
    first.unmount().unwrap();
    let start = disk.memory().snapshot();
    let mut jobs = Vec::new();
    for len in 1..=3 {
        for ops in small::workloads(&model, len) {
            jobs.extend((0..1 << len).map(|syncs| (ops.clone(), syncs)));
        }
    }
    println!("{} workloads with their syncs", jobs.len());
    assert!(jobs.len() > 50_000);
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    let want = setting("SCOUTFS_CRASH_WORKLOADS").unwrap_or(100) as usize;
    if want > 0 {
        let mut rng = Rng::new(setting("SCOUTFS_CRASH_SEED").unwrap_or(1));
        for i in 0..want.min(order.len()) {
            let other = i + rng.below(order.len() - i);
            order.swap(i, other);
        }
        order.truncate(want);
    }
    let max = setting("SCOUTFS_CRASH_IMAGES").unwrap_or(12) as usize;
    for number in order {
        let (ops, syncs) = &jobs[number];
        let run = run_small(&start, &model, number, ops, *syncs);
        if let Some(failure) = run.verify_images(&run.recording, max, &[]) {
            panic!("{ops:?}, syncs {syncs:#b}: {failure}");
        }
    }
}

fn check(disk: &Disk, when: &str) -> Result<(), String> {
    let (_, issues) = issues(disk).map_err(|e| format!("check {when}: {e}"))?;
    if issues.is_empty() { Ok(()) } else { Err(format!("check {when}: {}", issues.join("; "))) }
}

/// Whether a tree is one of several in a row, but for contents from later ones.
fn allowed(tree: &Tree, states: &[Tree]) -> Result<(), String> {
    let mut why = String::new();
    for (i, state) in states.iter().enumerate() {
        match differs(tree, state, &states[i..]) {
            None => return Ok(()),
            Some(difference) => why = difference,
        }
    }
    Err(why)
}

fn differs(tree: &Tree, state: &Tree, later: &[Tree]) -> Option<String> {
    if !tree.keys().eq(state.keys()) {
        return Some(format!("inodes {:?}, not {:?}", tree.keys(), state.keys()));
    }
    for (ino, node) in tree {
        let expected = &state[ino];
        let said = format!("inode {ino}");
        if (node.nlink, &node.xattrs) != (expected.nlink, &expected.xattrs) {
            return Some(format!("{said}: links or extended attributes"));
        }
        match (&node.content, &expected.content) {
            (Content::File(found), Content::File(bytes)) => {
                if found.len() != bytes.len() {
                    return Some(format!("{said}: {} bytes, not {}", found.len(), bytes.len()));
                }
                if let Some(i) = strange_byte(node, *ino, later) {
                    return Some(format!("{said}: byte {i} is {:#x}, not {:#x}", found[i], bytes[i]));
                }
            }
            (found, expected) if found == expected => {}
            (found, expected) => return Some(format!("{said}: {found:?}, not {expected:?}")),
        }
    }
    None
}

/// The first byte of a file that it has in none of several states.
fn strange_byte(node: &Node, ino: u64, states: &[Tree]) -> Option<usize> {
    let Content::File(found) = &node.content else { return None };
    let has = |tree: &Tree, i: usize| {
        tree.get(&ino).is_some_and(
            |node| matches!(&node.content, Content::File(bytes) if bytes.get(i) == Some(&found[i])),
        )
    };
    (0..found.len()).find(|i| !states.iter().any(|tree| has(tree, *i)))
}

fn survives(seed: u64, plan: Plan) {
    let run = run(seed, plan);
    let max = setting("SCOUTFS_CRASH_IMAGES").unwrap_or(400) as usize;
    if let Some(failure) = run.verify_images(&run.recording, max, &[]) {
        panic!("{failure}");
    }
}

#[test]
fn what_was_synced_after_each_operation_survives_power_failures() {
    survives(1, Plan { operations: 150, sync_every: 1, merge: false });
}

#[test]
fn operations_between_syncs_survive_power_failures_as_a_whole_or_not_at_all() {
    survives(2, Plan { operations: 40, sync_every: 5, merge: false });
}

/// A file that is overwritten again and again, as a kernel does that has its pages, with an fsync each time.
fn run_overwrites() -> Run {
    const FILE: Place = Place::new(0, 0);
    let volume = new_volume();
    let first = mount(&volume, Pace::Real).unwrap();
    let mut model = Model::set_up(first.fs()).unwrap();
    model.apply(first.fs(), &Op::Create(FILE)).unwrap();
    model.apply(first.fs(), &Op::Write(FILE, 0, Data::new(1, 20_000))).unwrap();
    first.unmount().unwrap();
    let disk = Disk::with_sites(volume.memory().snapshot());
    let mount = mount(&disk, Pace::Real).unwrap();
    let fs = mount.fs();
    let file = model.find(FILE).unwrap();
    // While it is open the last close is not seen.
    fs.open(file, true).unwrap();
    disk.start_recording();
    let mut run = Run {
        seed: 0,
        recording: Recording { start: MemDevice::new(0), entries: Vec::new() },
        states: vec![model.tree()],
        begun: vec![],
        acknowledged: vec![(0, 0)],
        contents: vec![],
    };
    for i in 1..=40 {
        run.begun.push(disk.position());
        // Odd numbers stand for pages.
        let op = Op::Write(FILE, (i as u64 * 1500) % 12_000, Data::new(2 * i as u64 + 1, 3000));
        let changed = model.apply(fs, &op).unwrap();
        run.states.push(model.tree());
        run.sync(&disk, fs, changed, i);
    }
    run.recording = disk.stop_recording();
    fs.release(file, true);
    drop(mount);
    run
}

#[test]
fn what_was_overwritten_and_synced_without_a_commit_survives_power_failures() {
    // More than the longest tick may pass between two of them, each time.
    let Some(run) = (0..20).map(|_| run_overwrites()).find(|run| run.contents.len() > 1) else {
        panic!("each was committed")
    };
    let max = setting("SCOUTFS_CRASH_IMAGES").unwrap_or(400) as usize;
    if let Some(failure) = run.verify_images(&run.recording, max, &[]) {
        panic!("{failure}");
    }
    let faults = faults(&run.recording);
    let (name, fault) = faults.iter().find(|(name, _)| name.contains("sync_data")).expect("a flush of data");
    let recording = run.recording.with_fault(fault);
    let failure = run.verify_images(&recording, max, &changed(&run.recording, &recording));
    assert!(failure.is_some_and(|why| why.contains("older than what was synced")), "without {name}");
}

#[test]
fn merges_and_unmounts_survive_power_failures() {
    survives(3, Plan { operations: 24, sync_every: 2, merge: true });
}

/// Places where something is made durable that no power failure of one node shows, and what they are for.
const NOT_SHOWN: [(&str, &str); 9] = [
    ("flush: open", "a new leader builds on what another node may have written just before it died"),
    ("flush: write < step", "a voter builds on what it has read in the blocks of others"),
    ("quorum block 0: write < step", "what a voter has promised to others, which must not vote twice"),
    ("quorum block 1: write < step", "as the other one"),
    (
        "super block 0: write_super_after < open",
        "one copy is enough as long as it can be read; see both together",
    ),
    ("super block 1: write_super_after < open", "as the other one"),
    ("super block 0: write_super_after < write_super", "as above"),
    ("super block 1: write_super_after < write_super", "as the other one"),
    (
        "both super blocks: write_super_after < open",
        "others must see the new term before its leader acts in it",
    ),
];

/// Without each flush, and each write that is to be durable, one place in the program at a time, some image must be wrong: else
/// it would not be needed, or these tests would not see that it is missing.
#[test]
fn each_place_that_makes_something_durable_is_needed() {
    let plan = Plan { operations: 24, sync_every: 2, merge: true };
    let max = setting("SCOUTFS_CRASH_IMAGES").unwrap_or(400) as usize;
    let is_known = |name: &String| NOT_SHOWN.iter().any(|(known, _)| known == name);
    let mut unnoticed: Option<BTreeSet<String>> = None;
    // What one workload does not show another may: what is merged when is a matter of time.
    for seed in 4..12 {
        let run = run_on(seed, plan, Disk::with_sites);
        let faults = faults(&run.recording);
        println!("workload {seed}: {:?}", faults.keys());
        let left = unnoticed.get_or_insert_with(|| faults.keys().cloned().collect());
        for (known, why) in NOT_SHOWN {
            assert!(faults.contains_key(known), "{known} ({why}) is not there any more");
        }
        for (name, fault) in faults.iter().filter(|(name, _)| !is_known(name)) {
            if !left.contains(name) {
                continue;
            }
            let recording = run.recording.with_fault(fault);
            if let Some(failure) = run.verify_images(&recording, max, &changed(&run.recording, &recording)) {
                println!("{name}: {failure}");
                left.remove(name);
            }
        }
        left.retain(|name| !is_known(name));
        if left.is_empty() {
            break;
        }
    }
    assert_eq!(unnoticed, Some(BTreeSet::new()), "nothing was wrong without these");
}

/// The program without each place of a record that makes something durable, by name; without both copies of a super block at
/// once; and without any.
fn faults(recording: &Recording) -> BTreeMap<String, Fault> {
    let mut faults = BTreeMap::from([
        ("all flushes".to_owned(), Fault::NoFlush),
        ("all durable writes".to_owned(), Fault::NoDurable),
    ]);
    for site in recording.entries.iter().filter_map(|entry| entry.site.clone()) {
        if let Some((_, by)) =
            site.as_str().strip_prefix("super block ").and_then(|rest| rest.split_once(": "))
        {
            let both = faults.entry(format!("both super blocks: {by}")).or_insert(Fault::Without(vec![]));
            if let Fault::Without(sites) = both
                && !sites.contains(&site)
            {
                sites.push(site.clone());
            }
        }
        faults.insert(site.as_str().to_owned(), Fault::Without(vec![site]));
    }
    faults
}

/// Where two records differ.
fn changed(before: &Recording, after: &Recording) -> Vec<usize> {
    let durable =
        |request: &Request| matches!(request, Request::Flush | Request::Write { durable: true, .. });
    let pairs = before.entries.iter().zip(&after.entries);
    let differ = pairs.map(|(a, b)| durable(&a.request) != durable(&b.request));
    differ.enumerate().filter(|(_, differ)| *differ).map(|(at, _)| at).collect()
}
