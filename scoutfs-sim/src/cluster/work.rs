// SPDX-License-Identifier: GPL-2.0-only
//! What programs on the hosts do: random operations on a few names and files that all share, each recorded.

use std::sync::Arc;
use std::time::Duration;

use scoutfs_btree::error::Error as TreeError;
use scoutfs_env::device::EIO;
use scoutfs_env::sim::{self, Node};
use scoutfs_env::thread;
use scoutfs_format::item::ROOT_INO;
use scoutfs_fs::dir::NewInode;
use scoutfs_fs::{Error, Fs, Mount};

use super::history::{Register, Wrong};
use super::host::{World, changed, mount, wait_until};
use super::lock;
use super::ops::{COMMON, FILES, LOCKED, LOG, NAMES, Program, SIZED, WORDS, content_name, filled};

/// Between two hosts that unmount in turn.
const TURN: Duration = Duration::from_secs(3);
/// Less patience than this ends the leadership of who is held up for a moment.
const HASTY_MS: u64 = 2000;
/// Programs on each mount.
const PROGRAMS: usize = 2;
/// Where hosts work and rest in turn, for so long: logs of those who rest are merged meanwhile.
const SHIFT: Duration = Duration::from_millis(2500);

/// What ends a program, or one operation of it.
pub enum End {
    /// No space, on a volume that is small.
    NoSpace,
    /// The mount has shut down.
    Shutdown,
    /// The disk failed; whatever was to be done is done or not.
    Io,
    /// An error that no operation may give here.
    Unexpected(String),
    /// What it saw cannot be.
    Wrong(Wrong),
}

impl From<Wrong> for End {
    fn from(wrong: Wrong) -> Self {
        End::Wrong(wrong)
    }
}

/// What a new file is.
pub fn file() -> NewInode {
    NewInode { mode: 0o100_644, umask: 0, uid: 0, gid: 0, rdev: 0 }
}

fn dir() -> NewInode {
    NewInode { mode: 0o040_755, ..file() }
}

/// Makes what programs work on.
fn prepare(world: &World, fs: &Fs) -> Result<(), Error> {
    let common = fs.mkdir(ROOT_INO, COMMON, &dir())?.ino;
    let mut made = Vec::new();
    for (n, words) in WORDS.iter().enumerate() {
        let ino = fs.create(ROOT_INO, &content_name(n), &file())?.ino;
        fs.write(ino, 0, &filled(0, *words))?;
        made.push(ino);
    }
    for name in [SIZED, LOG, LOCKED] {
        made.push(fs.create(ROOT_INO, name, &file())?.ino);
    }
    fs.sync()?;
    made.push(common);
    made.into_iter().for_each(|ino| fs.forget(ino, 1));
    let mut history = lock(&world.history);
    (0..NAMES).for_each(|n| history.begin(Register::Name(n), 0));
    (0..FILES).for_each(|n| history.begin(Register::Content(n), 0));
    (0..FILES).for_each(|n| history.begin(Register::Xattr(n), 0));
    history.begin(Register::Size, 0);
    Ok(())
}

/// A mount's life: it mounts, programs run, and it unmounts when it still can.
pub fn live(world: &Arc<World>, host: usize) {
    let node = sim::node().expect("a task");
    let mount = match mount(world, host, true) {
        Ok(mount) => mount,
        Err(e) => {
            sim::note(format_args!("host {host}: mounting: {e}"));
            sim::sleep(Duration::from_secs(1));
            return;
        }
    };
    sim::note(format_args!("host {host}: mounted"));
    if !std::mem::replace(&mut lock(&world.flow).prepared, true) {
        if let Err(e) = prepare(world, mount.fs()) {
            sim::fail(format_args!("host {host}: first files: {e}"));
        }
        lock(&world.flow).ready = true;
        changed();
    }
    wait_until("a volume with files", || lock(&world.flow).ready);
    {
        let mut own = lock(&world.hosts[host]);
        (own.works, own.mounted) = (true, true);
    }
    changed();
    let mount = scoutfs_env::Arc::new(mount).expect("memory");
    let programs: Vec<_> = (0..PROGRAMS)
        .map(|number| {
            let (world, mount) = (world.clone(), mount.clone());
            thread::spawn("program", move || run_program(&world, host, node, number, mount.fs()))
                .expect("a thread")
        })
        .collect();
    programs.into_iter().for_each(thread::JoinHandle::join);
    finish(world, host, &mount);
}

