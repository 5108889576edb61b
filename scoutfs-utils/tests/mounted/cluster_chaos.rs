// SPDX-License-Identifier: GPL-2.0-only
//! Nodes that are killed, put to sleep, cut off from the network and taken down at random, while all of them work: nothing that was
//! acknowledged is lost, and nobody sees something older than he or another saw before.
//!
//! Runs for half a minute, or for `CHAOS_SECONDS`, from `CHAOS_SEED`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::pattern::{Random, content};
use crate::volume::{Mounted, Volume, is_mount_point};
use crate::wires::Wires;

/// Of these, three may lead, and two of the three must be there.
const NODES: usize = 4;
const VOTERS: usize = 3;
/// Files of each node.
const FILES: usize = 8;
/// What a takeover and all that follows it may take on a machine that does many other things.
const PATIENCE: Duration = Duration::from_secs(120);

/// A file that its node replaces again and again.
#[derive(Default)]
struct Versions {
    /// The newest that was begun.
    begun: AtomicU64,
    /// The newest that is durable, or was seen by another node.
    certain: AtomicU64,
}

/// How a node is.
#[derive(Clone, Copy, PartialEq)]
enum Health {
    /// It is mounted.
    Up,
    /// Its worker has met an error and waits.
    Failed,
    /// The test is over.
    Over,
}

struct Node {
    health: Mutex<Health>,
    changed: Condvar,
    files: [Versions; FILES],
    /// Lines of its log that are durable.
    lines: AtomicU64,
    /// Since the test began, in milliseconds, when its worker began what it is at.
    busy_since: AtomicU64,
}

impl Node {
    fn health(&self) -> Health {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_health(&self, health: Health) {
        let mut now = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        if *now != Health::Over {
            *now = health;
        }
        self.changed.notify_all();
    }

    /// Waits until it is up again. False when the test is over.
    fn wait(&self) -> bool {
        let mut health = self.health.lock().unwrap();
        while *health == Health::Failed {
            health = self.changed.wait(health).unwrap();
        }
        *health == Health::Up
    }
}

/// What a version of a file is.
fn bytes_of(node: usize, file: usize, version: u64) -> Vec<u8> {
    let seed = version << 16 | (node << 8 | file) as u64;
    let mut bytes = version.to_le_bytes().to_vec();
    bytes.extend(content(seed, 1 + (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as usize % 50_000));
    bytes
}

fn line_of(node: usize, number: u64) -> Vec<u8> {
    format!("{node} {number:>13}\n").into_bytes()
}

/// A node's work on its mount, through a directory that is open: no path leads to what is below the mount point.
struct Work<'a> {
    nodes: &'a [Node],
    me: usize,
    root: File,
}

impl Work<'_> {
    fn path(&self, name: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{name}", self.root.as_raw_fd()).into()
    }

    /// Replaces a file, durably.
    fn replace(&self, file: usize) -> io::Result<()> {
        let versions = &self.nodes[self.me].files[file];
        let version = versions.begun.fetch_add(1, SeqCst) + 1;
        let (new, name) = (self.path(&format!("new-{}-{file}", self.me)), format!("file-{}-{file}", self.me));
        let mut written = File::create(&new)?;
        written.write_all(&bytes_of(self.me, file, version))?;
        written.sync_all()?;
        drop(written);
        fs::rename(&new, self.path(&name))?;
        self.root.sync_all()?;
        versions.certain.fetch_max(version, SeqCst);
        Ok(())
    }

    /// Writes a line at the end of a file, durably.
    fn append(&self) -> io::Result<()> {
        let node = &self.nodes[self.me];
        let mut log =
            OpenOptions::new().create(true).append(true).open(self.path(&format!("log-{}", self.me)))?;
        // An error may have come after the line was written.
        let len = log.metadata()?.len();
        assert_eq!(len % 16, 0, "a part of a line");
        log.write_all(&line_of(self.me, len / 16))?;
        log.sync_all()?;
        node.lines.fetch_max(len / 16 + 1, SeqCst);
        Ok(())
    }

