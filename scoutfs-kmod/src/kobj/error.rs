// SPDX-License-Identifier: GPL-2.0-only
//! Error numbers and pointers that are errors.

use kernel::ffi::{c_int, c_long};

/// The largest error number that a pointer can be.
const MAX_ERRNO: usize = 4095;

/// A Linux error number, above 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(c_int);

impl Errno {
    pub(crate) const NOENT: Errno = Errno(2);
    pub(crate) const INTR: Errno = Errno(4);
    pub(crate) const NXIO: Errno = Errno(6);
    pub(crate) const CHILD: Errno = Errno(10);
    pub(crate) const AGAIN: Errno = Errno(11);
    pub(crate) const NOMEM: Errno = Errno(12);
    pub(crate) const FAULT: Errno = Errno(14);
    pub(crate) const INVAL: Errno = Errno(22);
    pub(crate) const NODATA: Errno = Errno(61);
    pub(crate) const OVERFLOW: Errno = Errno(75);
    pub(crate) const OPNOTSUPP: Errno = Errno(95);
    pub(crate) const STALE: Errno = Errno(116);
    /// The kernel's own: a signal ended the system call, which may be made again.
    pub(crate) const RESTARTSYS: Errno = Errno(512);

    /// As callbacks return it.
    pub(crate) fn negative(self) -> c_int {
        -self.0
    }

    /// As callbacks return it in place of a pointer.
    pub(crate) fn pointer<T>(self) -> *mut T {
        core::ptr::without_provenance_mut((-(self.0 as isize)) as usize)
    }
}

impl From<scoutfs_fs::Error> for Errno {
    /// What a program is told is one number: the rest goes to the log.
    fn from(e: scoutfs_fs::Error) -> Self {
        use scoutfs_fs::Error;
        if matches!(
            e,
            Error::Io(_) | Error::Tree(_) | Error::Volume(_) | Error::Corrupt { .. } | Error::Server(_)
        ) {
            scoutfs_env::error!("{e}");
        }
        // The network's own errors may be 0, when it was shut down.
        Errno(e.errno().clamp(1, MAX_ERRNO as c_int))
    }
}

impl From<scoutfs_env::AllocError> for Errno {
    fn from(_: scoutfs_env::AllocError) -> Self {
        Errno::NOMEM
    }
}

pub(crate) type Result<T> = core::result::Result<T, Errno>;

/// What a kernel function returned: 0 or more, or a negative error number.
pub(crate) fn check(returned: c_int) -> Result<c_int> {
    if returned < 0 {
        Err(Errno(returned.checked_neg().unwrap_or(5)))
    } else {
        Ok(returned)
    }
}

/// As [`check`].
pub(crate) fn check_long(returned: isize) -> Result<isize> {
    match c_int::try_from(returned) {
        Ok(code) if code < 0 => Err(Errno(-code)),
        _ => Ok(returned),
    }
}

/// The error number that a pointer is, if it is one.
pub(crate) fn errno_of<T>(pointer: *mut T) -> Option<c_int> {
    let address = pointer.addr();
    (address > usize::MAX - MAX_ERRNO).then(|| address.wrapping_neg() as c_int)
}

/// A pointer that a kernel function returned, if it is none of an error.
pub(crate) fn check_pointer<T>(pointer: *mut T) -> Result<*mut T> {
    errno_of(pointer).map_or(Ok(pointer), |errno| Err(Errno(errno)))
}

/// What a callback returns: 0, or a negative error number.
pub(crate) fn code(result: Result<()>) -> c_int {
    result.map_or_else(Errno::negative, |()| 0)
}

/// What a callback returns: a count, or a negative error number.
pub(crate) fn count(result: Result<usize>) -> c_long {
    match result {
        Ok(n) => c_long::try_from(n).unwrap_or(c_long::MAX),
        Err(e) => e.negative() as c_long,
    }
}
