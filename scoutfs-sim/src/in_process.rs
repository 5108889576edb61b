// SPDX-License-Identifier: GPL-2.0-only
//! Calls on a volume in memory that is mounted in this process.
//!
//! Between calls no lookup reference is kept but those of open files, as a kernel that forgets at once.

use std::collections::{BTreeMap, BTreeSet};

use scoutfs_env::IoBuf;
use scoutfs_env::time::Timespec;
use scoutfs_format::ioctl::FIEMAP_EXTENT_UNWRITTEN;
use scoutfs_format::item::{INO_GROUP, ROOT_INO};
use scoutfs_format::key::{KIND_DATA_SEQ, KIND_META_SEQ};
use scoutfs_fs::data::{AllocateMode, Copied};
use scoutfs_fs::dir::{NewInode, RenameFlags};
use scoutfs_fs::inode::kind::FileType;
use scoutfs_fs::inode::{Attr, Drops, SetAttr, SetTime};
use scoutfs_fs::xattr::{HiddenPosition, SetXattr, SetXattrMode};
use scoutfs_fs::{Error, Fs, Mount};

use crate::disk::Disk;
use crate::reference::{
    Allocate, Answer, BLOCK, Call, Content, Data, Existing, Found, Name, NewTime, Outcome, Reference, Rules,
    Seen, Stat, Subject, Target, Time, Times, Way,
};
use crate::volume::{Pace, issues, mount, new_volume};

/// Of all who work in this process.
pub(crate) const RULES: Rules = Rules { kernel: false, umask: 0o027, uid: 1000, gid: 1000 };

/// A mounted volume.
pub struct InProcess {
    disk: Disk,
    mount: Option<Mount>,
    open: Vec<u64>,
}

impl Default for InProcess {
    fn default() -> Self {
        Self::new()
    }
}

impl InProcess {
    /// A new volume, mounted.
    pub fn new() -> Self {
        let disk = new_volume();
        let mut volume = InProcess { disk, mount: None, open: vec![] };
        volume.mount();
        volume
    }

    fn mount(&mut self) {
        self.mount = Some(mount(&self.disk, Pace::Fast).expect("mounting"));
    }

    fn fs(&self) -> &Fs {
        self.mount.as_ref().expect("a mount").fs()
    }

    /// Leaves the mount: by an unmount, or by forgetting it.
    fn leave(&mut self, well: bool) {
        self.open.clear();
        let mount = self.mount.take().expect("a mount");
        if well {
            mount.unmount().expect("unmounting");
        }
        drop(mount);
        let (_, issues) = issues(&self.disk).expect("a volume that can be read");
        assert_eq!(issues, Vec::<String>::new());
    }

    /// The end of a test: an unmount and a check.
    pub fn end(mut self) {
        self.leave(true);
    }

    fn look_at(&self, ino: u64) -> Seen {
        let fs = self.fs();
        let attr = fs.getattr(ino).expect("attributes");
        let content = match FileType::of_mode(attr.mode) {
            Some(FileType::Directory) => Content::Dir(names(fs, ino)),
            Some(FileType::Regular) => {
                let mut data = vec![0xee; attr.size as usize + 10];
                let len = fs.read(ino, 0, &mut data).expect("data");
                assert_eq!(len as u64, attr.size);
                data.truncate(len);
                Content::File(data)
            }
            Some(FileType::Symlink) => Content::Link(fs.readlink(ino).expect("a target").to_vec()),
            _ => Content::Special,
        };
        Seen { stat: stat_of(&attr), xattrs: xattrs(fs, ino), content }
    }

