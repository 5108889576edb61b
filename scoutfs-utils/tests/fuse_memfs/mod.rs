// SPDX-License-Identifier: GPL-2.0-only
//! A filesystem in memory, for testing the FUSE layer. One mutex protects everything.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use scoutfs_utils::fuse::*;

/// `_IOWR('m', 1, [u8; 16])`: returns the data backwards; the result is the number of bytes.
pub const IOC_REVERSE: u32 = 0xc010_6d01;
/// Looking it up panics.
pub const NAME_PANIC: &[u8] = b"panic";
/// Looking up a name that begins with it waits until as many look-ups wait as [`Knobs::crowd`] says.
pub const NAME_CROWD: &[u8] = b"crowd";

/// A handler that waits for longer says so.
const PATIENCE: Duration = Duration::from_secs(20);

/// How it behaves.
#[derive(Clone, Copy, Debug)]
pub struct Knobs {
    pub timeout: Duration,
    pub syncfs_delay: Duration,
    pub destroy_delay: Duration,
    pub crowd: usize,
}

impl Default for Knobs {
    fn default() -> Self {
        let (timeout, delay) = (Duration::from_secs(3600), Duration::ZERO);
        Self { timeout, syncfs_delay: delay, destroy_delay: delay, crowd: 0 }
    }
}

#[derive(Debug, Default)]
struct Node {
    attr: Attr,
    btime: Timestamp,
    lookups: u64,
    data: Vec<u8>,
    /// Offset of each name.
    names: BTreeMap<Vec<u8>, u64>,
    /// Name and inode at each offset.
    entries: BTreeMap<u64, (Vec<u8>, u64)>,
    next_offset: u64,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Debug, Default)]
struct State {
    nodes: BTreeMap<u64, Node>,
    last_ino: u64,
    locks: Vec<(u64, u64, FileLock)>,
    waiting: usize,
    crowd: usize,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
pub struct Memfs {
    knobs: Knobs,
    shared: Arc<Shared>,
    pub syncs: AtomicUsize,
    pub fsyncs: AtomicUsize,
    pub statxs: AtomicUsize,
    /// What the layer or the kernel did wrong. A panic would not do: the layer catches it.
    pub faults: Mutex<Vec<String>>,
    pub largest_write: AtomicUsize,
    pub destroyed: AtomicBool,
    pub notifier: Mutex<Option<Notifier>>,
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp { secs: since.as_secs() as i64, nanos: since.subsec_nanos() }
}

impl State {
    fn node(&mut self, ino: u64) -> Result<&mut Node> {
        self.nodes.get_mut(&ino).ok_or(Errno::STALE)
    }

    fn find(&mut self, parent: u64, name: &[u8]) -> Result<(u64, u64)> {
        let parent = self.node(parent)?;
        let offset = *parent.names.get(name).ok_or(Errno::NOENT)?;
        Ok((offset, parent.entries[&offset].1))
    }

    fn attach(&mut self, parent: u64, name: &[u8], ino: u64) -> Result<()> {
        let parent = self.node(parent)?;
        parent.next_offset += 1;
        // 1 and 2 are "." and "..".
        let offset = parent.next_offset + 2;
        parent.names.insert(name.to_vec(), offset);
        parent.entries.insert(offset, (name.to_vec(), ino));
        parent.attr.mtime = now();
        Ok(())
    }

    /// Removes the entry, and leaves the inode as it is.
    fn remove(&mut self, parent: u64, name: &[u8]) -> Result<u64> {
        let (offset, ino) = self.find(parent, name)?;
        let parent = self.node(parent)?;
        parent.names.remove(name);
        parent.entries.remove(&offset);
        Ok(ino)
    }

    fn detach(&mut self, parent: u64, name: &[u8]) -> Result<u64> {
        let ino = self.remove(parent, name)?;
        self.node(ino)?.attr.nlink -= 1;
        self.reap(ino);
        Ok(ino)
    }

    fn reap(&mut self, ino: u64) {
        if self.nodes.get(&ino).is_some_and(|node| node.attr.nlink == 0 && node.lookups == 0) {
            self.nodes.remove(&ino);
        }
    }

