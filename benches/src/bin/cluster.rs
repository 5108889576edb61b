// SPDX-License-Identifier: GPL-2.0-only
//! What nodes cost each other. `cluster [FOLDER] [--beside-cephfs]`.
//!
//! First in one process, on a device in memory: 1, 2, 4 and 8 nodes, each in a directory of its own: messages, flushes, bytes and
//! processor time for an operation. A node alone in its directory should send next to no message, and take as much processor time as on a
//! volume of its own.
//!
//! Then with a `scoutfs mount` for each of two nodes, on an image in FOLDER (needs root and a release build of the command): how long it
//! takes until a file that one node makes is seen by the other, and how often a file and a directory go back and forth. When wanted, two
//! mounts of a CephFS on this machine do the same in turns with them. Each answer is looked at: stale ones are counted, and scoutfs may
//! have none.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use scoutfs_benches::Cluster;
use scoutfs_benches::cephfs::CephFs;
use scoutfs_benches::works::median;
use scoutfs_format::item::ROOT_INO;
use scoutfs_fs::Mount;
use scoutfs_fs::dir::{NewInode, RenameFlags};

/// Files that each node makes.
const FILES: usize = 4_000;
/// Files that all nodes make together where processor time is compared.
const LONG: usize = 80_000;
/// Turns of a game between two nodes.
const TURNS: usize = 300;

/// What nodes cost each other: first in memory, then mounted.
#[derive(Parser)]
struct Arguments {
    /// Where images lie that are mounted by two nodes (needs root and a release build of `scoutfs`). Not mounted when not given.
    folder: Option<PathBuf>,
    /// Compares with a CephFS of one machine. Installs Ceph by apt when it is not there.
    #[arg(long, requires = "folder")]
    beside_cephfs: bool,
    /// How often each game of two nodes is played, and processor times are compared.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
}

const FILE: NewInode = NewInode { mode: 0o100644, umask: 0, rdev: 0, uid: 0, gid: 0 };
const DIR: NewInode = NewInode { mode: 0o040755, umask: 0, rdev: 0, uid: 0, gid: 0 };

/// Processor time of this process so far.
fn processor_time() -> Duration {
    let usage = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(usage.tv_sec as u64, usage.tv_nsec as u32)
}

/// What all mounts have done so far.
#[derive(Clone, Copy, Default)]
struct Done {
    /// Both ways, but for renewals of leases, which come with time.
    messages: u64,
    flushes: u64,
    writes: u64,
    written: u64,
    reads: u64,
    read: u64,
}

impl Done {
    fn by<'a>(mounts: impl Iterator<Item = &'a Mount>) -> Done {
        let mut done = Done::default();
        for mount in mounts {
            let count = &mut |name: &str, value: u64| {
                match name {
                    "sent_renew" | "received_renew" => {}
                    _ if name.starts_with("sent_") || name.starts_with("received_") => done.messages += value,
                    "device_flushes" => done.flushes += value,
                    "device_writes" => done.writes += value,
                    "device_write_bytes" => done.written += value,
                    "device_reads" => done.reads += value,
                    "device_read_bytes" => done.read += value,
                    _ => {}
                }
                Ok(())
            };
            mount.fs().for_each_counter(count).expect("counters");
        }
        done
    }
}

/// An operation on a mount, in a directory, by its number.
type Work = fn(&Mount, u64, usize);

/// What each node does in a directory of its own.
const WORKS: [(&str, Work); 4] = [
    ("create", |mount, dir, i| {
        mount.fs().create(dir, format!("file{i}").as_bytes(), &FILE).expect("create");
    }),
    ("stat", |mount, dir, i| {
        mount.fs().lookup(dir, format!("file{i}").as_bytes()).expect("lookup");
    }),
    ("rename", |mount, dir, i| {
        let (old, new) = (format!("file{i}"), format!("other{i}"));
        let flags = RenameFlags::empty();
        mount.fs().rename(dir, old.as_bytes(), dir, new.as_bytes(), flags).expect("rename");
    }),
    ("unlink", |mount, dir, i| {
        mount.fs().unlink(dir, format!("other{i}").as_bytes()).expect("unlink");
    }),
];

