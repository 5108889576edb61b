// SPDX-License-Identifier: GPL-2.0-only
//! Locks that are asked for before their turn: because the same operation wants them, or because they were guessed.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::sync::Arc as StdArc;
use std::thread;
use std::time::Instant;
use std::vec::Vec;

use scoutfs_format::item::ROOT_INO;

use super::*;
use crate::fs::testing::{DIR, FILE, Pair};
use crate::node::Mount;

/// What waits this long waits for ever.
const FOREVER: Duration = Duration::from_secs(20);

fn mode(mount: &Mount, ino: u64) -> Mode {
    mount.fs().store().lock_table.state.lock().machine.mode(LockName::group_of(ino))
}

/// How many locks a mount holds or has asked for.
fn known(mount: &Mount) -> usize {
    mount.fs().store().lock_table.state.lock().machine.len()
}

fn waits(mount: &Mount) -> u64 {
    mount.fs().store().counters.get(Counter::LockWait)
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < FOREVER, "{what}");
        thread::yield_now();
    }
}

/// Two mounts, a directory and a file in it, of different groups.
struct Bench {
    pair: Pair,
    dir: u64,
    file: u64,
}

impl Bench {
    fn new() -> Bench {
        let pair = Pair::new();
        let dir = pair.a.fs().mkdir(ROOT_INO, b"dir", &DIR).unwrap().ino;
        let file = pair.a.fs().create(dir, b"file", &FILE).unwrap().ino;
        assert_ne!(LockName::group_of(dir), LockName::group_of(file));
        Bench { pair, dir, file }
    }

    /// The first mount has the locks of the directory and the file for writing, and the second has neither.
    fn take(&self) {
        let Bench { pair, dir, file } = self;
        for ino in [*dir, *file] {
            for mount in [&pair.a, &pair.b] {
                if let Some(inode) = mount.fs().table.get(ino) {
                    // Long ago: nothing is opened in passing, which would look at it again.
                    inode.looked_up_at.store(0, Ordering::Relaxed);
                }
            }
        }
        drop(pair.a.fs().store().lock(&[(*dir, LockMode::Write), (*file, LockMode::Write)]).unwrap());
        assert_eq!([mode(&pair.b, *dir), mode(&pair.b, *file)], [Mode::Null; 2]);
    }

    /// Runs `op` on the second mount while the first uses the directory until `ready`. Says how often it waited for a lock, and how
    /// many locks it had asked for when it waited for the first.
    fn while_dir_is_used(
        &self,
        op: impl FnOnce(&Mount) + Send + 'static,
        ready: impl Fn(&Mount) -> bool,
    ) -> (u64, usize) {
        self.take();
        let (a, b) = (&self.pair.a, &self.pair.b);
        let used = a.fs().store().lock(&[(self.dir, LockMode::Write)]).unwrap();
        let (before, had) = (waits(b), known(b));
        let running = StdArc::clone(b);
        let op = thread::spawn(move || op(&running));
        wait_until("the directory's lock is not waited for", || waits(b) > before);
        // What is asked for in one breath is so under the mutex.
        let asked = known(b) - had;
        wait_until("the lock that will be wanted does not come before that which is waited for", || ready(b));
        drop(used);
        op.join().unwrap();
        (waits(b) - before, asked)
    }
}

/// Who waits for a directory in which he has found an inode before has the lock of that, too, when his turn comes: for reading, and no more.
#[test]
fn the_lock_of_the_inode_that_was_last_found_in_a_directory_comes_with_that_of_the_directory() {
    let bench = Bench::new();
    let (dir, file) = (bench.dir, bench.file);
    let look_up = move |mount: &Mount| {
        assert_eq!(mount.fs().lookup(dir, b"file").unwrap().ino, file);
        mount.fs().forget(file, 1);
    };
    // It is not known yet.
    assert_eq!(bench.while_dir_is_used(look_up, |_| true), (2, 1));
    // The kernel keeps its references, or the directory would leave the table.
    bench.pair.b.fs().lookup(ROOT_INO, b"dir").unwrap();
    look_up(&bench.pair.b);
    assert_eq!(bench.while_dir_is_used(look_up, |b| mode(b, file) == Mode::Read), (1, 2));
}

