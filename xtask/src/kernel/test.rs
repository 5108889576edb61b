// SPDX-License-Identifier: GPL-2.0-only
//! What is done in guests, and with the volume before and after.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::build::Kernel;
use super::guest::Guest;
use super::sources;
use crate::setup;

/// Where a guest mounts.
const GUEST_MOUNT: &str = "/mnt/scoutfs";

/// All tests.
pub fn run(kernel: &Kernel, module: &Path) -> Result<(), String> {
    setup::need_root()?;
    setup::install()?;
    setup::run(setup::cargo(), &["build", "--release", "--package", "scoutfs-utils"])?;
    let bench = Bench::new(kernel, module)?;
    bench.exchange()
}

/// What the tests work with.
struct Bench<'a> {
    kernel: &'a Kernel,
    module: &'a Path,
    dir: PathBuf,
    image: PathBuf,
    /// Files to copy: the core's own sources.
    tree: PathBuf,
}

impl<'a> Bench<'a> {
    fn new(kernel: &'a Kernel, module: &'a Path) -> Result<Self, String> {
        let dir = setup::root().join("target/kernel-test");
        let text = |e: std::io::Error| format!("{}: {e}", dir.display());
        std::fs::create_dir_all(dir.join("fuse")).map_err(text)?;
        let image = dir.join("image");
        Ok(Bench { kernel, module, image, tree: setup::root().join("scoutfs-fs/src"), dir })
    }

    fn scoutfs(&self) -> PathBuf {
        setup::root().join("target/release/scoutfs")
    }

    /// A fresh volume.
    fn make_volume(&self, mib: u64) -> Result<(), String> {
        let text = |e: std::io::Error| format!("{}: {e}", self.image.display());
        let _ = std::fs::remove_file(&self.image);
        File::create(&self.image).and_then(|file| file.set_len(mib << 20)).map_err(text)?;
        self.host("mkfs", Command::new(self.scoutfs()).args(["mkfs", "-Q", "1"]).arg(&self.image))
    }

    /// Runs a program of the machine, for a time.
    fn host(&self, what: &str, command: &mut Command) -> Result<(), String> {
        println!("kernel: {what}");
        let mut timed = Command::new("timeout");
        timed.arg("300").arg(command.get_program()).args(command.get_args());
        let output = timed.stdin(Stdio::null()).output().map_err(|e| format!("{what}: {e}"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        Err(format!("{what}: {}\n{}", output.status, String::from_utf8_lossy(&said)))
    }

    fn check(&self) -> Result<(), String> {
        self.host("check", Command::new(self.scoutfs()).arg("check").arg(&self.image))
    }

    /// Mounts by FUSE, runs something with the directory, and unmounts, also when that failed.
    fn on_fuse(&self, run: impl FnOnce(&Path) -> Result<(), String>) -> Result<(), String> {
        let directory = self.dir.join("fuse");
        let mut mount = Command::new(self.scoutfs());
        mount.args(["mount", "-o", "server_addr=127.0.0.1"]).arg(&self.image).arg(&directory);
        self.host("mounting by FUSE", &mut mount)?;
        let done = run(&directory);
        self.host("unmounting", Command::new("umount").arg(&directory)).and(done)
    }

    /// Runs a script in a guest with the module loaded and the volume mounted; it is unmounted and the module unloaded afterwards.
    fn in_guest(&self, name: &str, script: &str) -> Result<(), String> {
        println!("kernel: a guest: {name}");
        let text = format!(
            "set -e\ninsmod {module}\nmount -i -t scoutfs -o server_addr=127.0.0.1 /dev/ubda {GUEST_MOUNT}\n\
             {script}\numount {GUEST_MOUNT}\nrmmod scoutfs\n",
            module = self.module.display()
        );
        Guest::new(self.kernel, &self.dir)?.disk(&self.image).run(name, &text)?.check(name)
    }

    /// What FUSE writes the module reads, and the reverse; between them all operations; and the volume is sound after each.
    fn exchange(&self) -> Result<(), String> {
        self.make_volume(512)?;
        let differ = |one: &Path, other: &Path| {
            self.host("comparing", Command::new("diff").arg("-r").arg(one).arg(other))
        };
        self.on_fuse(|directory| {
            let copy = directory.join("from-fuse");
            self.host("copying a tree", Command::new("cp").arg("-a").arg(&self.tree).arg(&copy))
        })?;
        self.check()?;
        let (tree, script) = (self.tree.display(), sources().join("guest/operations.sh"));
        self.in_guest(
            "operations",
            &format!(
                "diff -r {tree} {GUEST_MOUNT}/from-fuse\nsh {} {GUEST_MOUNT} {tree}\n\
                 {} walk-inodes meta_seq 0 -1 {GUEST_MOUNT} | grep -q . ",
                script.display(),
                self.scoutfs().display()
            ),
        )?;
        self.check()?;
        self.on_fuse(|directory| {
            differ(&self.tree, &directory.join("tree"))?;
            differ(&self.tree, &directory.join("from-fuse"))?;
            self.host("removing", Command::new("rm").arg("-r").arg(directory.join("tree")))
        })?;
        self.check()?;
        self.in_guest(
            "again",
            &format!("diff -r {tree} {GUEST_MOUNT}/from-fuse\n[ ! -e {GUEST_MOUNT}/tree ]"),
        )?;
        self.check()
    }
}
