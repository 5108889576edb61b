// SPDX-License-Identifier: GPL-2.0-only
//! Calls of the reference, carried out by system calls on a mount.
//!
//! An inode that has a name is reached by its path, another by the file that holds it open, through `/proc/self/fd`. Nothing is
//! open when a mount ends.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, read_dir};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, OFlags, RenameFlags, SeekFrom, StatxFlags, Timespec,
    Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags};
use scoutfs_sim::reference::{
    Allocate, Answer, BLOCK, Call, Content, Existing, Found, HIDDEN, Name, NewTime, Outcome, Place,
    Reference, Rules, Seen, Stat, Subject, Target, Time, Times, Way,
};

use crate::run::open_at;
use crate::volume::{Mounted, Volume};

/// A mount and the files that are open on it.
pub struct OnMount<'v> {
    volume: &'v Volume,
    /// How long changes may stay in memory.
    commit_interval_ms: u32,
    // Closed before the mount ends.
    open: Vec<(u64, OwnedFd)>,
    mounted: Option<Mounted<'v>>,
}

const UMASK: u32 = 0o027;
const RULES: Rules = Rules { kernel: true, umask: UMASK, uid: 0, gid: 0 };

/// A path that leads to an inode when links are followed.
struct Reached {
    path: PathBuf,
    /// What the path goes through.
    _held: Option<OwnedFd>,
}