/// What an operation of a work took, of all nodes of some volumes.
struct Cost {
    rate: f64,
    messages: f64,
    flushes: f64,
    written: f64,
    /// Microseconds of processor.
    busy: f64,
}

/// So many volumes with so many nodes each. All nodes work at once, each in a directory of its own, with so many files.
fn private(volumes: usize, nodes: usize, files: usize) -> [Cost; WORKS.len()] {
    let clusters: Vec<Cluster> =
        (0..volumes).map(|_| Cluster::new(nodes, (2 << 30) / volumes as u64)).collect();
    let mounts = || clusters.iter().flat_map(|cluster| &cluster.mounts);
    let mkdir = |(n, mount): (usize, &Mount)| {
        mount.fs().mkdir(ROOT_INO, format!("dir{n}").as_bytes(), &DIR).expect("mkdir").ino
    };
    let dirs: Vec<u64> = mounts().enumerate().map(mkdir).collect();
    WORKS.map(|(_, work)| {
        let (before, busy) = (Done::by(mounts()), processor_time());
        let start = Instant::now();
        thread::scope(|scope| {
            for (mount, dir) in mounts().zip(&dirs) {
                scope.spawn(move || (0..files).for_each(|i| work(mount, *dir, i)));
            }
        });
        let elapsed = start.elapsed();
        let (after, busy) = (Done::by(mounts()), processor_time() - busy);
        let ops = (files * nodes * volumes) as f64;
        Cost {
            rate: ops / elapsed.as_secs_f64(),
            messages: (after.messages - before.messages) as f64 / ops,
            flushes: (after.flushes - before.flushes) as f64 / ops,
            written: (after.written - before.written) as f64 / ops,
            busy: busy.as_secs_f64() * 1e6 / ops,
        }
    })
}

/// Nodes that have nothing to do with each other: what more of them cost.
fn growing() {
    for nodes in [1, 2, 4, 8] {
        for (cost, (name, _)) in private(1, nodes, FILES).iter().zip(WORKS) {
            println!(
                "{nodes} nodes  {name:<8} {:>9.0} /s  {:>8.4} messages  {:>8.5} flushes  {:>8.0} bytes  {:>6.2} us of processor",
                cost.rate, cost.messages, cost.flushes, cost.written, cost.busy,
            );
        }
    }
}

/// Processor time of nodes of one volume, beside as many volumes of one node each that work as much at the same time: processors that are
/// busy slow each other down, whatever they do.
fn processor(rounds: usize) {
    for nodes in [2, 4] {
        let mut busy = [(); WORKS.len()].map(|()| (Vec::new(), Vec::new()));
        for _ in 0..rounds {
            let apart = private(nodes, 1, LONG / nodes);
            let together = private(1, nodes, LONG / nodes);
            for ((apart, together), (a, t)) in apart.iter().zip(&together).zip(&mut busy) {
                a.push(apart.busy);
                t.push(together.busy);
            }
        }
        for ((apart, together), (name, _)) in busy.into_iter().zip(WORKS) {
            let ratios = apart.iter().zip(&together).map(|(apart, together)| together / apart);
            let (ratio, apart, together) = (median(ratios.collect()), median(apart), median(together));
            println!(
                "{nodes} nodes  {name:<8} {together:>6.2} us of processor on one volume, {apart:.2} on one each: {ratio:.2} times \
                 (medians of {rounds} rounds)",
            );
        }
    }
}

