// SPDX-License-Identifier: GPL-2.0-only
//! Filesystems that are mounted already, beside each other in one run: `folders NAME=DIRECTORY... [WORK...]`. The ratios are those of the
//! last one to each of the others. Needs root, to empty caches.
//!
//! All take turns in each kind of work, several rounds; the medians are compared. Only works whose names begin with WORK are done, and
//! what they build on; `memory` is what a cached inode takes. With the word `rounds=N` there are so many.

use std::fs;
use std::path::PathBuf;

use scoutfs_benches::memory::{OfInode, of_inode};
use scoutfs_benches::works::{MAPPED, SHAPES, chosen, do_work, median};

/// A filesystem under test.
struct Folder {
    name: String,
    root: PathBuf,
}

fn main() {
    let mut rounds = 3;
    let (mut folders, mut wanted) = (Vec::new(), Vec::new());
    for argument in std::env::args().skip(1) {
        match argument.split_once('=') {
            Some(("rounds", number)) => rounds = number.parse().expect("a number of rounds"),
            Some((name, root)) => folders.push(Folder { name: name.into(), root: root.into() }),
            None => wanted.push(argument),
        }
    }
    let Some((last, others)) = folders.split_last() else {
        panic!("no directory is given");
    };
    print!("{:<42}", "operations a second");
    folders.iter().for_each(|folder| print!(" {:>9}", folder.name));
    others.iter().for_each(|other| print!(" {:>9}", format!("/{}", other.name)));
    println!("   of {}", last.name);
    for (shape, threads, one_directory) in SHAPES {
        let works = chosen(threads, MAPPED, &wanted);
        let mut rates = vec![vec![Vec::new(); folders.len()]; works.len()];
        for round in 0..rounds {
            let dirs: Vec<Vec<PathBuf>> = folders
                .iter()
                .map(|folder| {
                    let dir =
                        |thread| folder.root.join(format!("{threads}-{one_directory}-{round}-{thread}"));
                    let dirs = (0..threads).map(|t| dir(if one_directory { 0 } else { t }));
                    dirs.inspect(|dir| fs::create_dir_all(dir).expect("mkdir")).collect()
                })
                .collect();
            for ((_, work, caches), rates) in works.iter().zip(&mut rates) {
                for (dirs, rates) in dirs.iter().zip(rates) {
                    let (count, time) = do_work(*work, *caches, dirs, || ());
                    rates.push(count as f64 / time.as_secs_f64());
                }
            }
            // The streams of all rounds would fill a small disk.
            dirs.iter().flatten().for_each(|dir| drop(fs::remove_dir_all(dir)));
        }
        for ((name, ..), rates) in works.iter().zip(rates) {
            let medians: Vec<f64> = rates.into_iter().map(median).collect();
            print!("{:<42}", format!("{name}{shape}"));
            medians.iter().for_each(|rate| print!(" {rate:>9.0}"));
            let own = medians.last().copied().unwrap_or(f64::NAN);
            medians.iter().take(others.len()).for_each(|other| print!(" {:>9.2}", own / other));
            println!();
        }
    }
    if wanted.is_empty() || wanted.iter().any(|word| word == "memory") {
        memory(&folders);
    }
}

/// What a cached inode costs in each.
fn memory(folders: &[Folder]) {
    let costs: Vec<_> = folders
        .iter()
        .map(|folder| {
            let dir = folder.root.join("memory");
            fs::create_dir(&dir).expect("mkdir");
            let cost = of_inode(&dir);
            fs::remove_dir_all(&dir).expect("rm -r");
            cost
        })
        .collect();
    type Of = fn(&OfInode) -> f64;
    let rows: [(&str, Of); 2] =
        [("bytes for a cached inode, slabs", |cost| cost.slab), ("the same, all memory", |cost| cost.all)];
    for (name, of) in rows {
        print!("{name:<42}");
        costs.iter().for_each(|cost| print!(" {:>9.0}", of(cost)));
        let own = costs.last().map_or(f64::NAN, of);
        costs
            .iter()
            .take(costs.len().saturating_sub(1))
            .for_each(|other| print!(" {:>9.2}", own / of(other)));
        println!();
    }
}
