// SPDX-License-Identifier: GPL-2.0-only
//! Mounting by the kernel's own scoutfs, where the running kernel has it.
//!
//! The kernel does not know by which names userspace calls the machine and its boot; without them no other node would ever be told that
//! a mount of a crashed kernel is dead. So they are given as mount options.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
};

use super::options::Options;
use super::process::{boot_id, machine_id};

/// The filesystem's type.
const TYPE: &str = "scoutfs";

/// Whether the running kernel can mount scoutfs with these options. A log file is the daemon's.
pub fn can_mount(options: &Options) -> bool {
    let by_daemon = options.fuse || options.log.is_some();
    !by_daemon && fs::read_to_string("/proc/filesystems").is_ok_and(|known| knows(&known))
}

/// Whether a list of filesystems names ours, and as one that needs a device.
fn knows(filesystems: &str) -> bool {
    filesystems.lines().any(|line| line.trim() == TYPE && !line.starts_with("nodev"))
}

/// Mounts a block device on a directory.
///
/// # Errors
///
/// What the kernel says: the module's words where it has any, else those of the error number.
pub fn mount(device: &Path, directory: &Path, options: &Options) -> Result<(), String> {
    let fs = fsopen(TYPE, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| e.to_string())?;
    let created = fsconfig_set_string(&fs, "source", device).and_then(|()| {
        for (name, value) in settings(options, machine_id(), boot_id()) {
            match value {
                Some(value) => fsconfig_set_string(&fs, name, value)?,
                None => fsconfig_set_flag(&fs, name)?,
            }
        }
        fsconfig_create(&fs)
    });
    created.map_err(|e| complaint(&fs).unwrap_or_else(|| e.to_string()))?;
    let flags = attributes(options.flags);
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, flags)
        .and_then(|mount| move_mount(mount, "", CWD, directory, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH))
        .map_err(|e| e.to_string())
}

/// The last error message of the kernel about a mount.
fn complaint(fs: &OwnedFd) -> Option<String> {
    let mut last = None;
    let mut buffer = [0; 1024];
    // Each read gives one message, with its kind before it.
    while let Ok(len) = rustix::io::read(fs, &mut buffer) {
        let message = String::from_utf8_lossy(&buffer[..len]).into_owned();
        if let Some(text) = message.strip_prefix("e ") {
            last = Some(text.strip_prefix("scoutfs: ").unwrap_or(text).trim_end().to_owned());
        }
    }
    last
}

/// What the filesystem is told, as the module and the kernel understand it.
fn settings(options: &Options, machine: [u8; 16], boot: [u8; 16]) -> Vec<(&'static str, Option<String>)> {
    let id = |id| Some(format!("{:032x}", u128::from_be_bytes(id)));
    let mut settings = vec![("machine", id(machine)), ("boot", id(boot))];
    if let Some(address) = options.server_addr {
        settings.push(("server_addr", Some(address.to_string())));
    }
    if let Some(interval) = options.commit_interval {
        settings.push(("commit_interval_ms", Some(interval.as_millis().to_string())));
    }
    let flag = |flag| options.flags.contains(flag);
    for (set, name) in [
        (!options.acl, "noacl"),
        (flag(MountFlags::RDONLY), "ro"),
        (flag(MountFlags::SYNCHRONOUS), "sync"),
        (flag(MountFlags::DIRSYNC), "dirsync"),
    ] {
        if set {
            settings.push((name, None));
        }
    }
    settings
}

/// What the place is told.
fn attributes(flags: MountFlags) -> MountAttrFlags {
    let mut attributes = MountAttrFlags::empty();
    for (flag, attribute) in [
        (MountFlags::RDONLY, MountAttrFlags::MOUNT_ATTR_RDONLY),
        (MountFlags::NOSUID, MountAttrFlags::MOUNT_ATTR_NOSUID),
        (MountFlags::NODEV, MountAttrFlags::MOUNT_ATTR_NODEV),
        (MountFlags::NOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC),
        (MountFlags::NOATIME, MountAttrFlags::MOUNT_ATTR_NOATIME),
    ] {
        attributes.set(attribute, flags.contains(flag));
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_chosen_only_when_it_has_the_filesystem_itself() {
        assert!(knows("nodev\tproc\n\text4\n\tscoutfs\n"));
        for without in ["", "nodev\tproc\n\text4\n", "\tscoutfs2\n", "nodev\tscoutfs\n", "\tfuseblk\n"] {
            assert!(!knows(without), "{without:?}");
        }
        for daemons in ["fuse", "log=/var/log/x"] {
            assert!(!can_mount(&Options::parse(&[daemons]).unwrap()), "{daemons}");
        }
    }

    #[test]
    fn the_module_is_told_all_that_it_must_know() {
        let told = |options: &[&str]| {
            let options = Options::parse(options).unwrap();
            let settings = settings(&options, [0x12; 16], [0; 16]);
            let texts = settings.into_iter().map(|(name, value)| match value {
                Some(value) => format!("{name}={value}"),
                None => name.to_owned(),
            });
            (texts.collect::<Vec<_>>().join(","), attributes(options.flags))
        };
        let ids = "machine=12121212121212121212121212121212,boot=00000000000000000000000000000000";
        assert_eq!(
            told(&["noacl,noatime,ro,nodev", "commit_interval_ms=250,server_addr=[fd00::1]:77"]),
            (
                format!("{ids},server_addr=[fd00::1]:77,commit_interval_ms=250,noacl,ro"),
                MountAttrFlags::MOUNT_ATTR_RDONLY
                    | MountAttrFlags::MOUNT_ATTR_NODEV
                    | MountAttrFlags::MOUNT_ATTR_NOATIME
            )
        );
        assert_eq!(
            told(&["server_addr=10.0.0.1,sync"]),
            (format!("{ids},server_addr=10.0.0.1:0,sync"), MountAttrFlags::empty())
        );
        assert_eq!(told(&["rw"]), (ids.to_owned(), MountAttrFlags::empty()));
    }
}
