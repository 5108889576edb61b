// SPDX-License-Identifier: GPL-2.0-only
//! How creating, finding and walking change as a directory grows: `growth [FILES]`, one million by default.

use std::time::Instant;

use scoutfs_benches::Bed;
use scoutfs_format::item::ROOT_INO;
use scoutfs_format::key::KIND_META_SEQ;
use scoutfs_fs::dir::NewInode;

fn main() {
    let files: u64 = std::env::args().nth(1).map_or(1_000_000, |n| n.parse().expect("a number of files"));
    let step = (files / 10).max(1);
    let bed = Bed::new(16 << 30);
    let fs = bed.mount.fs();
    let new = NewInode { mode: 0o100_644, umask: 0, rdev: 0, uid: 0, gid: 0 };
    let name = |i: u64| format!("file-{i:09}").into_bytes();
    println!(
        "{:>10} {:>12} {:>12} {:>14} {:>14}",
        "files", "creates/s", "lookups/s", "bytes/create", "writes/create"
    );
    for from in (0..files).step_by(step as usize) {
        let before = bed.stats();
        let began = Instant::now();
        for i in from..from + step {
            let ino = fs.create(ROOT_INO, &name(i), &new).expect("create").ino;
            fs.forget(ino, 1);
        }
        fs.sync().expect("sync");
        let create = began.elapsed().as_secs_f64();
        let after = bed.stats();
        let began = Instant::now();
        let lookups = step.min(20_000);
        for i in 0..lookups {
            let ino = fs.lookup(ROOT_INO, &name(i * 7919 % (from + step))).expect("lookup").ino;
            fs.forget(ino, 1);
        }
        let lookup = began.elapsed().as_secs_f64();
        println!(
            "{:>10} {:>12.0} {:>12.0} {:>14.0} {:>14.3}",
            from + step,
            step as f64 / create,
            lookups as f64 / lookup,
            (after.write_bytes - before.write_bytes) as f64 / step as f64,
            (after.writes - before.writes) as f64 / step as f64,
        );
    }
    let began = Instant::now();
    let mut entries = 0u64;
    let mut pos = 0;
    loop {
        let before = entries;
        fs.readdir(ROOT_INO, pos, &mut |e| {
            entries += 1;
            pos = e.next_pos;
            true
        })
        .expect("readdir");
        if entries == before {
            break;
        }
    }
    println!("readdir: {entries} entries, {:.0} a second", entries as f64 / began.elapsed().as_secs_f64());
    let began = Instant::now();
    let mut count = 0u64;
    let mut last = (0, 0);
    fs.walk_index(KIND_META_SEQ, (0, 0), (u64::MAX, u64::MAX), usize::MAX, &mut |seq, ino| {
        count += 1;
        last = (seq, ino);
        Ok(())
    })
    .expect("walk");
    println!("full walk: {count} inodes, {:.0} a second", count as f64 / began.elapsed().as_secs_f64());
    let began = Instant::now();
    let first = (last.0.saturating_sub(10), 0);
    fs.walk_index(KIND_META_SEQ, first, (u64::MAX, u64::MAX), 100, &mut |_, _| Ok(())).expect("walk");
    println!("walk of up to 100 last changes: {:.0} us", began.elapsed().as_secs_f64() * 1e6);
    let began = Instant::now();
    bed.mount.unmount().expect("unmount");
    println!("unmount: {:.0} ms", began.elapsed().as_secs_f64() * 1e3);
}
