// SPDX-License-Identifier: GPL-2.0-only
//! A scoutfs mount beside ext4 and xfs on loop devices, and beside a filesystem in memory on the same FUSE layer, which is
//! as fast as that layer allows. Needs root, mkfs.ext4, mkfs.xfs and a release build of the `scoutfs` command.
//!
//! All are mounted at the same time and take turns in each kind of work, several rounds; the medians are compared. One process
//! works, or four threads in a directory of their own each, or in one. Beside the rates it says how much processor time the two
//! servers took for an operation, which other programs on the machine disturb less.
//!
//! `mounted [FOLDER] [WORK...]`: FOLDER has a slash in it; only works whose names begin with WORK are done, and what they build on.

// The FUSE layer's tests look at it in ways that a benchmark does not.
#[path = "../../../scoutfs-utils/tests/fuse_memfs/mod.rs"]
#[allow(dead_code, missing_docs)]
mod fuse_memfs;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fuse_memfs::{Knobs, Memfs};
use scoutfs_benches::works::{Caches, SHAPES, SINGLE, Work, chosen, do_work, median, run};
use scoutfs_utils::fuse::{MountKind, MountOptions, Session, SessionOptions};

const ROUNDS: usize = 3;
const IMAGE_BYTES: u64 = 4 << 30;

/// A filesystem under test; it is unmounted when it goes.
struct Mounted {
    name: &'static str,
    root: PathBuf,
    server: Option<Child>,
}

impl Mounted {
    /// Processor time of its server so far, in microseconds.
    fn server_us(&self) -> Option<f64> {
        let server = self.server.as_ref()?;
        let stat = fs::read_to_string(format!("/proc/{}/stat", server.id())).expect("the server's stat");
        // The name is in parentheses; user and system time are the 14th and 15th field.
        let (_, after) = stat.rsplit_once(')').expect("a name");
        let ticks: u64 =
            after.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().expect("ticks")).sum();
        Some(ticks as f64 * 1e6 / rustix::param::clock_ticks_per_second() as f64)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.root).status();
        if let Some(server) = &mut self.server {
            let _ = server.wait();
        }
    }
}

/// What a piece of work took.
#[derive(Clone, Copy)]
struct Taken {
    /// Operations a second.
    rate: f64,
    /// Processor time of the server for an operation.
    server_us: f64,
}

/// Does a piece of work.
fn measure(fs: &Mounted, work: Work, caches: Caches, dirs: &[PathBuf]) -> Taken {
    let mut before = None;
    let (count, time) = do_work(work, caches, dirs, || before = fs.server_us());
    let server_us = match (before, fs.server_us()) {
        (Some(before), Some(after)) => (after - before) / count as f64,
        _ => f64::NAN,
    };
    Taken { rate: count as f64 / time.as_secs_f64(), server_us }
}

fn compare(all: &[Mounted], wanted: &[String]) {
    println!(
        "{:<42} {:>9} {:>9} {:>9} {:>9}   {:>7} {:>7} {:>7}   {:>8} {:>8}",
        "operations a second",
        all[0].name,
        all[1].name,
        all[2].name,
        all[3].name,
        "/ext4",
        "/xfs",
        "/layer",
        "us,layer",
        "scoutfs"
    );
    for (shape, threads, one_directory) in SHAPES {
        let works = chosen(threads, &[], wanted);
        let mut taken = vec![vec![Vec::new(); all.len()]; works.len()];
        for round in 0..ROUNDS {
            let dirs: Vec<Vec<PathBuf>> = all
                .iter()
                .map(|fs| {
                    let dir = |thread| fs.root.join(format!("{threads}-{one_directory}-{round}-{thread}"));
                    let dirs = (0..threads).map(|t| dir(if one_directory { 0 } else { t }));
                    dirs.inspect(|dir| fs::create_dir_all(dir).expect("mkdir")).collect()
                })
                .collect();
            for (work, taken) in works.iter().zip(&mut taken) {
                for ((fs, dirs), taken) in all.iter().zip(&dirs).zip(taken) {
                    // Memory holds no such stream.
                    let skip = fs.name == "layer" && SINGLE.iter().any(|(name, ..)| *name == work.0);
                    let nothing = Taken { rate: f64::NAN, server_us: f64::NAN };
                    taken.push(if skip { nothing } else { measure(fs, work.1, work.2, dirs) });
                }
            }
        }
        for ((name, ..), taken) in works.iter().zip(taken) {
            let medians = |of: fn(&Taken) -> f64| -> Vec<f64> {
                taken.iter().map(|taken| median(taken.iter().map(of).collect())).collect()
            };
            let (rates, server_us) = (medians(|t| t.rate), medians(|t| t.server_us));
            print!("{:<42}", format!("{name}{shape}"));
            rates.iter().for_each(|rate| print!(" {rate:>9.0}"));
            print!("  ");
            rates[..3].iter().for_each(|other| print!(" {:>7.2}", rates[3] / other));
            print!("  ");
            server_us[2..].iter().for_each(|us| print!(" {us:>8.1}"));
            println!();
        }
    }
}

