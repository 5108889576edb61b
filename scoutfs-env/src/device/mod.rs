// SPDX-License-Identifier: GPL-2.0-only
//! The block device that all mounts of a volume share.
//!
//! | module | what |
//! | --- | --- |
//! | this | [`BlockDevice`], [`ReadAhead`], [`IoError`], [`check_io`] |
//! | `file` | (std) [`FileDevice`]: a block device or an image file, with direct IO |
//! | `retry` | [`RetryDevice`]: a device that tries again |
//! | `mem` | (std) [`MemDevice`]: memory, for tests |
//!
//! # What must hold
//!
//! - All IO goes to the device itself, past every cache of the host: another machine sees a write as soon as
//!   it has returned, and a read returns what another machine wrote.
//! - Offsets and lengths are multiples of [`IO_ALIGN`], and buffers are aligned to it ([`IoBuf`](crate::IoBuf)
//!   is). Anything else is an error, not a panic.

#[cfg(feature = "std")]
mod file;
#[cfg(feature = "std")]
mod mem;
mod retry;

use core::fmt;

#[cfg(feature = "std")]
pub use file::{FileDevice, OpenError, OpenMode};
#[cfg(feature = "std")]
pub use mem::{MemDevice, MemStats};
pub use retry::RetryDevice;

use crate::{Arc, Box, Vec};

/// Alignment of offsets, lengths and buffers, in bytes. Devices with larger logical blocks are refused.
pub const IO_ALIGN: usize = 4096;

/// `errno` of a request that is not aligned or that reaches past the end of the device.
pub const EINVAL: i32 = 22;
/// `errno` of a request that the device failed.
pub const EIO: i32 = 5;
/// `errno` of a write to a device that is read-only.
pub const EROFS: i32 = 30;

/// What a failed request was to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoOp {
    /// Read blocks.
    Read,
    /// Write blocks.
    Write,
    /// Make what was written durable.
    Flush,
}

/// A request to a device failed. Of a failed write any part may have reached the medium, or may still reach
/// it later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoError {
    /// What was to be done.
    pub op: IoOp,
    /// From where, in bytes; 0 for a flush.
    pub offset: u64,
    /// How much, in bytes; 0 for a flush.
    pub len: usize,
    /// Why, as a Linux error number.
    pub errno: i32,
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.op {
            IoOp::Read => write!(f, "read of {} bytes at {}", self.len, self.offset)?,
            IoOp::Write => write!(f, "write of {} bytes at {}", self.len, self.offset)?,
            IoOp::Flush => f.write_str("flush")?,
        }
        write!(f, " failed: errno {}", self.errno)?;
        match errno_text(self.errno) {
            Some(text) => write!(f, " ({text})"),
            None => Ok(()),
        }
    }
}

impl core::error::Error for IoError {}

/// The errors that block devices give.
fn errno_text(errno: i32) -> Option<&'static str> {
    Some(match errno {
        EIO => "EIO, input/output error",
        6 => "ENXIO, no such device or address",
        11 => "EAGAIN, try again",
        12 => "ENOMEM, out of memory",
        16 => "EBUSY, device busy",
        19 => "ENODEV, no such device",
        EINVAL => "EINVAL, not aligned or past the end",
        28 => "ENOSPC, no space left",
        EROFS => "EROFS, read-only",
        52 => "EBADE, reservation conflict",
        61 => "ENODATA, unreadable medium",
        110 => "ETIMEDOUT, timed out",
        121 => "EREMOTEIO, remote input/output error",
        _ => return None,
    })
}

/// A shared block device. All methods may be called by several threads at once; requests that overlap have no
/// order, and a read that overlaps a write may return any mixture of old and new in units of 512 bytes.
///
/// # Durability
///
/// A write that has returned is seen by all readers, but a power failure may still undo or tear it, in units
/// of 512 bytes. Two calls make it durable:
///
/// - [`flush`](Self::flush): after it has returned, every write *to the device from this host* that had
///   returned before it was called is durable. It says nothing about writes that were in flight meanwhile, and
///   nothing about writes of other hosts that the device had not reported to this host as read.
/// - [`write_durable`](Self::write_durable): after it has returned, *that one write* is durable. It
///   says nothing about earlier writes; where order matters, flush before it.
///
/// After a flush or a durable write failed, nothing is known about the writes that it was to cover.
pub trait BlockDevice: Send + Sync {
    /// Size, rounded down to a multiple of [`IO_ALIGN`]. Does not change while the device is open.
    fn size_bytes(&self) -> u64;

