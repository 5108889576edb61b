// SPDX-License-Identifier: GPL-2.0-only
//! Bytes written for random updates of items, through locks, transactions, commits and merges of a real mount.
//!
//! 88 bytes an item, committed in batches of 1,000: first what the commits write, then all with the merges that follow.

use std::time::Instant;

use scoutfs_benches::Bed;
use scoutfs_format::Key;
use scoutfs_fs::store::{LockMode, Need, Store};

const VALUE: [u8; 88] = [7; 88];
const BATCH: u64 = 1000;
/// Lock groups: each batch writes under one lock, as an operation does.
const GROUP: u64 = 1024;
const BASE: u64 = 1 << 20;

/// Writes item `at` of the volume's items.
fn put(store: &Store, at: u64, create: bool) {
    let ino = BASE + at;
    let locks = store.lock(&[(ino, LockMode::Write)]).expect("lock");
    let hold = locks.hold(Need { items: 1, bytes: VALUE.len(), privileged: false }).expect("hold");
    let key = Key::xattr(ino, 1, 1, 0);
    if create {
        hold.create(key, &[&VALUE]).expect("create");
    } else {
        hold.update(key, &[&VALUE]).expect("update");
    }
}

fn main() {
    let items: u64 = std::env::args().nth(1).map_or(200 * GROUP, |n| n.parse().expect("a number of items"));
    let updates = items;
    let bed = Bed::new(4 << 30);
    let store = bed.mount.fs().store();
    for at in 0..items {
        put(store, at, true);
    }
    bed.mount.fs().sync().expect("sync");
    bed.settle();
    let mut random = 1u64;
    let before = bed.stats();
    let began = Instant::now();
    for n in 0..updates {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        put(store, (random >> 20) % items, false);
        if n % BATCH == BATCH - 1 {
            bed.mount.fs().sync().expect("sync");
        }
    }
    let time = began.elapsed();
    let committed = bed.stats();
    bed.settle();
    let merged = bed.stats();
    let each = |n: u64| n as f64 / updates as f64;
    println!(
        "{items} items, {updates} random updates of {} bytes in fsynced batches of {BATCH}: {:.0} bytes, {:.3} writes, \
         {:.3} flushes and {:.1} us an update; {:.0} bytes when all are merged",
        VALUE.len(),
        each(committed.write_bytes - before.write_bytes),
        each(committed.writes - before.writes),
        each(committed.flushes - before.flushes),
        time.as_secs_f64() * 1e6 / updates as f64,
        each(merged.write_bytes - before.write_bytes),
    );
    bed.mount.unmount().expect("unmount");
}
