// SPDX-License-Identifier: GPL-2.0-only
//! The module beside ext4 and xfs, in one guest and one run, each on a disk image of its own in one folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::build::Kernel;
use super::guest::Guest;
use crate::setup;

/// Streams of all rounds, and what is written beside them.
const IMAGE_BYTES: u64 = 4 << 30;

/// Measures and prints.
pub fn run(kernel: &Kernel, module: &Path, rounds: u32, works: &[String]) -> Result<(), String> {
    setup::need_root()?;
    let cargo = |arguments: &[&str]| setup::run(setup::cargo(), arguments);
    cargo(&["build", "--release", "--package", "scoutfs-utils"])?;
    cargo(&["build", "--release", "--package", "scoutfs-benches", "--bin", "folders"])?;
    let dir = setup::root().join("target/kernel-bench");
    fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let measured = measure(kernel, module, &dir, rounds, works);
    // Images are large where they were written.
    for name in ["ext4", "xfs", "scoutfs"] {
        let _ = fs::remove_file(image(&dir, name));
    }
    measured
}

fn image(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.img"))
}

fn measure(kernel: &Kernel, module: &Path, dir: &Path, rounds: u32, works: &[String]) -> Result<(), String> {
    let release = setup::root().join("target/release");
    let scoutfs = release.join("scoutfs").display().to_string();
    let mut guest = Guest::new(kernel, dir)?.memory("2G").seconds(3600);
    let mkfs: [(&str, &str, &[&str]); 3] = [
        ("ext4", "mkfs.ext4", &["-q", "-F"]),
        ("xfs", "mkfs.xfs", &["-q", "-f"]),
        ("scoutfs", &scoutfs, &["mkfs", "-Q", "1"]),
    ];
    for (name, program, arguments) in mkfs {
        let image = image(dir, name);
        let text = |e: std::io::Error| format!("{}: {e}", image.display());
        File::create(&image).and_then(|file| file.set_len(IMAGE_BYTES)).map_err(text)?;
        setup::run(program, &[arguments, &[&image.display().to_string()]].concat())?;
        guest = guest.disk(&image);
    }
    // Modules of the kernel are where it was built; nothing is installed.
    let script = format!(
        "set -e\ncd {tree}\nfor m in lib/crc/crc16 fs/mbcache fs/jbd2/jbd2 fs/ext4/ext4 fs/xfs/xfs; do\n\
         [ ! -e $m.ko ] || insmod $m.ko\ndone\ninsmod {module}\nmkdir /mnt/ext4 /mnt/xfs\n\
         mount -t ext4 $DISK_A /mnt/ext4\nmount -t xfs $DISK_B /mnt/xfs\n\
         {scoutfs} mount -o server_addr=127.0.0.1 $DISK_C /mnt/scoutfs\ngrep -q ' /mnt/scoutfs scoutfs ' /proc/mounts\n\
         {folders} ext4=/mnt/ext4 xfs=/mnt/xfs scoutfs=/mnt/scoutfs rounds={rounds} {works}\n\
         umount /mnt/ext4 /mnt/xfs /mnt/scoutfs\n",
        tree = kernel.tree.display(),
        module = module.display(),
        folders = release.join("folders").display(),
        works =
            works.iter().map(|word| format!("'{}'", word.replace('\'', ""))).collect::<Vec<_>>().join(" "),
    );
    let ended = guest.run("bench", &script)?;
    ended.check("the bench")?;
    let lines = ended.log.lines().skip_while(|line| !line.starts_with("operations a second"));
    lines.take_while(|line| !line.contains("umount")).for_each(|line| println!("{}", line.trim_end()));
    Ok(())
}
