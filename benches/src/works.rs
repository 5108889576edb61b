// SPDX-License-Identifier: GPL-2.0-only
//! What mounted filesystems are compared by: work of programs in directories.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const FILES: usize = 4_000;
const STREAM_MIB: usize = 256;
/// Writes of 4 KiB that follow each other.
const PIECES: usize = 4096;
const FSYNCS: usize = 200;
/// Of a file that is mapped to memory.
const MAPPED_MIB: usize = 32;

/// What a thread does in a directory, by its number; gives how many operations that were.
pub type Work = fn(&Path, usize) -> usize;

/// Works, each with its name and the caches that it finds.
pub type Works = [(&'static str, Work, Caches)];

/// Runs a program, which must succeed.
pub fn run(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) {
    let status = Command::new(program.as_ref())
        .args(arguments)
        .stdout(Stdio::null())
        .status()
        .unwrap_or_else(|e| panic!("{:?}: {e}", program.as_ref()));
    assert!(status.success(), "{:?} {arguments:?} ended with {status}", program.as_ref());
}

/// The file of a thread.
fn file(dir: &Path, thread: usize, i: usize) -> PathBuf {
    dir.join(format!("file-{thread}-{i:06}"))
}

fn create(dir: &Path, thread: usize) -> usize {
    for i in 0..FILES {
        File::create(file(dir, thread, i)).expect("create");
    }
    FILES
}

fn stat(dir: &Path, thread: usize) -> usize {
    for i in 0..FILES {
        fs::symlink_metadata(file(dir, thread, i)).expect("stat");
    }
    FILES
}

fn readdir(dir: &Path, _: usize) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(dir).expect("readdir") {
        entry.expect("entry").metadata().expect("stat");
        count += 1;
    }
    count
}

fn rename(dir: &Path, thread: usize) -> usize {
    for i in 0..FILES {
        let from = file(dir, thread, i);
        fs::rename(&from, from.with_extension("new")).expect("rename");
    }
    FILES
}

fn unlink(dir: &Path, thread: usize) -> usize {
    for i in 0..FILES {
        fs::remove_file(file(dir, thread, i).with_extension("new")).expect("unlink");
    }
    FILES
}

fn write_stream(dir: &Path, thread: usize) -> usize {
    let chunk = vec![3u8; 1 << 20];
    let mut file = File::create(dir.join(format!("stream-{thread}"))).expect("create");
    for _ in 0..STREAM_MIB {
        file.write_all(&chunk).expect("write");
    }
    file.sync_all().expect("fsync");
    STREAM_MIB
}

/// As programs do that know of no larger buffer.
fn write_pieces(dir: &Path, thread: usize) -> usize {
    let mut file = File::create(dir.join(format!("pieces-{thread}"))).expect("create");
    for _ in 0..PIECES {
        file.write_all(&[5; 4096]).expect("write");
    }
    file.sync_all().expect("fsync");
    PIECES
}

fn read_stream(dir: &Path, thread: usize) -> usize {
    let mut file = File::open(dir.join(format!("stream-{thread}"))).expect("open");
    let mut buf = vec![0u8; 1 << 20];
    let mut bytes = 0;
    loop {
        match file.read(&mut buf).expect("read") {
            0 => return bytes >> 20,
            n => bytes += n,
        }
    }
}

fn append(dir: &Path, thread: usize) -> usize {
    let path = dir.join(format!("log-{thread}"));
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("open");
    for _ in 0..FSYNCS {
        file.write_all(&[7; 4096]).expect("write");
        file.sync_data().expect("fsync");
    }
    FSYNCS
}

fn overwrite(dir: &Path, thread: usize) -> usize {
    let file = OpenOptions::new().write(true).open(dir.join(format!("stream-{thread}"))).expect("open");
    for i in 0..FSYNCS {
        let block = i * 7919 % (STREAM_MIB << 8);
        file.write_all_at(&[8; 4096], (block as u64) << 12).expect("write");
        file.sync_data().expect("fsync");
    }
    FSYNCS
}

/// Blocks of a file in an order that no disk likes.
fn overwrite_here_and_there(dir: &Path, thread: usize) -> usize {
    let file = OpenOptions::new().write(true).open(dir.join(format!("stream-{thread}"))).expect("open");
    for i in 0..PIECES {
        let block = i * 7919 % (STREAM_MIB << 8);
        file.write_all_at(&[9; 4096], (block as u64) << 12).expect("write");
    }
    file.sync_all().expect("fsync");
    PIECES
}

/// The same in a new file that has no data: one hole, or space that is allocated.
fn fill_here_and_there(file: &File) -> usize {
    for i in 0..PIECES {
        let block = i * 2741 % PIECES;
        file.write_all_at(&[9; 4096], (block as u64) << 12).expect("write");
    }
    file.sync_all().expect("fsync");
    PIECES
}

fn fill_hole(dir: &Path, thread: usize) -> usize {
    let file = File::create(dir.join(format!("hole-{thread}"))).expect("create");
    file.set_len((PIECES as u64) << 12).expect("set_len");
    fill_here_and_there(&file)
}

fn fill_allocated(dir: &Path, thread: usize) -> usize {
    let path = dir.join(format!("allocated-{thread}"));
    run("fallocate", &["-l", &(PIECES << 12).to_string(), path.to_str().expect("a path in UTF-8")]);
    let file = OpenOptions::new().write(true).open(path).expect("open");
    fill_here_and_there(&file)
}

/// A stream over what a file has.
fn overwrite_stream(dir: &Path, thread: usize) -> usize {
    let chunk = vec![4u8; 1 << 20];
    let mut file = OpenOptions::new().write(true).open(dir.join(format!("stream-{thread}"))).expect("open");
    for _ in 0..STREAM_MIB {
        file.write_all(&chunk).expect("write");
    }
    file.sync_all().expect("fsync");
    STREAM_MIB
}

/// Which caches are empty before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caches {
    /// None.
    Warm,
    /// All that the kernel gives back.
    Cold,
}