    /// What programs do not see at once: extents, the change index, and that no inode is left that has no name.
    fn check_tree(&self, found: &Found) {
        let fs = self.fs();
        fs.sync().expect("sync");
        let attrs: Vec<Attr> = found.keys().map(|ino| fs.getattr(*ino).expect("attributes")).collect();
        for attr in attrs.iter().filter(|a| a.mode & 0o170000 == 0o100000) {
            let extents = fs.fiemap(attr.ino, 0, u64::MAX, usize::MAX).expect("extents");
            let bytes: u64 = extents.iter().map(|e| e.length.get()).sum();
            assert_eq!(
                (attr.blocks * 512, attr.online_blocks * BLOCK as u64),
                (bytes, bytes),
                "{}",
                attr.ino
            );
            let data = extents.iter().find(|e| e.flags.get() & FIEMAP_EXTENT_UNWRITTEN == 0);
            let data = data.map(|e| e.logical.get()).filter(|at| *at < attr.size);
            assert_eq!(fs.seek_data(attr.ino, 0).ok(), data, "data of {}", attr.ino);
        }
        let want = |seq: fn(&Attr) -> u64| {
            attrs.iter().map(|a| (seq(a), a.ino)).filter(|e| e.0 != 0).collect::<BTreeSet<_>>()
        };
        assert_eq!(index(fs, KIND_META_SEQ), want(|a| a.meta_seq), "the index of changes");
        assert_eq!(index(fs, KIND_DATA_SEQ), want(|a| a.data_seq), "the index of changes of data");
        let mut inos = vec![];
        // Each answer is about one group of inodes.
        for group in 0..found.keys().next_back().expect("a root") / INO_GROUP + 3 {
            let some = fs.allocated_inos(group * INO_GROUP, usize::MAX).expect("inode numbers");
            inos.extend(some.iter().copied());
        }
        inos.dedup();
        assert!(inos.iter().eq(found.keys()), "found {:?}, but {inos:?} are there", found.keys());
    }
}

fn index(fs: &Fs, kind: u8) -> BTreeSet<(u64, u64)> {
    let mut found = BTreeSet::new();
    let mut add = |seq, ino| {
        assert!(found.insert((seq, ino)), "an inode that is there twice");
        Ok(())
    };
    fs.walk_index(kind, (0, 0), (u64::MAX, u64::MAX), usize::MAX, &mut add).expect("a walk");
    found
}

fn names(fs: &Fs, dir: u64) -> Vec<(Name, u64)> {
    let mut names = vec![];
    let mut last = None;
    fs.readdir(dir, 0, &mut |entry| {
        assert!(last.is_none_or(|last| last < entry.pos) && entry.next_pos == entry.pos + 1);
        last = Some(entry.pos);
        names.push((Name(entry.name.to_vec()), entry.ino));
        true
    })
    .expect("names");
    assert_eq!(names.remove(0), (Name(b".".to_vec()), dir));
    assert_eq!(names.remove(0).0, Name(b"..".to_vec()));
    for (name, ino) in &names {
        assert_eq!(fs.lookup(dir, &name.0).expect("a name that is listed").ino, *ino);
        fs.forget(*ino, 1);
    }
    names
}

fn xattrs(fs: &Fs, ino: u64) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut list = vec![0; fs.listxattr(ino, &mut []).expect("a length")];
    assert_eq!(fs.listxattr(ino, &mut list).expect("names"), list.len());
    let (mut position, mut buf) = (HiddenPosition::default(), [0; 1000]);
    loop {
        match fs.list_hidden_xattrs(ino, &mut position, &mut buf).expect("hidden names") {
            0 => break,
            len => list.extend(&buf[..len]),
        }
    }
    let names = list.split_inclusive(|b| *b == 0).map(|name| &name[..name.len() - 1]);
    let value = |name: &[u8]| {
        let mut value = vec![0; 65_536];
        let len = fs.getxattr(ino, name, &mut value).expect("a value");
        value.truncate(len);
        value
    };
    names.map(|name| (name.to_vec(), value(name))).collect()
}

fn stat_of(attr: &Attr) -> Stat {
    let time = |t: Timespec| -> Time { (t.sec, t.nsec) };
    assert!(attr.blocks.is_multiple_of(BLOCK as u64 / 512));
    Stat {
        mode: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        size: attr.size,
        blocks: attr.blocks * 512 / BLOCK as u64,
        times: Times { mtime: time(attr.mtime), ctime: time(attr.ctime), btime: time(attr.crtime) },
    }
}

fn new_inode(mode: u32, rdev: u64) -> NewInode {
    NewInode { mode, umask: RULES.umask, rdev, uid: RULES.uid, gid: RULES.gid }
}

impl Subject for InProcess {
    fn rules(&self) -> Rules {
        RULES
    }

