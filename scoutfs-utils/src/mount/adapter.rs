// SPDX-License-Identifier: GPL-2.0-only
//! FUSE requests to operations of the filesystem and back: translate, call, translate.
//!
//! OPEN and RELEASE count open files, which other mounts must know of. Files have handles for their locks alone: FLUSH says that
//! a process closes a descriptor, and drops its fcntl locks; RELEASE names the owner of flock locks, and drops with the handle
//! the locks of the open file description, of which the kernel says nothing.
//!
//! The kernel keeps names, attributes and pages as long as the mount has its lease, and drops them when locks go back
//! (`caches`). It can change pages of a file that is open for writing without asking (mmap), and keeps pages locked while it
//! writes. So as long as a file is open for writing here, its pages are read under a lock for writing.
//!
//! Where to append is known to the core alone, so files that are open for appending bypass the kernel's pages.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use scoutfs_fs::data::AllocateMode;
use scoutfs_fs::dir::{NewInode, RenameFlags as FsRenameFlags};
use scoutfs_fs::fs::KernelCaches;
use scoutfs_fs::inode::{Attr as FsAttr, Drops, SetAttr as FsSetAttr, without_set_ids};
use scoutfs_fs::ioctl::Capability;
use scoutfs_fs::xattr::{SetXattr as FsSetXattr, SetXattrMode};
use scoutfs_fs::{Error, Fs, Mount};

use super::caches::FuseCaches;
use super::caller::Credentials;
use super::convert::{attr, errno, found_lock, rdev_in, set_attr, wanted_lock};
use super::ioctl;
use super::lost::Told;
use crate::fuse::{
    AttrReply, Context, CopyFileRange, Create, DirPlusSink, DirSink, Entry, Errno, Fallocate, FileLock,
    Filesystem, Forgets, InitFlags, Ioctl, IoctlReply, LockRequest, Negotiated, Notifier, OpenReplyFlags,
    Opened, Read, ReadBuf, Release, Rename, RenameFlags, Result, SetAttr, SetXattr, Statfs, StatxReply,
    Write,
};

/// The longest that the kernel may believe what it was told.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3600);

/// The protocol's minor version that brought the notification to look names up again.
const EPOCHS_MINOR: u32 = 44;

/// Writes of fewer bytes are answered when they are done: to go on meanwhile would save less than waking another thread costs.
const MIN_BEHIND: usize = 32 << 10;

/// A mounted volume as a FUSE filesystem.
pub struct Adapter {
    mount: Mount,
    /// Access control lists are on.
    acls: bool,
    /// The kernel says with an access control list whether set-group-ID goes. Where it does not say (before Linux 5.12)
    /// it always goes.
    tells_acl_kill_sgid: AtomicBool,
    /// The kernel leaves it to us to take privileges away from files that change. Otherwise it asks for an attribute before
    /// each write.
    drops_privileges: AtomicBool,
    /// The kernel can be told to look names up again (since Linux 6.16).
    has_epochs: AtomicBool,
    /// Set when the mount begins to serve.
    notifier: OnceLock<Notifier>,
    /// Counts open files.
    last_handle: AtomicU64,
    /// Which of them know of data that are lost.
    told: Told,
}

impl Adapter {
    /// Serves a mount, with access control lists as it has them.
    pub fn new(mount: Mount, acls: bool) -> Self {
        Adapter {
            mount,
            acls,
            tells_acl_kill_sgid: AtomicBool::new(false),
            drops_privileges: AtomicBool::new(false),
            has_epochs: AtomicBool::new(false),
            notifier: OnceLock::new(),
            last_handle: AtomicU64::new(0),
            told: Told::default(),
        }
    }

