// SPDX-License-Identifier: GPL-2.0-only
//! A scoutfs mount beside ext4 on a loop device, in one run, as ratios. Needs root, mkfs.ext4, and a release build of the
//! `scoutfs` command.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const FILES: usize = 10_000;
const STREAM_BYTES: usize = 256 << 20;
const FSYNCS: usize = 200;

/// A filesystem under test; it is unmounted when it goes.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn run(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) {
    let status = Command::new(program.as_ref())
        .args(arguments)
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap_or_else(|e| panic!("{:?}: {e}", program.as_ref()));
    assert!(status.success(), "{:?} {arguments:?} ended with {status}", program.as_ref());
}

fn rate(count: usize, mut work: impl FnMut()) -> f64 {
    let began = Instant::now();
    work();
    count as f64 / began.elapsed().as_secs_f64()
}

/// Rates of all kinds of work, in operations (or MiB) a second.
fn measure(root: &Path) -> Vec<(&'static str, f64)> {
    let dir = root.join("many");
    fs::create_dir(&dir).expect("mkdir");
    let name = |i: usize| dir.join(format!("file-{i:06}"));
    let create = rate(FILES, || {
        for i in 0..FILES {
            File::create(name(i)).expect("create");
        }
    });
    let stat_all = || {
        for i in 0..FILES {
            fs::symlink_metadata(name(i)).expect("stat");
        }
    };
    // The first round asks for what creating a file did not tell, the time of its birth.
    let first_stat = rate(FILES, stat_all);
    let stat = rate(FILES, stat_all);
    let readdir = rate(FILES, || {
        for entry in fs::read_dir(&dir).expect("readdir") {
            entry.expect("entry").metadata().expect("stat");
        }
    });
    let rename = rate(FILES, || {
        for i in 0..FILES {
            fs::rename(name(i), dir.join(format!("renamed-{i:06}"))).expect("rename");
        }
    });
    let unlink = rate(FILES, || {
        for i in 0..FILES {
            fs::remove_file(dir.join(format!("renamed-{i:06}"))).expect("unlink");
        }
    });
    let chunk = vec![3u8; 1 << 20];
    let stream = root.join("stream");
    let write = rate(STREAM_BYTES >> 20, || {
        let mut file = File::create(&stream).expect("create");
        for _ in 0..STREAM_BYTES >> 20 {
            file.write_all(&chunk).expect("write");
        }
        file.sync_all().expect("fsync");
    });
    run("sysctl", &["-q", "vm.drop_caches=3"]);
    let read = rate(STREAM_BYTES >> 20, || {
        let mut file = File::open(&stream).expect("open");
        let mut buf = vec![0u8; 1 << 20];
        while file.read(&mut buf).expect("read") > 0 {}
    });
    let log = root.join("log");
    let append = rate(FSYNCS, || {
        let mut file = OpenOptions::new().create(true).append(true).open(&log).expect("open");
        for _ in 0..FSYNCS {
            file.write_all(&chunk[..4096]).expect("write");
            file.sync_data().expect("fsync");
        }
    });
    vec![
        ("create", create),
        ("stat, first", first_stat),
        ("stat, warm", stat),
        ("readdir + stat", readdir),
        ("rename", rename),
        ("unlink", unlink),
        ("write MiB + fsync", write),
        ("read MiB, cold", read),
        ("append 4 KiB + fsync", append),
    ]
}

fn main() {
    let folder =
        std::env::args_os().nth(1).map_or_else(|| PathBuf::from("target/beside-ext4"), PathBuf::from);
    let _ = fs::remove_dir_all(&folder);
    let at = |name: &str| folder.join(name);
    fs::create_dir_all(at("mnt")).expect("the work folder");
    let mnt = at("mnt").canonicalize().expect("the mount point");
    let mnt = mnt.to_str().expect("a path in UTF-8");
    let image = |name: &str| {
        let path = at(name);
        File::create(&path).and_then(|f| f.set_len(2 << 30)).expect("an image file");
        path.to_str().expect("a path in UTF-8").to_owned()
    };

    let ext4 = image("ext4.img");
    run("mkfs.ext4", &["-q", "-F", &ext4]);
    run("mount", &["-o", "loop", &ext4, mnt]);
    let mounted = Mounted(mnt.into());
    let theirs = measure(Path::new(mnt));
    drop(mounted);

    let ours = image("scoutfs.img");
    let scoutfs = std::env::current_exe().expect("this program's path").with_file_name("scoutfs");
    run(&scoutfs, &["mkfs", "-Q", "1", &ours]);
    run(&scoutfs, &["mount", "-o", "server_addr=127.0.0.1", &ours, mnt]);
    let mounted = Mounted(mnt.into());
    let own = measure(Path::new(mnt));
    drop(mounted);

    println!("{:<24} {:>12} {:>12} {:>7}", "operations a second", "ext4", "scoutfs", "ratio");
    for ((name, theirs), (_, own)) in theirs.iter().zip(&own) {
        println!("{name:<24} {theirs:>12.0} {own:>12.0} {:>7.2}", own / theirs);
    }
    let _ = fs::remove_dir_all(&folder);
}