    fn call(&mut self, call: &Call, _: &Reference) -> Outcome<Answer> {
        match call {
            Call::Remount | Call::Crash => {
                self.leave(matches!(call, Call::Remount));
                self.mount();
                return Ok(Answer::Done);
            }
            Call::Close(which) => {
                let ino = self.open.swap_remove(*which);
                self.fs().release(ino, false);
                return Ok(Answer::Done);
            }
            _ => {}
        }
        let fs = self.fs();
        // As programs do that do not wait for the device.
        let later = |ino: u64, offset: Option<u64>, data: &Data| {
            let written = fs.write_later(ino, offset, &data.bytes(), Drops::Nothing)?;
            Ok(Answer::Number(written.1 as u64))
        };
        let answer = match call {
            Call::Write(ino, offset, data, Way::Buffered) => later(*ino, Some(*offset), data),
            Call::Append(ino, data) => later(*ino, None, data),
            call => carry_out(fs, call),
        };
        if let (Call::Open(ino), Ok(_)) = (call, &answer) {
            self.open.push(*ino);
        }
        answer.map_err(|e| {
            assert_ne!(e.errno(), 5, "{e}");
            e.errno()
        })
    }

    fn stat(&mut self, ino: u64, _: &Reference) -> Stat {
        stat_of(&self.fs().getattr(ino).expect("attributes"))
    }

    fn look(&mut self, ino: u64, _: &Reference) -> Seen {
        self.look_at(ino)
    }

    fn tree(&mut self) -> Found {
        let mut found = Found::new();
        let mut todo = vec![ROOT_INO];
        while let Some(ino) = todo.pop() {
            if found.contains_key(&ino) {
                continue;
            }
            let seen = self.look_at(ino);
            if let Content::Dir(names) = &seen.content {
                todo.extend(names.iter().map(|(_, ino)| ino));
            }
            found.insert(ino, seen);
        }
        self.check_tree(&found);
        found
    }

    fn search(&mut self, name: &[u8]) -> Vec<u64> {
        let mut found = vec![];
        let mut add = |ino| {
            found.push(ino);
            Ok(())
        };
        assert!(self.fs().search_xattrs(name, 0, u64::MAX, u64::MAX, &mut add).expect("a search"));
        found
    }
}

/// Writes as a kernel does that has the file's pages: it changes them, and writes them whole.
fn write_pages(fs: &Fs, ino: u64, offset: u64, data: &[u8]) -> Result<usize, Error> {
    const PAGE: u64 = 4096;
    let first = offset / PAGE * PAGE;
    let end = (offset + data.len() as u64).next_multiple_of(PAGE);
    let mut pages = IoBuf::zeroed((end - first) as usize)?;
    fs.open(ino, true)?;
    let written = (|| {
        fs.read(ino, first, &mut pages)?;
        let at = (offset - first) as usize;
        let mut copy = || {
            pages[at..at + data.len()].copy_from_slice(data);
            Copied { bytes: data.len(), may_be_read: false }
        };
        match fs.change_pages(ino, offset, data.len() as u64, &mut copy)? {
            Some(len) => fs.write_pages(ino, &[(first, &pages)], false).map(|()| len),
            None => fs.write(ino, offset, data),
        }
    })();
    fs.release(ino, true);
    written
}

