// SPDX-License-Identifier: GPL-2.0-only
//! `/dev/fuse`: one descriptor, read and written in whole messages.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::fuse::buffer::{ALIGN, AlignedBuf};
use crate::fuse::protocol::abi;

/// Bytes of a request before a WRITE's data.
const WRITE_HEAD: usize = size_of::<abi::InHeader>() + size_of::<abi::WriteIn>();

/// A request as it was read. A WRITE's data begin on a page: whatever precedes them ends right before it.
#[derive(Debug)]
pub(crate) struct RequestBuf {
    memory: AlignedBuf,
    len: usize,
}

impl RequestBuf {
    /// Makes room for requests of `max_write` bytes of data.
    pub(crate) fn new(max_write: u32) -> io::Result<Self> {
        // A page before the data, and one after them: other requests' heads may be longer than a WRITE's.
        let len_pages = (max_write as usize).div_ceil(ALIGN).saturating_add(2);
        Ok(Self { memory: AlignedBuf::new(len_pages)?, len: 0 })
    }

    /// The request.
    pub(crate) fn bytes(&self) -> &[u8] {
        let start = ALIGN - WRITE_HEAD;
        &self.memory[start..start + self.len]
    }
}

/// Why no request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadError {
    /// The mount is gone.
    Unmounted,
    /// The descriptor belongs to no mount.
    NotConnected,
    /// Something else.
    Other(Errno),
}

/// A descriptor of `/dev/fuse`. Requests are answered on the one that they were read from.
#[derive(Debug)]
pub(crate) struct Device(OwnedFd);

impl Device {
    /// Opens a descriptor that belongs to no mount yet.
    pub(crate) fn open() -> Result<Self, Errno> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        rustix::fs::open("/dev/fuse", flags, Mode::empty()).map(Self)
    }

    /// Opens another descriptor for the same mount.
    pub(crate) fn another(&self) -> Result<Self, Errno> {
        let other = Self::open()?;
        let fd: u32 = self.0.as_raw_fd().cast_unsigned();
        // SAFETY: the ioctl reads one u32 from the address, which is that of `fd`.
        let result = unsafe { libc::ioctl(other.0.as_raw_fd(), abi::DEV_IOC_CLONE, &raw const fd) };
        match result {
            0 => Ok(other),
            _ => Err(last_errno()),
        }
    }

    /// Waits for a request.
    pub(crate) fn read(&self, buf: &mut RequestBuf) -> Result<(), ReadError> {
        loop {
            let room = &mut buf.memory[ALIGN - WRITE_HEAD..];
            match rustix::io::read(&self.0, room) {
                Ok(len) => {
                    buf.len = len;
                    return Ok(());
                }
                // ENOENT: the request was given up while it was being read.
                Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => {}
                Err(Errno::NODEV | Errno::CONNABORTED) => return Err(ReadError::Unmounted),
                Err(Errno::PERM) => return Err(ReadError::NotConnected),
                Err(errno) => return Err(ReadError::Other(errno)),
            }
        }
    }

    /// Writes a reply or a notification.
    pub(crate) fn write(&self, message: &[u8]) -> Result<(), Errno> {
        rustix::io::retry_on_intr(|| rustix::io::write(&self.0, message)).map(drop)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The error of the libc call that just failed.
fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}
