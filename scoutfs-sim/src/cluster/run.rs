// SPDX-License-Identifier: GPL-2.0-only
//! One seed: from mkfs to the last check.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use scoutfs_env::sim::{self, Config, Node, Outcome, Report};
use scoutfs_fs::check::check;
use scoutfs_fs::mkfs::{self, mkfs};
use scoutfs_server::super_block::read_super;

use super::disk::Disk;
use super::host::{Flow, Host, World, changed, keep, wait_until};
use super::nemesis::Weather;
use super::net::Net;
use super::{leaders, lock, nemesis, owners, rules, votes, work};
use crate::rng::Rng;

/// Bytes of a volume: enough for slots of some dozens of mounts, those that are fenced included.
const SIZE: u64 = 2 << 30;
/// Of one that programs fill.
const SMALL_SIZE: u64 = 64 << 20;
/// From when all is well again, so long may it take until every host works.
const HEALING: Duration = Duration::from_secs(240);

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// All that is random.
    pub seed: u64,
    /// How many hosts.
    pub nodes: usize,
    /// How long things go wrong, of the run's own time.
    pub trouble: Duration,
    /// What mostly goes wrong.
    pub weather: Weather,
    /// The volume is small, and programs fill it.
    pub is_small: bool,
    /// Hosts work and rest in turn.
    pub in_shifts: bool,
    /// Print each event.
    pub trace: bool,
}

impl Options {
    /// Those of a seed.
    pub fn of_seed(seed: u64) -> Options {
        let mut rng = Rng::new(seed);
        let nodes = 2 + rng.below(3);
        let trouble = Duration::from_secs(if rng.one_in(5) { 0 } else { 10 + rng.below(40) as u64 });
        let weather = if rng.one_in(2) { Weather::Mixed } else { *rng.pick(Weather::OF_SEEDS) };
        let (is_small, in_shifts) = (rng.one_in(8), rng.one_in(3));
        // A mount that joins may find no space on a volume that is full, and then others must make room first.
        let (nodes, weather) = if is_small { (2, Weather::Fine) } else { (nodes, weather) };
        Options { seed, nodes, trouble, weather, is_small, in_shifts, trace: false }
    }
}

/// What became of a run.
#[derive(Debug)]
pub struct Verdict {
    /// Why it failed, if it did.
    pub wrong: Option<String>,
    /// The scheduler's report.
    pub report: Report,
    /// Reads that were checked, writes that ended well, and those that were synced.
    pub operations: (u64, u64, u64),
    /// How often a host mounted.
    pub mounts: u64,
}

/// Runs a seed. Mounts that were killed leave their threads and memory behind: for a process of its own.
pub fn run(options: &Options) -> Verdict {
    let Options { seed, trouble, trace, is_small, .. } = *options;
    let mut rng = Rng::new(seed ^ 1);
    let config = Config {
        seed,
        preempt: *rng.pick(&[2, 8, 30]),
        longest: trouble + Duration::from_secs(600),
        steps: 3_000_000,
        trace,
        backtraces: trace,
    };
    // Any patience is safe. With little of it leaders that are only slow are stood against, and the winner must wait.
    let patience_ms = *rng.pick(&[500, 2000, 6000, 6000]);
    let disk = Disk::new(if is_small { SMALL_SIZE } else { SIZE });
    let of_run = disk.clone();
    let kept = Arc::new(Mutex::new(None));
    let to_keep = kept.clone();
    scoutfs_env::log::set_sink(|level, line| sim::note(format_args!("{level}: {line}")));
    let options = *options;
    let report = sim::run(config, move || {
        story(of_run, &options, patience_ms, &to_keep);
    });
    let mut wrong = match &report.outcome {
        Outcome::Finished => None,
        other => Some(format!("{other:?}")),
    };
    let (mut operations, mut mounts) = ((0, 0, 0), 0);
    if let Some(world) = &*lock(&kept) {
        let history = lock(&world.history);
        operations = (history.reads, history.written, history.synced);
        mounts = world.hosts.iter().map(|host| lock(host).mounts).sum();
    }
    if wrong.is_none() {
        // What was unmounted needs no power.
        disk.lose_power();
        wrong = check_disk(&disk).err();
    }
    Verdict { wrong, report, operations, mounts }
}

fn story(disk: Disk, options: &Options, patience_ms: u64, kept: &Mutex<Option<Arc<World>>>) {
    let Options { nodes, trouble, weather, is_small, in_shifts, .. } = *options;
    let (nodes, quorum) = match (weather, nodes) {
        // Two that stand still keep the others from no election.
        (Weather::Successors, _) => (5, 3),
        // The others can elect.
        (Weather::Unplugged, 0..3) => (3, 2),
        (_, 0..3) => (nodes, 1),
        _ => (nodes, 2),
    };
    let device = disk.device(Node::OUTSIDE);
    mkfs(&device, &mkfs::Options { quorum, force: false }).expect("mkfs");
    disk.set_geometry(read_super(&**device).expect("the volume that was made").geometry);
    let world = Arc::new(World {
        disk,
        net: Net::default(),
        history: Mutex::default(),
        rules: Mutex::default(),
        file_locks: Mutex::default(),
        hosts: (0..nodes).map(|_| Mutex::default()).collect(),
        flow: Mutex::new(Flow::default()),
        weather,
        is_small,
        in_shifts,
        voters: 2 * quorum as usize - 1,
        patience_ms,
    });
    *lock(kept) = Some(world.clone());
    world.disk.watch(leaders::watch(&world));
    world.disk.watch(votes::watch());
    world.disk.watch(owners::watch(&world));
    rules::watch(&world);
    let keepers: Vec<_> = (0..nodes)
        .map(|host| {
            let world = world.clone();
            sim::spawn(Node::OUTSIDE, "keeper", move || keep(&world, host, work::live)).expect("a thread")
        })
        .collect();
    wait_until("a volume with files", || lock(&world.flow).ready);
    nemesis::run(&world, sim::now_ns() + trouble.as_nanos() as u64);
    nemesis::heal(&world);
    let by = sim::now_ns() + HEALING.as_nanos() as u64;
    // One that stands still does not know yet whether it works.
    let works = |host: &Mutex<Host>| {
        let host = lock(host);
        host.works && host.node.is_some_and(|node| !sim::is_paused(node))
    };
    let all_work = || world.hosts.iter().all(works);
    wait_until("every host to work", || all_work() || sim::now_ns() > by);
    if !all_work() {
        sim::fail(format_args!("not every host works {HEALING:?} after all was well"));
    }
    sim::sleep(Duration::from_secs(3));
    lock(&world.flow).stop = true;
    wait_until("programs to end", || world.hosts.iter().all(|host| !lock(host).works) || sim::now_ns() > by);
    if sim::now_ns() > by {
        sim::fail(format_args!("programs do not end {HEALING:?} after all was well"));
    }
    lock(&world.flow).last = true;
    changed();
    keepers.into_iter().for_each(sim::Task::join);
}

/// The volume must be sound.
fn check_disk(disk: &Disk) -> Result<(), String> {
    let mut issues = Vec::new();
    let checked =
        check(&disk.device(Node::OUTSIDE), &mut |issue| issues.push(issue.to_string()), &mut |_, _| ());
    match checked {
        Err(e) => Err(format!("check: {e}")),
        Ok(_) if issues.is_empty() => Ok(()),
        Ok(_) => Err(format!("check: {}", issues.join("; "))),
    }
}
