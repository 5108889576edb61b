// SPDX-License-Identifier: GPL-2.0-only
//! What a filesystem is asked and what it answers.

use std::time::Duration;

pub use rustix::fs::RenameFlags;
pub use rustix::io::Errno;

use super::protocol::flags::OpenReplyFlags;

/// What every operation returns. Errors above 511 are not allowed in the protocol and become EIO.
pub type Result<T, E = Errno> = std::result::Result<T, E>;

/// The number of the root directory, whatever the filesystem calls it itself.
pub const ROOT_INO: u64 = 1;

/// A point in time; before 1970 `secs` is negative and `nanos` still counts forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since 1970.
    pub secs: i64,
    /// Nanoseconds within the second, below 1,000,000,000.
    pub nanos: u32,
}

/// An inode's attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Space taken, in units of 512 bytes.
    pub blocks: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// File type and permissions.
    pub mode: u32,
    /// Number of links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node: 12 bits of major, 20 of minor, as the kernel's `new_encode_dev`.
    pub rdev: u32,
    /// Preferred IO size in bytes.
    pub blksize: u32,
}

/// Attributes, and for how long the kernel may believe them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttrReply {
    /// The attributes.
    pub attr: Attr,
    /// Validity; zero means that the kernel asks again each time.
    pub timeout: Duration,
}

/// Extended attributes in the sense of statx.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatxReply {
    /// Which fields are valid: `STATX_*` bits.
    pub mask: u32,
    /// `STATX_ATTR_*` bits that are set.
    pub attributes: u64,
    /// `STATX_ATTR_*` bits that are supported.
    pub attributes_mask: u64,
    /// The basic fields.
    pub attr: Attr,
    /// Time of creation.
    pub btime: Timestamp,
    /// Validity; zero means that the kernel asks again each time.
    pub timeout: Duration,
}

/// What a name leads to. Each one given to the kernel counts as one lookup, undone by forget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Inode number, or 0 for a name that is known not to exist.
    pub ino: u64,
    /// Tells apart inodes that had the same number one after another.
    pub generation: u64,
    /// The inode's attributes.
    pub attr: Attr,
    /// For how long the kernel may believe the attributes.
    pub attr_timeout: Duration,
    /// For how long the kernel may believe the name.
    pub entry_timeout: Duration,
}

impl Entry {
    /// Says that the name does not exist, and lets the kernel remember that.
    pub fn negative(entry_timeout: Duration) -> Self {
        Self { entry_timeout, ..Self::default() }
    }
}

/// An open file or directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Comes back with every operation on the open file.
    pub fh: u64,
    /// How the kernel treats it.
    pub flags: OpenReplyFlags,
}

/// The filesystem's size and use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statfs {
    /// Size in units of `frsize`.
    pub blocks: u64,
    /// Free, in units of `frsize`.
    pub bfree: u64,
    /// Free for ordinary users, in units of `frsize`.
    pub bavail: u64,
    /// Inodes.
    pub files: u64,
    /// Free inodes.
    pub ffree: u64,
    /// Preferred IO size in bytes.
    pub bsize: u32,
    /// The longest name in bytes.
    pub namelen: u32,
    /// The unit of the block counts in bytes.
    pub frsize: u32,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The filesystem's own clock.
    Now,
    /// This time.
    At(Timestamp),
}

/// Attributes to change; None leaves one as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// The open file that it goes through, if it does.
    pub fh: Option<u64>,
    /// New permissions (and type, unchanged).
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New size in bytes.
    pub size: Option<u64>,
    /// New access time.
    pub atime: Option<SetTime>,
    /// New modification time.
    pub mtime: Option<SetTime>,
    /// New change time (only with a writeback cache).
    pub ctime: Option<Timestamp>,
    /// Who truncates, for mandatory locks.
    pub lock_owner: Option<u64>,
    /// Clear suid and sgid (HANDLE_KILLPRIV_V2).
    pub kill_suidgid: bool,
}

/// Arguments of rename.
#[derive(Clone, Copy, Debug)]
pub struct Rename<'a> {
    /// Directory of the old name.
    pub parent: u64,
    /// The old name.
    pub name: &'a [u8],
    /// Directory of the new name.
    pub new_parent: u64,
    /// The new name.
    pub new_name: &'a [u8],
    /// NOREPLACE, EXCHANGE, WHITEOUT; unknown bits are kept.
    pub flags: RenameFlags,
}

/// Arguments of create and tmpfile.
#[derive(Clone, Copy, Debug)]
pub struct Create {
    /// File type and permissions, before the umask if DONT_MASK was negotiated, else after it.
    pub mode: u32,
    /// The caller's umask.
    pub umask: u32,
    /// `O_*` flags.
    pub flags: u32,
    /// Clear suid and sgid when truncating (HANDLE_KILLPRIV_V2).
    pub kill_suidgid: bool,
}

