// SPDX-License-Identifier: GPL-2.0-only
//! x86-64 in QEMU, under software emulation, with several processors that run at one time.
//!
//! The root is the machine's by 9p, and cannot be written to. The guest's own folder is a second share, without a cache, so that guests meet in
//! it and what one has written there is not lost with it.

use std::process::Command;

use super::{Files, Guest};

/// How many a guest has.
const PROCESSORS: u32 = 2;

/// What runs a guest.
pub fn command(guest: &Guest<'_>, files: &Files<'_>) -> Command {
    // It ends when the thread that waits for it does.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
    command.args(["-M", "microvm,acpi=off,x-option-roms=off", "-accel", "tcg,thread=multi", "-cpu", "max"]);
    command.args(["-smp", &PROCESSORS.to_string(), "-m", guest.memory]);
    command.args(["-no-user-config", "-nodefaults", "-no-reboot", "-display", "none"]);
    // What it prints.
    command.args(["-chardev", "file,id=log,path=/dev/stdout", "-serial", "chardev:log"]);
    command.args(["-object", "rng-random,id=random,filename=/dev/urandom"]);
    command.args(["-device", "virtio-rng-device,rng=random"]);
    // Folders.
    let mut share = |tag: &str, options: &str| {
        command
            .arg("-fsdev")
            .arg(format!("local,id={tag},security_model=passthrough,multidevs=remap,{options}"));
        command.arg("-device").arg(format!("virtio-9p-device,fsdev={tag},mount_tag={tag}"));
    };
    share("machine", "path=/,readonly=on");
    share("folder", &format!("path={}", escaped(&guest.dir.display().to_string())));
    for (letter, disk) in ('A'..='Z').zip(&guest.disks) {
        // Without a lock, as nodes share it; all by the machine's page cache. The order in which the guest finds disks says nothing, the serial
        // number does.
        let file = escaped(&disk.display().to_string());
        command.arg("-drive");
        command
            .arg(format!("file={file},format=raw,cache=writeback,file.locking=off,if=none,id=disk{letter}"));
        command.arg("-device");
        command.arg(format!("virtio-blk-device,drive=disk{letter},share-rw=on,serial={letter}"));
    }
    if guest.wire.is_some() {
        command.args(["-netdev", "dgram,id=wire,local.type=fd,local.str=0", "-device"]);
        command.arg(format!("virtio-net-device,netdev=wire,mac=52:54:00:00:00:{:02x}", guest.number & 0xff));
    }
    command.arg("-kernel").arg(guest.kernel.program());
    command.arg("-append").arg(kernel_arguments(guest, files));
    command
}

fn kernel_arguments(guest: &Guest<'_>, files: &Files<'_>) -> String {
    let mut words = vec![
        "console=ttyS0 reboot=t panic=-1 root=machine rootfstype=9p ro".to_string(),
        "rootflags=trans=virtio,version=9p2000.L,cache=loose,msize=512000".into(),
        // A processor that the machine does not let run is not stuck.
        "tsc=reliable no_timer_check watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=120".into(),
        // `mount -o loop` has the loop device open for writing while it is mounted.
        "bdev_allow_write_mounted=1".into(),
        format!("folder={} end=reboot", guest.dir.display()),
    ];
    words.extend(guest.words(files));
    if guest.kernel.debug {
        words.push("slab_debug=FPZ".into());
    }
    words.join(" ")
}

/// A path as a value among options, which commas part.
fn escaped(path: &str) -> String {
    path.replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn a_path_with_a_comma_is_one_value() {
        assert_eq!(escaped("/a,b/image"), "/a,,b/image");
    }
}