/// Unmounts when the run ends, and gives up a mount that has shut down.
fn finish(world: &World, host: usize, mount: &Mount) {
    let failed = matches!(common(mount.fs()), Err(Error::Shutdown(_)));
    if !failed && !lock(&world.flow).stop {
        sim::fail(format_args!("host {host}: programs ended, and the mount goes on"));
    }
    if failed {
        let node = sim::node().expect("a task");
        // With little patience others stand against a leader that is only slow.
        let stood_against = world.patience_ms < HASTY_MS && lock(&world.rules).has_led(node);
        if !lock(&world.history).is_suspect(node) && !stood_against {
            sim::fail(format_args!(
                "host {host}: the mount has shut down, and nothing but connections failed"
            ));
        }
        sim::note(format_args!("host {host}: the mount has shut down"));
        return;
    }
    lock(&world.hosts[host]).works = false;
    lock(&world.flow).looking += 1;
    changed();
    wait_until("the last look", || lock(&world.flow).last);
    let node = sim::node().expect("a task");
    if let Err(e) = look(world, node, mount.fs()) {
        report(node, e);
    }
    lock(&world.flow).looking -= 1;
    changed();
    wait_until("the last looks of others", || lock(&world.flow).looking == 0);
    // A host that has no voter slot cannot unmount any more when all that have one left at the same moment: its last
    // commit asks for a number, and one vote of three makes no leader. Until it can, they leave in turn.
    if world.hosts.len() > world.voters {
        sim::sleep(TURN * host as u32);
    }
    sim::note(format_args!("host {host}: unmounting"));
    let began = sim::now_ns();
    match mount.unmount() {
        Ok(()) => lock(&world.history).synced(node, None, began),
        Err(e) => sim::fail(format_args!("host {host}: unmounting: {e}")),
    }
    sim::note(format_args!("host {host}: unmounted"));
}

/// Reads everything.
fn look(world: &World, node: Node, fs: &Fs) -> Result<(), Box<dyn std::fmt::Display>> {
    let common = common(fs).map_err(|e| boxed(End::from(e)))?;
    Program { world, node, fs, common, number: PROGRAMS }.look().map_err(boxed)
}

fn boxed(end: End) -> Box<dyn std::fmt::Display> {
    Box::new(match end {
        End::NoSpace => "no space".to_string(),
        End::Shutdown => "the mount has shut down".to_string(),
        End::Io => "the disk failed".to_string(),
        End::Unexpected(what) => what,
        End::Wrong(wrong) => wrong.to_string(),
    })
}

fn report(node: Node, why: Box<dyn std::fmt::Display>) {
    sim::fail(format_args!("node {}: {why}", node.number()));
}

impl From<Error> for End {
    fn from(e: Error) -> Self {
        match e {
            Error::Shutdown(_) => End::Shutdown,
            // What was gathered is lost when the disk fails as it is written, and the next sync tells of it.
            Error::Io(_) | Error::Tree(TreeError::Io(_)) | Error::LostWrite { errno: EIO } => End::Io,
            Error::NoSpace => End::NoSpace,
            e => End::Unexpected(format!("an operation: {e}")),
        }
    }
}

fn common(fs: &Fs) -> Result<u64, Error> {
    Ok(fs.lookup(ROOT_INO, COMMON)?.ino)
}

fn run_program(world: &World, host: usize, node: Node, number: usize, fs: &Fs) {
    let end = (|| {
        let common = loop {
            match common(fs).map_err(End::from) {
                Err(End::Io) => {}
                found => break found?,
            }
        };
        let of = Program { world, node, fs, common, number };
        while !lock(&world.flow).stop {
            match of.step() {
                Err(End::Io) => sim::note(format_args!("an operation fails: the disk")),
                // What it had read before its lease ended need not fit what it reads after; it will hear of it.
                Err(End::Unexpected(what)) if !lock(&world.rules).is_valid(node, sim::clock_of) => {
                    sim::note(format_args!("an operation fails on a mount without a lease: {what}"));
                }
                Err(End::NoSpace) if world.is_small => {
                    sim::note(format_args!("an operation fails: no space"))
                }
                done => done?,
            }
            if world.in_shifts {
                let (now, shift) = (sim::now_ns(), SHIFT.as_nanos() as u64);
                if (now / shift + host as u64) % 2 == 1 {
                    sim::sleep(Duration::from_nanos(shift - now % shift));
                }
            }
            // Mostly busy, sometimes long idle.
            match sim::below(12) {
                0 => sim::sleep(Duration::from_millis(sim::below(3000))),
                1..5 => sim::sleep(Duration::from_millis(sim::below(100))),
                _ => true,
            };
        }
        Ok(())
    })();
    match end {
        Ok(()) => {}
        Err(End::Shutdown) => sim::note(format_args!("a program ends: the mount has shut down")),
        Err(e) => report(node, boxed(e)),
    }
}