/// Arguments of read, besides the buffer, whose capacity is the size asked for.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// The open file.
    pub fh: u64,
    /// First byte.
    pub offset: u64,
    /// The open file's `O_*` flags.
    pub flags: u32,
    /// Who reads, for mandatory locks.
    pub lock_owner: Option<u64>,
}

/// Arguments of write, besides the data.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    /// The open file.
    pub fh: u64,
    /// First byte.
    pub offset: u64,
    /// The open file's `O_*` flags.
    pub flags: u32,
    /// Who writes, for mandatory locks.
    pub lock_owner: Option<u64>,
    /// Written back from the page cache: `fh` and the caller's identity are guesses.
    pub from_cache: bool,
    /// Clear suid and sgid (HANDLE_KILLPRIV_V2).
    pub kill_suidgid: bool,
}

/// Arguments of release.
#[derive(Clone, Copy, Debug)]
pub struct Release {
    /// The open file; it is not used again.
    pub fh: u64,
    /// The open file's `O_*` flags.
    pub flags: u32,
    /// Whose flock lock goes, if the file had one.
    pub flock_owner: Option<u64>,
    /// Behave as a flush, too.
    pub flush: bool,
}

/// What a lock allows to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockType {
    /// Shared.
    Read,
    /// Exclusive.
    Write,
    /// None: the range becomes free.
    Unlock,
}

/// An advisory lock of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLock {
    /// First byte.
    pub start: u64,
    /// Last byte, itself included; `i64::MAX` means to the end of the file, however it grows.
    pub end: u64,
    /// Kind of lock.
    pub typ: LockType,
    /// Process that holds it; 0 when unknown.
    pub pid: u32,
}

/// Arguments of getlk, setlk and setlkw.
#[derive(Clone, Copy, Debug)]
pub struct LockRequest {
    /// The open file.
    pub fh: u64,
    /// Whose lock it is; the kernel's name for the caller's file table.
    pub owner: u64,
    /// The lock.
    pub lock: FileLock,
    /// An flock lock of the whole file instead of an fcntl lock.
    pub flock: bool,
}

/// Arguments of fallocate.
#[derive(Clone, Copy, Debug)]
pub struct Fallocate {
    /// The open file.
    pub fh: u64,
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// `FALLOC_FL_*` flags.
    pub mode: u32,
}

/// Arguments of copy_file_range.
#[derive(Clone, Copy, Debug)]
pub struct CopyFileRange {
    /// The open file to read.
    pub fh_in: u64,
    /// First byte to read.
    pub offset_in: u64,
    /// Inode to write.
    pub ino_out: u64,
    /// The open file to write.
    pub fh_out: u64,
    /// First byte to write.
    pub offset_out: u64,
    /// Length in bytes.
    pub len: u64,
    /// No flag is defined yet.
    pub flags: u64,
}

/// Arguments of setxattr.
#[derive(Clone, Copy, Debug)]
pub struct SetXattr<'a> {
    /// Name with its prefix.
    pub name: &'a [u8],
    /// Value.
    pub value: &'a [u8],
    /// `XATTR_CREATE` or `XATTR_REPLACE`.
    pub flags: u32,
    /// The new ACL makes the file lose its sgid bit.
    pub acl_kill_sgid: bool,
}

/// Arguments of ioctl.
#[derive(Clone, Copy, Debug)]
pub struct Ioctl<'a> {
    /// The open file or directory.
    pub fh: u64,
    /// The command.
    pub cmd: u32,
    /// The argument as the caller gave it, in most cases an address in its memory.
    pub arg: u64,
    /// The caller's data: of the size in `cmd`, or of the vectors that an earlier retry asked for.
    pub data: &'a [u8],
    /// A 32-bit caller (of a 64-bit kernel).
    pub compat: bool,
    /// [`IoctlReply::Retry`] is allowed. Never so on an ordinary mount, only on character devices.
    pub unrestricted: bool,
    /// On a directory.
    pub dir: bool,
}

/// A piece of the caller's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoctlIovec {
    /// Address.
    pub base: u64,
    /// Length in bytes.
    pub len: u64,
}

/// The answer to an ioctl.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IoctlReply {
    /// It is done.
    Done {
        /// What the caller's ioctl returns.
        result: i32,
        /// How many bytes of the output buffer the caller gets.
        out_len: usize,
    },
    /// Call again with this memory of the caller; at most 256 vectors.
    Retry {
        /// Memory to read.
        input: Vec<IoctlIovec>,
        /// Memory to write.
        output: Vec<IoctlIovec>,
    },
}