/// A guess that was wrong is not made again: who has not found a name the last time asks for the directory alone, and who has found
/// another inode asks for the lock of that.
#[test]
fn a_guess_that_was_wrong_is_not_made_again() {
    let bench = Bench::new();
    let (dir, file) = (bench.dir, bench.file);
    let b = &bench.pair.b;
    let sub = bench.pair.a.fs().mkdir(dir, b"sub", &DIR).unwrap().ino;
    assert_eq!(LockName::group_of(dir), LockName::group_of(sub));
    let miss = move |mount: &Mount| assert!(matches!(mount.fs().lookup(dir, b"none"), Err(Error::NotFound)));
    b.fs().lookup(ROOT_INO, b"dir").unwrap();
    b.fs().lookup(dir, b"file").unwrap();
    // Once in vain, though it costs nobody a wait.
    assert_eq!(bench.while_dir_is_used(miss, |b| mode(b, file) == Mode::Read), (1, 2));
    assert_eq!(bench.while_dir_is_used(miss, |_| true), (1, 1));
    b.fs().lookup(dir, b"file").unwrap();
    b.fs().lookup(dir, b"sub").unwrap();
    assert_eq!(bench.while_dir_is_used(miss, |_| true), (1, 1));
    // A lock that nobody came to use goes back as any other.
    b.fs().lookup(dir, b"file").unwrap();
    assert_eq!(bench.while_dir_is_used(miss, |b| mode(b, file) == Mode::Read), (1, 2));
    bench.take();
}

/// The locks of one operation are asked for at once, in the modes in which it wants them.
#[test]
fn locks_of_one_operation_come_while_it_waits_for_the_first() {
    let bench = Bench::new();
    let (dir, file) = (bench.dir, bench.file);
    for want in [LockMode::Read, LockMode::Write] {
        let both = move |mount: &Mount| {
            drop(mount.fs().store().lock(&[(dir, LockMode::Write), (file, want)]).unwrap());
        };
        assert_eq!(bench.while_dir_is_used(both, |b| mode(b, file) == want.into()), (1, 2));
    }
}

const NAME: LockName = LockName::RENAME;

fn all_of(machine: &mut LockClient<u32>) -> Vec<Output<u32>> {
    core::iter::from_fn(|| machine.poll_output()).collect()
}

/// What the server says of the lock.
fn message(mode: Mode, generation: u64) -> Message {
    Message { name: NAME, version: 7, commit_nr: 0, generation, old_mode: mode, mode }
}

fn requested(outputs: &[Output<u32>]) -> Vec<Mode> {
    let mode = |output: &Output<u32>| match output {
        Output::Request(message) => Some(message.mode),
        _ => None,
    };
    outputs.iter().filter_map(mode).collect()
}

/// Who asks for a lock in advance has it not, and is told nothing; nobody else is kept from it by that.
#[test]
fn a_lock_that_is_asked_for_in_advance_is_held_by_nobody() {
    let mut machine = LockClient::new(10);
    ask_for(&mut machine, NAME, Mode::Read);
    let outputs = all_of(&mut machine);
    assert_eq!((requested(&outputs), outputs.len()), (std::vec![Mode::Read], 1));
    // It is on its way.
    ask_for(&mut machine, NAME, Mode::Read);
    assert!(all_of(&mut machine).is_empty());
    machine.handle_grant(&message(Mode::Read, 1));
    assert!(all_of(&mut machine).is_empty());
    assert_eq!(machine.mode(NAME), Mode::Read);
    // It is there.
    ask_for(&mut machine, NAME, Mode::Read);
    assert!(all_of(&mut machine).is_empty());
    // It goes back at once, so there are no users.
    assert_eq!(machine.handle_revoke(1, &message(Mode::Null, 2)), Revoked::Later);
    assert!(matches!(all_of(&mut machine)[..], [Output::Invalidate { keep: Mode::Null, .. }]));
}

/// A lock that others want is not asked for again before somebody comes who uses it.
#[test]
fn a_lock_that_goes_back_is_not_asked_for_in_advance() {
    for in_use in [true, false] {
        let mut machine = LockClient::new(10);
        ask_for(&mut machine, NAME, Mode::Write);
        all_of(&mut machine);
        machine.handle_grant(&message(Mode::Write, 1));
        if in_use {
            assert!(machine.try_acquire(NAME, Mode::Write));
        }
        assert_eq!(machine.handle_revoke(1, &message(Mode::Null, 2)), Revoked::Later);
        ask_for(&mut machine, NAME, Mode::Read);
        let mut outputs = all_of(&mut machine);
        if in_use {
            assert!(outputs.is_empty());
            machine.release(NAME, Mode::Write).unwrap();
            outputs = all_of(&mut machine);
        }
        assert!(matches!(outputs[..], [Output::Invalidate { held: Mode::Write, keep: Mode::Null, .. }]));
        ask_for(&mut machine, NAME, Mode::Read);
        assert!(all_of(&mut machine).is_empty());
        machine.invalidated(NAME, 3).unwrap();
        let outputs = all_of(&mut machine);
        assert!(
            matches!(&outputs[..], [Output::Answer { message, .. }] if message.mode == Mode::Null),
            "{outputs:?}"
        );
        assert!(machine.is_empty());
    }
}