fn through(fd: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

/// What a path stands for, which may be a symbolic link.
fn reach(path: PathBuf, is_link: bool) -> Reached {
    if !is_link {
        return Reached { path, _held: None };
    }
    let held = open_at(CWD, path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()).unwrap();
    Reached { path: through(&held), _held: Some(held) }
}

impl<'v> OnMount<'v> {
    /// Mounts a volume, for the thread that called; its umask becomes the reference's.
    pub fn new(volume: &'v Volume, commit_interval_ms: u32) -> Self {
        // SAFETY: what this thread had in common with others was its directory and its umask, which nothing here needs.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_FS) }, 0);
        rustix::process::umask(Mode::from_raw_mode(UMASK));
        let mut this = OnMount { volume, commit_interval_ms, open: vec![], mounted: None };
        this.mount();
        this
    }

    fn mount(&mut self) {
        let options = format!("server_addr=127.0.0.1,commit_interval_ms={}", self.commit_interval_ms);
        self.mounted = Some(self.volume.mount_options(&options));
    }

    /// Unmounts: the end of a test.
    pub fn end(mut self) {
        self.leave(true);
    }

    fn leave(&mut self, well: bool) {
        let mut mounted = self.mounted.take().unwrap();
        if !well {
            mounted.kill_daemon();
        }
        self.open.clear();
        if well {
            mounted.unmount();
        } else {
            mounted.bury();
        }
    }

    fn root(&self) -> &Path {
        self.mounted.as_ref().unwrap().path()
    }

    fn path_of(&self, ino: u64, now: &Reference) -> Option<PathBuf> {
        let names = now.path(ino)?;
        Some(names.iter().fold(self.root().to_owned(), |path, name| path.join(OsStr::from_bytes(&name.0))))
    }

    fn place(&self, place: &Place, now: &Reference) -> PathBuf {
        let dir = self.path_of(place.0, now).expect("a directory that has a name");
        dir.join(OsStr::from_bytes(&place.1.0))
    }

    fn opened(&self, ino: u64) -> Option<&OwnedFd> {
        self.open.iter().rev().find(|(open, _)| *open == ino).map(|(_, fd)| fd)
    }

    fn reach(&self, ino: u64, now: &Reference) -> Reached {
        match self.path_of(ino, now) {
            Some(path) => reach(path, matches!(now.node(ino).seen.content, Content::Link(_))),
            None => {
                let path = through(self.opened(ino).expect("an inode that is open or has a name"));
                Reached { path, _held: None }
            }
        }
    }

    /// The file that is open, or a new one.
    fn file(&self, ino: u64, now: &Reference) -> Result<File, Errno> {
        if now.node(ino).file().is_some()
            && let Some(open) = self.opened(ino)
        {
            return Ok(open.try_clone().unwrap().into());
        }
        self.open_for(ino, OFlags::RDWR, now)
    }

    fn open_for(&self, ino: u64, flags: OFlags, now: &Reference) -> Result<File, Errno> {
        open_at(CWD, self.reach(ino, now).path, flags, Mode::empty()).map(File::from)
    }

    fn file_for(&self, ino: u64, way: Way, now: &Reference) -> Result<File, Errno> {
        match way {
            Way::Direct => self.open_for(ino, OFlags::RDWR | OFlags::DIRECT, now),
            _ => self.file(ino, now),
        }
    }

    fn carry_out(&mut self, call: &Call, now: &Reference) -> Result<Answer, Errno> {
        let made = |path: &Path| Ok(Answer::Made(ino_of(path)));
        let number = |n: usize| Answer::Number(n as u64);
        match call {
            Call::Create(place, mode, rdev) => {
                let path = self.place(place, now);
                let permissions = Mode::from_raw_mode(mode & 0o7777);
                match FileType::from_raw_mode(*mode) {
                    FileType::RegularFile => {
                        open_at(CWD, &path, OFlags::CREATE | OFlags::EXCL | OFlags::RDWR, permissions)?;
                    }
                    kind => {
                        let rdev = rustix::fs::makedev((rdev >> 32) as u32, *rdev as u32);
                        rustix::fs::mknodat(CWD, &path, kind, permissions, rdev)?;
                    }
                }
                return made(&path);
            }
            Call::Mkdir(place, mode) => {
                let path = self.place(place, now);
                rustix::fs::mkdirat(CWD, &path, Mode::from_raw_mode(*mode))?;
                return made(&path);
            }
            Call::Symlink(place, target) => {
                let path = self.place(place, now);
                rustix::fs::symlinkat(OsStr::from_bytes(&target.bytes()), CWD, &path)?;
                return made(&path);
            }
            Call::Tmpfile(place, data) => {
                let dir = self.path_of(place.0, now).unwrap();
                let flags = OFlags::TMPFILE | OFlags::RDWR;
                let file = File::from(open_at(CWD, dir, flags, Mode::from_raw_mode(0o644))?);
                assert_eq!(rustix::io::pwrite(&file, &data.bytes(), 0)?, data.len);
                let path = self.place(place, now);
                rustix::fs::linkat(CWD, through(&file), CWD, &path, AtFlags::SYMLINK_FOLLOW)?;
                return made(&path);
            }
            Call::Link(ino, place) => {
                let from = self.reach(*ino, now);
                rustix::fs::linkat(CWD, &from.path, CWD, self.place(place, now), AtFlags::SYMLINK_FOLLOW)?;
            }
            Call::Unlink(place) => rustix::fs::unlinkat(CWD, self.place(place, now), AtFlags::empty())?,
            Call::Rmdir(place) => rustix::fs::unlinkat(CWD, self.place(place, now), AtFlags::REMOVEDIR)?,
            Call::Rename(from, to, how) => {
                let flags = match how {
                    Target::Replace => RenameFlags::empty(),
                    Target::NoReplace => RenameFlags::NOREPLACE,
                    Target::Exchange => RenameFlags::EXCHANGE,
                };
                rustix::fs::renameat_with(CWD, self.place(from, now), CWD, self.place(to, now), flags)?;
            }
            Call::Open(ino) => {
                let flags = match now.node(*ino).seen.content {
                    Content::File(_) => OFlags::RDWR,
                    Content::Dir(_) => OFlags::DIRECTORY,
                    _ => OFlags::PATH,
                };
                let fd = open_at(CWD, self.reach(*ino, now).path, flags, Mode::empty())?;
                self.open.push((*ino, fd));
            }
            Call::Close(which) => drop(self.open.swap_remove(*which)),
            Call::Write(ino, offset, data, way) => {
                let file = self.file_for(*ino, *way, now)?;
                let bytes = data.bytes();
                if *way != Way::Mapped || now.node(*ino).file().is_none() {
                    return rustix::io::pwrite(&file, &bytes, *offset).map(number);
                }
                with_mapped(&file, *offset, bytes.len(), |memory| memory.copy_from_slice(&bytes))?;
                return Ok(number(bytes.len()));
            }
            Call::Append(ino, data) => {
                let file = self.open_for(*ino, OFlags::WRONLY | OFlags::APPEND, now)?;
                return rustix::io::write(&file, &data.bytes()).map(number);
            }
            Call::Truncate(ino, size) => rustix::fs::ftruncate(self.file(*ino, now)?, *size)?,
            Call::Allocate(ino, how, keep, offset, len) => {
                let mut flags = match how {
                    Allocate::Fill => FallocateFlags::empty(),
                    Allocate::Punch => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                    Allocate::Zero => FallocateFlags::ZERO_RANGE,
                };
                if *keep {
                    flags |= FallocateFlags::KEEP_SIZE;
                }
                rustix::fs::fallocate(self.file(*ino, now)?, flags, *offset, *len)?;
            }
            Call::Copy(from, at, to, to_at, len) => {
                let (from, to) = (self.file(*from, now)?, self.file(*to, now)?);
                let (mut at, mut to_at, mut done) = (*at, *to_at, 0);
                while done < *len {
                    let left = *len - done;
                    match rustix::fs::copy_file_range(&from, Some(&mut at), &to, Some(&mut to_at), left)? {
                        0 => break,
                        n => done += n,
                    }
                }
                return Ok(number(done));
            }
            Call::Read(ino, offset, len, way) => {
                let file = self.file_for(*ino, *way, now)?;
                if let (Way::Mapped, Some(bytes)) = (way, now.node(*ino).file()) {
                    let len = bytes.len().saturating_sub(*offset as usize).min(*len);
                    return with_mapped(&file, *offset, len, |memory| Answer::Bytes(memory.to_vec()));
                }
                let mut bytes = vec![0xee; *len];
                let n = rustix::io::pread(&file, &mut bytes, *offset)?;
                bytes.truncate(n);
                return Ok(Answer::Bytes(bytes));
            }
            Call::Seek(ino, offset, data) => {
                let to = if *data { SeekFrom::Data(*offset) } else { SeekFrom::Hole(*offset) };
                return rustix::fs::seek(self.file(*ino, now)?, to).map(Answer::Number);
            }
            Call::SetMode(ino, mode) => {
                rustix::fs::chmod(&self.reach(*ino, now).path, Mode::from_raw_mode(mode & 0o7777))?;
            }
            Call::SetOwner(ino, uid, gid) => {
                let (uid, gid) = (Uid::from_raw(*uid), Gid::from_raw(*gid));
                rustix::fs::chown(&self.reach(*ino, now).path, Some(uid), Some(gid))?;
            }
            Call::SetTimes(ino, atime, mtime) => {
                let time = |t: &NewTime| match *t {
                    NewTime::Omit => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
                    NewTime::Now => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
                    NewTime::At((sec, nsec)) => Timespec { tv_sec: sec, tv_nsec: nsec.into() },
                };
                let times = Timestamps { last_access: time(atime), last_modification: time(mtime) };
                rustix::fs::utimensat(CWD, &self.reach(*ino, now).path, &times, AtFlags::empty())?;
            }
            Call::SetXattr(ino, name, value, existing) => {
                let flags = match existing {
                    Existing::Any => XattrFlags::empty(),
                    Existing::MustNot => XattrFlags::CREATE,
                    Existing::Must => XattrFlags::REPLACE,
                };
                rustix::fs::setxattr(&self.reach(*ino, now).path, &name.0[..], &value.bytes(), flags)?;
            }
            Call::RemoveXattr(ino, name) => {
                rustix::fs::removexattr(&self.reach(*ino, now).path, &name.0[..])?;
            }
            Call::Fsync(ino) => match now.is_dir(*ino) {
                true => rustix::fs::fsync(self.open_for(*ino, OFlags::DIRECTORY, now)?)?,
                false => rustix::fs::fsync(self.file(*ino, now)?)?,
            },
            Call::Sync => rustix::fs::sync(),
            Call::Syncfs => rustix::fs::syncfs(File::open(self.root()).unwrap())?,
            Call::Remount | Call::Crash => {
                self.leave(matches!(call, Call::Remount));
                self.mount();
            }
        }
        Ok(Answer::Done)
    }

    /// Everything from a path down.
    fn walk(&self, path: &Path, found: &mut Found) {
        let stat = rustix::fs::lstat(path).unwrap();
        if found.contains_key(&stat.st_ino) {
            return;
        }
        let kind = FileType::from_raw_mode(stat.st_mode);
        let seen = look_at(&reach(path.to_owned(), kind == FileType::Symlink));
        if let Content::Dir(names) = &seen.content {
            for (name, ino) in names {
                let path = path.join(OsStr::from_bytes(&name.0));
                assert_eq!(ino_of(&path), *ino, "{}", path.display());
            }
        }
        let names = match &seen.content {
            Content::Dir(names) => names.clone(),
            _ => vec![],
        };
        found.insert(stat.st_ino, seen);
        for (name, _) in names {
            self.walk(&path.join(OsStr::from_bytes(&name.0)), found);
        }
    }
}

fn ino_of(path: &Path) -> u64 {
    rustix::fs::lstat(path).unwrap().st_ino
}

/// Lends a part of a file as shared memory, and makes the file have it.
fn with_mapped<T>(file: &File, offset: u64, len: usize, f: impl FnOnce(&mut [u8]) -> T) -> Result<T, Errno> {
    let skip = offset as usize % BLOCK;
    let (start, whole) = (offset - skip as u64, skip + len);
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice, of a part of a file that nobody shortens meanwhile; it is
    // lent to `f` alone and unmapped after.
    unsafe {
        let address =
            rustix::mm::mmap(std::ptr::null_mut(), whole, protection, MapFlags::SHARED, file, start)?;
        let result = f(&mut std::slice::from_raw_parts_mut(address.cast::<u8>(), whole)[skip..]);
        let synced = rustix::mm::msync(address, whole, MsyncFlags::SYNC);
        rustix::mm::munmap(address, whole).unwrap();
        synced.map(|()| result)
    }
}

fn stat_at(path: &Path) -> Stat {
    let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let stat = rustix::fs::statx(CWD, path, AtFlags::empty(), mask).unwrap();
    let time = |t: rustix::fs::StatxTimestamp| -> Time { (t.tv_sec, t.tv_nsec) };
    let per_block = BLOCK as u64 / 512;
    assert!(stat.stx_blocks.is_multiple_of(per_block));
    Stat {
        mode: stat.stx_mode.into(),
        nlink: stat.stx_nlink,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        rdev: u64::from(stat.stx_rdev_major) << 32 | u64::from(stat.stx_rdev_minor),
        size: stat.stx_size,
        blocks: stat.stx_blocks / per_block,
        times: Times {
            mtime: time(stat.stx_mtime),
            ctime: time(stat.stx_ctime),
            btime: time(stat.stx_btime),
        },
    }
}

fn look_at(reached: &Reached) -> Seen {
    let path = &reached.path;
    let stat = stat_at(path);
    let content = match FileType::from_raw_mode(stat.mode) {
        FileType::Directory => {
            let entry = |entry: std::io::Result<fs::DirEntry>| {
                let entry = entry.unwrap();
                (Name(entry.file_name().as_bytes().to_vec()), entry.ino())
            };
            Content::Dir(read_dir(path).unwrap().map(entry).collect())
        }
        FileType::RegularFile => Content::File(fs::read(path).unwrap()),
        FileType::Symlink => {
            let link = open_at(CWD, path, OFlags::PATH, Mode::empty()).unwrap();
            Content::Link(rustix::fs::readlinkat(link, "", vec![]).unwrap().into_bytes())
        }
        _ => Content::Special,
    };
    Seen { stat, xattrs: xattrs_at(path), content }
}

/// All attributes; the hidden ones are asked for by name.
fn xattrs_at(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 65_536];
    let len = rustix::fs::listxattr(path, &mut names).unwrap();
    names.truncate(len);
    let names: Vec<&[u8]> = names.split(|b| *b == 0).filter(|name| !name.is_empty()).collect();
    assert!(HIDDEN.iter().all(|hidden| !names.contains(hidden)), "listed, but hidden");
    let mut buffer = vec![0; 65_536];
    let mut xattrs = BTreeMap::new();
    for name in names {
        let len = rustix::fs::getxattr(path, name, &mut buffer[..]).unwrap();
        xattrs.insert(name.to_vec(), buffer[..len].to_vec());
    }
    for name in HIDDEN {
        match rustix::fs::getxattr(path, name, &mut buffer[..]) {
            Ok(len) => drop(xattrs.insert(name.to_vec(), buffer[..len].to_vec())),
            Err(e) => assert_eq!(e, Errno::NODATA),
        }
    }
    xattrs
}

impl Subject for OnMount<'_> {
    fn rules(&self) -> Rules {
        RULES
    }

    fn call(&mut self, call: &Call, now: &Reference) -> Outcome<Answer> {
        self.carry_out(call, now).map_err(|e| {
            assert_ne!(e, Errno::IO);
            e.raw_os_error()
        })
    }

    fn stat(&mut self, ino: u64, now: &Reference) -> Stat {
        stat_at(&self.reach(ino, now).path)
    }

    fn look(&mut self, ino: u64, now: &Reference) -> Seen {
        look_at(&self.reach(ino, now))
    }

    fn tree(&mut self) -> Found {
        let mut found = Found::new();
        self.walk(self.root(), &mut found);
        found
    }

    fn search(&mut self, name: &[u8]) -> Vec<u64> {
        let mut inos = [0; 1000];
        let (n, _) =
            crate::xattrs::search(&File::open(self.root()).unwrap(), name, 0, u64::MAX, &mut inos).unwrap();
        inos[..n].to_vec()
    }
}
