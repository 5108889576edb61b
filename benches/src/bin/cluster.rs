// SPDX-License-Identifier: GPL-2.0-only
//! What nodes cost each other. `cluster [FOLDER]`.
//!
//! First in one process, on a device in memory: 1, 2, 4 and 8 nodes, each in a directory of its own: messages, flushes, bytes and
//! processor time for an operation. A node alone in its directory should send next to no message.
//!
//! Then with a `scoutfs mount` for each of two nodes, on an image in FOLDER (needs root and a release build of the command): how long it
//! takes until a file that one node makes is seen by the other, and how often a file and a directory go back and forth.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use scoutfs_benches::Cluster;
use scoutfs_format::item::ROOT_INO;
use scoutfs_fs::Mount;
use scoutfs_fs::dir::{NewInode, RenameFlags};

/// Files that each node makes.
const FILES: usize = 4_000;
/// Turns of a game between two nodes.
const TURNS: usize = 300;

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
    fn by(mounts: &[Mount]) -> Done {
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

/// Each node works in a directory of its own: creates, writes, renames and unlinks.
fn private(count: usize) {
    let cluster = Cluster::new(count, 2 << 30);
    let mounts = &cluster.mounts;
    let dirs: Vec<u64> = mounts
        .iter()
        .enumerate()
        .map(|(n, mount)| {
            let name = format!("dir{n}");
            mount.fs().mkdir(ROOT_INO, name.as_bytes(), &DIR).expect("mkdir").ino
        })
        .collect();
    let works: [(&str, Work); 4] = [
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
    for (name, work) in works {
        let (before, busy) = (Done::by(mounts), processor_time());
        let start = Instant::now();
        thread::scope(|scope| {
            for (mount, dir) in mounts.iter().zip(&dirs) {
                scope.spawn(move || (0..FILES).for_each(|i| work(mount, *dir, i)));
            }
        });
        let elapsed = start.elapsed();
        let (after, busy) = (Done::by(mounts), processor_time() - busy);
        let ops = (FILES * count) as f64;
        println!(
            "{count} nodes  {name:<8} {:>9.0} /s  {:>8.4} messages  {:>8.5} flushes  {:>8.0} bytes  {:>6.2} us of processor",
            ops / elapsed.as_secs_f64(),
            (after.messages - before.messages) as f64 / ops,
            (after.flushes - before.flushes) as f64 / ops,
            (after.written - before.written) as f64 / ops,
            busy.as_secs_f64() * 1e6 / ops,
        );
    }
}

/// What a hand-over of a lock for writing costs: one node makes a file, the other looks at it.
fn hand_overs() {
    let cluster = Cluster::new(2, 1 << 30);
    let mounts = &cluster.mounts;
    let dir = mounts[0].fs().mkdir(ROOT_INO, b"dir", &DIR).expect("mkdir").ino;
    let mut times = Vec::new();
    let before = Done::by(mounts);
    for i in 0..TURNS {
        let name = format!("file{i}");
        let file = mounts[i % 2].fs().create(dir, name.as_bytes(), &FILE).expect("create");
        let start = Instant::now();
        let seen = mounts[(i + 1) % 2].fs().lookup(dir, name.as_bytes()).expect("lookup");
        times.push(start.elapsed());
        assert_eq!(seen.ino, file.ino);
    }
    let after = Done::by(mounts);
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

fn say(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let sum: Duration = times.iter().sum();
    println!(
        "{what:<46} p50 {:>10.3?}  p99 {:>10.3?}  {:>7.0} turns/s",
        times[times.len() / 2],
        times[times.len() * 99 / 100],
        times.len() as f64 / sum.as_secs_f64()
    );
}

/// Two nodes with daemons.
fn mounted(folder: &Path) {
    let folder = folder.join("cluster");
    fs::create_dir_all(&folder).expect("a folder");
    let image = folder.join("image");
    File::create(&image).and_then(|file| file.set_len(2 << 30)).expect("an image");
    scoutfs(&["mkfs", "-Q", "1", "--force"], &[&image]);
    let a = Node::new(&folder, "a", "server_addr=127.0.0.1");
    let b = Node::new(&folder, "b", "rw");
    let nodes = [&a.0, &b.0];
    for (n, node) in nodes.iter().enumerate() {
        fs::create_dir(node.join(format!("dir{n}"))).expect("mkdir");
    }
    let seen = |i: usize| {
        let name = format!("dir0/seen{i}");
        File::create(nodes[0].join(&name)).expect("create");
        let start = Instant::now();
        fs::metadata(nodes[1].join(&name)).expect("stat");
        start.elapsed()
    };
    say("create on one node, stat on the other", (0..TURNS).map(seen).collect());
    let directory = |i: usize| {
        let start = Instant::now();
        File::create(nodes[i % 2].join(format!("dir1/turn{i}"))).expect("create");
        start.elapsed()
    };
    say("a directory back and forth, a create each", (0..TURNS).map(directory).collect());
    fs::write(a.0.join("ball"), [0; 4096]).expect("a file");
    let files =
        nodes.map(|node| OpenOptions::new().read(true).write(true).open(node.join("ball")).expect("open"));
    let file = |i: usize| {
        let start = Instant::now();
        let mut number = [0; 8];
        files[i % 2].read_exact_at(&mut number, 0).expect("read");
        assert_eq!(u64::from_le_bytes(number), i as u64, "a stale answer");
        files[i % 2].write_all_at(&(i as u64 + 1).to_le_bytes(), 0).expect("write");
        start.elapsed()
    };
    say("a file back and forth, a read and a write each", (0..TURNS).map(file).collect());
    drop(files);
    drop((b, a));
    let _ = fs::remove_dir_all(&folder);
}

fn main() {
    for count in [1, 2, 4, 8] {
        private(count);
    }
    hand_overs();
    match std::env::args().nth(1) {
        Some(folder) => mounted(Path::new(&folder)),
        None => println!("(give a folder for the runs with mounts)"),
    }
}
