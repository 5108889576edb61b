// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask demo`: the main job on an image file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::setup;

/// The demo's folder, whose mount and files go when it ends, however it ends.
struct Stage {
    folder: PathBuf,
}

impl Stage {
    fn new(folder: PathBuf) -> Result<Self, String> {
        let stage = Stage { folder };
        stage.clear();
        fs::create_dir_all(stage.mount_point()).map_err(|e| format!("{}: {e}", stage.folder.display()))?;
        Ok(stage)
    }

    fn mount_point(&self) -> PathBuf {
        self.folder.join("mnt")
    }

    fn clear(&self) {
        let mount_point = self.mount_point();
        let mounted = fs::read_to_string("/proc/mounts")
            .is_ok_and(|mounts| mounts.contains(&format!(" {} ", mount_point.display())));
        if mounted {
            let _ = Command::new("umount").arg("-l").arg(&mount_point).status();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Makes a volume, mounts it, changes files and shows the index.
pub fn run() -> Result<(), String> {
    setup::need_root()?;
    setup::install()?;
    setup::run(setup::cargo(), &["build", "--release", "--package", "scoutfs-utils"])?;
    let scoutfs = setup::root().join("target/release/scoutfs");
    let stage = Stage::new(setup::root().join("target/demo"))?;
    let image = stage.folder.join("volume.img");
    File::create(&image)
        .and_then(|file| file.set_len(1 << 30))
        .map_err(|e| format!("{}: {e}", image.display()))?;
    let mount_point = stage.mount_point();
    let (image, mount_point) = (text(&image)?, text(&mount_point)?);
    let walk = ["walk-inodes", "meta_seq", "0", "-1", mount_point];

    println!("\nA volume in an image file, mounted on one node:");
    setup::run(&scoutfs, &["mkfs", "-Q", "1", image])?;
    setup::run(&scoutfs, &["mount", "-o", "server_addr=127.0.0.1", image, mount_point])?;
    println!("\nThe change index of an empty volume is its root directory:");
    setup::run(&scoutfs, &walk)?;
    for name in ["one", "two", "one"] {
        println!("\nA change is in the index when the sync after it returns:");
        setup::run("touch", &[&format!("{mount_point}/{name}")])?;
        setup::run("sync", &["-f", mount_point])?;
        setup::run(&scoutfs, &walk)?;
    }
    println!("\nAn inode that changed again has moved to the end. The space:");
    setup::run(&scoutfs, &["df", "--path", mount_point])?;
    println!("\nAfter umount the volume is clean:");
    setup::run("umount", &[mount_point])?;
    setup::run(&scoutfs, &["check", image])?;
    Ok(())
}

fn text(path: &Path) -> Result<&str, String> {
    path.to_str().ok_or_else(|| format!("{} is not UTF-8", path.display()))
}