    /// What it wants of the kernel: the umask is applied here, where default access control lists are known; permissions
    /// are checked there, with the lists.
    ///
    /// The kernel keeps the list (or that there is none) of each inode but the root, which it makes before it knows of lists: since
    /// Linux 6.18.42 it asks for the root's on each path that a user other than the root's owner walks through it.
    pub fn wanted(&self) -> InitFlags {
        // Truncation comes as SETATTR, whether by an open or not.
        let without = InitFlags::ATOMIC_O_TRUNC | InitFlags::NO_OPENDIR_SUPPORT;
        let locks = InitFlags::POSIX_LOCKS | InitFlags::FLOCK_LOCKS;
        let more =
            InitFlags::DONT_MASK | InitFlags::DIRECT_IO_ALLOW_MMAP | InitFlags::HANDLE_KILLPRIV_V2 | locks;
        let mut want = (InitFlags::DEFAULT - without) | more;
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

    fn errno(&self, e: Error) -> Errno {
        errno(self.fs(), e)
    }

    /// How long the kernel may believe attributes and names: never longer than the lease.
    fn timeout(&self) -> Duration {
        self.fs().store().lease_left().min(LONGEST_TIMEOUT)
    }

    /// How long the kernel may believe a name: not at all if it cannot be told that it changed.
    fn name_timeout(&self) -> Duration {
        if self.has_epochs.load(Relaxed) { self.timeout() } else { Duration::ZERO }
    }

    fn entry(&self, a: &FsAttr) -> Entry {
        Entry {
            ino: a.ino,
            generation: Fs::GENERATION,
            attr: attr(a),
            attr_timeout: self.timeout(),
            entry_timeout: self.name_timeout(),
        }
    }

    /// Opens what was just made and looked up. Without success the look-up is void.
    fn open_new(&self, a: &FsAttr, flags: u32) -> Result<(Entry, Opened)> {
        match self.fs().open(a.ino, writes(flags)) {
            Ok(()) => Ok((self.entry(a), self.opened(flags))),
            Err(e) => {
                self.fs().forget(a.ino, 1);
                Err(self.errno(e))
            }
        }
    }

    /// How opened files behave: the kernel's cache of a file stays when it is closed.
    fn opened(&self, flags: u32) -> Opened {
        let mut reply = OpenReplyFlags::KEEP_CACHE;
        reply.set(OpenReplyFlags::DIRECT_IO, appends(flags));
        Opened { fh: self.last_handle.fetch_add(1, Relaxed) + 1, flags: reply }
    }

    /// The mode of a file whose owner changes, or which is cut: without the set-ID bits, if it has some.
    fn mode_without_privileges(&self, ctx: &Context<'_>, ino: u64) -> Result<Option<u32>> {
        let FsAttr { mode, gid, .. } = self.fs().getattr(ino).map_err(|e| self.errno(e))?;
        let (is_file, set_ids) =
            (mode & libc::S_IFMT != libc::S_IFDIR, mode & (libc::S_ISUID | libc::S_ISGID));
        if !is_file || set_ids == 0 {
            return Ok(None);
        }
        let mut left = without_set_ids(mode);
        if left & libc::S_ISGID != 0 && !Credentials::of(ctx).may_set_group_id(gid) {
            left &= !libc::S_ISGID;
        }
        Ok((left != mode).then_some(left))
    }

    /// Before a file's contents change otherwise than by a write.
    fn drop_privileges(&self, ctx: &Context<'_>, ino: u64) -> Result<()> {
        match self.fs().removexattr(ino, b"security.capability", true) {
            Ok(()) | Err(Error::NoAttribute) => {}
            Err(e) => return Err(self.errno(e)),
        }
        let mode = self.fs().getattr(ino).map_err(|e| self.errno(e))?.mode;
        let left = without_set_ids(mode);
        if left != mode && !Credentials::of(ctx).keeps_set_ids() {
            let set = FsSetAttr { mode: Some(left), ..FsSetAttr::default() };
            self.fs().setattr(ino, &set).map_err(|e| self.errno(e))?;
        }
        Ok(())
    }

    fn attr_reply(&self, a: &FsAttr) -> AttrReply {
        AttrReply { attr: attr(a), timeout: self.timeout() }
    }
}

fn new_inode(ctx: &Context<'_>, mode: u32, umask: u32, rdev: u32) -> NewInode {
    NewInode { mode, umask, uid: ctx.uid, gid: ctx.gid, rdev: rdev_in(rdev) }
}

/// Whether a file that is open with these `O_*` flags can be changed.
fn writes(flags: u32) -> bool {
    flags & libc::O_ACCMODE as u32 != libc::O_RDONLY as u32
}

/// Whether who writes is told when the device has the data: he asked for that, or is the kernel, which keeps track of it.
fn waits_for_device(write: &Write) -> bool {
    write.from_cache || write.flags & (libc::O_DIRECT | libc::O_DSYNC | libc::O_SYNC) as u32 != 0
}

/// Whether writes go to the end of a file that is open with these `O_*` flags.
fn appends(flags: u32) -> bool {
    writes(flags) && flags & libc::O_APPEND as u32 != 0
}

/// Whether the caller may change this attribute if its name has tags. Asks only for names that may have some.
fn may_change_tags(ctx: &Context<'_>, name: &[u8]) -> bool {
    name.starts_with(b"scoutfs.") && Credentials::of(ctx).has(Capability::SysAdmin)
}

impl Filesystem for Adapter {
    fn init(&self, negotiated: &Negotiated, notifier: Notifier) -> Result<()> {
        let locks = InitFlags::POSIX_LOCKS | InitFlags::FLOCK_LOCKS;
        let needed = self.wanted() & (InitFlags::POSIX_ACL | InitFlags::DONT_MASK | locks);
        if !negotiated.flags.contains(needed) {
            scoutfs_env::error!("this kernel's FUSE cannot do {:?}", needed - negotiated.flags);
            return Err(Errno::PROTO);
        }
        self.tells_acl_kill_sgid.store(negotiated.flags.contains(InitFlags::SETXATTR_EXT), Relaxed);
        self.drops_privileges.store(negotiated.flags.contains(InitFlags::HANDLE_KILLPRIV_V2), Relaxed);
        self.has_epochs.store(negotiated.kernel_minor >= EPOCHS_MINOR, Relaxed);
        let no_memory = |_| Errno::NOMEM;
        let caches: scoutfs_env::Box<dyn KernelCaches> =
            scoutfs_env::try_box(FuseCaches::new(notifier.clone())).map_err(no_memory)?;
        self.fs().set_kernel_caches(scoutfs_env::Arc::new(caches).map_err(no_memory)?);
        // Called once.
        let _ = self.notifier.set(notifier);
        Ok(())
    }

