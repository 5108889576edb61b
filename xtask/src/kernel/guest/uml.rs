// SPDX-License-Identifier: GPL-2.0-only
//! User-Mode Linux: a kernel that is a process, with the machine's root over hostfs.

use std::process::Command;

use super::{Files, Guest};

/// What runs a guest.
pub fn command(guest: &Guest<'_>, files: &Files<'_>) -> Command {
    // Each runs the next in its place. It ends when the thread that waits for it does.
    let mut command = Command::new("setpriv");
    // On one processor: it has one, and is slower when it wanders.
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let processor = guest.number as usize % processors;
    command.args(["--pdeathsig", "KILL", "taskset", "-c", &processor.to_string()]);
    command.arg(guest.kernel.program());
    command.arg(format!("mem={}", guest.memory));
    if guest.kernel.debug {
        // KASAN looks into the code that runs in programs for the kernel, where seccomp needs it, and which cannot. Traces are dear: KASAN
        // and the leak detector take theirs of each object, and slab debugging does not.
        command.args(["seccomp=off", "slab_debug=FPZ"]);
    } else {
        command.arg("seccomp=on");
    }
    command.args(["rootfstype=hostfs", "rootflags=/", "rw", "panic=-1"]);
    // `mount -o loop` has the loop device open for writing while it is mounted.
    command.args(["con=null", "con0=null,fd:1", "bdev_allow_write_mounted=1"]);
    if guest.wire.is_some() {
        command.arg("vec0:transport=fd,fd=0");
    }
    command.args(guest.words(files));
    for (letter, disk) in ('a'..='z').zip(&guest.disks) {
        // Without a lock: nodes share it.
        command.arg(format!("ubd{letter}c={}", disk.display()));
    }
    command
}
