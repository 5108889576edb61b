// SPDX-License-Identifier: GPL-2.0-only
//! FUSE requests to operations of the filesystem and back: translate, call, translate.
//!
//! OPEN, OPENDIR and FLUSH are answered ENOSYS, so that the kernel does without them: files need no handle here, an
//! unlinked file that is open lives until FORGET, and fcntl and flock locks are the kernel's own as long as there is
//! one mount.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use scoutfs_fs::data::AllocateMode;
use scoutfs_fs::dir::{NewInode, RenameFlags as FsRenameFlags};
use scoutfs_fs::inode::Attr as FsAttr;
use scoutfs_fs::ioctl::Capability;
use scoutfs_fs::xattr::{SetXattr as FsSetXattr, SetXattrMode};
use scoutfs_fs::{Error, Fs, Mount};

use super::caller::Credentials;
use super::convert::{attr, errno, rdev_in, set_attr};
use super::ioctl;
use crate::fuse::{
    AttrReply, Context, CopyFileRange, Create, DirPlusSink, DirSink, Entry, Errno, Fallocate, Filesystem,
    Forgets, InitFlags, Ioctl, IoctlReply, Negotiated, Notifier, OpenReplyFlags, Opened, Read, ReadBuf,
    Rename, RenameFlags, Result, SetAttr, SetXattr, Statfs, StatxReply, Write,
};

/// The longest that the kernel may believe what it was told.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3600);

/// A mounted volume as a FUSE filesystem.
pub struct Adapter {
    mount: Mount,
    /// Access control lists are on.
    acls: bool,
    /// The kernel says with an access control list whether set-group-ID goes. Where it does not say (before Linux 5.12)
    /// it always goes.
    tells_acl_kill_sgid: AtomicBool,
    /// Set when the mount begins to serve.
    notifier: OnceLock<Notifier>,
}

impl Adapter {
    /// Serves a mount, with access control lists as it has them.
    pub fn new(mount: Mount, acls: bool) -> Self {
        Adapter { mount, acls, tells_acl_kill_sgid: AtomicBool::new(false), notifier: OnceLock::new() }
    }

    /// What it wants of the kernel: the umask is applied here, where default access control lists are known; permissions
    /// are checked there, with the lists.
    ///
    /// The kernel keeps the list (or that there is none) of each inode but the root, which it makes before it knows of lists: since
    /// Linux 6.18.42 it asks for the root's on each path that a user other than the root's owner walks through it.
    pub fn wanted(&self) -> InitFlags {
        // The adapter does without OPEN, so truncation must come as SETATTR.
        let mut want = (InitFlags::DEFAULT - InitFlags::ATOMIC_O_TRUNC) | InitFlags::DONT_MASK;
        want.set(InitFlags::POSIX_ACL, self.acls);
        want
    }

    /// Leaves the volume, if that was not done.
    pub fn unmount(&self) -> scoutfs_fs::Result<()> {
        self.mount.unmount()
    }

    fn fs(&self) -> &Fs {
        self.mount.fs()
    }

    /// How long the kernel may believe attributes and names: never longer than the lease.
    fn timeout(&self) -> Duration {
        self.fs().store().lease_left().min(LONGEST_TIMEOUT)
    }

    fn entry(&self, a: &FsAttr) -> Entry {
        let timeout = self.timeout();
        Entry {
            ino: a.ino,
            generation: Fs::GENERATION,
            attr: attr(a),
            attr_timeout: timeout,
            entry_timeout: timeout,
        }
    }

    fn attr_reply(&self, a: &FsAttr) -> AttrReply {
        AttrReply { attr: attr(a), timeout: self.timeout() }
    }
}

fn new_inode(ctx: &Context<'_>, mode: u32, umask: u32, rdev: u32) -> NewInode {
    NewInode { mode, umask, uid: ctx.uid, gid: ctx.gid, rdev: rdev_in(rdev) }
}

/// How opened files behave: the kernel's cache of a file stays when it is closed.
fn opened() -> Opened {
    Opened { fh: 0, flags: OpenReplyFlags::KEEP_CACHE }
}

