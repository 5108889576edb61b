// SPDX-License-Identifier: GPL-2.0-only
//! Operations a second of one, two and four threads in directories of their own, in process, without a kernel between.

use std::time::Instant;

use scoutfs_benches::Bed;
use scoutfs_format::item::ROOT_INO;
use scoutfs_fs::Fs;
use scoutfs_fs::dir::{NewInode, RenameFlags};

const FILES: usize = 20_000;

type Work = fn(&Fs, u64, usize);

const NEW: NewInode = NewInode { mode: 0o100_644, rdev: 0, uid: 0, gid: 0, umask: 0 };

fn name(i: usize) -> Vec<u8> {
    format!("file-{i:06}").into_bytes()
}

fn renamed(i: usize) -> Vec<u8> {
    format!("renamed-{i:06}").into_bytes()
}

fn create(fs: &Fs, dir: u64, i: usize) {
    let ino = fs.create(dir, &name(i), &NEW).expect("create").ino;
    fs.forget(ino, 1);
}

fn lookup(fs: &Fs, dir: u64, i: usize) {
    let ino = fs.lookup(dir, &name(i)).expect("lookup").ino;
    fs.forget(ino, 1);
}

fn rename(fs: &Fs, dir: u64, i: usize) {
    fs.rename(dir, &name(i), dir, &renamed(i), RenameFlags::empty()).expect("rename");
}

fn unlink(fs: &Fs, dir: u64, i: usize) {
    fs.unlink(dir, &renamed(i)).expect("unlink");
}

const WORKS: &[(&str, Work)] =
    &[("create", create), ("lookup", lookup), ("rename", rename), ("unlink", unlink)];

fn main() {
    println!("{:<10} {:>12} {:>12} {:>12}", "thousands/s", "1 thread", "2 threads", "4 threads");
    let bed = Bed::new(8 << 30);
    let fs = bed.mount.fs();
    let mut rates = vec![Vec::new(); WORKS.len()];
    for threads in [1, 2, 4] {
        let dirs: Vec<u64> = (0..threads)
            .map(|t| {
                let dir = NewInode { mode: 0o040_755, ..NEW };
                fs.mkdir(ROOT_INO, format!("dir-{threads}-{t}").as_bytes(), &dir).expect("mkdir").ino
            })
            .collect();
        for ((_, work), rates) in WORKS.iter().zip(&mut rates) {
            let began = Instant::now();
            std::thread::scope(|scope| {
                for &dir in &dirs {
                    scope.spawn(move || (0..FILES).for_each(|i| work(fs, dir, i)));
                }
            });
            rates.push((threads * FILES) as f64 / began.elapsed().as_secs_f64() / 1e3);
        }
    }
    for ((name, _), rates) in WORKS.iter().zip(rates) {
        print!("{name:<10}");
        rates.iter().for_each(|rate| print!(" {rate:>12.1}"));
        println!();
    }
    bed.mount.unmount().expect("unmount");
}
