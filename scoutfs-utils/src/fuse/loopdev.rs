// SPDX-License-Identifier: GPL-2.0-only
//! Loop devices: a block device for a volume that is a file.
//!
//! Only a block device can be mounted as fuseblk, and only once at a time; so each mount of a file has a
//! loop device of its own. The filesystem reads and writes the file itself.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use thiserror::Error;
use zerocopy::{Immutable, IntoBytes};

const CLR_FD: libc::Ioctl = 0x4c01;
const CONFIGURE: libc::Ioctl = 0x4c0a;
const CTL_GET_FREE: libc::Ioctl = 0x4c82;

const FLAG_READ_ONLY: u32 = 1;
const FLAG_AUTOCLEAR: u32 = 4;
const FLAG_DIRECT_IO: u32 = 16;

/// The major number of loop devices.
const MAJOR: u32 = 7;
/// How long a lock is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// How often a free device may be taken by someone else before it is given up.
const ATTEMPTS: u32 = 64;

/// `struct loop_info64` of the kernel.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of the kernel.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<Config>() == 304);

/// Why a file has no loop device.
#[derive(Debug, Error)]
pub enum LoopError {
    /// The file cannot be opened.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The file or device.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody makes a volume in the file, or checks it.
    #[error("{}: in use", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// There is no free loop device.
    #[error("no free loop device: {0}")]
    NoneFree(#[source] io::Error),
    /// The kernel refuses the file.
    #[error("cannot attach {} to {}: {source}", file.display(), device.display())]
    Configure {
        /// The file.
        file: PathBuf,
        /// The loop device.
        device: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// How a file is attached.
#[derive(Clone, Copy, Debug)]
pub struct LoopOptions {
    /// Refuse writes.
    pub read_only: bool,
    /// Bypass the file's page cache.
    pub direct_io: bool,
    /// Logical block size in bytes.
    pub block_size: u32,
}

impl Default for LoopOptions {
    fn default() -> Self {
        Self { read_only: false, direct_io: true, block_size: 4096 }
    }
}

/// A loop device with a file behind it. It vanishes when nobody has it open or mounted any more: this value is
/// one user, a mount another.
#[derive(Debug)]
pub struct LoopDevice {
    file: File,
    path: PathBuf,
}

impl LoopDevice {
    /// Attaches the file at `path` to a free loop device.
    pub fn attach(path: &Path, options: LoopOptions) -> Result<Self, LoopError> {
        let open_error = |path: &Path| {
            let path = path.to_owned();
            move |source| LoopError::Open { path, source }
        };
        let open = |path: &Path, direct: bool| {
            let flags = if direct { libc::O_DIRECT } else { 0 };
            let mut how = OpenOptions::new();
            how.read(true).write(!options.read_only).custom_flags(flags).open(path)
        };
        let backing = match open(path, options.direct_io) {
            // Not every filesystem has O_DIRECT.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => open(path, false),
            other => other,
        }
        .map_err(open_error(path))?;
        lock(&backing).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => LoopError::InUse { path: path.to_owned() },
            _ => open_error(path)(source),
        })?;
        let control_path = Path::new("/dev/loop-control");
        let control = OpenOptions::new().read(true).write(true).open(control_path);
        let control = control.map_err(open_error(control_path))?;

        let mut flags = FLAG_AUTOCLEAR;
        if options.read_only {
            flags |= FLAG_READ_ONLY;
        }
        if options.direct_io {
            flags |= FLAG_DIRECT_IO;
        }
        for _ in 0..ATTEMPTS {
            let number = ioctl_value(control.as_raw_fd(), CTL_GET_FREE, 0).map_err(LoopError::NoneFree)?;
            let device = PathBuf::from(format!("/dev/loop{number}"));
            let file = OpenOptions::new().read(true).write(!options.read_only).open(&device);
            let file = file.map_err(open_error(&device))?;
            let config = config(backing.as_raw_fd(), path, options.block_size, flags);
            // SAFETY: the ioctl reads a `loop_config` from the address, which is that of one.
            let result = unsafe { libc::ioctl(file.as_raw_fd(), CONFIGURE, &raw const config) };
            if result == 0 {
                return Ok(Self { file, path: device });
            }
            let source = io::Error::last_os_error();
            if source.raw_os_error() != Some(libc::EBUSY) {
                return Err(LoopError::Configure { file: path.to_owned(), device, source });
            }
        }
        Err(LoopError::NoneFree(io::ErrorKind::ResourceBusy.into()))
    }

    /// `/dev/loopN`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Detaches the file: at once, or, if the device is still in use elsewhere, when that ends.
    pub fn detach(self) -> io::Result<()> {
        ioctl_value(self.file.as_raw_fd(), CLR_FD, 0).map(drop)
    }
}

/// The file behind a loop device; None if `device` is something else or has no file. A file that was
/// deleted since has " (deleted)" after its path.
pub fn backing_file(device: &Path) -> io::Result<Option<PathBuf>> {
    let metadata = std::fs::metadata(device)?;
    let (major, minor) = (libc::major(metadata.rdev()), libc::minor(metadata.rdev()));
    if !metadata.file_type().is_block_device() || major != MAJOR {
        return Ok(None);
    }
    match std::fs::read(format!("/sys/dev/block/{major}:{minor}/loop/backing_file")) {
        Ok(mut path) => {
            if path.last() == Some(&b'\n') {
                path.pop();
            }
            Ok(Some(PathBuf::from(OsString::from_vec(path))))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Locks the open file, as other users of the volume do, against whoever wants it alone. The loop device has the open file from then on, and
/// so the lock, for as long as it is attached: also where the kernel has mounted it and no process of ours is left.
fn lock(backing: &File) -> io::Result<()> {
    let start = Instant::now();
    loop {
        match backing.try_lock_shared() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
            // Who is about to end keeps it for a moment.
            Err(TryLockError::WouldBlock) if start.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

fn config(backing: RawFd, path: &Path, block_size: u32, flags: u32) -> Config {
    let mut file_name = [0; 64];
    // For display only; it ends with NUL.
    let bytes = path.as_os_str().as_bytes();
    let len = bytes.len().min(file_name.len() - 1);
    file_name[..len].copy_from_slice(&bytes[..len]);
    let info = Info {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags,
        file_name,
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
    Config { fd: backing.cast_unsigned(), block_size, info, reserved: [0; 8] }
}

/// An ioctl whose argument is a number.
fn ioctl_value(fd: RawFd, request: libc::Ioctl, argument: libc::c_ulong) -> io::Result<i32> {
    // SAFETY: the requests used here take their argument by value.
    match unsafe { libc::ioctl(fd, request, argument) } {
        -1 => Err(io::Error::last_os_error()),
        value => Ok(value),
    }
}