/// Whether the caller may change this attribute if its name has tags. Asks only for names that may have some.
fn may_change_tags(ctx: &Context<'_>, name: &[u8]) -> bool {
    name.starts_with(b"scoutfs.") && Credentials::of(ctx).has(Capability::SysAdmin)
}

impl Filesystem for Adapter {
    fn init(&self, negotiated: &Negotiated, notifier: Notifier) -> Result<()> {
        let needed = self.wanted() & (InitFlags::POSIX_ACL | InitFlags::DONT_MASK);
        if !negotiated.flags.contains(needed) {
            scoutfs_env::error!("this kernel's FUSE cannot do {:?}", needed - negotiated.flags);
            return Err(Errno::PROTO);
        }
        self.tells_acl_kill_sgid.store(negotiated.flags.contains(InitFlags::SETXATTR_EXT), Relaxed);
        // Called once.
        let _ = self.notifier.set(notifier);
        Ok(())
    }

    fn destroy(&self) {
        if let Err(e) = self.unmount() {
            scoutfs_env::error!("unmounting: {e}");
        }
    }

    fn lookup(&self, _: &Context<'_>, parent: u64, name: &[u8]) -> Result<Entry> {
        match self.fs().lookup(parent, name) {
            Ok(a) => Ok(self.entry(&a)),
            Err(Error::NotFound) => Ok(Entry::negative(self.timeout())),
            Err(e) => Err(errno(e)),
        }
    }

    fn forget(&self, forgets: Forgets<'_>) {
        for (ino, count) in forgets {
            self.fs().forget(ino, count);
        }
    }

    fn getattr(&self, _: &Context<'_>, ino: u64, _: Option<u64>) -> Result<AttrReply> {
        Ok(self.attr_reply(&self.fs().getattr(ino).map_err(errno)?))
    }

    fn setattr(&self, _: &Context<'_>, ino: u64, set: &SetAttr) -> Result<AttrReply> {
        Ok(self.attr_reply(&self.fs().setattr(ino, &set_attr(set)).map_err(errno)?))
    }

    fn statx(&self, _: &Context<'_>, ino: u64, _: Option<u64>, _: u32, _: u32) -> Result<StatxReply> {
        let a = self.fs().getattr(ino).map_err(errno)?;
        Ok(StatxReply {
            mask: libc::STATX_BASIC_STATS | libc::STATX_BTIME,
            attributes: 0,
            attributes_mask: 0,
            attr: attr(&a),
            btime: crate::fuse::Timestamp { secs: a.crtime.sec, nanos: a.crtime.nsec },
            timeout: self.timeout(),
        })
    }

    fn readlink(&self, _: &Context<'_>, ino: u64, out: &mut [u8]) -> Result<usize> {
        let target = self.fs().readlink(ino).map_err(errno)?;
        out.get_mut(..target.len()).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(&target);
        Ok(target.len())
    }

    fn symlink(&self, ctx: &Context<'_>, parent: u64, name: &[u8], target: &[u8]) -> Result<Entry> {
        let new = new_inode(ctx, libc::S_IFLNK | 0o777, 0, 0);
        Ok(self.entry(&self.fs().symlink(parent, name, target, &new).map_err(errno)?))
    }

    fn mknod(
        &self,
        ctx: &Context<'_>,
        parent: u64,
        name: &[u8],
        mode: u32,
        umask: u32,
        rdev: u32,
    ) -> Result<Entry> {
        let new = new_inode(ctx, mode, umask, rdev);
        Ok(self.entry(&self.fs().create(parent, name, &new).map_err(errno)?))
    }

    fn mkdir(&self, ctx: &Context<'_>, parent: u64, name: &[u8], mode: u32, umask: u32) -> Result<Entry> {
        let new = new_inode(ctx, mode & 0o7777 | libc::S_IFDIR, umask, 0);
        Ok(self.entry(&self.fs().mkdir(parent, name, &new).map_err(errno)?))
    }

    fn unlink(&self, _: &Context<'_>, parent: u64, name: &[u8]) -> Result<()> {
        self.fs().unlink(parent, name).map_err(errno)
    }

