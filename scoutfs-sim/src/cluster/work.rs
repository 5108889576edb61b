// SPDX-License-Identifier: GPL-2.0-only
//! What programs on the hosts do: random operations on a few names and files that all share, each recorded.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use scoutfs_btree::error::Error as TreeError;
use scoutfs_env::sim::{self, Node};
use scoutfs_env::thread;
use scoutfs_format::item::ROOT_INO;
use scoutfs_fs::dir::{NewInode, RenameFlags};
use scoutfs_fs::{Error, Fs, Mount};

use super::history::{Register, Seen, Wrong};
use super::host::{World, changed, mount, wait_until};
use super::lock;

/// Names that come and go.
const NAMES: usize = 6;
/// Files that are written and read.
const FILES: usize = 4;
/// How large they are, in words of eight bytes.
const WORDS: [usize; FILES] = [10, 512, 1536, 1300];
/// Voter slots of a volume for more than two hosts.
const VOTERS: usize = 3;
/// Between two hosts that unmount in turn.
const TURN: Duration = Duration::from_secs(3);
/// Programs on each mount.
const PROGRAMS: usize = 2;

/// What ends a program.
enum End {
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

fn file() -> NewInode {
    NewInode { mode: 0o100_644, umask: 0, uid: 0, gid: 0, rdev: 0 }
}

fn dir() -> NewInode {
    NewInode { mode: 0o040_755, ..file() }
}

fn content_name(n: usize) -> Vec<u8> {
    format!("content{n}").into_bytes()
}

/// Makes what programs work on.
fn prepare(world: &World, fs: &Fs) -> Result<(), Error> {
    let common = fs.mkdir(ROOT_INO, b"common", &dir())?.ino;
    for (n, words) in WORDS.iter().enumerate() {
        let ino = fs.create(ROOT_INO, &content_name(n), &file())?.ino;
        fs.write(ino, 0, &filled(0, *words))?;
        fs.forget(ino, 1);
    }
    fs.sync()?;
    fs.forget(common, 1);
    let mut history = lock(&world.history);
    (0..NAMES).for_each(|n| history.begin(Register::Name(n), 0));
    (0..FILES).for_each(|n| history.begin(Register::Content(n), 0));
    Ok(())
}

fn filled(value: u64, words: usize) -> Vec<u8> {
    value.to_le_bytes().repeat(words)
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
        .map(|_| {
            let (world, mount) = (world.clone(), mount.clone());
            thread::spawn("program", move || run_program(&world, node, mount.fs())).expect("a thread")
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
        sim::note(format_args!("host {host}: the mount has shut down"));
        return;
    }
    lock(&world.hosts[host]).works = false;
    changed();
    wait_until("the last look", || lock(&world.flow).last);
    // A host that has no voter slot cannot unmount any more when all that have one left at the same moment: its last
    // commit asks for a number, and one vote of three makes no leader. Until it can, they leave in turn.
    if world.hosts.len() > VOTERS {
        sim::sleep(TURN * host as u32);
    }
    let node = sim::node().expect("a task");
    if let Err(e) = look(world, node, mount.fs()) {
        report(node, e);
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
pub fn look(world: &World, node: Node, fs: &Fs) -> Result<(), Box<dyn std::fmt::Display>> {
    let of = Program { world, node, fs, common: common(fs).map_err(|e| boxed(End::from(e)))? };
    for n in 0..NAMES {
        of.find(n).map_err(boxed)?;
    }
    for n in 0..FILES {
        of.read(n).map_err(boxed)?;
    }
    Ok(())
}

fn boxed(end: End) -> Box<dyn std::fmt::Display> {
    Box::new(match end {
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
            Error::Io(_) | Error::Tree(TreeError::Io(_)) => End::Io,
            e => End::Unexpected(format!("an operation: {e}")),
        }
    }
}

fn common(fs: &Fs) -> Result<u64, Error> {
    Ok(fs.lookup(ROOT_INO, b"common")?.ino)
}

struct Program<'a> {
    world: &'a World,
    node: Node,
    fs: &'a Fs,
    common: u64,
}

fn run_program(world: &World, node: Node, fs: &Fs) {
    let end = (|| {
        let common = loop {
            match common(fs).map_err(End::from) {
                Err(End::Io) => {}
                found => break found?,
            }
        };
        let of = Program { world, node, fs, common };
        while !lock(&world.flow).stop {
            match of.step() {
                Err(End::Io) => sim::note(format_args!("an operation fails: the disk")),
                done => done?,
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

impl Program<'_> {
    fn step(&self) -> Result<(), End> {
        let (name, content) = (sim::below(NAMES as u64) as usize, sim::below(FILES as u64) as usize);
        match sim::below(20) {
            0..4 => self.create(name),
            4..7 => self.remove(name),
            7..9 => self.find(name),
            9 => self.rename(name, sim::below(NAMES as u64) as usize),
            10..13 => self.write(content),
            13..17 => self.read(content),
            17 => self.write(content).and_then(|()| self.fsync(content)),
            18 => self.fsync(content),
            _ => self.sync(),
        }
    }

    fn name(n: usize) -> Vec<u8> {
        format!("name{n}").into_bytes()
    }

    fn create(&self, n: usize) -> Result<(), End> {
        let at = Register::Name(n);
        let began = sim::now_ns();
        let write = lock(&self.world.history).writes(self.node, at, None);
        match self.fs.create(self.common, &Self::name(n), &file()) {
            Ok(attr) => {
                sim::note(format_args!("created name{n}: {}", attr.ino));
                self.fs.forget(attr.ino, 1);
                let mut history = lock(&self.world.history);
                history.read_but(self.node, at, Seen::Value(0), began, Some(write))?;
                history.written(write, Some(attr.ino));
                Ok(())
            }
            Err(Error::Exists) => {
                let mut history = lock(&self.world.history);
                history.refused(write);
                Ok(history.read(self.node, at, Seen::Something, began)?)
            }
            Err(e) => Err(e.into()),
        }
    }

    fn remove(&self, n: usize) -> Result<(), End> {
        let at = Register::Name(n);
        let began = sim::now_ns();
        let write = lock(&self.world.history).writes(self.node, at, Some(0));
        let removed = self.fs.unlink(self.common, &Self::name(n));
        let mut history = lock(&self.world.history);
        match removed {
            Ok(()) => {
                sim::note(format_args!("removed name{n}"));
                history.read_but(self.node, at, Seen::Something, began, Some(write))?;
                history.written(write, None);
                Ok(())
            }
            Err(Error::NotFound) => {
                history.refused(write);
                Ok(history.read(self.node, at, Seen::Value(0), began)?)
            }
            Err(e) => Err(e.into()),
        }
    }

    fn find(&self, n: usize) -> Result<(), End> {
        let began = sim::now_ns();
        let seen = match self.fs.lookup(self.common, &Self::name(n)) {
            Ok(attr) => {
                self.fs.forget(attr.ino, 1);
                attr.ino
            }
            Err(Error::NotFound) => 0,
            Err(e) => return Err(e.into()),
        };
        sim::note(format_args!("found name{n}: {seen}"));
        Ok(lock(&self.world.history).read(self.node, Register::Name(n), Seen::Value(seen), began)?)
    }

    fn rename(&self, from: usize, to: usize) -> Result<(), End> {
        if from == to {
            return Ok(());
        }
        let began = sim::now_ns();
        let (old, new) = {
            let mut history = lock(&self.world.history);
            let old = history.writes(self.node, Register::Name(from), Some(0));
            (old, history.writes(self.node, Register::Name(to), None))
        };
        let (from_name, to_name) = (Self::name(from), Self::name(to));
        let renamed = self.fs.rename(self.common, &from_name, self.common, &to_name, RenameFlags::empty());
        let mut history = lock(&self.world.history);
        match renamed {
            Ok(_) => {
                sim::note(format_args!("renamed name{from} to name{to}"));
                history.read_but(self.node, Register::Name(from), Seen::Something, began, Some(old))?;
                history.written(old, None);
                history.written(new, None);
                Ok(())
            }
            Err(Error::NotFound) => {
                history.refused(old);
                history.refused(new);
                Ok(history.read(self.node, Register::Name(from), Seen::Value(0), began)?)
            }
            Err(e) => Err(e.into()),
        }
    }

    fn content(&self, n: usize) -> Result<u64, Error> {
        let ino = self.fs.lookup(ROOT_INO, &content_name(n))?.ino;
        self.fs.forget(ino, 1);
        Ok(ino)
    }

    fn write(&self, n: usize) -> Result<(), End> {
        let ino = self.content(n)?;
        let value = 1 + sim::random() / 2;
        let write = lock(&self.world.history).writes(self.node, Register::Content(n), Some(value));
        let bytes = filled(value, WORDS[n]);
        let written = match self.fs.write(ino, 0, &bytes) {
            Ok(written) => written,
            Err(e) => {
                lock(&self.world.history).failed(write);
                return Err(e.into());
            }
        };
        if written != bytes.len() {
            sim::fail(format_args!("a write of {} bytes wrote {written}", bytes.len()));
        }
        sim::note(format_args!("wrote content{n}: {value:x}"));
        lock(&self.world.history).written(write, None);
        Ok(())
    }

    fn read(&self, n: usize) -> Result<(), End> {
        let ino = self.content(n)?;
        let began = sim::now_ns();
        let mut bytes = filled(u64::MAX, WORDS[n]);
        let read = self.fs.read(ino, 0, &mut bytes)?;
        if read != bytes.len() {
            sim::fail(format_args!("content{n} is short: {read} of {} bytes", bytes.len()));
        }
        let words = bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("8")));
        let seen: Vec<u64> = words.collect::<BTreeSet<u64>>().into_iter().collect();
        sim::note(format_args!("read content{n}: {seen:x?}"));
        let mut history = lock(&self.world.history);
        match seen[..] {
            [value] => history.read(self.node, Register::Content(n), Seen::Value(value), began)?,
            _ => history.read_torn(self.node, Register::Content(n), &seen, began)?,
        }
        Ok(())
    }

    fn fsync(&self, n: usize) -> Result<(), End> {
        let ino = self.content(n)?;
        let began = sim::now_ns();
        self.fs.fsync(ino)?;
        sim::note(format_args!("fsync of content{n}"));
        lock(&self.world.history).synced(self.node, Some(Register::Content(n)), began);
        Ok(())
    }

    fn sync(&self) -> Result<(), End> {
        let began = sim::now_ns();
        self.fs.sync()?;
        sim::note(format_args!("sync"));
        lock(&self.world.history).synced(self.node, None, began);
        Ok(())
    }
}
