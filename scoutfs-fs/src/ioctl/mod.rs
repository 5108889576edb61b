// SPDX-License-Identifier: GPL-2.0-only
//! The ioctls of a mounted volume, for every front end.
//!
//! | module | what |
//! | --- | --- |
//! | this | [`Fs::ioctl`]: from a number to what it does; [`Caller`], [`UserMemory`] and [`Credentials`] |
//! | `results` | arrays of results, written to the caller a piece at a time |
//! | `volume` | what is told of the volume: indexes, space, inode numbers, counters |
//! | `inode` | what is told of, or done to, an inode: paths, entries, attributes, extents |
//! | `xattr` | what is told of extended attributes |
//!
//! # What must hold
//!
//! - Numbers, structures, masks and errors are those of the C implementation (reference facts, section 2.4).
//! - Every argument is hostile. A front end copies the argument structure in, by the size and direction in the number, and hands
//!   it over as bytes; where a structure points to memory, that is touched through [`UserMemory`], and never while a lock is held or a
//!   transaction is entered.
//! - Padding in results is zero.
//! - Results that are written in several pieces: when a later one fails, the call succeeds with what was written before.

mod inode;
mod results;
mod volume;
mod xattr;

use scoutfs_format::ioctl::{
    IOC_ALLOC_DETAIL, IOC_CONFIRM_DEATH, IOC_FIEMAP, IOC_GET_ALLOCATED_INOS, IOC_GET_ATTR_X,
    IOC_GET_COUNTERS, IOC_GET_REFERRING_ENTRIES, IOC_INO_PATH, IOC_LISTXATTR_HIDDEN, IOC_SEARCH_XATTRS,
    IOC_SET_ATTR_X, IOC_STAT_MORE, IOC_STATFS_MORE, IOC_WALK_INODES,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::counters::Counter;
use crate::error::{Error, Result};
use crate::fs::Fs;

/// The memory of who called.
pub trait UserMemory {
    /// Fills `bytes` from an address; [`Error::Fault`] when that is not all readable.
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()>;

    /// Writes all bytes to an address; [`Error::Fault`] when that is not all writable, though a part may be written.
    fn write(&self, address: u64, bytes: &[u8]) -> Result<()>;
}

/// What a caller may have the right to, of Linux's capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// CAP_DAC_READ_SEARCH: to pass all directories and read all names.
    DacReadSearch,
    /// CAP_SYS_ADMIN.
    SysAdmin,
}

/// What the caller may do. Asked only when it matters.
pub trait Credentials {
    /// Whether the caller has a capability, towards this mount.
    fn capable(&self, capability: Capability) -> bool;

    /// The caller, for checks of an inode's permissions.
    fn caller(&self) -> crate::acl::Caller<'_>;
}

/// Who called.
pub struct Caller<'a> {
    /// The caller's memory.
    pub memory: &'a dyn UserMemory,
    /// The caller's rights.
    pub credentials: &'a dyn Credentials,
    /// The file was opened for reading. A front end that is not told says so.
    pub can_read: bool,
}

impl Caller<'_> {
    /// [`Error::NotPermitted`] without the capability.
    fn need(&self, capability: Capability) -> Result<()> {
        if self.credentials.capable(capability) { Ok(()) } else { Err(Error::NotPermitted) }
    }
}

/// A call.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The inode of the file on which it was called.
    pub ino: u64,
    /// The number.
    pub cmd: u32,
    /// The argument as the caller gave it: an address.
    pub arg: u64,
    /// What was read there, if the number says that the caller writes arguments: as many bytes as it says.
    pub input: &'a [u8],
}

impl Request<'_> {
    fn argument<T: FromBytes>(&self) -> Result<T> {
        T::read_from_bytes(self.input).map_err(|_| Error::Invalid("an argument of a wrong size"))
    }
}

/// What a call gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// What the call returns, not negative.
    pub result: i32,
    /// Bytes of the output that the front end writes to the argument's address.
    pub out_len: usize,
    /// Attributes of the inode changed: a front end that keeps a copy drops it before it answers.
    pub changed: bool,
}

impl Done {
    const NOTHING: Done = Done::count(0);

    const fn count(count: usize) -> Done {
        // The counts here are bounded by the room that was given, which is bounded in turn.
        Done {
            result: if count > i32::MAX as usize { i32::MAX } else { count as i32 },
            out_len: 0,
            changed: false,
        }
    }

    fn put<T: IntoBytes + zerocopy::Immutable>(out: &mut [u8], value: &T) -> Result<Done> {
        let bytes = value.as_bytes();
        let room = out.get_mut(..bytes.len()).ok_or(Error::Invalid("an argument of a wrong size"))?;
        room.copy_from_slice(bytes);
        Ok(Done { out_len: bytes.len(), ..Done::NOTHING })
    }
}

impl Fs {
    /// Carries out an ioctl. `out` has room for as many bytes as the number says that the caller reads.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownIoctl`] for a number that is not of this filesystem; see the structures in
    /// `scoutfs_format::ioctl` and the operations for those of each.
    pub fn ioctl(&self, request: &Request<'_>, out: &mut [u8], caller: &Caller<'_>) -> Result<Done> {
        self.count(Counter::Ioctl);
        match request.cmd {
            IOC_WALK_INODES => self.ioctl_walk_inodes(&request.argument()?, caller),
            IOC_INO_PATH => {
                caller.need(Capability::DacReadSearch)?;
                self.ioctl_ino_path(&request.argument()?, caller)
            }
            IOC_STAT_MORE => Done::put(out, &self.stat_more(request.ino)?),
            IOC_LISTXATTR_HIDDEN => self.ioctl_listxattr_hidden(request, out, caller),
            IOC_SEARCH_XATTRS => {
                caller.need(Capability::SysAdmin)?;
                self.ioctl_search_xattrs(&request.argument()?, request.arg, caller)
            }
            IOC_STATFS_MORE => Done::put(out, &self.statfs_more()?),
            IOC_ALLOC_DETAIL => self.ioctl_alloc_detail(&request.argument()?, caller),
            IOC_GET_ALLOCATED_INOS => {
                if !caller.can_read {
                    return Err(Error::NotOpened);
                }
                caller.need(Capability::SysAdmin)?;
                self.ioctl_allocated_inos(&request.argument()?, caller)
            }
            IOC_GET_REFERRING_ENTRIES => {
                caller.need(Capability::DacReadSearch)?;
                self.ioctl_referring_entries(&request.argument()?, caller)
            }
            IOC_GET_ATTR_X => self.ioctl_get_attr_x(request, caller),
            IOC_SET_ATTR_X => {
                self.writable()?;
                caller.need(Capability::SysAdmin)?;
                self.set_attr_x(request.ino, &request.argument()?)?;
                Ok(Done { changed: true, ..Done::NOTHING })
            }
            IOC_FIEMAP => self.ioctl_fiemap(request, out, caller),
            IOC_CONFIRM_DEATH => {
                caller.need(Capability::SysAdmin)?;
                Ok(Done::count(self.store().confirm_death(&request.argument()?)? as usize))
            }
            IOC_GET_COUNTERS => self.ioctl_counters(&request.argument()?, caller),
            _ => Err(Error::UnknownIoctl),
        }
    }
}

#[cfg(test)]
mod tests;