    fn rmdir(&self, _: &Context<'_>, parent: u64, name: &[u8]) -> Result<()> {
        self.fs().rmdir(parent, name).map_err(errno)
    }

    fn rename(&self, _: &Context<'_>, r: &Rename<'_>) -> Result<()> {
        let mut flags = FsRenameFlags::empty();
        flags.set(FsRenameFlags::NOREPLACE, r.flags.contains(RenameFlags::NOREPLACE));
        flags.set(FsRenameFlags::EXCHANGE, r.flags.contains(RenameFlags::EXCHANGE));
        if !(r.flags - RenameFlags::NOREPLACE - RenameFlags::EXCHANGE).is_empty() {
            return Err(Errno::INVAL);
        }
        self.fs().rename(r.parent, r.name, r.new_parent, r.new_name, flags).map_err(errno)
    }

    fn link(&self, _: &Context<'_>, ino: u64, new_parent: u64, new_name: &[u8]) -> Result<Entry> {
        Ok(self.entry(&self.fs().link(ino, new_parent, new_name).map_err(errno)?))
    }

    fn create(
        &self,
        ctx: &Context<'_>,
        parent: u64,
        name: &[u8],
        create: &Create,
    ) -> Result<(Entry, Opened)> {
        let new = new_inode(ctx, create.mode & 0o7777 | libc::S_IFREG, create.umask, 0);
        let a = self.fs().create(parent, name, &new).map_err(errno)?;
        Ok((self.entry(&a), opened()))
    }

    fn tmpfile(&self, ctx: &Context<'_>, parent: u64, create: &Create) -> Result<(Entry, Opened)> {
        let new = new_inode(ctx, create.mode & 0o7777 | libc::S_IFREG, create.umask, 0);
        let linkable = create.flags & libc::O_EXCL as u32 == 0;
        let a = self.fs().tmpfile(parent, &new, linkable).map_err(errno)?;
        Ok((self.entry(&a), opened()))
    }

    fn read(&self, _: &Context<'_>, ino: u64, read: &Read, out: &mut ReadBuf<'_>) -> Result<()> {
        let capacity = out.capacity();
        let buffer = out.as_mut_slice();
        let n = self.fs().read(ino, read.offset, buffer).map_err(errno)?;
        out.set_filled(n.min(capacity));
        Ok(())
    }

    fn write(&self, _: &Context<'_>, ino: u64, write: &Write, data: &[u8]) -> Result<usize> {
        // The kernel sends O_APPEND with the size that it knows; with one mount that is the true one.
        self.fs().write(ino, write.offset, data).map_err(errno)
    }

    fn fsync(&self, _: &Context<'_>, ino: u64, _: u64, _: bool) -> Result<()> {
        self.fs().fsync(ino).map_err(errno)
    }

    fn fsyncdir(&self, _: &Context<'_>, ino: u64, _: u64, _: bool) -> Result<()> {
        self.fs().fsync(ino).map_err(errno)
    }

    fn fallocate(&self, _: &Context<'_>, ino: u64, f: &Fallocate) -> Result<()> {
        let flags = f.mode as i32;
        let keep_size = flags & libc::FALLOC_FL_KEEP_SIZE != 0;
        let mode = match flags & !libc::FALLOC_FL_KEEP_SIZE {
            0 => AllocateMode::Allocate,
            libc::FALLOC_FL_PUNCH_HOLE => AllocateMode::PunchHole,
            libc::FALLOC_FL_ZERO_RANGE => AllocateMode::ZeroRange,
            _ => return Err(Errno::OPNOTSUPP),
        };
        self.fs().fallocate(ino, mode, keep_size, f.offset, f.length).map_err(errno)
    }

    fn lseek(&self, _: &Context<'_>, ino: u64, _: u64, offset: u64, whence: u32) -> Result<u64> {
        match whence as i32 {
            libc::SEEK_DATA => self.fs().seek_data(ino, offset).map_err(errno),
            libc::SEEK_HOLE => self.fs().seek_hole(ino, offset).map_err(errno),
            _ => Err(Errno::INVAL),
        }
    }

