// SPDX-License-Identifier: GPL-2.0-only
//! The server's threads run out of memory, at each of their allocations: nobody but a clock notices. Nothing is lost, no mount shuts
//! down, and the volume stays sound.
//!
//! `SCOUTFS_FAIL_EVERY=1` fails at every single allocation; the tests take each n-th.

use std::sync::Mutex;
use std::time::Duration;

use scoutfs_env::alloc_fault;
use scoutfs_fs::Fs;
use scoutfs_sim::model::Model;
use scoutfs_sim::rng::Rng;
use scoutfs_sim::tree::read_tree;
use scoutfs_sim::volume::{Pace, issues, mount, new_volume};

/// The plan is the process's.
static TURN: Mutex<()> = Mutex::new(());
/// So many allocations fail in a row.
const FAILURES: u64 = 3;
const OPERATIONS: usize = 12;

/// Joins, works, and leaves with the server's `after`-th allocation failing. Gives how many there were.
fn run(thread: &'static str, after: u64) -> u64 {
    let disk = new_volume();
    let first = mount(&disk, Pace::Fast).unwrap();
    let mut model = Model::set_up(first.fs()).unwrap();
    first.unmount().unwrap();
    alloc_fault::fail_on(thread, after, FAILURES);
    let second = mount(&disk, Pace::Merging).unwrap();
    work(second.fs(), &mut model);
    second.unmount().unwrap();
    let tried = alloc_fault::clear_on();
    let (_, found) = issues(&disk).unwrap();
    assert_eq!(found, Vec::<String>::new(), "{thread}, allocation {after}");
    let third = mount(&disk, Pace::Fast).unwrap();
    let found = read_tree(third.fs(), &mut |ino, e| panic!("inode {ino}: {e}"));
    assert!(found == model.tree(), "{thread}, allocation {after}: another tree");
    third.unmount().unwrap();
    tried
}

fn work(fs: &Fs, model: &mut Model) {
    let mut rng = Rng::new(7);
    for i in 1..=OPERATIONS {
        let op = model.random_op(&mut rng);
        model.apply(fs, &op).unwrap_or_else(|e| panic!("{op:?}: {e}"));
        if i % 4 == 0 {
            fs.sync().unwrap();
        }
        if i % 6 == 0 {
            // For the merges.
            std::thread::sleep(Duration::from_millis(120));
        }
    }
}

fn fail_each(thread: &'static str, every: u64) {
    let every = std::env::var("SCOUTFS_FAIL_EVERY").map_or(every, |n| n.parse().expect("a number"));
    let _turn = TURN.lock();
    let mut after = 0;
    while run(thread, after) > after {
        after += every;
    }
    println!("{thread}: {after} allocations");
    assert!(after > 3 * every, "{thread}: hardly anything failed");
}

#[test]
fn a_server_that_has_no_memory_waits_for_it() {
    fail_each("scoutfs-server", 23);
}

#[test]
fn a_merge_that_has_no_memory_waits_for_it() {
    fail_each("scoutfs-merge", 3);
}

/// Invariant 57: beats need no memory, so that nobody who waits for some is taken for dead.
#[test]
fn the_voters_thread_allocates_nothing() {
    let _turn = TURN.lock();
    assert_eq!(run("scoutfs-voter", 0), 0);
}
