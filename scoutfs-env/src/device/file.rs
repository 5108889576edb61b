// SPDX-License-Identifier: GPL-2.0-only
//! Block devices and image files, with direct IO.

use std::ffi::c_int;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{BlockDevice, EIO, IO_ALIGN, IoError, IoOp, check_io};

/// What a device is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// To look at a volume, in use or not.
    ReadOnly,
    /// To mount a volume. Any number of mounts may have it open, but not with one that wants it for itself.
    ReadWrite,
    /// To make or repair a volume, with nobody else at it on this host. A block device is claimed (O_EXCL), which
    /// fails while the kernel has it mounted, as fuseblk also has it, or somebody else has claimed it; but an opener
    /// that claims nothing goes unseen. An image file is locked, against [`ReadWrite`](Self::ReadWrite) too.
    Exclusive,
}

/// Why a device could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system refused it.
    #[error("{path}: cannot open: {source}", path = .path.display())]
    Open {
        /// Of the device.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is neither a block device nor a regular file.
    #[error("{path}: neither a block device nor an image file, but a {found}", path = .path.display())]
    FileType {
        /// Of the device.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// Somebody else has it open.
    #[error("{path}: in use", path = .path.display())]
    InUse {
        /// Of the device.
        path: PathBuf,
    },
    /// The file system that holds the image has no direct IO.
    #[error("{path}: its file system does not support direct IO (O_DIRECT)", path = .path.display())]
    NoDirectIo {
        /// Of the image.
        path: PathBuf,
    },
    /// The blocks of the device are too large.
    #[error("{path}: its logical blocks have {found_bytes} bytes, more than {IO_ALIGN}", path = .path.display())]
    LogicalBlockSize {
        /// Of the device.
        path: PathBuf,
        /// Size of its blocks.
        found_bytes: c_int,
    },
}

/// A block device or an image file, read and written past the page cache.
#[derive(Debug)]
pub struct FileDevice {
    file: File,
    size_bytes: u64,
    read_only: bool,
}

impl FileDevice {
    /// Opens a device. Whatever locks the mode takes are held until it is dropped.
    pub fn open(path: impl AsRef<Path>, mode: OpenMode) -> Result<FileDevice, OpenError> {
        let path = path.as_ref();
        let fail = |source| OpenError::Open { path: path.into(), source };
        // The type is looked at first: opening a pipe would wait, and O_EXCL means something only to devices.
        let file_type = std::fs::metadata(path).map_err(fail)?.file_type();
        let is_device = file_type.is_block_device();
        let mut flags = libc::O_DIRECT;
        if is_device && mode == OpenMode::Exclusive {
            flags |= libc::O_EXCL;
        } else if !is_device && !file_type.is_file() {
            return Err(OpenError::FileType { path: path.into(), found: type_name(file_type) });
        }
        let file = OpenOptions::new()
            .read(true)
            .write(mode != OpenMode::ReadOnly)
            .custom_flags(flags)
            .open(path)
            .map_err(|source| match source.raw_os_error() {
                Some(libc::EBUSY) => OpenError::InUse { path: path.into() },
                Some(libc::EINVAL) if !is_device => OpenError::NoDirectIo { path: path.into() },
                _ => fail(source),
            })?;
        if !is_device {
            lock(&file, mode).map_err(|source| match source.kind() {
                io::ErrorKind::WouldBlock => OpenError::InUse { path: path.into() },
                _ => fail(source),
            })?;
        }
        let size_bytes = if is_device {
            let found_bytes = logical_block_bytes(&file).map_err(fail)?;
            if !usize::try_from(found_bytes).is_ok_and(|bytes| bytes <= IO_ALIGN) {
                return Err(OpenError::LogicalBlockSize { path: path.into(), found_bytes });
            }
            device_bytes(&file).map_err(fail)?
        } else {
            file.metadata().map_err(fail)?.len()
        };
        Ok(FileDevice {
            file,
            size_bytes: size_bytes - size_bytes % IO_ALIGN as u64,
            read_only: mode == OpenMode::ReadOnly,
        })
    }

    fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Calls `step(done)` until all of a request is done; each call says how many more bytes it did.
    fn all(
        &self,
        op: IoOp,
        offset: u64,
        len: usize,
        mut step: impl FnMut(usize, libc::off_t) -> isize,
    ) -> Result<(), IoError> {
        let fail = |errno| IoError { op, offset, len, errno };
        let mut done = 0;
        while done < len {
            // In range: the whole request lies within the device, whose size is that of an off_t.
            match usize::try_from(step(done, (offset + done as u64) as libc::off_t)) {
                // The file was cut short after it was opened.
                Ok(0) => return Err(fail(EIO)),
                Ok(more) => done += more,
                Err(_) => match io::Error::last_os_error().raw_os_error() {
                    Some(libc::EINTR) => {}
                    errno => return Err(fail(errno.unwrap_or(EIO))),
                },
            }
        }
        Ok(())
    }

    fn write_with_flags(&self, offset: u64, buf: &[u8], flags: c_int) -> Result<(), IoError> {
        check_io(self, IoOp::Write, offset, buf)?;
        self.all(IoOp::Write, offset, buf.len(), |done, at| {
            let rest = &buf[done..];
            let vector = libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len() };
            // SAFETY: the vector describes one live slice, which a write only reads.
            unsafe { libc::pwritev2(self.fd(), &vector, 1, at, flags) }
        })
    }
}

