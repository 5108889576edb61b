// SPDX-License-Identifier: GPL-2.0-only
//! The trait that a filesystem implements.

use super::buffer::ReadBuf;
use super::interrupt::Interrupt;
use super::notify::Notifier;
use super::protocol::flags::InitFlags;
use super::protocol::reply::{DirPlusSink, DirSink};
use super::protocol::request::{Forgets, ProtocolError};
use super::types::*;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The request's number; never reused within a mount.
    pub unique: u64,
    /// The caller's filesystem user id.
    pub uid: u32,
    /// The caller's filesystem group id.
    pub gid: u32,
    /// The calling thread; 0 when the kernel itself asks or the caller is in another pid namespace.
    pub pid: u32,
    /// Tells when the caller no longer waits for the answer.
    pub interrupt: &'a Interrupt,
}

/// What was agreed with the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Negotiated {
    /// The kernel's minor version of the protocol.
    pub kernel_minor: u32,
    /// Everything that the kernel can do, as far as it is known here.
    pub offered: InitFlags,
    /// What is in use.
    pub flags: InitFlags,
    /// The largest WRITE (and READ) in bytes.
    pub max_write: u32,
}

/// A filesystem. Methods run in parallel on the session's threads, in any order, and may block.
///
/// Every method that is not implemented answers ENOSYS. The kernel remembers that for many operations and
/// does without them from then on: `open`, `opendir` and `flush` are taken to have succeeded (see
/// [`InitFlags::NO_OPEN_SUPPORT`]), `statx` becomes `getattr`, `fsync` and `access` become no-ops.
///
/// `ino` is the inode that the operation is about, `parent` the directory of a name. Names hold neither
/// NUL nor '/' and are neither empty nor, except in `lookup`, "." or "..". A handler that finds its
/// `ctx.interrupt` raised should give up what it waits for and answer EINTR.
#[allow(unused_variables)]
pub trait Filesystem: Send + Sync {
    /// The mount begins to serve; no other method has been called. An error ends the mount.
    fn init(&self, negotiated: &Negotiated, notifier: Notifier) -> Result<()> {
        Ok(())
    }

    /// The mount is about to go: no request comes any more, but some may be going on, and [`destroy`](Self::destroy) waits for them.
    fn begin_destroy(&self) {}

    /// The mount is gone: nothing else runs and nothing will. On a fuseblk mount `umount` waits for it.
    fn destroy(&self) {}

    /// The kernel sent something that is not of the protocol; it was answered EIO.
    fn protocol_error(&self, error: &ProtocolError) {
        eprintln!("fuse: {error}");
    }

    /// Finds a name; an entry with `ino` 0 says that it does not exist. "." and ".." are asked for file handles.
    fn lookup(&self, ctx: &Context<'_>, parent: u64, name: &[u8]) -> Result<Entry> {
        Err(Errno::NOSYS)
    }