/// What a hand-over of a lock for writing costs: one node makes a file, the other looks at it.
fn hand_overs() {
    let cluster = Cluster::new(2, 1 << 30);
    let mounts = &cluster.mounts;
    let dir = mounts[0].fs().mkdir(ROOT_INO, b"dir", &DIR).expect("mkdir").ino;
    let mut times = Vec::new();
    let before = Done::by(mounts.iter());
    for i in 0..TURNS {
        let name = format!("file{i}");
        let file = mounts[i % 2].fs().create(dir, name.as_bytes(), &FILE).expect("create");
        let start = Instant::now();
        let seen = mounts[(i + 1) % 2].fs().lookup(dir, name.as_bytes()).expect("lookup");
        times.push(start.elapsed());
        assert_eq!(seen.ino, file.ino);
    }
    let after = Done::by(mounts.iter());
    let each = |of: fn(&Done) -> u64| (of(&after) - of(&before)) as f64 / TURNS as f64;
    times.sort();
    println!(
        "create on one node, lookup on the other, and back: p50 {:?}, p99 {:?} in memory; for each {:.1} flushes, {:.1} writes, \
         {:.0} bytes written, {:.1} reads, {:.0} bytes read, {:.1} messages",
        times[TURNS / 2],
        times[TURNS * 99 / 100],
        each(|done| done.flushes),
        each(|done| done.writes),
        each(|done| done.written),
        each(|done| done.reads),
        each(|done| done.read),
        each(|done| done.messages),
    );
}

/// A node with a daemon of its own; it leaves when the value goes.
struct Node(PathBuf);