    fn copy_file_range(&self, _: &Context<'_>, _: u64, _: &CopyFileRange) -> Result<u64> {
        // The kernel copies through its cache then.
        Err(Errno::OPNOTSUPP)
    }

    fn readdir(&self, _: &Context<'_>, ino: u64, _: u64, offset: u64, sink: &mut DirSink<'_>) -> Result<()> {
        self.fs()
            .readdir(ino, offset, &mut |e| sink.add(e.ino, e.next_pos, e.kind.mode(), e.name))
            .map_err(errno)
    }

    fn readdirplus(
        &self,
        _: &Context<'_>,
        ino: u64,
        _: u64,
        offset: u64,
        sink: &mut DirPlusSink<'_>,
    ) -> Result<()> {
        self.fs()
            .readdir_plus(ino, offset, &mut |e, a| match a {
                Some(a) => sink.add(&self.entry(a), e.next_pos, e.name),
                None => sink.add_plain(e.ino, e.next_pos, e.kind.mode(), e.name),
            })
            .map_err(errno)
    }

    fn statfs(&self, _: &Context<'_>, _: u64) -> Result<Statfs> {
        let stat = self.fs().statfs().map_err(errno)?;
        let meta = |blocks: u64| blocks * scoutfs_format::block::SECTORS_PER_BLOCK;
        let free = stat.free_data + stat.unassigned;
        let spare_meta = stat.free_meta.saturating_sub(stat.reserved_meta);
        // Inodes are limited by metadata space alone: about two thousand bytes each.
        let room = (meta(spare_meta) + stat.unassigned) * 2;
        Ok(Statfs {
            blocks: meta(stat.total_meta) + stat.total_data + stat.unassigned,
            bfree: free + meta(spare_meta),
            bavail: free,
            files: stat.inodes + room,
            ffree: room,
            bsize: 4096,
            namelen: scoutfs_format::item::MAX_NAME_LEN as u32,
            frsize: 4096,
        })
    }

    fn syncfs(&self, _: &Context<'_>, _: u64) -> Result<()> {
        self.fs().sync().map_err(errno)
    }

    fn setxattr(&self, ctx: &Context<'_>, ino: u64, set: &SetXattr<'_>) -> Result<()> {
        let mode = match set.flags as i32 {
            0 => SetXattrMode::Any,
            libc::XATTR_CREATE => SetXattrMode::Create,
            libc::XATTR_REPLACE => SetXattrMode::Replace,
            _ => return Err(Errno::INVAL),
        };
        let how = FsSetXattr {
            mode,
            privileged: may_change_tags(ctx, set.name),
            kill_sgid: set.acl_kill_sgid || !self.tells_acl_kill_sgid.load(Relaxed),
        };
        self.fs().setxattr(ino, set.name, set.value, how).map_err(errno)
    }

    fn getxattr(&self, _: &Context<'_>, ino: u64, name: &[u8], out: &mut [u8]) -> Result<usize> {
        self.fs().getxattr(ino, name, out).map_err(errno)
    }

    fn listxattr(&self, ctx: &Context<'_>, ino: u64, out: &mut [u8]) -> Result<usize> {
        // The kernel keeps the values of these names from others, but not the names. Who asks is looked up only where
        // there are some.
        let mut left_out = false;
        let show = &mut |name: &[u8]| {
            let trusted = name.starts_with(b"trusted.");
            left_out |= trusted;
            !trusted
        };
        let len = self.fs().listxattr_if(ino, out, show).map_err(errno)?;
        if left_out && Credentials::of(ctx).has(Capability::SysAdmin) {
            return self.fs().listxattr(ino, out).map_err(errno);
        }
        Ok(len)
    }

    fn removexattr(&self, ctx: &Context<'_>, ino: u64, name: &[u8]) -> Result<()> {
        self.fs().removexattr(ino, name, may_change_tags(ctx, name)).map_err(errno)
    }

    fn ioctl(&self, ctx: &Context<'_>, ino: u64, request: &Ioctl<'_>, out: &mut [u8]) -> Result<IoctlReply> {
        ioctl::run(self.fs(), self.notifier.get(), ino, ctx, request, out)
    }
}