/// Serves the filesystem in memory until it is unmounted.
fn serve_memory(mountpoint: &Path) {
    let kind = MountKind::Plain { source: "layer".into() };
    let options = SessionOptions::new(MountOptions::new(kind, mountpoint, "memfs"));
    let memory = Arc::new(Memfs::new(Knobs::default()));
    Session::mount(memory, &options).expect("mount").run().expect("serve");
}

fn wait_for_mount(root: &Path) {
    let wanted = format!(" {} ", root.display());
    let deadline = Instant::now() + Duration::from_secs(10);
    while !fs::read_to_string("/proc/mounts").expect("/proc/mounts").contains(&wanted) {
        assert!(Instant::now() < deadline, "{} is not mounted", root.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, mountpoint] = &arguments[..]
        && word == "serve-memory"
    {
        return serve_memory(Path::new(mountpoint));
    }
    let (folders, wanted): (Vec<_>, Vec<_>) = arguments.into_iter().partition(|word| word.contains('/'));
    let folder = PathBuf::from(folders.first().map_or("target/bench-mounted", |folder| folder));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("the work folder");
    let folder = folder.canonicalize().expect("the work folder");
    let text = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
    let mount_point = |name: &str| {
        let path = folder.join(name);
        fs::create_dir_all(&path).expect("a mount point");
        path
    };
    let image = |name: &str| {
        let path = folder.join(format!("{name}.img"));
        File::create(&path).and_then(|f| f.set_len(IMAGE_BYTES)).expect("an image file");
        text(&path)
    };
    let mut all = Vec::new();
    for (name, mkfs, force) in [("ext4", "mkfs.ext4", "-F"), ("xfs", "mkfs.xfs", "-f")] {
        let (image, root) = (image(name), mount_point(name));
        run(mkfs, &["-q", force, &image]);
        run("mount", &["-o", "loop", &image, &text(&root)]);
        all.push(Mounted { name, root, server: None });
    }
    let this = std::env::current_exe().expect("this program's path");
    let root = mount_point("layer");
    let server = Command::new(&this).arg("serve-memory").arg(&root).spawn().expect("serve");
    all.push(Mounted { name: "layer", root, server: Some(server) });
    wait_for_mount(&all[2].root);
    let (image, root) = (image("scoutfs"), mount_point("scoutfs"));
    let scoutfs = this.with_file_name("scoutfs");
    run(&scoutfs, &["mkfs", "-Q", "1", &image]);
    let server = Command::new(&scoutfs)
        .args(["mount", "-f", "-o", "server_addr=127.0.0.1", &image, &text(&root)])
        .spawn()
        .expect("mount");
    all.push(Mounted { name: "scoutfs", root, server: Some(server) });
    wait_for_mount(&all[3].root);
    compare(&all, &wanted);
    drop(all);
    let _ = fs::remove_dir_all(&folder);
}
