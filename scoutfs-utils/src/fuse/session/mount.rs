// SPDX-License-Identifier: GPL-2.0-only
//! `mount(2)`, `umount2(2)`, and what has to be set on the mount afterwards.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

pub use rustix::mount::MountFlags;
use rustix::mount::UnmountFlags;

use super::device::Device;

/// What is mounted.
#[derive(Clone, Debug)]
pub enum MountKind {
    /// A block device (`fuseblk`): the kernel sends SYNCFS, and `umount` waits for DESTROY. The device must not be
    /// mounted yet; that the filesystem reads and writes it by other descriptors does no harm.
    Block {
        /// The block device.
        device: PathBuf,
        /// Block size in bytes, a power of two from the device's own up to 4096.
        block_size: u32,
    },
    /// No device (`fuse`): neither SYNCFS nor a waiting `umount`.
    Plain {
        /// What `/proc/mounts` shows as the source.
        source: String,
    },
}

/// How it is mounted.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// What is mounted.
    pub kind: MountKind,
    /// Where; a directory.
    pub mountpoint: PathBuf,
    /// `/proc/mounts` shows the type as `fuseblk.<subtype>`.
    pub subtype: String,
    /// Read-only, noatime and so on.
    pub flags: MountFlags,
    /// The kernel checks permissions by mode, owner and ACLs.
    pub default_permissions: bool,
    /// Users other than root may use the mount.
    pub allow_other: bool,
    /// Readahead in KiB; None leaves the kernel's default of 128. Needs sysfs; where it cannot be set, it is not. A request is of
    /// 1 MiB at most, so this says how many of them a sequential reader has under way: with one, the device waits for each
    /// wake-up.
    pub read_ahead_kib: Option<u32>,
}

impl MountOptions {
    /// Options that make it behave as any local filesystem.
    pub fn new(kind: MountKind, mountpoint: impl Into<PathBuf>, subtype: &str) -> Self {
        Self {
            kind,
            mountpoint: mountpoint.into(),
            subtype: subtype.to_owned(),
            flags: MountFlags::empty(),
            default_permissions: true,
            allow_other: true,
            read_ahead_kib: Some(4096),
        }
    }
}

/// How an unmount treats a mount that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnmountMode {
    /// Fail with EBUSY.
    IfIdle,
    /// Take it out of the tree now, end it after its last use.
    Lazy,
    /// Take it out of the tree, and fail everything under way.
    Abort,
}

/// Unmounts what is mounted at `mountpoint`. On fuseblk it returns after `destroy` has, except when lazy
/// or aborting. Must not be called on a thread that serves requests.
pub fn unmount(mountpoint: &Path, mode: UnmountMode) -> io::Result<()> {
    let flags = match mode {
        UnmountMode::IfIdle => UnmountFlags::NOFOLLOW,
        UnmountMode::Lazy => UnmountFlags::NOFOLLOW | UnmountFlags::DETACH,
        UnmountMode::Abort => UnmountFlags::NOFOLLOW | UnmountFlags::DETACH | UnmountFlags::FORCE,
    };
    // The thread waits, deaf to signals, until DESTROY is answered. If this process serves the mount and is killed
    // meanwhile, the kernel ends the mount when the last descriptor of /dev/fuse is closed: so this
    // thread must not keep the process's descriptors open, or both would stay for ever.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, || {
            leave_descriptors()?;
            Ok(rustix::mount::unmount(mountpoint, flags)?)
        })?;
        thread.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
    })
}

/// Gives this thread a table of descriptors of its own, empty but for the standard streams.
fn leave_descriptors() -> io::Result<()> {
    let first = libc::STDERR_FILENO + 1;
    // SAFETY: the descriptors stay open in the process's own table; this thread uses none of them.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Mounts and returns the mount point as an absolute path without symlinks. `max_read` in bytes.
pub(super) fn mount(options: &MountOptions, device: &Device, max_read: u32) -> io::Result<PathBuf> {
    let mountpoint = std::fs::canonicalize(&options.mountpoint)?;
    let mut data = format!(
        "fd={},rootmode={:o},user_id=0,group_id=0,max_read={max_read}",
        device.as_fd().as_raw_fd(),
        libc::S_IFDIR,
    );
    let (source, fstype) = match &options.kind {
        MountKind::Block { device, block_size } => {
            data.push_str(&format!(",blksize={block_size}"));
            (device.as_os_str().as_bytes(), "fuseblk")
        }
        MountKind::Plain { source } => (source.as_bytes(), "fuse"),
    };
    if options.default_permissions {
        data.push_str(",default_permissions");
    }
    if options.allow_other {
        data.push_str(",allow_other");
    }
    let fstype = format!("{fstype}.{}", options.subtype);
    let data = CString::new(data)?;
    rustix::mount::mount(source, &mountpoint, fstype, options.flags, Some(data.as_c_str()))?;
    Ok(mountpoint)
}

/// Sets the readahead of the mount at `mountpoint`. It becomes effective when INIT has been answered.
pub(super) fn set_read_ahead(mountpoint: &Path, kind: &MountKind, kib: u32) -> io::Result<()> {
    let mountinfo = std::fs::read("/proc/self/mountinfo")?;
    let number = device_number(&mountinfo, mountpoint).ok_or(io::ErrorKind::NotFound)?;
    let suffix = match kind {
        MountKind::Block { .. } => "-fuseblk",
        MountKind::Plain { .. } => "",
    };
    std::fs::write(format!("/sys/class/bdi/{number}{suffix}/read_ahead_kb"), kib.to_string())
}

/// The `major:minor` of the topmost mount at `mountpoint`.
fn device_number(mountinfo: &[u8], mountpoint: &Path) -> Option<String> {
    let mut found = None;
    for line in mountinfo.split(|&b| b == b'\n') {
        let mut fields = line.split(|&b| b == b' ');
        let (Some(number), Some(target)) = (fields.nth(2), fields.nth(1)) else { continue };
        if unescape(target) == mountpoint {
            found = Some(String::from_utf8_lossy(number).into_owned());
        }
    }
    found
}

/// A path of mountinfo, in which blanks and backslashes are `\ooo`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let code = match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if first == b'\\' => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        path.push(code.unwrap_or(first));
        rest = if code.is_some() { tail.get(3..).unwrap_or_default() } else { tail };
    }
    PathBuf::from(std::ffi::OsString::from_vec(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_mount_with_an_escaped_path_is_found() {
        let info = b"30 1 0:26 / /mnt/a\\040b rw - tmpfs t rw\n\
            31 1 0:27 / /mnt/a rw - tmpfs t rw\n\
            garbage\n\n\
            32 1 7:3 / /mnt/a\\040b rw shared:1 - fuseblk.x /dev/loop3 rw\n";
        assert_eq!(device_number(info, Path::new("/mnt/a b")).as_deref(), Some("7:3"));
        assert_eq!(device_number(info, Path::new("/mnt/a")).as_deref(), Some("0:27"));
        assert_eq!(device_number(info, Path::new("/mnt")), None);
    }

    #[test]
    fn a_backslash_without_a_code_stays() {
        assert_eq!(unescape(b"a\\134b\\9\\04"), Path::new("a\\b\\9\\04"));
    }
}
