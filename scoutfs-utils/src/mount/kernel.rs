// SPDX-License-Identifier: GPL-2.0-only
//! Mounting by the kernel's own scoutfs, where the running kernel has it.
//!
//! The kernel does not know by which names userspace calls the machine and its boot; without them no other node would ever be told that
//! a mount of a crashed kernel is dead. So they are given as mount options.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::Path;

use super::options::Options;
use super::process::{boot_id, machine_id};

/// The filesystem's type.
const TYPE: &str = "scoutfs";

/// Whether the running kernel can mount scoutfs with these options. A fence agent and a log file are the daemon's.
pub fn can_mount(options: &Options) -> bool {
    let by_daemon = options.fuse || options.fence.is_some() || options.log.is_some();
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
/// The kernel's; the kernel's log says more.
pub fn mount(device: &Path, directory: &Path, options: &Options) -> io::Result<()> {
    let data = CString::new(data(options, machine_id(), boot_id()))?;
    Ok(rustix::mount::mount(device, directory, TYPE, options.flags, Some(data.as_c_str()))?)
}

/// The options that are not flags, as the module understands them.
fn data(options: &Options, machine: [u8; 16], boot: [u8; 16]) -> String {
    let (machine, boot) = (u128::from_be_bytes(machine), u128::from_be_bytes(boot));
    let mut data = format!("machine={machine:032x},boot={boot:032x}");
    if let Some(address) = options.server_addr {
        data += &format!(",server_addr={address}");
    }
    if let Some(interval) = options.commit_interval {
        data += &format!(",commit_interval_ms={}", interval.as_millis());
    }
    if !options.acl {
        data += ",noacl";
    }
    data
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
        for daemons in ["fuse", "fence=/sbin/agent", "log=/var/log/x"] {
            assert!(!can_mount(&Options::parse(&[daemons]).unwrap()), "{daemons}");
        }
    }

    #[test]
    fn the_module_is_told_all_that_is_not_a_flag() {
        let options = ["noacl,noatime,ro", "commit_interval_ms=250,server_addr=[fd00::1]:77"];
        let options = Options::parse(&options).unwrap();
        assert_eq!(
            data(&options, [0x12; 16], [0; 16]),
            "machine=12121212121212121212121212121212,boot=00000000000000000000000000000000,\
             server_addr=[fd00::1]:77,commit_interval_ms=250,noacl"
        );
        let plain = Options::parse(&["server_addr=10.0.0.1"]).unwrap();
        assert!(data(&plain, [1; 16], [2; 16]).ends_with("02,server_addr=10.0.0.1:0"));
    }
}