    fn make(&mut self, ctx: &Context<'_>, mode: u32, rdev: u32, nlink: u32) -> u64 {
        self.last_ino += 1;
        let time = now();
        let attr = Attr {
            ino: self.last_ino,
            mode,
            nlink,
            rdev,
            uid: ctx.uid,
            gid: ctx.gid,
            atime: time,
            mtime: time,
            ctime: time,
            blksize: 4096,
            ..Attr::default()
        };
        self.nodes.insert(self.last_ino, Node { attr, btime: time, ..Node::default() });
        self.last_ino
    }

    fn conflict(&self, ino: u64, request: &LockRequest) -> Option<FileLock> {
        let wanted = request.lock;
        let clash = |(other_ino, owner, held): &&(u64, u64, FileLock)| {
            *other_ino == ino
                && *owner != request.owner
                && held.start <= wanted.end
                && wanted.start <= held.end
                && (held.typ == LockType::Write || wanted.typ == LockType::Write)
        };
        self.locks.iter().find(clash).map(|(_, _, held)| *held)
    }
}

impl Memfs {
    pub fn new(knobs: Knobs) -> Self {
        let fs = Self { knobs, ..Self::default() };
        let attr = Attr { ino: ROOT_INO, mode: libc::S_IFDIR | 0o755, nlink: 2, ..Attr::default() };
        let root = Node { attr, btime: now(), ..Node::default() };
        let mut state = fs.state();
        state.nodes.insert(ROOT_INO, root);
        state.last_ino = ROOT_INO;
        drop(state);
        fs
    }

