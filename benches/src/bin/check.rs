// SPDX-License-Identifier: GPL-2.0-only
//! How long `check` takes: `check [FILES] [THREADS...]`, a million small files by default, half of them in one directory and the others in a
//! hundred, on a device in memory; with 1, 2 and 4 threads by default.

use std::time::Instant;

use scoutfs_benches::Bed;
use scoutfs_format::item::ROOT_INO;
use scoutfs_fs::check::check_with;
use scoutfs_fs::dir::NewInode;

const FILE: NewInode = NewInode { mode: 0o100_644, umask: 0, rdev: 0, uid: 0, gid: 0 };
const DIR: NewInode = NewInode { mode: 0o040_755, ..FILE };

fn main() {
    let mut arguments = std::env::args().skip(1).map(|n| n.parse::<usize>().expect("a number"));
    let files = arguments.next().unwrap_or(1_000_000);
    let mut threads: Vec<usize> = arguments.collect();
    if threads.is_empty() {
        threads.extend([1, 2, 4]);
    }
    let bed = Bed::new(32 << 30);
    let began = Instant::now();
    {
        let fs = bed.mount.fs();
        let mkdir = |name: String| fs.mkdir(ROOT_INO, name.as_bytes(), &DIR).expect("mkdir").ino;
        let dirs: Vec<u64> = (0..100).map(|i| mkdir(format!("dir-{i}"))).collect();
        let large = mkdir("large".into());
        for i in 0..files {
            // Half of the files are in one directory.
            let dir = if i % 2 == 0 { large } else { dirs[i / 2 % dirs.len()] };
            let ino = fs.create(dir, format!("file-{i:09}").as_bytes(), &FILE).expect("create").ino;
            if i % 4 == 0 {
                fs.write(ino, 0, b"small").expect("write");
            }
            fs.forget(ino, 1);
        }
        fs.sync().expect("sync");
    }
    bed.settle();
    println!("made {files} files in {:.1} s", began.elapsed().as_secs_f64());
    let device = bed.unmounted();
    for threads in threads {
        let began = Instant::now();
        let summary =
            check_with(&device, threads, &mut |issue| println!("{issue}"), &mut |_, _| ()).expect("check");
        println!(
            "{threads} threads: {} nodes, {} items, {} inodes in {:.2} s",
            summary.nodes,
            summary.items,
            summary.inodes,
            began.elapsed().as_secs_f64()
        );
    }
}