impl Node {
    fn new(folder: &Path, name: &str, options: &str) -> Self {
        let place = folder.join(name);
        fs::create_dir_all(&place).expect("a directory to mount on");
        let node = Node(place);
        scoutfs(&["mount", "-o", options], &[&folder.join("image"), &node.0]);
        node
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn scoutfs(arguments: &[&str], paths: &[&Path]) {
    let program = std::env::current_exe().expect("this program").with_file_name("scoutfs");
    let status = Command::new(program).args(arguments).args(paths).status().expect("scoutfs");
    assert!(status.success(), "scoutfs {arguments:?} ended with {status}");
}

/// Two mounts of one filesystem.
struct Pair {
    name: &'static str,
    nodes: [PathBuf; 2],
    /// One file, which each has open.
    balls: [File; 2],
}

impl Pair {
    fn new(name: &'static str, nodes: &[PathBuf; 2]) -> Pair {
        for (n, node) in nodes.iter().enumerate() {
            fs::create_dir(node.join(format!("dir{n}"))).expect("mkdir");
        }
        fs::write(nodes[0].join("ball"), [0; 4096]).expect("a file");
        let open = |node: &PathBuf| OpenOptions::new().read(true).write(true).open(node.join("ball"));
        Pair { name, nodes: nodes.clone(), balls: nodes.each_ref().map(|node| open(node).expect("open")) }
    }
}

/// A turn of a game, by its number: how long it took, and whether what the other node did was seen.
type Turn = fn(&Pair, usize) -> (Duration, bool);

const GAMES: [(&str, Turn); 4] = [
    ("create on one node, stat on the other", |pair, turn| {
        let name = format!("dir0/seen{turn}");
        File::create(pair.nodes[0].join(&name)).expect("create");
        let start = Instant::now();
        let seen = fs::exists(pair.nodes[1].join(&name)).expect("stat");
        (start.elapsed(), seen)
    }),
    ("a directory back and forth, a create each", |pair, turn| {
        let here = pair.nodes[turn % 2].join("dir1");
        let start = Instant::now();
        File::create(here.join(format!("turn{turn}"))).expect("create");
        let elapsed = start.elapsed();
        (elapsed, turn == 0 || fs::exists(here.join(format!("turn{}", turn - 1))).expect("stat"))
    }),
    ("a directory back and forth, a stat of the last name and a create each", |pair, turn| {
        let here = pair.nodes[turn % 2].join("dir1");
        let start = Instant::now();
        let seen = turn == 0 || fs::exists(here.join(format!("last{}", turn - 1))).expect("stat");
        File::create(here.join(format!("last{turn}"))).expect("create");
        (start.elapsed(), seen)
    }),
    ("a file back and forth, a read and a write each", |pair, turn| {
        let (ball, mut number) = (&pair.balls[turn % 2], [0; 8]);
        let start = Instant::now();
        ball.read_exact_at(&mut number, 0).expect("read");
        ball.write_all_at(&(turn as u64 + 1).to_le_bytes(), 0).expect("write");
        (start.elapsed(), u64::from_le_bytes(number) == turn as u64)
    }),
];

/// Plays all games, the pairs in turns. The medians of the first pair's rounds are compared with those of the others.
fn play(pairs: &[Pair], rounds: usize) {
    let mut stale_of_first = 0;
    for (what, turn) in GAMES {
        println!("{what}:");
        let mut taken = vec![(Vec::new(), Vec::new()); pairs.len()];
        for round in 0..rounds {
            for (n, (pair, (p50s, rates))) in pairs.iter().zip(&mut taken).enumerate() {
                let turns = (round * TURNS..(round + 1) * TURNS).map(|i| turn(pair, i));
                let (mut times, seen): (Vec<Duration>, Vec<bool>) = turns.unzip();
                let stale = seen.iter().filter(|seen| !**seen).count();
                stale_of_first += if n == 0 { stale } else { 0 };
                times.sort();
                let (p50, p99) = (times[TURNS / 2], times[TURNS * 99 / 100]);
                let rate = TURNS as f64 / times.iter().sum::<Duration>().as_secs_f64();
                println!(
                    "  {:<8} p50 {p50:>10.3?}  p99 {p99:>10.3?}  {rate:>7.0} turns/s  {stale} stale",
                    pair.name
                );
                p50s.push(p50.as_secs_f64());
                rates.push(rate);
            }
        }
        let mut medians = taken.into_iter().map(|(p50s, rates)| (median(p50s), median(rates)));
        let (p50, rate) = medians.next().expect("a pair");
        for (other, (other_p50, other_rate)) in pairs[1..].iter().zip(medians) {
            println!(
                "  {} beside {}: {:.2} times its p50, {:.1} times its turns/s (medians of {rounds} rounds)",
                pairs[0].name,
                other.name,
                p50 / other_p50,
                rate / other_rate
            );
        }
    }
    assert_eq!(stale_of_first, 0, "stale answers of {}", pairs[0].name);
}

/// Two nodes with daemons, and beside them what is wanted.
fn mounted(folder: &Path, arguments: &Arguments) -> Result<(), String> {
    let ceph = arguments.beside_cephfs.then(|| CephFs::new(&folder.join("cephfs"))).transpose()?;
    let image = folder.join("image");
    File::create(&image).and_then(|file| file.set_len(2 << 30)).expect("an image");
    scoutfs(&["mkfs", "-Q", "1", "--force"], &[&image]);
    let a = Node::new(folder, "a", "server_addr=127.0.0.1");
    let b = Node::new(folder, "b", "rw");
    let mut pairs = vec![Pair::new("scoutfs", &[a.0.clone(), b.0.clone()])];
    pairs.extend(ceph.iter().map(|ceph| Pair::new("CephFS", &ceph.nodes)));
    play(&pairs, arguments.rounds.into());
    drop(pairs);
    drop((b, a, ceph));
    Ok(())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    growing();
    processor(arguments.rounds.into());
    hand_overs();
    let done = match &arguments.folder {
        Some(folder) => {
            let folder = folder.join("cluster");
            fs::create_dir_all(&folder).expect("a folder");
            let done = mounted(&folder.canonicalize().expect("a folder"), &arguments);
            let _ = fs::remove_dir_all(&folder);
            done
        }
        None => {
            println!("(give a folder for the runs with mounts)");
            Ok(())
        }
    };
    done.map_or_else(
        |e| {
            eprintln!("{e}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}