impl BlockDevice for FileDevice {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        check_io(self, IoOp::Read, offset, buf)?;
        self.all(IoOp::Read, offset, buf.len(), |done, at| {
            let rest = &mut buf[done..];
            // SAFETY: the pointer and length are those of a live, exclusively borrowed slice.
            unsafe { libc::pread(self.fd(), rest.as_mut_ptr().cast(), rest.len(), at) }
        })
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.write_with_flags(offset, buf, 0)
    }

    fn flush(&self) -> Result<(), IoError> {
        // Also for files: the size never changes, so nothing but data and extents is at stake, and fdatasync
        // covers both and the cache of the medium.
        // SAFETY: a system call on an open descriptor.
        if unsafe { libc::fdatasync(self.fd()) } == 0 {
            return Ok(());
        }
        // Not tried again, whatever the error: the kernel reports a lost write only once.
        Err(IoError {
            op: IoOp::Flush,
            offset: 0,
            len: 0,
            errno: io::Error::last_os_error().raw_os_error().unwrap_or(EIO),
        })
    }

    /// One request: the kernel sets FUA where the medium has it, and writes and flushes where not.
    fn write_durable(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.write_with_flags(offset, buf, libc::RWF_DSYNC)
    }
}

fn type_name(file_type: std::fs::FileType) -> &'static str {
    if file_type.is_dir() {
        "directory"
    } else if file_type.is_char_device() {
        "character device"
    } else if file_type.is_fifo() {
        "pipe"
    } else if file_type.is_socket() {
        "socket"
    } else {
        "file of unknown type"
    }
}