    fn expect(&self, right: bool, what: &str) {
        if !right {
            self.faults.lock().unwrap().push(what.to_owned());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    /// Changes a file's content behind the kernel's back.
    pub fn scribble(&self, name: &[u8], data: &[u8]) -> u64 {
        let mut state = self.state();
        let (_, ino) = state.find(ROOT_INO, name).unwrap();
        let node = state.node(ino).unwrap();
        node.data = data.to_vec();
        node.attr.size = data.len() as u64;
        ino
    }

    /// Renames behind the kernel's back.
    pub fn rename_secretly(&self, from: &[u8], to: &[u8]) {
        let mut state = self.state();
        let ino = state.remove(ROOT_INO, from).unwrap();
        state.attach(ROOT_INO, to, ino).unwrap();
    }

    /// Lookups that the kernel has of an inode.
    pub fn lookups(&self, ino: u64) -> Option<u64> {
        self.state().nodes.get(&ino).map(|node| node.lookups)
    }

    /// Requests that wait for a lock.
    pub fn waiting(&self) -> usize {
        self.state().waiting
    }

    fn entry(&self, state: &mut State, ino: u64) -> Result<Entry> {
        let node = state.node(ino)?;
        node.lookups += 1;
        let (attr_timeout, entry_timeout) = (self.knobs.timeout, self.knobs.timeout);
        Ok(Entry { ino, generation: 0, attr: node.attr, attr_timeout, entry_timeout })
    }

    fn add(&self, ctx: &Context<'_>, parent: u64, name: &[u8], mode: u32, rdev: u32) -> Result<Entry> {
        let mut state = self.state();
        if state.find(parent, name).is_ok() {
            return Err(Errno::EXIST);
        }
        let ino = state.make(ctx, mode, rdev, 1);
        state.attach(parent, name, ino)?;
        self.entry(&mut state, ino)
    }

    fn list(
        &self,
        ino: u64,
        offset: u64,
        mut add: impl FnMut(&mut State, u64, u64, &[u8]) -> bool,
    ) -> Result<()> {
        let mut state = self.state();
        for (at, name) in [(1, &b"."[..]), (2, b"..")] {
            if offset < at && !add(&mut state, ino, at, name) {
                return Ok(());
            }
        }
        let mut last = offset;
        while let Some((&at, (name, child))) = state.node(ino)?.entries.range(last + 1..).next() {
            let (name, child) = (name.clone(), *child);
            if !add(&mut state, child, at, &name) {
                break;
            }
            last = at;
        }
        Ok(())
    }

    fn value(value: &[u8], out: &mut [u8]) -> usize {
        if let Some(out) = out.get_mut(..value.len()) {
            out.copy_from_slice(value);
        }
        value.len()
    }
}

impl Filesystem for Memfs {
    fn protocol_error(&self, error: &ProtocolError) {
        self.expect(false, &error.to_string());
    }

    fn init(&self, _: &Negotiated, notifier: Notifier) -> Result<()> {
        *self.notifier.lock().unwrap() = Some(notifier);
        Ok(())
    }

    fn destroy(&self) {
        std::thread::sleep(self.knobs.destroy_delay);
        self.expect(!self.destroyed.swap(true, SeqCst), "destroyed twice");
    }

    fn lookup(&self, _: &Context<'_>, parent: u64, name: &[u8]) -> Result<Entry> {
        assert!(name != NAME_PANIC, "a test wants this panic");
        let mut state = self.state();
        if name.starts_with(NAME_CROWD) {
            state.crowd += 1;
            self.shared.wake.notify_all();
            let small = |state: &mut State| state.crowd < self.knobs.crowd;
            let (_state, result) = self.shared.wake.wait_timeout_while(state, PATIENCE, small).unwrap();
            return Err(if result.timed_out() { Errno::TIMEDOUT } else { Errno::NOENT });
        }
        match state.find(parent, name) {
            Ok((_, ino)) => self.entry(&mut state, ino),
            Err(Errno::NOENT) => Ok(Entry::negative(self.knobs.timeout)),
            Err(error) => Err(error),
        }
    }

    fn forget(&self, forgets: Forgets<'_>) {
        let mut state = self.state();
        for (ino, count) in forgets {
            if let Ok(node) = state.node(ino) {
                self.expect(ino == ROOT_INO || node.lookups >= count, "forgot more than was looked up");
                node.lookups = node.lookups.saturating_sub(count);
                state.reap(ino);
            }
        }
    }

    fn getattr(&self, _: &Context<'_>, ino: u64, _: Option<u64>) -> Result<AttrReply> {
        Ok(AttrReply { attr: self.state().node(ino)?.attr, timeout: self.knobs.timeout })
    }

    fn setattr(&self, _: &Context<'_>, ino: u64, set: &SetAttr) -> Result<AttrReply> {
        let mut state = self.state();
        let node = state.node(ino)?;
        let time = |set, old| match set {
            Some(SetTime::Now) => now(),
            Some(SetTime::At(time)) => time,
            None => old,
        };
        node.attr.mode = set.mode.unwrap_or(node.attr.mode);
        node.attr.uid = set.uid.unwrap_or(node.attr.uid);
        node.attr.gid = set.gid.unwrap_or(node.attr.gid);
        node.attr.atime = time(set.atime, node.attr.atime);
        node.attr.mtime = time(set.mtime, node.attr.mtime);
        if let Some(size) = set.size {
            node.data.resize(size as usize, 0);
            node.attr.size = size;
        }
        Ok(AttrReply { attr: node.attr, timeout: self.knobs.timeout })
    }

    fn statx(&self, _: &Context<'_>, ino: u64, _: Option<u64>, _: u32, _: u32) -> Result<StatxReply> {
        self.statxs.fetch_add(1, SeqCst);
        let mut state = self.state();
        let node = state.node(ino)?;
        let mask = libc::STATX_BASIC_STATS | libc::STATX_BTIME;
        Ok(StatxReply { mask, attr: node.attr, btime: node.btime, ..StatxReply::default() })
    }

    fn readlink(&self, _: &Context<'_>, ino: u64, out: &mut [u8]) -> Result<usize> {
        Ok(Self::value(&self.state().node(ino)?.data, out))
    }

    fn symlink(&self, ctx: &Context<'_>, parent: u64, name: &[u8], target: &[u8]) -> Result<Entry> {
        let entry = self.add(ctx, parent, name, libc::S_IFLNK | 0o777, 0)?;
        let mut state = self.state();
        let node = state.node(entry.ino)?;
        node.data = target.to_vec();
        node.attr.size = target.len() as u64;
        Ok(Entry { attr: node.attr, ..entry })
    }

    fn mknod(
        &self,
        ctx: &Context<'_>,
        parent: u64,
        name: &[u8],
        mode: u32,
        _: u32,
        rdev: u32,
    ) -> Result<Entry> {
        self.add(ctx, parent, name, mode, rdev)
    }

    fn mkdir(&self, ctx: &Context<'_>, parent: u64, name: &[u8], mode: u32, _: u32) -> Result<Entry> {
        self.add(ctx, parent, name, libc::S_IFDIR | mode, 0)
    }

    fn unlink(&self, _: &Context<'_>, parent: u64, name: &[u8]) -> Result<()> {
        self.state().detach(parent, name).map(drop)
    }

    fn rmdir(&self, _: &Context<'_>, parent: u64, name: &[u8]) -> Result<()> {
        let mut state = self.state();
        let (_, ino) = state.find(parent, name)?;
        if !state.node(ino)?.entries.is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        state.detach(parent, name).map(drop)
    }

    fn rename(&self, _: &Context<'_>, rename: &Rename<'_>) -> Result<()> {
        let mut state = self.state();
        let (offset, ino) = state.find(rename.parent, rename.name)?;
        if !(RenameFlags::NOREPLACE | RenameFlags::EXCHANGE).contains(rename.flags) {
            return Err(Errno::INVAL);
        }
        if let Ok((other_offset, other)) = state.find(rename.new_parent, rename.new_name) {
            if rename.flags.contains(RenameFlags::NOREPLACE) {
                return Err(Errno::EXIST);
            }
            if rename.flags.contains(RenameFlags::EXCHANGE) {
                let name = rename.name.to_vec();
                state.node(rename.parent)?.entries.insert(offset, (name, other));
                let name = rename.new_name.to_vec();
                state.node(rename.new_parent)?.entries.insert(other_offset, (name, ino));
                return Ok(());
            }
            state.detach(rename.new_parent, rename.new_name)?;
        }
        state.remove(rename.parent, rename.name)?;
        state.attach(rename.new_parent, rename.new_name, ino)
    }

    fn link(&self, _: &Context<'_>, ino: u64, new_parent: u64, new_name: &[u8]) -> Result<Entry> {
        let mut state = self.state();
        state.node(ino)?.attr.nlink += 1;
        state.attach(new_parent, new_name, ino)?;
        self.entry(&mut state, ino)
    }

    fn open(&self, _: &Context<'_>, ino: u64, flags: u32, _: bool) -> Result<Opened> {
        if flags.cast_signed() & libc::O_TRUNC != 0 {
            let mut state = self.state();
            let node = state.node(ino)?;
            node.data.clear();
            node.attr.size = 0;
        }
        Ok(Opened { fh: ino, flags: OpenReplyFlags::KEEP_CACHE })
    }

    fn create(
        &self,
        ctx: &Context<'_>,
        parent: u64,
        name: &[u8],
        create: &Create,
    ) -> Result<(Entry, Opened)> {
        let entry = self.add(ctx, parent, name, libc::S_IFREG | create.mode, 0)?;
        Ok((entry, Opened { fh: entry.ino, flags: OpenReplyFlags::empty() }))
    }

    fn tmpfile(&self, ctx: &Context<'_>, _: u64, create: &Create) -> Result<(Entry, Opened)> {
        let mut state = self.state();
        let ino = state.make(ctx, libc::S_IFREG | create.mode, 0, 0);
        let entry = self.entry(&mut state, ino)?;
        Ok((entry, Opened { fh: ino, flags: OpenReplyFlags::empty() }))
    }

    fn read(&self, _: &Context<'_>, ino: u64, read: &Read, out: &mut ReadBuf<'_>) -> Result<()> {
        let memory = out.as_mut_slice();
        let aligned = (memory.as_ptr() as usize | memory.len()).is_multiple_of(4096);
        self.expect(aligned, "a read into unaligned memory");
        let mut state = self.state();
        let data = &state.node(ino)?.data;
        out.put(data.get(read.offset as usize..).unwrap_or_default());
        Ok(())
    }

    fn write(
        &self,
        _: &Context<'_>,
        ino: u64,
        write: &Write,
        data: &[u8],
        _: &mut dyn FnMut(usize),
    ) -> Result<usize> {
        let aligned = (data.as_ptr() as usize).is_multiple_of(4096);
        self.expect(aligned, "a write of unaligned memory");
        self.largest_write.fetch_max(data.len(), SeqCst);
        let mut state = self.state();
        let node = state.node(ino)?;
        let start = write.offset as usize;
        let end = start + data.len();
        if node.data.len() < end {
            node.data.resize(end, 0);
        }
        node.data[start..end].copy_from_slice(data);
        node.attr.size = node.data.len() as u64;
        node.attr.mtime = now();
        Ok(data.len())
    }

    fn flush(&self, _: &Context<'_>, ino: u64, _: u64, lock_owner: u64) -> Result<()> {
        self.state().locks.retain(|(other, owner, _)| (*other, *owner) != (ino, lock_owner));
        self.shared.wake.notify_all();
        Ok(())
    }

    fn release(&self, _: &Context<'_>, _: u64, _: &Release) -> Result<()> {
        Ok(())
    }

    fn fsync(&self, _: &Context<'_>, _: u64, _: u64, _: bool) -> Result<()> {
        self.fsyncs.fetch_add(1, SeqCst);
        Ok(())
    }

    fn fallocate(&self, _: &Context<'_>, ino: u64, fallocate: &Fallocate) -> Result<()> {
        let mut state = self.state();
        let node = state.node(ino)?;
        let end = (fallocate.offset + fallocate.length) as usize;
        node.data.resize(node.data.len().max(end), 0);
        node.attr.size = node.data.len() as u64;
        Ok(())
    }

    fn lseek(&self, _: &Context<'_>, ino: u64, _: u64, offset: u64, whence: u32) -> Result<u64> {
        let size = self.state().node(ino)?.attr.size;
        match whence.cast_signed() {
            _ if offset >= size => Err(Errno::NXIO),
            libc::SEEK_HOLE => Ok(size),
            _ => Ok(offset),
        }
    }

    fn copy_file_range(&self, _: &Context<'_>, ino_in: u64, copy: &CopyFileRange) -> Result<u64> {
        let mut state = self.state();
        let source = &state.node(ino_in)?.data;
        let start = (copy.offset_in as usize).min(source.len());
        let end = start.saturating_add(copy.len as usize).min(source.len());
        let piece = source[start..end].to_vec();
        let target = state.node(copy.ino_out)?;
        let at = copy.offset_out as usize;
        target.data.resize(target.data.len().max(at + piece.len()), 0);
        target.data[at..at + piece.len()].copy_from_slice(&piece);
        target.attr.size = target.data.len() as u64;
        Ok(piece.len() as u64)
    }

    fn readdir(&self, _: &Context<'_>, ino: u64, _: u64, offset: u64, sink: &mut DirSink<'_>) -> Result<()> {
        self.list(ino, offset, |state, ino, at, name| {
            let mode = state.node(ino).map_or(0, |node| node.attr.mode);
            sink.add(ino, at, mode, name)
        })
    }

    fn readdirplus(
        &self,
        _: &Context<'_>,
        ino: u64,
        _: u64,
        offset: u64,
        sink: &mut DirPlusSink<'_>,
    ) -> Result<()> {
        self.list(ino, offset, |state, ino, at, name| {
            if name == b"." || name == b".." {
                return sink.add_plain(ino, at, libc::S_IFDIR, name);
            }
            let Ok(entry) = self.entry(state, ino) else { return false };
            let added = sink.add(&entry, at, name);
            if !added && let Ok(node) = state.node(ino) {
                node.lookups -= 1;
            }
            added
        })
    }

    fn fsyncdir(&self, _: &Context<'_>, _: u64, _: u64, _: bool) -> Result<()> {
        self.fsyncs.fetch_add(1, SeqCst);
        Ok(())
    }

    fn statfs(&self, _: &Context<'_>, _: u64) -> Result<Statfs> {
        let files = self.state().nodes.len() as u64;
        Ok(Statfs {
            blocks: 1000,
            bfree: 900,
            bavail: 800,
            files,
            ffree: 7,
            bsize: 4096,
            namelen: 255,
            frsize: 4096,
        })
    }

    fn syncfs(&self, _: &Context<'_>, _: u64) -> Result<()> {
        std::thread::sleep(self.knobs.syncfs_delay);
        self.syncs.fetch_add(1, SeqCst);
        Ok(())
    }

    fn setxattr(&self, _: &Context<'_>, ino: u64, set: &SetXattr<'_>) -> Result<()> {
        let mut state = self.state();
        let xattrs = &mut state.node(ino)?.xattrs;
        let exists = xattrs.contains_key(set.name);
        match set.flags.cast_signed() {
            libc::XATTR_CREATE if exists => return Err(Errno::EXIST),
            libc::XATTR_REPLACE if !exists => return Err(Errno::NODATA),
            _ => xattrs.insert(set.name.to_vec(), set.value.to_vec()),
        };
        Ok(())
    }

    fn getxattr(&self, _: &Context<'_>, ino: u64, name: &[u8], out: &mut [u8]) -> Result<usize> {
        let mut state = self.state();
        Ok(Self::value(state.node(ino)?.xattrs.get(name).ok_or(Errno::NODATA)?, out))
    }

    fn listxattr(&self, _: &Context<'_>, ino: u64, out: &mut [u8]) -> Result<usize> {
        let mut state = self.state();
        let names = state.node(ino)?.xattrs.keys().flat_map(|name| name.iter().copied().chain([0]));
        Ok(Self::value(&names.collect::<Vec<_>>(), out))
    }

    fn removexattr(&self, _: &Context<'_>, ino: u64, name: &[u8]) -> Result<()> {
        self.state().node(ino)?.xattrs.remove(name).map(drop).ok_or(Errno::NODATA)
    }

    fn getlk(&self, _: &Context<'_>, ino: u64, request: &LockRequest) -> Result<FileLock> {
        let free = FileLock { typ: LockType::Unlock, ..request.lock };
        Ok(self.state().conflict(ino, request).unwrap_or(free))
    }

    fn setlk(&self, _: &Context<'_>, ino: u64, request: &LockRequest) -> Result<()> {
        let mut state = self.state();
        if request.lock.typ == LockType::Unlock {
            // Whole locks only: that is all the tests use.
            state.locks.retain(|(other, owner, _)| (*other, *owner) != (ino, request.owner));
            self.shared.wake.notify_all();
        } else if state.conflict(ino, request).is_some() {
            return Err(Errno::AGAIN);
        } else {
            state.locks.push((ino, request.owner, request.lock));
        }
        Ok(())
    }

    fn setlkw(&self, ctx: &Context<'_>, ino: u64, request: &LockRequest) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        // The mutex is taken, so that the wake-up cannot fall between a waiter's look and its wait.
        let _guard = ctx.interrupt.on_interrupt(move || {
            drop(shared.state.lock());
            shared.wake.notify_all();
        });
        let mut state = self.state();
        state.waiting += 1;
        let (mut state, result) = self
            .shared
            .wake
            .wait_timeout_while(state, PATIENCE, |state| {
                state.conflict(ino, request).is_some() && !ctx.interrupt.is_raised()
            })
            .unwrap();
        self.expect(!result.timed_out(), "a lock was not freed, and its waiter not interrupted");
        state.waiting -= 1;
        if state.conflict(ino, request).is_some() {
            return Err(Errno::INTR);
        }
        state.locks.push((ino, request.owner, request.lock));
        Ok(())
    }

    fn ioctl(&self, _: &Context<'_>, _: u64, ioctl: &Ioctl<'_>, out: &mut [u8]) -> Result<IoctlReply> {
        if ioctl.cmd != IOC_REVERSE || ioctl.data.len() != out.len() {
            return Err(Errno::NOTTY);
        }
        out.copy_from_slice(ioctl.data);
        out.reverse();
        Ok(IoctlReply::Done { result: out.len() as i32, out_len: out.len() })
    }
}