    /// The kernel drops as many lookups of each inode as it says. Has no answer.
    fn forget(&self, forgets: Forgets<'_>) {}

    /// Reads attributes, through the open file `fh` if there is one.
    fn getattr(&self, ctx: &Context<'_>, ino: u64, fh: Option<u64>) -> Result<AttrReply> {
        Err(Errno::NOSYS)
    }

    /// Changes attributes and returns the new ones.
    fn setattr(&self, ctx: &Context<'_>, ino: u64, set: &SetAttr) -> Result<AttrReply> {
        Err(Errno::NOSYS)
    }

    /// Reads extended attributes; `flags` are `AT_*`, `mask` is `STATX_*`.
    fn statx(
        &self,
        ctx: &Context<'_>,
        ino: u64,
        fh: Option<u64>,
        flags: u32,
        mask: u32,
    ) -> Result<StatxReply> {
        Err(Errno::NOSYS)
    }

    /// Puts a symlink's target into `out` (4095 bytes) and returns its length.
    fn readlink(&self, ctx: &Context<'_>, ino: u64, out: &mut [u8]) -> Result<usize> {
        Err(Errno::NOSYS)
    }

    /// Makes a symlink; `target` is not empty and holds no NUL.
    fn symlink(&self, ctx: &Context<'_>, parent: u64, name: &[u8], target: &[u8]) -> Result<Entry> {
        Err(Errno::NOSYS)
    }

    /// Makes a node of any type but directory and symlink; `rdev` is encoded as in [`Attr::rdev`].
    fn mknod(
        &self,
        ctx: &Context<'_>,
        parent: u64,
        name: &[u8],
        mode: u32,
        umask: u32,
        rdev: u32,
    ) -> Result<Entry> {
        Err(Errno::NOSYS)
    }

    /// Makes a directory.
    fn mkdir(&self, ctx: &Context<'_>, parent: u64, name: &[u8], mode: u32, umask: u32) -> Result<Entry> {
        Err(Errno::NOSYS)
    }

    /// Removes a name that is not a directory's.
    fn unlink(&self, ctx: &Context<'_>, parent: u64, name: &[u8]) -> Result<()> {
        Err(Errno::NOSYS)
    }

    /// Removes an empty directory.
    fn rmdir(&self, ctx: &Context<'_>, parent: u64, name: &[u8]) -> Result<()> {
        Err(Errno::NOSYS)
    }

    /// Renames.
    fn rename(&self, ctx: &Context<'_>, rename: &Rename<'_>) -> Result<()> {
        Err(Errno::NOSYS)
    }

    /// Gives `ino` another name.
    fn link(&self, ctx: &Context<'_>, ino: u64, new_parent: u64, new_name: &[u8]) -> Result<Entry> {
        Err(Errno::NOSYS)
    }

    /// Opens a file; `flags` are `O_*`. `kill_suidgid`: clear suid and sgid if it truncates.
    fn open(&self, ctx: &Context<'_>, ino: u64, flags: u32, kill_suidgid: bool) -> Result<Opened> {
        Err(Errno::NOSYS)
    }

    /// Makes and opens a file in one step.
    fn create(
        &self,
        ctx: &Context<'_>,
        parent: u64,
        name: &[u8],
        create: &Create,
    ) -> Result<(Entry, Opened)> {
        Err(Errno::NOSYS)
    }

    /// Makes and opens a file without a name.
    fn tmpfile(&self, ctx: &Context<'_>, parent: u64, create: &Create) -> Result<(Entry, Opened)> {
        Err(Errno::NOSYS)
    }

    /// Reads into `out`. Less than its capacity means the end of the file.
    fn read(&self, ctx: &Context<'_>, ino: u64, read: &Read, out: &mut ReadBuf<'_>) -> Result<()> {
        Err(Errno::NOSYS)
    }

    /// Writes `data`, which begins at an address that is a multiple of 4096, and returns how many bytes were written.
    ///
    /// Calls `answer` with that number if the caller is to be told before all is done; what is returned then is dropped.
    fn write(
        &self,
        ctx: &Context<'_>,
        ino: u64,
        write: &Write,
        data: &[u8],
        answer: &mut dyn FnMut(usize),
    ) -> Result<usize> {
        Err(Errno::NOSYS)
    }

    /// A descriptor of the open file is closed (there may be others); fcntl locks of `lock_owner` go.
    fn flush(&self, ctx: &Context<'_>, ino: u64, fh: u64, lock_owner: u64) -> Result<()> {
        Err(Errno::NOSYS)
    }

    /// The open file is gone. Nobody sees an error.
    fn release(&self, ctx: &Context<'_>, ino: u64, release: &Release) -> Result<()> {
        Err(Errno::NOSYS)
    }

    /// Makes a file durable; with `datasync`, only what is needed to read its data back.
    fn fsync(&self, ctx: &Context<'_>, ino: u64, fh: u64, datasync: bool) -> Result<()> {
        Err(Errno::NOSYS)
    }

    /// Allocates, punches holes, zeroes.
    fn fallocate(&self, ctx: &Context<'_>, ino: u64, fallocate: &Fallocate) -> Result<()> {
        Err(Errno::NOSYS)
    }

    /// Finds data or a hole (`whence` is SEEK_DATA or SEEK_HOLE).
    fn lseek(&self, ctx: &Context<'_>, ino: u64, fh: u64, offset: u64, whence: u32) -> Result<u64> {
        Err(Errno::NOSYS)
    }

    /// Copies within the filesystem and returns how many bytes were copied.
    fn copy_file_range(&self, ctx: &Context<'_>, ino_in: u64, copy: &CopyFileRange) -> Result<u64> {
        Err(Errno::NOSYS)
    }

    /// Opens a directory.
    fn opendir(&self, ctx: &Context<'_>, ino: u64, flags: u32) -> Result<Opened> {
        Err(Errno::NOSYS)
    }

    /// Adds entries from `offset` on (0, or an entry's `next_offset`) until the sink is full; none at the end.
    fn readdir(
        &self,
        ctx: &Context<'_>,
        ino: u64,
        fh: u64,
        offset: u64,
        sink: &mut DirSink<'_>,
    ) -> Result<()> {
        Err(Errno::NOSYS)
    }

    /// As readdir, but with what a lookup would say. Entries that were added count as lookups.
    fn readdirplus(
        &self,
        ctx: &Context<'_>,
        ino: u64,
        fh: u64,
        offset: u64,
        sink: &mut DirPlusSink<'_>,
    ) -> Result<()> {
        Err(Errno::NOSYS)
    }

    /// The open directory is gone. Nobody sees an error.
    fn releasedir(&self, ctx: &Context<'_>, ino: u64, release: &Release) -> Result<()> {
        Err(Errno::NOSYS)
    }

    /// Makes a directory durable.
    fn fsyncdir(&self, ctx: &Context<'_>, ino: u64, fh: u64, datasync: bool) -> Result<()> {
        Err(Errno::NOSYS)
    }

    /// Describes the filesystem that `ino` is in.
    fn statfs(&self, ctx: &Context<'_>, ino: u64) -> Result<Statfs> {
        Err(Errno::NOSYS)
    }

    /// Makes everything durable. Only fuseblk mounts are asked.
    fn syncfs(&self, ctx: &Context<'_>, ino: u64) -> Result<()> {
        Err(Errno::NOSYS)
    }

    /// Sets an xattr.
    fn setxattr(&self, ctx: &Context<'_>, ino: u64, set: &SetXattr<'_>) -> Result<()> {
        Err(Errno::NOSYS)
    }

    /// Returns the length of an xattr's value and, if it fits, puts the value into `out`.
    ///
    /// `out` is empty when only the length is asked for; a value that does not fit is answered ERANGE.
    fn getxattr(&self, ctx: &Context<'_>, ino: u64, name: &[u8], out: &mut [u8]) -> Result<usize> {
        Err(Errno::NOSYS)
    }

    /// As getxattr, with all names, each followed by NUL, as the value.
    fn listxattr(&self, ctx: &Context<'_>, ino: u64, out: &mut [u8]) -> Result<usize> {
        Err(Errno::NOSYS)
    }

    /// Removes an xattr.
    fn removexattr(&self, ctx: &Context<'_>, ino: u64, name: &[u8]) -> Result<()> {
        Err(Errno::NOSYS)
    }

    /// Checks permissions; not asked with `default_permissions`. `mask` is of R_OK, W_OK, X_OK.
    fn access(&self, ctx: &Context<'_>, ino: u64, mask: u32) -> Result<()> {
        Err(Errno::NOSYS)
    }

    /// Finds a lock that is in the way, or says by `Unlock` that there is none.
    fn getlk(&self, ctx: &Context<'_>, ino: u64, request: &LockRequest) -> Result<FileLock> {
        Err(Errno::NOSYS)
    }

    /// Takes or drops a lock; EAGAIN when another is in the way.
    fn setlk(&self, ctx: &Context<'_>, ino: u64, request: &LockRequest) -> Result<()> {
        Err(Errno::NOSYS)
    }

    /// Takes a lock, waiting until it is free or the request is interrupted (EINTR).
    fn setlkw(&self, ctx: &Context<'_>, ino: u64, request: &LockRequest) -> Result<()> {
        Err(Errno::NOSYS)
    }

    /// Device control. `out` has the size that the caller takes.
    fn ioctl(&self, ctx: &Context<'_>, ino: u64, ioctl: &Ioctl<'_>, out: &mut [u8]) -> Result<IoctlReply> {
        Err(Errno::NOSYS)
    }
}