    fn begin_destroy(&self) {
        self.mount.begin_unmount();
    }

    fn destroy(&self) {
        if let Err(e) = self.unmount() {
            scoutfs_env::error!("unmounting: {e}");
        }
    }

    fn lookup(&self, _: &Context<'_>, parent: u64, name: &[u8]) -> Result<Entry> {
        match self.fs().lookup(parent, name) {
            Ok(a) => Ok(self.entry(&a)),
            Err(Error::NotFound) => Ok(Entry::negative(self.name_timeout())),
            Err(e) => Err(self.errno(e)),
        }
    }

    fn forget(&self, forgets: Forgets<'_>) {
        for (ino, count) in forgets {
            self.fs().forget(ino, count);
        }
    }

    fn getattr(&self, _: &Context<'_>, ino: u64, _: Option<u64>) -> Result<AttrReply> {
        Ok(self.attr_reply(&self.fs().getattr(ino).map_err(|e| self.errno(e))?))
    }

    fn setattr(&self, ctx: &Context<'_>, ino: u64, set: &SetAttr) -> Result<AttrReply> {
        let mut wanted = set_attr(set);
        let changes_owner = set.uid.is_some() || set.gid.is_some();
        if self.drops_privileges.load(Relaxed) && set.mode.is_none() && (changes_owner || set.kill_suidgid) {
            wanted.mode = self.mode_without_privileges(ctx, ino)?;
        }
        Ok(self.attr_reply(&self.fs().setattr(ino, &wanted).map_err(|e| self.errno(e))?))
    }

    fn statx(&self, _: &Context<'_>, ino: u64, _: Option<u64>, _: u32, _: u32) -> Result<StatxReply> {
        let a = self.fs().getattr(ino).map_err(|e| self.errno(e))?;
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
        let target = self.fs().readlink(ino).map_err(|e| self.errno(e))?;
        out.get_mut(..target.len()).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(&target);
        Ok(target.len())
    }

    fn symlink(&self, ctx: &Context<'_>, parent: u64, name: &[u8], target: &[u8]) -> Result<Entry> {
        let new = new_inode(ctx, libc::S_IFLNK | 0o777, 0, 0);
        Ok(self.entry(&self.fs().symlink(parent, name, target, &new).map_err(|e| self.errno(e))?))
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
        Ok(self.entry(&self.fs().create(parent, name, &new).map_err(|e| self.errno(e))?))
    }

    fn mkdir(&self, ctx: &Context<'_>, parent: u64, name: &[u8], mode: u32, umask: u32) -> Result<Entry> {
        let new = new_inode(ctx, mode & 0o7777 | libc::S_IFDIR, umask, 0);
        Ok(self.entry(&self.fs().mkdir(parent, name, &new).map_err(|e| self.errno(e))?))
    }

    fn unlink(&self, _: &Context<'_>, parent: u64, name: &[u8]) -> Result<()> {
        self.fs().unlink(parent, name).map_err(|e| self.errno(e))
    }

    fn rmdir(&self, _: &Context<'_>, parent: u64, name: &[u8]) -> Result<()> {
        self.fs().rmdir(parent, name).map_err(|e| self.errno(e))
    }