    /// Another's file is one of its versions, whole, and not older than any that was durable or seen.
    fn look_at(&self, node: usize, file: usize) -> io::Result<()> {
        let versions = &self.nodes[node].files[file];
        let certain = versions.certain.load(SeqCst);
        let name = format!("file-{node}-{file}");
        let mut bytes = Vec::new();
        match File::open(self.path(&name)) {
            Ok(mut file) => file.read_to_end(&mut bytes)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                assert_eq!(certain, 0, "node {} does not find {name}", self.me);
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        let version = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        let begun = versions.begun.load(SeqCst);
        assert!(
            (certain..=begun).contains(&version),
            "node {} sees version {version} of {name}, which had {certain} and may have {begun}",
            self.me
        );
        assert!(bytes == bytes_of(node, file, version), "node {}: {name} of version {version}", self.me);
        versions.certain.fetch_max(version, SeqCst);
        Ok(())
    }

    fn look_at_log(&self, node: usize) -> io::Result<()> {
        let lines = self.nodes[node].lines.load(SeqCst);
        let mut bytes = Vec::new();
        match File::open(self.path(&format!("log-{node}"))) {
            Ok(mut file) => file.read_to_end(&mut bytes)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound && lines == 0 => return Ok(()),
            Err(e) => return Err(e),
        };
        assert!(bytes.len() as u64 >= lines * 16, "{} bytes of {lines} lines", bytes.len());
        for (number, line) in bytes.chunks(16).enumerate() {
            assert_eq!(line, line_of(node, number as u64), "line {number} of node {node}");
        }
        Ok(())
    }

    fn step(&self, random: &mut Random) -> io::Result<()> {
        let other = (self.me + 1 + random.below(NODES as u64 - 1) as usize) % NODES;
        match random.below(10) {
            0..5 => self.replace(random.below(FILES as u64) as usize),
            5..7 => self.append(),
            7 => self.look_at_log(other),
            _ => self.look_at(other, random.below(FILES as u64) as usize),
        }
    }
}

/// A node that was cut off, fenced or killed says one of these, and nothing else.
fn is_of_a_failed_node(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::ENOTCONN | libc::ECONNABORTED | libc::ENODEV))
}

fn work(nodes: &[Node], me: usize, root: impl Fn() -> PathBuf, start: Instant, steps: &AtomicU64) {
    let mut random = Random::new(me as u64 + 1);
    let node = &nodes[me];
    while node.wait() {
        let begin = || node.busy_since.store(start.elapsed().as_millis() as u64 + 1, SeqCst);
        begin();
        let failed = match File::open(root()) {
            Ok(root) => {
                let work = Work { nodes, me, root };
                loop {
                    begin();
                    if node.health() != Health::Up {
                        break None;
                    }
                    match work.step(&mut random) {
                        Ok(()) => steps.fetch_add(1, SeqCst),
                        Err(e) => break Some(e),
                    };
                }
            }
            Err(e) => Some(e),
        };
        node.busy_since.store(0, SeqCst);
        if let Some(error) = failed {
            assert!(is_of_a_failed_node(&error), "node {me}: {error}");
            node.set_health(Health::Failed);
        }
    }
}

/// What is done to a node.
#[derive(Clone, Copy, Debug)]
enum Blow {
    Kill,
    Sleep,
    Cut,
    Leave,
}

/// How a node is taken down.
#[derive(Clone, Copy)]
enum End {
    Buried,
    Left,
}

/// The mounts, and what is done to them.
struct Controller<'v> {
    volume: &'v Volume,
    wires: &'v Wires,
    mounts: Vec<Option<Mounted<'v>>>,
}

impl<'v> Controller<'v> {
    fn mount(volume: &'v Volume, wires: &'v Wires, node: usize) -> Mounted<'v> {
        let options = match node {
            0..VOTERS => format!("server_addr={}", wires.address(node)),
            _ => String::from("rw"),
        };
        volume.mount_node_by(&format!("node{node}"), &options, |command| wires.at(node, &command))
    }

    fn new(volume: &'v Volume, wires: &'v Wires) -> Self {
        let mounts = thread::scope(|scope| {
            let mounting: Vec<_> =
                (0..NODES).map(|node| scope.spawn(move || Self::mount(volume, wires, node))).collect();
            mounting.into_iter().map(|node| Some(node.join().unwrap())).collect()
        });
        Controller { volume, wires, mounts }
    }

    fn mounted(&self, node: usize) -> &Mounted<'v> {
        self.mounts[node].as_ref().unwrap()
    }

    /// Begins; what is left to do is done by [`Controller::end`].
    fn begin(&mut self, node: usize, blow: Blow) {
        match blow {
            Blow::Kill => self.mounts[node].as_mut().unwrap().kill_daemon(),
            Blow::Sleep => self.mounted(node).signal_daemon(Signal::STOP),
            Blow::Cut => self.wires.plug(node, false),
            Blow::Leave => {}
        }
    }

    fn end(&mut self, node: usize, blow: Blow) {
        match blow {
            Blow::Kill | Blow::Leave => {}
            Blow::Sleep => self.mounted(node).signal_daemon(Signal::CONT),
            Blow::Cut => self.wires.plug(node, true),
        }
    }

    /// Takes down a node whose worker rests.
    fn take_down(&mut self, node: usize, end: End) {
        let mounted = self.mounts[node].take().unwrap();
        match end {
            End::Buried => mounted.bury_node(),
            End::Left => mounted.leave(),
        }
        assert!(!is_mount_point(&self.volume.beside(&format!("node{node}"))));
    }

    /// Nodes are taken down and mounted anew, and all that fail meanwhile: what mounts may have to wait for voters that have failed.
    fn mount_again(&mut self, nodes: &[Node], mut down: Vec<(usize, End)>, start: Instant) {
        let (volume, wires) = (self.volume, self.wires);
        thread::scope(|scope| {
            let mut mounting = Vec::new();
            loop {
                for (n, end) in down.drain(..) {
                    nodes[n].set_health(Health::Failed);
                    wait_for_rest(&nodes[n]);
                    self.take_down(n, end);
                    mounting.push((n, scope.spawn(move || Self::mount(volume, wires, n))));
                }
                for (n, mounted) in mounting.extract_if(.., |(_, mounted)| mounted.is_finished()) {
                    self.mounts[n] = Some(mounted.join().unwrap());
                    nodes[n].set_health(Health::Up);
                }
                for (n, node) in nodes.iter().enumerate() {
                    if node.health() == Health::Failed && self.mounts[n].is_some() {
                        let now = start.elapsed().as_secs_f64();
                        eprintln!("{now:6.1} s: node {n} has failed and is mounted again");
                        down.push((n, End::Buried));
                    }
                }
                if mounting.is_empty() && down.is_empty() {
                    return;
                }
                sleep(Duration::from_millis(20));
            }
        });
    }
}

