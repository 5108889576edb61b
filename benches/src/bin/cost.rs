// SPDX-License-Identifier: GPL-2.0-only
//! Writes, bytes and flushes for an operation, on a device in memory.
//!
//! The voter beats beside the operations (one write of 4 KiB and two flushes each 200 ms); so short that it does not
//! show in the means over many operations.

use std::time::Instant;

use scoutfs_benches::Bed;
use scoutfs_format::item::ROOT_INO;
use scoutfs_fs::Fs;
use scoutfs_fs::dir::NewInode;

const TIMES: u64 = 400;

fn measure(bed: &Bed, name: &str, mut operation: impl FnMut(&Fs, u64)) {
    bed.mount.fs().sync().expect("sync");
    let before = bed.stats();
    let began = Instant::now();
    for i in 0..TIMES {
        operation(bed.mount.fs(), i);
    }
    let time = began.elapsed();
    let after = bed.stats();
    let mean = |n: u64| n as f64 / TIMES as f64;
    println!(
        "{name:<28} {:>8.2} writes {:>10.0} bytes {:>7.2} flushes {:>7.2} reads {:>9.1} us",
        mean(after.writes - before.writes),
        mean(after.write_bytes - before.write_bytes),
        mean(after.flushes - before.flushes),
        mean(after.reads - before.reads),
        time.as_secs_f64() * 1e6 / TIMES as f64,
    );
}

fn main() {
    let bed = Bed::new(1 << 30);
    let new = NewInode { mode: 0o100_644, umask: 0, rdev: 0, uid: 0, gid: 0 };
    let name = |i: u64| format!("file-{i}").into_bytes();
    let ino = |fs: &Fs, i: u64| fs.lookup(ROOT_INO, &name(i)).expect("lookup").ino;
    measure(&bed, "create", |fs, i| {
        fs.create(ROOT_INO, &name(i + 10_000), &new).expect("create");
    });
    measure(&bed, "create + sync", |fs, i| {
        fs.create(ROOT_INO, &name(i), &new).expect("create");
        fs.sync().expect("sync");
    });
    let log = bed.mount.fs().create(ROOT_INO, b"log", &new).expect("create").ino;
    measure(&bed, "append 4 KiB + fsync", |fs, i| {
        fs.write(log, i * 4096, &[7; 4096]).expect("write");
        fs.fsync(log).expect("fsync");
    });
    measure(&bed, "append 100 bytes + fsync", |fs, i| {
        let at = TIMES * 4096 + i * 100;
        fs.write(log, at, &[7; 100]).expect("write");
        fs.fsync(log).expect("fsync");
    });
    measure(&bed, "overwrite 4 KiB + fsync", |fs, i| {
        fs.write(log, i * 4096, &[8; 4096]).expect("write");
        fs.fsync(log).expect("fsync");
    });
    measure(&bed, "fsync of a clean file", |fs, _| fs.fsync(log).expect("fsync"));
    measure(&bed, "rename + sync", |fs, i| {
        let flags = scoutfs_fs::dir::RenameFlags::empty();
        fs.rename(ROOT_INO, &name(i), ROOT_INO, &name(i + 1_000_000), flags).expect("rename");
        fs.sync().expect("sync");
    });
    measure(&bed, "unlink + sync", |fs, i| {
        let ino = ino(fs, i + 1_000_000);
        fs.unlink(ROOT_INO, &name(i + 1_000_000)).expect("unlink");
        fs.forget(ino, 2);
        fs.sync().expect("sync");
    });
    bed.mount.unmount().expect("unmount");
}