/// How long a lock is waited for. When umount(8) returns, the process that served the mount has left the volume but may
/// still have to end, and until then it has the image open.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Locks an image file as its mode asks. A lock of the open file, not of the process: mounts in one process
/// see one another.
fn lock(file: &File, mode: OpenMode) -> io::Result<()> {
    let operation = match mode {
        OpenMode::ReadOnly => return Ok(()),
        OpenMode::ReadWrite => libc::LOCK_SH,
        OpenMode::Exclusive => libc::LOCK_EX,
    };
    let start = Instant::now();
    loop {
        // SAFETY: a system call on an open descriptor.
        if unsafe { libc::flock(file.as_raw_fd(), operation | libc::LOCK_NB) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::WouldBlock || start.elapsed() > LOCK_PATIENCE {
            return Err(error);
        }
        sleep(Duration::from_millis(10));
    }
}

/// BLKGETSIZE64 of linux/fs.h, which libc lacks: `_IOR(0x12, 114, size_t)`.
const BLKGETSIZE64: libc::Ioctl = libc::_IOR::<usize>(0x12, 114);

fn logical_block_bytes(file: &File) -> io::Result<c_int> {
    let mut bytes: c_int = 0;
    // SAFETY: BLKSSZGET fills in an int, and `bytes` is one.
    match unsafe { libc::ioctl(file.as_raw_fd(), libc::BLKSSZGET, &mut bytes) } {
        0 => Ok(bytes),
        _ => Err(io::Error::last_os_error()),
    }
}

fn device_bytes(file: &File) -> io::Result<u64> {
    let mut bytes: u64 = 0;
    // SAFETY: BLKGETSIZE64 fills in 64 bits, and `bytes` has them.
    match unsafe { libc::ioctl(file.as_raw_fd(), BLKGETSIZE64, &mut bytes) } {
        0 => Ok(bytes),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IoBuf;
    use crate::device::{EINVAL, EROFS};
    use core::sync::atomic::{AtomicU32, Ordering};
    use std::string::ToString;

    /// A path of a file that goes away with it.
    struct Image(PathBuf);

    impl Image {
        fn new(len: u64) -> Image {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = std::format!("scoutfs-env-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            File::create(&path).unwrap().set_len(len).unwrap();
            Image(path)
        }

        fn open(&self, mode: OpenMode) -> Result<FileDevice, OpenError> {
            FileDevice::open(&self.0, mode)
        }
    }

    impl Drop for Image {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn reads_what_was_written() {
        let image = Image::new(5 * 4096 + 100);
        let device = image.open(OpenMode::ReadWrite).unwrap();
        assert_eq!(device.size_bytes(), 5 * 4096);
        let mut buf = IoBuf::zeroed(8192).unwrap();
        buf.fill(7);
        device.write(4096, &buf).unwrap();
        buf.fill(8);
        device.write_durable(8192, &buf[..4096]).unwrap();
        device.flush().unwrap();
        let reader = image.open(OpenMode::ReadOnly).unwrap();
        let mut all = IoBuf::zeroed(5 * 4096).unwrap();
        reader.read(0, &mut all).unwrap();
        for (block, byte) in [0, 7, 8, 0, 0].into_iter().enumerate() {
            assert!(all[block * 4096..][..4096].iter().all(|&b| b == byte));
        }
        assert_eq!(reader.write(0, &buf).unwrap_err().errno, EROFS);
    }

    #[test]
    fn requests_that_are_not_aligned_or_out_of_range_fail() {
        let image = Image::new(8192);
        let device = image.open(OpenMode::ReadWrite).unwrap();
        let mut buf = IoBuf::zeroed(12288).unwrap();
        let errno = |result: Result<(), IoError>| result.unwrap_err().errno;
        assert_eq!(errno(device.read(0, &mut buf[512..4608])), EINVAL);
        assert_eq!(errno(device.read(512, &mut buf[..4096])), EINVAL);
        assert_eq!(errno(device.write(0, &buf[..100])), EINVAL);
        assert_eq!(errno(device.write_durable(0, &buf)), EINVAL);
    }

    #[test]
    fn a_file_that_was_cut_short_is_an_io_error() {
        let image = Image::new(8192);
        let device = image.open(OpenMode::ReadOnly).unwrap();
        File::options().write(true).open(&image.0).unwrap().set_len(4096).unwrap();
        let mut buf = IoBuf::zeroed(8192).unwrap();
        assert_eq!(device.read(0, &mut buf).unwrap_err().errno, EIO);
    }

    #[test]
    fn an_image_in_use_cannot_be_had_exclusively() {
        let image = Image::new(4096);
        let one = image.open(OpenMode::ReadWrite).unwrap();
        let two = image.open(OpenMode::ReadWrite).unwrap();
        let error = image.open(OpenMode::Exclusive).unwrap_err();
        assert!(matches!(error, OpenError::InUse { .. }));
        assert_eq!(error.to_string(), std::format!("{}: in use", image.0.display()));
        drop((one, two));
        let _alone = image.open(OpenMode::Exclusive).unwrap();
        for mode in [OpenMode::ReadWrite, OpenMode::Exclusive] {
            assert!(matches!(image.open(mode), Err(OpenError::InUse { .. })));
        }
        image.open(OpenMode::ReadOnly).unwrap();
    }

    #[test]
    fn other_types_of_files_are_refused_by_name() {
        let message = |path| FileDevice::open(path, OpenMode::ReadOnly).unwrap_err().to_string();
        assert_eq!(
            message("/dev/null"),
            "/dev/null: neither a block device nor an image file, but a character device"
        );
        assert_eq!(message("/"), "/: neither a block device nor an image file, but a directory");
        assert!(message("/nowhere").starts_with("/nowhere: cannot open: No such file"));
    }
}