/// Those that one thread or several do.
pub const WORKS: &Works = &[
    ("create", create, Caches::Warm),
    // The first look at a file asks for the time of its birth, which creating it did not tell.
    ("stat, first", stat, Caches::Warm),
    ("stat, warm", stat, Caches::Warm),
    ("stat, cold", stat, Caches::Cold),
    ("readdir + stat", readdir, Caches::Warm),
    ("rename", rename, Caches::Warm),
    ("unlink", unlink, Caches::Warm),
];

/// What other works build on.
const NEEDED: &[&str] = &["create", "rename", "write MiB + fsync", "mmap: change pages of a hole"];

/// Those that one thread does.
pub const SINGLE: &Works = &[
    ("write MiB + fsync", write_stream, Caches::Warm),
    ("read MiB, cold", read_stream, Caches::Cold),
    ("write 4 KiB, one fsync", write_pieces, Caches::Warm),
    ("append 4 KiB + fsync", append, Caches::Warm),
    ("overwrite 4 KiB + fsync", overwrite, Caches::Warm),
    ("overwrite 4 KiB here and there, one fsync", overwrite_here_and_there, Caches::Warm),
    ("fill a hole by 4 KiB here and there, one fsync", fill_hole, Caches::Warm),
    ("fill allocated space the same", fill_allocated, Caches::Warm),
    ("overwrite MiB + fsync", overwrite_stream, Caches::Warm),
    ("overwrite MiB + fsync, cold", overwrite_stream, Caches::Cold),
];

/// Works on a file that is mapped to memory whole, by a program that can: xfs_io. Operations are pages.
fn map(dir: &Path, thread: usize, commands: &[&str]) -> usize {
    let path = dir.join(format!("mapped-{thread}"));
    let whole = format!("0 {}", MAPPED_MIB << 20);
    let lines = ["mmap -rw"].into_iter().chain(commands.iter().copied());
    let lines: Vec<_> = lines.map(|command| format!("{command} {whole}")).collect();
    let mut arguments: Vec<&str> = lines.iter().flat_map(|line| ["-c", line]).collect();
    arguments.push(path.to_str().expect("a path in UTF-8"));
    run("xfs_io", &arguments);
    (MAPPED_MIB << 20) / 4096
}

/// Changes each page of a file, and has them written.
fn map_and_change(dir: &Path, thread: usize) -> usize {
    map(dir, thread, &["mwrite -S 7", "msync -s"])
}

fn map_holes(dir: &Path, thread: usize) -> usize {
    let file = File::create(dir.join(format!("mapped-{thread}"))).expect("create");
    file.set_len((MAPPED_MIB << 20) as u64).expect("set_len");
    map_and_change(dir, thread)
}

fn map_read(dir: &Path, thread: usize) -> usize {
    map(dir, thread, &["mread"])
}

/// Those on files that are mapped to memory, by one thread.
pub const MAPPED: &Works = &[
    ("mmap: change pages of a hole", map_holes, Caches::Warm),
    ("mmap: change pages of data", map_and_change, Caches::Warm),
    ("mmap: read pages, cold", map_read, Caches::Cold),
];

/// How works are done: what is said of it, by how many threads, and whether all have the same directory.
pub const SHAPES: [(&str, usize, bool); 3] =
    [("", 1, true), (", 4 threads, own directories", 4, false), (", 4 threads, one directory", 4, true)];

/// The works that so many threads do: those whose names begin with one of these words, and what they build on; all without words.
pub fn chosen(threads: usize, more: &Works, wanted: &[String]) -> Vec<(&'static str, Work, Caches)> {
    let mut works = if threads == 1 { [WORKS, SINGLE, more].concat() } else { WORKS.to_vec() };
    works.retain(|(name, ..)| {
        wanted.is_empty() || NEEDED.contains(name) || wanted.iter().any(|word| name.starts_with(word))
    });
    works
}

/// Does a piece of work by a thread in each of the directories. Calls `before` when it begins. Gives the number of operations, and how long
/// all took.
pub fn do_work(work: Work, caches: Caches, dirs: &[PathBuf], before: impl FnOnce()) -> (usize, Duration) {
    if caches == Caches::Cold {
        // Without a sync what is dirty would stay.
        run("sync", &[]);
        fs::write("/proc/sys/vm/drop_caches", "3").expect("drop_caches");
    }
    before();
    let began = Instant::now();
    let count = std::thread::scope(|scope| {
        let threads: Vec<_> =
            dirs.iter().enumerate().map(|(thread, dir)| scope.spawn(move || work(dir, thread))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread")).sum()
    });
    (count, began.elapsed())
}

/// The median of numbers of which there is one at least.
pub fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