/// Carries out a call on a mounted filesystem. A new inode's reference is given back at once.
pub(crate) fn carry_out(fs: &Fs, call: &Call) -> Result<Answer, Error> {
    let made = |attr: Result<Attr, Error>| {
        attr.map(|attr| {
            fs.forget(attr.ino, 1);
            Answer::Made(attr.ino)
        })
    };
    let done = |result: Result<(), Error>| result.map(|()| Answer::Done);
    let number = |result: Result<usize, Error>| result.map(|n| Answer::Number(n as u64));
    match call {
        Call::Create((dir, name), mode, rdev) => made(fs.create(*dir, &name.0, &new_inode(*mode, *rdev))),
        Call::Mkdir((dir, name), mode) => made(fs.mkdir(*dir, &name.0, &new_inode(*mode, 0))),
        Call::Symlink((dir, name), target) => {
            made(fs.symlink(*dir, &name.0, &target.bytes(), &new_inode(0o777, 0)))
        }
        Call::Tmpfile((dir, name), data) => {
            let ino = fs.tmpfile(*dir, &new_inode(0o100_644, 0), true)?.ino;
            fs.write_later(ino, Some(0), &data.bytes(), Drops::Nothing)?;
            let linked = link(fs, ino, *dir, &name.0);
            fs.forget(ino, 1);
            linked.map(|_| Answer::Made(ino))
        }
        Call::Link(ino, (dir, name)) => link(fs, *ino, *dir, &name.0),
        Call::Unlink((dir, name)) => done(fs.unlink(*dir, &name.0)),
        Call::Rmdir((dir, name)) => done(fs.rmdir(*dir, &name.0)),
        Call::Rename(from, to, how) => {
            let flags = match how {
                Target::Replace => RenameFlags::empty(),
                Target::NoReplace => RenameFlags::NOREPLACE,
                Target::Exchange => RenameFlags::EXCHANGE,
            };
            done(fs.rename(from.0, &from.1.0, to.0, &to.1.0, flags))
        }
        Call::Open(ino) => done(fs.open(*ino, false)),
        Call::Write(ino, offset, data, Way::Mapped) => number(write_pages(fs, *ino, *offset, &data.bytes())),
        Call::Write(ino, offset, data, _) => number(fs.write(*ino, *offset, &data.bytes())),
        Call::Append(ino, data) => number(fs.append(*ino, &data.bytes()).map(|(_, len)| len)),
        Call::Truncate(ino, size) => set(fs, *ino, SetAttr { size: Some(*size), ..SetAttr::default() }),
        Call::Allocate(ino, how, keep, offset, len) => {
            let mode = match how {
                Allocate::Fill => AllocateMode::Allocate,
                Allocate::Punch => AllocateMode::PunchHole,
                Allocate::Zero => AllocateMode::ZeroRange,
            };
            done(fs.fallocate(*ino, mode, *keep, *offset, *len))
        }
        Call::Copy(from, at, to, to_at, len) => {
            // As the kernel does for those that cannot.
            let mut data = vec![0; *len];
            let n = fs.read(*from, *at, &mut data)?;
            number(fs.write(*to, *to_at, &data[..n]))
        }
        Call::Read(ino, offset, len, _) => {
            let mut data = vec![0xee; *len];
            fs.read(*ino, *offset, &mut data).map(|n| Answer::Bytes(data[..n].to_vec()))
        }
        Call::Seek(ino, offset, true) => fs.seek_data(*ino, *offset).map(Answer::Number),
        Call::Seek(ino, offset, false) => fs.seek_hole(*ino, *offset).map(Answer::Number),
        Call::SetMode(ino, mode) => set(fs, *ino, SetAttr { mode: Some(*mode), ..SetAttr::default() }),
        Call::SetOwner(ino, uid, gid) => {
            set(fs, *ino, SetAttr { uid: Some(*uid), gid: Some(*gid), ..SetAttr::default() })
        }
        // Without anything to set the kernel does not ask.
        Call::SetTimes(_, NewTime::Omit, NewTime::Omit) => Ok(Answer::Done),
        Call::SetTimes(ino, atime, mtime) => {
            let at = |t: &NewTime| match *t {
                NewTime::Omit => None,
                NewTime::Now => Some(SetTime::Now),
                NewTime::At((sec, nsec)) => Some(SetTime::At(Timespec { sec, nsec })),
            };
            set(fs, *ino, SetAttr { atime: at(atime), mtime: at(mtime), ..SetAttr::default() })
        }
        Call::SetXattr(ino, name, value, existing) => {
            let mode = match existing {
                Existing::Any => SetXattrMode::Any,
                Existing::MustNot => SetXattrMode::Create,
                Existing::Must => SetXattrMode::Replace,
            };
            let how = SetXattr { mode, privileged: true, kill_sgid: false };
            done(fs.setxattr(*ino, &name.0, &value.bytes(), how))
        }
        Call::RemoveXattr(ino, name) => done(fs.removexattr(*ino, &name.0, true)),
        Call::Fsync(ino) => done(fs.fsync(*ino)),
        Call::Syncfs | Call::Sync => done(fs.sync()),
        Call::Close(_) | Call::Remount | Call::Crash => unreachable!("not an operation of the filesystem"),
    }
}

fn link(fs: &Fs, ino: u64, dir: u64, name: &[u8]) -> Result<Answer, Error> {
    let attr = fs.link(ino, dir, name)?;
    fs.forget(ino, 1);
    is_as_told(fs, &attr)
}

fn set(fs: &Fs, ino: u64, set: SetAttr) -> Result<Answer, Error> {
    is_as_told(fs, &fs.setattr(ino, &set)?)
}

/// A kernel keeps the attributes that an answer tells: they are those that it is told when it asks.
fn is_as_told(fs: &Fs, told: &Attr) -> Result<Answer, Error> {
    assert_eq!(
        stat_of(told),
        stat_of(&fs.getattr(told.ino)?),
        "attributes of inode {} in an answer",
        told.ino
    );
    Ok(Answer::Done)
}
