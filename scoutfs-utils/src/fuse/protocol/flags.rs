// SPDX-License-Identifier: GPL-2.0-only
//! The bits of each flags field.

use bitflags::bitflags;

bitflags! {
    /// What kernel and daemon agree on when a mount begins. The session uses what both want.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct InitFlags: u64 {
        /// Several READs of one file may be under way at once.
        const ASYNC_READ = 1 << 0;
        /// fcntl locks come as GETLK, SETLK and SETLKW; otherwise the kernel keeps them by itself.
        const POSIX_LOCKS = 1 << 1;
        /// O_TRUNC comes with OPEN instead of in a SETATTR of its own.
        const ATOMIC_O_TRUNC = 1 << 3;
        /// LOOKUP of "." and ".." works, so that the mount can be exported by NFS and opened by handle.
        const EXPORT_SUPPORT = 1 << 4;
        /// WRITEs larger than 4 KiB.
        const BIG_WRITES = 1 << 5;
        /// The filesystem applies the umask (it needs to, for default ACLs).
        const DONT_MASK = 1 << 6;
        /// flock locks come as SETLK and SETLKW with `flock` set.
        const FLOCK_LOCKS = 1 << 10;
        /// ioctl on directories.
        const IOCTL_DIR = 1 << 11;
        /// The kernel drops a file's pages when its size or mtime changed behind its back.
        const AUTO_INVAL_DATA = 1 << 12;
        /// READDIRPLUS.
        const DO_READDIRPLUS = 1 << 13;
        /// The kernel chooses between READDIR and READDIRPLUS by what callers do.
        const READDIRPLUS_AUTO = 1 << 14;
        /// Direct IO is sent without waiting for one piece after another.
        const ASYNC_DIO = 1 << 15;
        /// The kernel gathers writes; it then ignores size and times that the daemon reports.
        const WRITEBACK_CACHE = 1 << 16;
        /// OPEN answered by ENOSYS means that no OPEN and RELEASE is wanted any more.
        const NO_OPEN_SUPPORT = 1 << 17;
        /// Lookups and readdir in one directory may run in parallel.
        const PARALLEL_DIROPS = 1 << 18;
        /// The filesystem clears suid, sgid and capabilities on write, chown and truncate.
        const HANDLE_KILLPRIV = 1 << 19;
        /// The kernel checks and caches POSIX ACLs that the filesystem stores as xattrs.
        const POSIX_ACL = 1 << 20;
        /// After an abort, reading the device says ECONNABORTED instead of ENODEV.
        const ABORT_ERROR = 1 << 21;
        /// The reply states how many pages a request may have.
        const MAX_PAGES = 1 << 22;
        /// The kernel caches symlinks' targets.
        const CACHE_SYMLINKS = 1 << 23;
        /// OPENDIR answered by ENOSYS means that no OPENDIR and RELEASEDIR is wanted any more.
        const NO_OPENDIR_SUPPORT = 1 << 24;
        /// Cached pages go only when the daemon says so.
        const EXPLICIT_INVAL_DATA = 1 << 25;
        /// As HANDLE_KILLPRIV, but the kernel says in each request whether to.
        const HANDLE_KILLPRIV_V2 = 1 << 28;
        /// SETXATTR has flags of its own (needed for ACLs and sgid).
        const SETXATTR_EXT = 1 << 29;
        /// The flags have a second half.
        const INIT_EXT = 1 << 30;
        /// Shared mmap also of files in direct IO mode.
        const DIRECT_IO_ALLOW_MMAP = 1 << 36;
        /// The mount cannot be exported by NFS.
        const NO_EXPORT_SUPPORT = 1 << 38;
    }

    /// How the kernel treats an open file; part of the answer to open, create and opendir.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct OpenReplyFlags: u32 {
        /// Bypass the page cache.
        const DIRECT_IO = 1 << 0;
        /// Keep what the page cache holds of the file.
        const KEEP_CACHE = 1 << 1;
        /// The file cannot seek.
        const NONSEEKABLE = 1 << 2;
        /// The kernel may cache the directory's entries.
        const CACHE_DIR = 1 << 3;
        /// The file has no position.
        const STREAM = 1 << 4;
        /// Send no FLUSH on close.
        const NOFLUSH = 1 << 5;
        /// Direct writes of one file may run in parallel.
        const PARALLEL_DIRECT_WRITES = 1 << 6;
    }
}