    fn rename(&self, _: &Context<'_>, r: &Rename<'_>) -> Result<()> {
        let mut flags = FsRenameFlags::empty();
        flags.set(FsRenameFlags::NOREPLACE, r.flags.contains(RenameFlags::NOREPLACE));
        flags.set(FsRenameFlags::EXCHANGE, r.flags.contains(RenameFlags::EXCHANGE));
        if !(r.flags - RenameFlags::NOREPLACE - RenameFlags::EXCHANGE).is_empty() {
            return Err(Errno::INVAL);
        }
        self.fs().rename(r.parent, r.name, r.new_parent, r.new_name, flags).map_err(|e| self.errno(e))
    }

    fn link(&self, _: &Context<'_>, ino: u64, new_parent: u64, new_name: &[u8]) -> Result<Entry> {
        Ok(self.entry(&self.fs().link(ino, new_parent, new_name).map_err(|e| self.errno(e))?))
    }

    fn create(
        &self,
        ctx: &Context<'_>,
        parent: u64,
        name: &[u8],
        create: &Create,
    ) -> Result<(Entry, Opened)> {
        let new = new_inode(ctx, create.mode & 0o7777 | libc::S_IFREG, create.umask, 0);
        let exclusive = create.flags & libc::O_EXCL as u32 != 0;
        let a = match self.fs().create(parent, name, &new).map_err(|e| self.errno(e)) {
            // Made on another node since the kernel looked. It takes what is given here for new and checks no permissions, so it is to
            // look again.
            Err(Errno::EXIST) if !exclusive => return Err(Errno::STALE),
            created => created?,
        };
        self.open_new(&a, create.flags)
    }

    fn tmpfile(&self, ctx: &Context<'_>, parent: u64, create: &Create) -> Result<(Entry, Opened)> {
        let new = new_inode(ctx, create.mode & 0o7777 | libc::S_IFREG, create.umask, 0);
        let linkable = create.flags & libc::O_EXCL as u32 == 0;
        let a = self.fs().tmpfile(parent, &new, linkable).map_err(|e| self.errno(e))?;
        self.open_new(&a, create.flags)
    }

    fn open(&self, _: &Context<'_>, ino: u64, flags: u32, _: bool) -> Result<Opened> {
        self.fs().open(ino, writes(flags)).map_err(|e| self.errno(e))?;
        let opened = self.opened(flags);
        self.told.opened(opened.fh, self.fs().lost_writes(ino));
        Ok(opened)
    }

    fn release(&self, _: &Context<'_>, ino: u64, release: &Release) -> Result<()> {
        // The kernel does not say when an open file description with fcntl locks is gone, but that it is.
        let dropped = self.fs().drop_locks_of_file(ino, release.fh, release.flock_owner);
        self.told.released(release.fh, self.fs().lost_writes(ino));
        self.fs().release(ino, writes(release.flags));
        dropped.map_err(|e| self.errno(e))
    }

    fn flush(&self, _: &Context<'_>, ino: u64, fh: u64, lock_owner: u64) -> Result<()> {
        self.fs().drop_fcntl_locks(ino, lock_owner).map_err(|e| self.errno(e))?;
        // Of what is not done yet fsync tells: each child of a process closes its files, and must not wait for a server.
        self.told.check(fh, self.fs().lost_writes(ino))
    }

    fn getlk(&self, _: &Context<'_>, ino: u64, request: &LockRequest) -> Result<FileLock> {
        let wanted = wanted_lock(ino, request)?;
        Ok(found_lock(self.fs().test_lock(&wanted).map_err(|e| self.errno(e))?, &request.lock))
    }

    fn setlk(&self, _: &Context<'_>, ino: u64, request: &LockRequest) -> Result<()> {
        self.fs().set_lock(&wanted_lock(ino, request)?, None).map_err(|e| self.errno(e))
    }

    fn setlkw(&self, ctx: &Context<'_>, ino: u64, request: &LockRequest) -> Result<()> {
        let wanted = wanted_lock(ino, request)?;
        let waker = self.fs().lock_waker();
        let _guard = ctx.interrupt.on_interrupt(move || waker.wake());
        self.fs().set_lock(&wanted, Some(&|| ctx.interrupt.is_raised())).map_err(|e| self.errno(e))
    }

    fn opendir(&self, _: &Context<'_>, ino: u64, _: u32) -> Result<Opened> {
        self.fs().open(ino, false).map_err(|e| self.errno(e))?;
        // The kernel keeps no list of a directory: it could not be told in time that another mount changed it.
        Ok(Opened { fh: 0, flags: OpenReplyFlags::empty() })
    }

    fn releasedir(&self, _: &Context<'_>, ino: u64, _: &Release) -> Result<()> {
        self.fs().release(ino, false);
        Ok(())
    }