    /// Whether all writes fail.
    fn read_only(&self) -> bool;

    /// Fills `buf` from `offset` on.
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError>;

    /// Writes `buf` from `offset` on.
    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), IoError>;

    /// Makes durable what was written before.
    fn flush(&self) -> Result<(), IoError>;

    /// Writes `buf` from `offset` on and makes this write durable.
    fn write_durable(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.write(offset, buf)?;
        self.flush()
    }

    /// [`flush`](Self::flush), and then [`write_durable`](Self::write_durable): what was written before is durable when any part of this
    /// write is. Some devices take both as one request.
    fn flush_and_write_durable(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.flush()?;
        self.write_durable(offset, buf)
    }

    /// Writes pieces of memory, each from its offset on, in any order or together.
    fn write_pieces(&self, pieces: &[(u64, &[u8])]) -> Result<(), IoError> {
        pieces.iter().try_for_each(|(offset, buf)| self.write(*offset, buf))
    }

    /// Begins to fill memory, or fills it. An error is told by the request's end alone, and is not retried.
    fn read_ahead(&self, request: ReadAhead) {
        let ReadAhead { pieces, done } = request;
        let read = |(offset, memory): (u64, &mut [u8])| self.read(offset, memory).is_ok();
        done(pieces.into_iter().all(read));
    }
}

/// Reading for which nobody waits: see [`BlockDevice::read_ahead`].
pub struct ReadAhead {
    /// Where on the device, and the memory to be filled. Nobody uses it before the end.
    pub pieces: Vec<(u64, &'static mut [u8])>,
    /// The end, with whether all was read. It may come in an interrupt, where nobody sleeps. Where it is dropped nothing was read.
    pub done: Box<dyn FnOnce(bool) + Send>,
}

/// Checks what every device asks of a request: alignment, range, and that a device to be written can be. Back
/// ends call this first.
pub fn check_io<D: BlockDevice + ?Sized>(
    device: &D,
    op: IoOp,
    offset: u64,
    buf: &[u8],
) -> Result<(), IoError> {
    let fail = |errno| Err(IoError { op, offset, len: buf.len(), errno });
    if op == IoOp::Write && device.read_only() {
        return fail(EROFS);
    }
    let aligned = buf.as_ptr().addr().is_multiple_of(IO_ALIGN)
        && buf.len().is_multiple_of(IO_ALIGN)
        && offset.is_multiple_of(IO_ALIGN as u64);
    let end = u64::try_from(buf.len()).ok().and_then(|len| offset.checked_add(len));
    match end {
        Some(end) if aligned && end <= device.size_bytes() => Ok(()),
        _ => fail(EINVAL),
    }
}

macro_rules! forward {
    ($([$($bound:tt)*] $pointer:ty),*) => {$(
        impl<D: BlockDevice $($bound)*> BlockDevice for $pointer {
            fn size_bytes(&self) -> u64 {
                (**self).size_bytes()
            }

            fn read_only(&self) -> bool {
                (**self).read_only()
            }

            fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
                (**self).read(offset, buf)
            }

            fn write(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
                (**self).write(offset, buf)
            }

            fn flush(&self) -> Result<(), IoError> {
                (**self).flush()
            }

            fn write_durable(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
                (**self).write_durable(offset, buf)
            }

            fn flush_and_write_durable(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
                (**self).flush_and_write_durable(offset, buf)
            }

            fn write_pieces(&self, pieces: &[(u64, &[u8])]) -> Result<(), IoError> {
                (**self).write_pieces(pieces)
            }

            fn read_ahead(&self, request: ReadAhead) {
                (**self).read_ahead(request);
            }
        }
    )*};
}

forward!([+ ?Sized] &D, [+ ?Sized] Box<D>, [] Arc<D>);

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn an_error_says_what_where_and_why() {
        let error = IoError { op: IoOp::Read, offset: 8192, len: 4096, errno: EIO };
        assert_eq!(error.to_string(), "read of 4096 bytes at 8192 failed: errno 5 (EIO, input/output error)");
        let error = IoError { op: IoOp::Flush, offset: 0, len: 0, errno: 200 };
        assert_eq!(error.to_string(), "flush failed: errno 200");
    }
}
