// SPDX-License-Identifier: GPL-2.0-only
//! The module beside ext4 and xfs, in one guest and one run, each on a disk image of its own in one folder, or on a disk in memory
//! whose requests take a while.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::build::Kernel;
use super::guest::Guest;
use crate::setup;

/// Streams of all rounds, and what is written beside them.
const IMAGE_BYTES: u64 = 4 << 30;

/// The same of disks in memory.
const MEMORY_GIB: u64 = 1;

/// Filesystems, and what makes one.
const OTHERS: [(&str, &str); 2] = [("ext4", "mkfs.ext4 -q -F"), ("xfs", "mkfs.xfs -q -f")];

/// Measures and prints.
pub fn run(
    kernel: &Kernel,
    module: &Path,
    rounds: u32,
    latency: Option<u32>,
    works: &[String],
) -> Result<(), String> {
    setup::need_root()?;
    let cargo = |arguments: &[&str]| setup::run(setup::cargo(), arguments);
    cargo(&["build", "--release", "--package", "scoutfs-utils"])?;
    cargo(&["build", "--release", "--package", "scoutfs-benches", "--bin", "folders"])?;
    let dir = setup::root().join("target/kernel-bench");
    fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let guest = Guest::new(kernel, &dir)?.seconds(3600);
    match latency {
        None => {
            let images: Vec<_> =
                ["ext4", "xfs", "scoutfs"].iter().map(|name| dir.join(format!("{name}.img"))).collect();
            let measured = on_images(guest, &images)
                .and_then(|guest| measure(guest, kernel, module, "true", "ABC", rounds, works));
            // They are large where they were written.
            images.iter().for_each(|image| drop(fs::remove_file(image)));
            measured
        }
        Some(latency) => {
            let disks = format!(
                "insmod drivers/block/null_blk/null_blk.ko nr_devices=3 memory_backed=1 gb={MEMORY_GIB} irqmode=2 \
                 completion_nsec={}\nDISK_0=/dev/nullb0 DISK_1=/dev/nullb1 DISK_2=/dev/nullb2",
                u64::from(latency) * 1000
            );
            measure(guest.memory("3G"), kernel, module, &disks, "012", rounds, works)
        }
    }
}

fn on_images<'a>(mut guest: Guest<'a>, images: &[PathBuf]) -> Result<Guest<'a>, String> {
    guest = guest.memory("2G");
    for image in images {
        let text = |e: std::io::Error| format!("{}: {e}", image.display());
        File::create(image).and_then(|file| file.set_len(IMAGE_BYTES)).map_err(text)?;
        guest = guest.disk(image);
    }
    Ok(guest)
}

/// `disks` makes the guest's disks, which are named by these letters.
fn measure(
    guest: Guest<'_>,
    kernel: &Kernel,
    module: &Path,
    disks: &str,
    letters: &str,
    rounds: u32,
    works: &[String],
) -> Result<(), String> {
    let release = setup::root().join("target/release");
    let scoutfs = release.join("scoutfs").display().to_string();
    // Modules of the kernel are where it was built; nothing is installed.
    let mut script = format!(
        "set -e\ncd {tree}\nfor m in lib/crc/crc16 fs/mbcache fs/jbd2/jbd2 fs/ext4/ext4 fs/xfs/xfs; do\n\
         [ ! -e $m.ko ] || insmod $m.ko\ndone\ninsmod {module}\n{disks}\n",
        tree = kernel.tree.display(),
        module = module.display(),
    );
    let mut letters = letters.chars();
    let mut disk = || format!("$DISK_{}", letters.next().unwrap_or_default());
    for (name, mkfs) in OTHERS {
        let disk = disk();
        script += &format!("{mkfs} {disk}\nmkdir /mnt/{name}\nmount -t {name} {disk} /mnt/{name}\n");
    }
    let disk = disk();
    script += &format!(
        "{scoutfs} mkfs -Q 1 {disk}\n{scoutfs} mount -o server_addr=127.0.0.1 {disk} /mnt/scoutfs\n\
         grep -q ' /mnt/scoutfs scoutfs ' /proc/mounts\n\
         {folders} ext4=/mnt/ext4 xfs=/mnt/xfs scoutfs=/mnt/scoutfs rounds={rounds} {works}\n\
         umount /mnt/ext4 /mnt/xfs /mnt/scoutfs\n",
        folders = release.join("folders").display(),
        works =
            works.iter().map(|word| format!("'{}'", word.replace('\'', ""))).collect::<Vec<_>>().join(" "),
    );
    let ended = guest.run("bench", &script)?;
    ended.check("the bench")?;
    let lines = ended.log.lines().skip_while(|line| !line.starts_with("operations a second"));
    let lines = lines.filter(|line| !line.contains("drop_caches"));
    lines.take_while(|line| !line.contains("nmounting")).for_each(|line| println!("{}", line.trim_end()));
    Ok(())
}