/// Waits until the worker of a node does nothing.
fn wait_for_rest(node: &Node) {
    let start = Instant::now();
    while node.busy_since.load(SeqCst) != 0 {
        assert!(start.elapsed() < PATIENCE, "a worker does not end its step");
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn nothing_acknowledged_is_lost_whatever_happens_to_nodes() {
    let number = |name, default| std::env::var(name).map_or(default, |value| value.parse().unwrap());
    let (seconds, seed) = (number("CHAOS_SECONDS", 30), number("CHAOS_SEED", 1));
    let volume = Volume::with_quorum(512, 2);
    let wires = Wires::new(NODES);
    let mut controller = Controller::new(&volume, &wires);
    let nodes: Vec<Node> = (0..NODES)
        .map(|_| Node {
            health: Mutex::new(Health::Up),
            changed: Condvar::new(),
            files: Default::default(),
            lines: AtomicU64::new(0),
            busy_since: AtomicU64::new(0),
        })
        .collect();
    let start = Instant::now();
    let steps = AtomicU64::new(0);
    let mut random = Random::new(seed);
    thread::scope(|scope| {
        // When something panics, the workers end, too: those of a node that is cut off wait for its cable.
        struct EndAll<'a>(&'a [Node], &'a Wires);
        impl Drop for EndAll<'_> {
            fn drop(&mut self) {
                self.0.iter().for_each(|node| node.set_health(Health::Over));
                if thread::panicking() {
                    let plug_all = || (0..NODES).for_each(|node| self.1.plug(node, true));
                    let _ = catch_unwind(AssertUnwindSafe(plug_all));
                }
            }
        }
        let end_all = EndAll(&nodes, &wires);
        for me in 0..NODES {
            let (nodes, steps) = (&nodes[..], &steps);
            let root = volume.beside(&format!("node{me}"));
            scope.spawn(move || work(nodes, me, || root.clone(), start, steps));
        }
        while start.elapsed() < Duration::from_secs(seconds) {
            sleep(Duration::from_millis(500 + random.below(2500)));
            let first = random.below(NODES as u64) as usize;
            // Sometimes two at once.
            let second = (random.below(4) == 0).then(|| (first + 1) % NODES);
            let mut blows: Vec<(usize, Blow)> = [Some(first), second]
                .into_iter()
                .flatten()
                .map(|node| {
                    (node, [Blow::Kill, Blow::Sleep, Blow::Cut, Blow::Leave][random.below(4) as usize])
                })
                .collect();
            // While a daemon sleeps no program is started: a child that is about to begin closes what it has of our files, and the daemon
            // would have to answer. So nodes fall asleep last and wake up first.
            blows.sort_by_key(|(_, blow)| matches!(blow, Blow::Sleep));
            // A lease is 6 s: some of them are fenced.
            let while_ = Duration::from_millis(300 + random.below(12_000));
            eprintln!(
                "{:6.1} s: {blows:?} for {while_:?}, {} steps",
                start.elapsed().as_secs_f64(),
                steps.load(SeqCst)
            );
            for (node, blow) in &blows {
                controller.begin(*node, *blow);
            }
            sleep(while_);
            let mut down = Vec::new();
            for (node, blow) in blows.iter().rev() {
                controller.end(*node, *blow);
                match blow {
                    Blow::Leave => down.push((*node, End::Left)),
                    Blow::Kill => down.push((*node, End::Buried)),
                    Blow::Sleep | Blow::Cut => {}
                }
            }
            controller.mount_again(&nodes, down, start);
        }
        drop(end_all);
    });
    // All workers have ended their steps. What they say is there is there, on every node.
    for me in 0..NODES {
        let try_it = |controller: &Controller<'_>| {
            let work = Work { nodes: &nodes, me, root: File::open(controller.mounted(me).path())? };
            (0..NODES).try_for_each(|node| {
                work.look_at_log(node)?;
                (0..FILES).try_for_each(|file| work.look_at(node, file))
            })
        };
        if let Err(error) = try_it(&controller) {
            assert!(is_of_a_failed_node(&error), "node {me}: {error}");
            controller.mount_again(&nodes, vec![(me, End::Buried)], start);
            try_it(&controller).unwrap();
        }
    }
    eprintln!("{} steps in {:?}", steps.load(SeqCst), start.elapsed());
    controller.mounts.drain(..).rev().flatten().for_each(Mounted::leave);
    volume.check();
}
