// SPDX-License-Identifier: GPL-2.0-only
//! How creating, finding and walking change as a directory grows, and what memory its inodes take: `growth [FILES]`, one million
//! by default.
//!
//! The volume is a file in memory (`/dev/shm`), so that the process's own memory is that of the mount; the item cache may hold all.
//! Processor time is that of the threads that commit, and that merge, for each file created.

use std::fs;
use std::time::Instant;

use scoutfs_benches::mount_on;
use scoutfs_env::device::{BlockDevice, FileDevice, OpenMode};
use scoutfs_env::{Box as EnvBox, try_box};
use scoutfs_format::item::ROOT_INO;
use scoutfs_format::key::KIND_META_SEQ;
use scoutfs_fs::dir::NewInode;
use scoutfs_fs::{Fs, Mount};

const VOLUME_BYTES: u64 = 16 << 30;
/// Changes of which the index is walked at both ends.
const CHANGES: usize = 100;

/// An image file that goes away.
struct Image(std::path::PathBuf);

impl Drop for Image {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn name(i: u64) -> Vec<u8> {
    format!("file-{i:09}").into_bytes()
}

fn counter(fs: &Fs, wanted: &str) -> u64 {
    let mut found = None;
    fs.for_each_counter(&mut |name, value| {
        if name == wanted {
            found = Some(value);
        }
        Ok(())
    })
    .expect("counters");
    found.expect("a counter")
}

/// Nanoseconds of processor time that the threads of this name have had.
fn thread_ns(wanted: &str) -> u64 {
    let mut sum = 0;
    for task in fs::read_dir("/proc/self/task").expect("threads").flatten() {
        let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        if read("comm").trim_end() == wanted {
            let first = read("schedstat").split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok());
            sum += first.unwrap_or(0);
        }
    }
    sum
}

/// Bytes of memory of this process.
fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("statm");
    let pages: u64 = statm.split_whitespace().nth(1).expect("pages").parse().expect("a number");
    pages * rustix::param::page_size() as u64
}

/// Waits until all is merged.
fn settle(fs: &Fs) {
    fs.sync().expect("sync");
    let mut last = counter(fs, "merge_pieces");
    let mut quiet = 0;
    while quiet < 40 {
        std::thread::sleep(std::time::Duration::from_millis(100));
        let now = counter(fs, "merge_pieces");
        quiet = if now == last { quiet + 1 } else { 0 };
        last = now;
    }
}

fn grow(fs: &Fs, files: u64) {
    let new = NewInode { mode: 0o100_644, umask: 0, rdev: 0, uid: 0, gid: 0 };
    let step = (files / 10).max(1);
    println!(
        "{:>9} {:>10} {:>10} {:>13} {:>14} {:>15} {:>14} {:>16}",
        "files",
        "creates/s",
        "lookups/s",
        "bytes/create",
        "writes/create",
        "commit us/file",
        "merge us/file",
        "item cache/file"
    );
    for from in (0..files).step_by(step as usize) {
        let count = |name| counter(fs, name);
        let before = (count("device_write_bytes"), count("device_writes"));
        let cpu = (thread_ns("scoutfs-work"), thread_ns("scoutfs-merge"));
        let began = Instant::now();
        for i in from..from + step {
            let ino = fs.create(ROOT_INO, &name(i), &new).expect("create").ino;
            fs.forget(ino, 1);
        }
        fs.sync().expect("sync");
        let create = began.elapsed().as_secs_f64();
        let began = Instant::now();
        let lookups = step.min(20_000);
        for i in 0..lookups {
            let ino = fs.lookup(ROOT_INO, &name(i * 7919 % (from + step))).expect("lookup").ino;
            fs.forget(ino, 1);
        }
        let lookup = began.elapsed().as_secs_f64();
        let each = |n: u64| n as f64 / step as f64;
        println!(
            "{:>9} {:>10.0} {:>10.0} {:>13.0} {:>14.3} {:>15.1} {:>14.1} {:>16}",
            from + step,
            step as f64 / create,
            lookups as f64 / lookup,
            each(count("device_write_bytes") - before.0),
            each(count("device_writes") - before.1),
            each(thread_ns("scoutfs-work") - cpu.0) / 1e3,
            each(thread_ns("scoutfs-merge") - cpu.1) / 1e3,
            count("item_cache_bytes") / (from + step),
        );
    }
}

/// What memory the inodes take.
fn weigh(fs: &Fs, files: u64, empty: u64) {
    settle(fs);
    println!(
        "memory: {} bytes an inode in the item cache, {} in the whole process, empty mount deducted",
        counter(fs, "item_cache_bytes") / files,
        resident_bytes().saturating_sub(empty) / files,
    );
    let before = resident_bytes();
    let kept = files.min(500_000);
    for i in 0..kept {
        fs.lookup(ROOT_INO, &name(i)).expect("lookup");
    }
    println!(
        "memory: {} bytes more for an inode that a kernel knows",
        resident_bytes().saturating_sub(before) / kept
    );
}

fn walk(fs: &Fs) {
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
    let mut seqs = Vec::new();
    fs.walk_index(KIND_META_SEQ, (0, 0), (u64::MAX, u64::MAX), usize::MAX, &mut |seq, ino| {
        seqs.push((seq, ino));
        Ok(())
    })
    .expect("walk");
    let time = began.elapsed().as_secs_f64();
    println!("full walk: {} inodes, {:.0} a second", seqs.len(), seqs.len() as f64 / time);
    let ends = [("first", (0, 0)), ("last", seqs[seqs.len().saturating_sub(CHANGES)])];
    for (which, from) in ends {
        let began = Instant::now();
        let mut seen = 0;
        fs.walk_index(KIND_META_SEQ, from, (u64::MAX, u64::MAX), CHANGES, &mut |_, _| {
            seen += 1;
            Ok(())
        })
        .expect("walk");
        println!("walk of the {which} {seen} changes: {:.0} us", began.elapsed().as_secs_f64() * 1e6);
    }
}

fn main() {
    let files: u64 = std::env::args().nth(1).map_or(1_000_000, |n| n.parse().expect("a number of files"));
    let image = Image(format!("/dev/shm/scoutfs-growth-{}.img", std::process::id()).into());
    fs::File::create(&image.0).and_then(|file| file.set_len(VOLUME_BYTES)).expect("an image file");
    let device = FileDevice::open(&image.0, OpenMode::ReadWrite).expect("the image");
    let device: EnvBox<dyn BlockDevice> = try_box(device).expect("memory");
    let mount: Mount = mount_on(device, |options| options.item_cache_bytes = usize::MAX / 2);
    let empty = resident_bytes();
    grow(mount.fs(), files);
    weigh(mount.fs(), files, empty);
    walk(mount.fs());
    let began = Instant::now();
    mount.unmount().expect("unmount");
    println!("unmount: {:.0} ms", began.elapsed().as_secs_f64() * 1e3);
}