    fn read(&self, _: &Context<'_>, ino: u64, read: &Read, out: &mut ReadBuf<'_>) -> Result<()> {
        let capacity = out.capacity();
        let buffer = out.as_mut_slice();
        let n = self.fs().read(ino, read.offset, buffer).map_err(|e| self.errno(e))?;
        out.set_filled(n.min(capacity));
        Ok(())
    }

    fn write(
        &self,
        _: &Context<'_>,
        ino: u64,
        write: &Write,
        data: &[u8],
        answer: &mut dyn FnMut(usize),
    ) -> Result<usize> {
        let offset = (!appends(write.flags) || write.from_cache).then_some(write.offset);
        let drops = match write {
            Write { from_cache: true, .. } => Drops::Nothing,
            Write { kill_suidgid: true, .. } => Drops::SetIdsToo,
            _ if !self.drops_privileges.load(Relaxed) => Drops::Nothing,
            _ => Drops::Capability,
        };
        let waits = waits_for_device(write);
        if data.len() < MIN_BEHIND && !waits {
            let written = self.fs().write_later(ino, offset, data, drops);
            return written.map(|(_, len)| len).map_err(|e| self.errno(e));
        }
        let answer = (!waits).then_some(answer);
        self.fs().write_for_kernel(ino, offset, data, drops, answer).map_err(|e| self.errno(e))
    }

    fn fsync(&self, _: &Context<'_>, ino: u64, fh: u64, _: bool) -> Result<()> {
        let done = self.fs().fsync(ino).map_err(|e| self.errno(e));
        // What was lost before is told in any case.
        self.told.tell(fh, self.fs().lost_writes(ino)).and(done)
    }

    fn fsyncdir(&self, _: &Context<'_>, ino: u64, _: u64, _: bool) -> Result<()> {
        self.fs().fsync(ino).map_err(|e| self.errno(e))
    }

    fn fallocate(&self, ctx: &Context<'_>, ino: u64, f: &Fallocate) -> Result<()> {
        let flags = f.mode as i32;
        let keep_size = flags & libc::FALLOC_FL_KEEP_SIZE != 0;
        let mode = match flags & !libc::FALLOC_FL_KEEP_SIZE {
            0 => AllocateMode::Allocate,
            libc::FALLOC_FL_PUNCH_HOLE => AllocateMode::PunchHole,
            libc::FALLOC_FL_ZERO_RANGE => AllocateMode::ZeroRange,
            _ => return Err(Errno::OPNOTSUPP),
        };
        if self.drops_privileges.load(Relaxed) {
            self.drop_privileges(ctx, ino)?;
        }
        self.fs().fallocate(ino, mode, keep_size, f.offset, f.length).map_err(|e| self.errno(e))
    }

    fn lseek(&self, _: &Context<'_>, ino: u64, _: u64, offset: u64, whence: u32) -> Result<u64> {
        match whence as i32 {
            libc::SEEK_DATA => self.fs().seek_data(ino, offset).map_err(|e| self.errno(e)),
            libc::SEEK_HOLE => self.fs().seek_hole(ino, offset).map_err(|e| self.errno(e)),
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
            .map_err(|e| self.errno(e))
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
            .map_err(|e| self.errno(e))
    }

    fn statfs(&self, _: &Context<'_>, _: u64) -> Result<Statfs> {
        let stat = self.fs().statfs().map_err(|e| self.errno(e))?;
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
        self.fs().sync().map_err(|e| self.errno(e))
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
        self.fs().setxattr(ino, set.name, set.value, how).map_err(|e| self.errno(e))
    }

    fn getxattr(&self, _: &Context<'_>, ino: u64, name: &[u8], out: &mut [u8]) -> Result<usize> {
        self.fs().getxattr(ino, name, out).map_err(|e| self.errno(e))
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
        let len = self.fs().listxattr_if(ino, out, show).map_err(|e| self.errno(e))?;
        if left_out && Credentials::of(ctx).has(Capability::SysAdmin) {
            return self.fs().listxattr(ino, out).map_err(|e| self.errno(e));
        }
        Ok(len)
    }

    fn removexattr(&self, ctx: &Context<'_>, ino: u64, name: &[u8]) -> Result<()> {
        self.fs().removexattr(ino, name, may_change_tags(ctx, name)).map_err(|e| self.errno(e))
    }

    fn ioctl(&self, ctx: &Context<'_>, ino: u64, request: &Ioctl<'_>, out: &mut [u8]) -> Result<IoctlReply> {
        ioctl::run(self.fs(), self.notifier.get(), ino, ctx, request, out)
    }
}