impl InitFlags {
    /// What a filesystem on a shared device wants: no writeback cache, the page cache only where it is told.
    pub const DEFAULT: Self = Self::ASYNC_READ
        .union(Self::ATOMIC_O_TRUNC)
        .union(Self::EXPORT_SUPPORT)
        .union(Self::BIG_WRITES)
        .union(Self::IOCTL_DIR)
        .union(Self::DO_READDIRPLUS)
        .union(Self::READDIRPLUS_AUTO)
        .union(Self::ASYNC_DIO)
        .union(Self::PARALLEL_DIROPS)
        .union(Self::MAX_PAGES)
        .union(Self::NO_OPENDIR_SUPPORT)
        .union(Self::SETXATTR_EXT)
        .union(Self::INIT_EXT);
}

bitflags! {
    /// Which fields of a SETATTR are set.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct SetattrValid: u32 {
        const MODE = 1 << 0;
        const UID = 1 << 1;
        const GID = 1 << 2;
        const SIZE = 1 << 3;
        const ATIME = 1 << 4;
        const MTIME = 1 << 5;
        const FH = 1 << 6;
        const ATIME_NOW = 1 << 7;
        const MTIME_NOW = 1 << 8;
        const LOCK_OWNER = 1 << 9;
        const CTIME = 1 << 10;
        const KILL_SUIDGID = 1 << 11;
    }
}

/// GETATTR and STATX: `fh` is valid.
pub(crate) const GETATTR_FH: u32 = 1 << 0;
/// OPEN and CREATE: clear suid and sgid when truncating.
pub(crate) const OPEN_KILL_SUIDGID: u32 = 1 << 0;
/// RELEASE: behave as a FLUSH, too.
pub(crate) const RELEASE_FLUSH: u32 = 1 << 0;
/// RELEASE: drop the flock lock of the owner.
pub(crate) const RELEASE_FLOCK_UNLOCK: u32 = 1 << 1;
/// READ: the lock owner is valid.
pub(crate) const READ_LOCKOWNER: u32 = 1 << 1;
/// WRITE: from the page cache; file handle and caller are guesses.
pub(crate) const WRITE_CACHE: u32 = 1 << 0;
/// WRITE: the lock owner is valid.
pub(crate) const WRITE_LOCKOWNER: u32 = 1 << 1;
/// WRITE: clear suid and sgid.
pub(crate) const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// FSYNC and FSYNCDIR: data only.
pub(crate) const FSYNC_FDATASYNC: u32 = 1 << 0;
/// GETLK, SETLK, SETLKW: a flock lock.
pub(crate) const LK_FLOCK: u32 = 1 << 0;
/// SETXATTR: the ACL makes the file lose its sgid bit.
pub(crate) const SETXATTR_ACL_KILL_SGID: u32 = 1 << 0;
/// IOCTL: a 32-bit caller on a 64-bit kernel.
pub(crate) const IOCTL_COMPAT: u32 = 1 << 0;
/// IOCTL: the daemon may ask for other memory of the caller.
pub(crate) const IOCTL_UNRESTRICTED: u32 = 1 << 1;
/// IOCTL reply: call again with these vectors.
pub(crate) const IOCTL_RETRY: u32 = 1 << 2;
/// IOCTL: a caller with 32-bit longs.
pub(crate) const IOCTL_32BIT: u32 = 1 << 3;
/// IOCTL: on a directory.
pub(crate) const IOCTL_DIR: u32 = 1 << 4;
/// IOCTL reply: the most vectors, in and out together.
pub(crate) const IOCTL_MAX_IOV: usize = 256;
/// INVAL_ENTRY notification: make the entry expire instead of dropping it.
pub(crate) const EXPIRE_ONLY: u32 = 1 << 0;
