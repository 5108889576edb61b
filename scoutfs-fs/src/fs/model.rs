// SPDX-License-Identifier: GPL-2.0-only
//! Random operations on the real stack and on a filesystem of a few lines in memory: every answer is equal.

use std::collections::BTreeMap;
use std::vec::Vec;
use std::{format, vec};

use proptest::prelude::*;
use scoutfs_format::item::ROOT_INO;

use super::model_acl::{self, ACCESS, DEFAULT, some_list};
use super::testing::{Content, DIR, FILE, Node, TestFs, bytes, long_name};
use crate::data::AllocateMode;
use crate::dir::{NewInode, RenameFlags};
use crate::error::Error;
use crate::inode::SetAttr;
use crate::xattr::{SetXattr, SetXattrMode};

/// Of all who make something.
const UMASK: u32 = 0o027;

/// Directories, names and files are picked by number: the same few again and again.
#[derive(Clone, Debug)]
enum Op {
    Create(u8, u8, u32),
    Mkdir(u8, u8, u32),
    Symlink(u8, u8, u16),
    Link(u8, u8, u8),
    Unlink(u8, u8),
    Rmdir(u8, u8),
    Rename(u8, u8, u8, u8, u32),
    Tmpfile(u8, u8),
    Open(u8),
    Close(u8),
    Write(u8, u64, usize),
    Append(u8, usize),
    Truncate(u8, u64),
    Allocate(u8, u8, bool, u64, u64),
    Read(u8, u64, usize),
    SetMode(u8, u32),
    SetOwner(u8, u32, u32),
    SetXattr(u8, u8, usize, u8),
    RemoveXattr(u8, u8),
    SetAcl(u8, bool, u8),
    Fsync(u8),
    Remount,
    SyncAndCrash,
}

fn offset() -> impl Strategy<Value = u64> {
    let near = (0u64..40, -2i64..3).prop_map(|(block, by)| (block * 4096).saturating_add_signed(by));
    prop_oneof![near, 0u64..160_000, Just(0)]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..200, Just(4096), Just(8192), 1usize..150_000]
}

fn any_op() -> impl Strategy<Value = Op> {
    let (n, f) = (0u8..6, any::<u8>());
    let mode = || prop_oneof![Just(0o100644u32), Just(0o100600), Just(0o010644), Just(0o140700)];
    let d = any::<u8>;
    prop_oneof![
        8 => (d(), n.clone(), mode()).prop_map(|(d, n, m)| Op::Create(d, n, m)),
        5 => (d(), n.clone(), prop_oneof![Just(0o755u32), Just(0o2775)]).prop_map(|(d, n, m)| Op::Mkdir(d, n, m)),
        1 => (d(), n.clone(), 1u16..4096).prop_map(|(d, n, len)| Op::Symlink(d, n, len)),
        3 => (f, d(), n.clone()).prop_map(|(f, d, n)| Op::Link(f, d, n)),
        4 => (d(), n.clone()).prop_map(|(d, n)| Op::Unlink(d, n)),
        2 => (d(), n.clone()).prop_map(|(d, n)| Op::Rmdir(d, n)),
        8 => (d(), n.clone(), d(), n.clone(), 0u32..3)
            .prop_map(|(d, n, e, m, flags)| Op::Rename(d, n, e, m, flags)),
        2 => (d(), n.clone()).prop_map(|(d, n)| Op::Tmpfile(d, n)),
        3 => d().prop_map(Op::Open),
        2 => d().prop_map(Op::Close),
        12 => (d(), offset(), length()).prop_map(|(f, o, l)| Op::Write(f, o, l)),
        6 => (d(), length()).prop_map(|(f, l)| Op::Append(f, l)),
        8 => (d(), offset()).prop_map(|(f, o)| Op::Truncate(f, o)),
        6 => (d(), 0u8..3, any::<bool>(), offset(), 1u64..100_000)
            .prop_map(|(f, m, k, o, l)| Op::Allocate(f, m, k, o, l)),
        4 => (d(), offset(), length()).prop_map(|(f, o, l)| Op::Read(f, o, l)),
        1 => (d(), any::<u32>()).prop_map(|(f, m)| Op::SetMode(f, m)),
        1 => (d(), any::<u32>(), any::<u32>()).prop_map(|(f, u, g)| Op::SetOwner(f, u, g)),
        5 => (d(), 0u8..7, prop_oneof![0usize..300, 3500usize..9000, Just(65_535), Just(65_536)], 0u8..3)
            .prop_map(|(f, n, l, m)| Op::SetXattr(f, n, l, m)),
        2 => (d(), 0u8..9).prop_map(|(f, n)| Op::RemoveXattr(f, n)),
        5 => (d(), any::<bool>(), 0u8..5).prop_map(|(f, access, which)| Op::SetAcl(f, access, which)),
        1 => d().prop_map(Op::Fsync),
        1 => Just(Op::Remount),
        1 => Just(Op::SyncAndCrash),
    ]
}

fn name(n: u8) -> Vec<u8> {
    match n {
        5 => long_name("long", 255).into_bytes(),
        _ => vec![b'a' + n],
    }
}

fn xattr_name(n: u8) -> Vec<u8> {
    match n {
        3 => long_name("trusted.", 255).into_bytes(),
        4..7 => SRCH_NAMES[usize::from(n) - 4].to_vec(),
        7 => ACCESS.to_vec(),
        8 => DEFAULT.to_vec(),
        _ => format!("user.{n}").into_bytes(),
    }
}

/// Names with tags; those with one for the search index first.
const SRCH_NAMES: [&[u8]; 3] = [b"scoutfs.srch.m", b"scoutfs.hide.srch.m", b"scoutfs.hide.m"];

/// The reference: inodes by the numbers that the real filesystem gave them.
struct Model {
    nodes: BTreeMap<u64, Node>,
    /// Open files.
    open: Vec<u64>,
}

type Answer<T> = Result<T, i32>;
const ENOENT: i32 = 2;
const EEXIST: i32 = 17;
const ENOTDIR: i32 = 20;
const EISDIR: i32 = 21;
const EINVAL: i32 = 22;
const ENOTEMPTY: i32 = 39;

impl Model {
    fn new() -> Self {
        Model {
            nodes: BTreeMap::from([(ROOT_INO, new_node(0o040755, 0, 0, Content::Dir(vec![])))]),
            open: vec![],
        }
    }

    fn dirs(&self) -> Vec<u64> {
        let is_dir = |n: &Node| matches!(n.content, Content::Dir(_)) && n.nlink > 0;
        self.nodes.iter().filter(|(_, n)| is_dir(n)).map(|(ino, _)| *ino).collect()
    }

    fn dir(&self, pick: u8) -> u64 {
        let dirs = self.dirs();
        dirs[usize::from(pick) % dirs.len()]
    }

    /// Any inode that can be reached: by name, or because it is open.
    fn any(&self, pick: u8) -> u64 {
        *self.nodes.keys().nth(usize::from(pick) % self.nodes.len()).unwrap()
    }

    /// Most often a regular file, if there is one.
    fn a_file(&self, pick: u8) -> u64 {
        let is_file = |(_, n): &(&u64, &Node)| matches!(n.content, Content::File(_));
        let files: Vec<u64> = self.nodes.iter().filter(is_file).map(|(ino, _)| *ino).take(4).collect();
        match usize::from(pick) {
            pick if files.is_empty() || pick.is_multiple_of(16) => self.any(pick as u8),
            pick => files[pick % files.len()],
        }
    }

    fn entries(&mut self, dir: u64) -> &mut Vec<(Vec<u8>, u64)> {
        match &mut self.nodes.get_mut(&dir).unwrap().content {
            Content::Dir(entries) => entries,
            _ => panic!("not a directory"),
        }
    }

    fn find(&self, dir: u64, name: &[u8]) -> Option<u64> {
        match &self.nodes[&dir].content {
            Content::Dir(entries) => entries.iter().find(|(n, _)| n == name).map(|(_, ino)| *ino),
            _ => None,
        }
    }

    fn is_dir(&self, ino: u64) -> bool {
        matches!(self.nodes[&ino].content, Content::Dir(_))
    }

    fn add(&mut self, dir: u64, name: &[u8], ino: u64) {
        self.entries(dir).push((name.to_vec(), ino));
        self.nodes.get_mut(&dir).unwrap().size += name.len() as u64;
        if self.is_dir(ino) {
            self.nodes.get_mut(&dir).unwrap().nlink += 1;
        }
    }

    fn remove(&mut self, dir: u64, name: &[u8]) {
        let ino = self.find(dir, name).unwrap();
        self.entries(dir).retain(|(n, _)| n != name);
        self.nodes.get_mut(&dir).unwrap().size -= name.len() as u64;
        if self.is_dir(ino) {
            self.nodes.get_mut(&dir).unwrap().nlink -= 1;
        }
    }

    fn drop_link(&mut self, ino: u64) {
        let is_dir = self.is_dir(ino);
        let node = self.nodes.get_mut(&ino).unwrap();
        node.nlink = if is_dir { 0 } else { node.nlink - 1 };
        self.reap(ino);
    }

    fn reap(&mut self, ino: u64) {
        if self.nodes[&ino].nlink == 0 && !self.open.contains(&ino) {
            self.nodes.remove(&ino);
        }
    }

    fn is_above(&self, upper: u64, lower: u64) -> bool {
        if upper == lower {
            return true;
        }
        match &self.nodes[&upper].content {
            Content::Dir(entries) => {
                entries.iter().any(|(_, ino)| self.is_dir(*ino) && self.is_above(*ino, lower))
            }
            _ => false,
        }
    }

    fn rename(&mut self, from: (u64, &[u8]), to: (u64, &[u8]), flags: u32) -> Answer<()> {
        let source = self.find(from.0, from.1).ok_or(ENOENT)?;
        let target = self.find(to.0, to.1);
        match (flags, target) {
            (1, Some(_)) => return Err(EEXIST),
            (2, None) => return Err(ENOENT),
            _ => {}
        }
        if from.0 != to.0 && self.is_dir(source) && self.is_above(source, to.0) {
            return Err(EINVAL);
        }
        let Some(target) = target.filter(|t| *t != source) else {
            if target.is_none() {
                self.remove(from.0, from.1);
                self.add(to.0, to.1, source);
            }
            return Ok(());
        };
        if flags == 2 {
            if from.0 != to.0 && self.is_dir(target) && self.is_above(target, from.0) {
                return Err(EINVAL);
            }
            self.remove(from.0, from.1);
            self.remove(to.0, to.1);
            self.add(from.0, from.1, target);
            self.add(to.0, to.1, source);
            return Ok(());
        }
        match (self.is_dir(source), self.is_dir(target)) {
            (true, false) => return Err(ENOTDIR),
            (false, true) => return Err(EISDIR),
            (true, true) if !self.entries(target).is_empty() => return Err(ENOTEMPTY),
            _ => {}
        }
        self.remove(from.0, from.1);
        self.remove(to.0, to.1);
        self.add(to.0, to.1, source);
        self.drop_link(target);
        Ok(())
    }

    /// A search finds those that have the attribute, and no others.
    fn check_search(&self, fs: &TestFs) {
        for name in &SRCH_NAMES[..2] {
            let with = self.nodes.iter().filter(|(_, node)| node.xattrs.contains_key(*name));
            assert_eq!(fs.search(name), with.map(|(ino, _)| *ino).collect::<Vec<_>>());
        }
    }

    fn file(&mut self, ino: u64) -> Answer<&mut Vec<u8>> {
        match &mut self.nodes.get_mut(&ino).unwrap().content {
            Content::File(data) => Ok(data),
            Content::Dir(_) => Err(EISDIR),
            _ => Err(EINVAL),
        }
    }

    fn resize(&mut self, ino: u64, len: usize) -> Answer<()> {
        self.file(ino)?.resize(len, 0);
        self.nodes.get_mut(&ino).unwrap().size = len as u64;
        Ok(())
    }

    fn write(&mut self, ino: u64, offset: usize, data: &[u8]) -> Answer<()> {
        let end = offset + data.len();
        if self.file(ino)?.len() < end {
            self.resize(ino, end)?;
        }
        self.file(ino)?[offset..end].copy_from_slice(data);
        Ok(())
    }
}

fn new_node(mode: u32, uid: u32, gid: u32, content: Content) -> Node {
    let (nlink, size) = match &content {
        Content::Dir(_) => (2, 0),
        Content::Link(target) => (1, target.len() as u64),
        _ => (1, 0),
    };
    Node { mode, nlink, uid, gid, rdev: 0, size, xattrs: BTreeMap::new(), content }
}

fn errno<T>(result: crate::error::Result<T>) -> Answer<T> {
    result.map_err(|e: Error| {
        assert_ne!(e.errno(), 5, "{e}");
        e.errno()
    })
}

/// Makes an inode in both, if it can be made.
fn make(
    fs: &TestFs,
    model: &mut Model,
    dir: u64,
    name: &[u8],
    mode: u32,
    content: Content,
    real: crate::error::Result<crate::inode::Attr>,
) {
    let taken = model.find(dir, name).is_some();
    let attr = match errno(real) {
        Ok(attr) => attr,
        Err(e) => {
            assert!(taken && e == EEXIST, "{e}");
            return;
        }
    };
    assert!(!taken);
    let parent = &model.nodes[&dir];
    let inherits = parent.mode & 0o2000 != 0;
    let gid = if inherits { parent.gid } else { FILE.gid };
    let is_dir = matches!(content, Content::Dir(_));
    let is_link = matches!(content, Content::Link(_));
    let (mode, xattrs) = match is_link {
        true => (mode, BTreeMap::new()),
        false => model_acl::inherit(&parent.xattrs, mode, UMASK, is_dir),
    };
    let mode = if inherits && is_dir { mode | 0o2000 } else { mode };
    model.nodes.insert(attr.ino, Node { xattrs, ..new_node(mode, FILE.uid, gid, content) });
    model.add(dir, name, attr.ino);
    fs.forget(attr.ino, 1);
}

fn run(fs: &mut TestFs, model: &mut Model, op: &Op, seed: u64) {
    match *op {
        Op::Create(d, n, mode) => {
            let (dir, name) = (model.dir(d), name(n));
            let content = if mode & 0o170000 == 0o100000 { Content::File(vec![]) } else { Content::Special };
            let real = fs.create(dir, &name, &NewInode { mode, umask: UMASK, ..FILE });
            make(fs, model, dir, &name, mode, content, real);
        }
        Op::Mkdir(d, n, mode) => {
            let (dir, name) = (model.dir(d), name(n));
            let real = fs.mkdir(dir, &name, &NewInode { mode, umask: UMASK, ..DIR });
            make(fs, model, dir, &name, 0o040000 | mode, Content::Dir(vec![]), real);
        }
        Op::Symlink(d, n, len) => {
            let (dir, name, target) = (model.dir(d), name(n), bytes(seed, len.into()));
            let real = fs.symlink(dir, &name, &target, &NewInode { mode: 0o777, ..FILE });
            make(fs, model, dir, &name, 0o120777, Content::Link(target), real);
        }
        Op::Link(f, d, n) => {
            let (ino, dir, name) = (model.any(f), model.dir(d), name(n));
            let want = if model.is_dir(ino) {
                Err(1)
            } else if model.find(dir, &name).is_some() {
                Err(EEXIST)
            } else if model.nodes[&ino].nlink == 0 {
                Err(ENOENT)
            } else {
                model.nodes.get_mut(&ino).unwrap().nlink += 1;
                model.add(dir, &name, ino);
                Ok(())
            };
            let real = errno(fs.link(ino, dir, &name)).map(|attr| fs.forget(attr.ino, 1));
            assert_eq!(real, want);
        }
        Op::Unlink(d, n) => {
            let (dir, name) = (model.dir(d), name(n));
            let want = match model.find(dir, &name) {
                None => Err(ENOENT),
                Some(ino) if model.is_dir(ino) => Err(EISDIR),
                Some(ino) => {
                    model.remove(dir, &name);
                    model.drop_link(ino);
                    Ok(())
                }
            };
            assert_eq!(errno(fs.unlink(dir, &name)), want);
        }
        Op::Rmdir(d, n) => {
            let (dir, name) = (model.dir(d), name(n));
            let want = match model.find(dir, &name) {
                None => Err(ENOENT),
                Some(ino) if !model.is_dir(ino) => Err(ENOTDIR),
                Some(ino) if !model.entries(ino).is_empty() => Err(ENOTEMPTY),
                Some(ino) => {
                    model.remove(dir, &name);
                    model.drop_link(ino);
                    Ok(())
                }
            };
            assert_eq!(errno(fs.rmdir(dir, &name)), want);
        }
        Op::Rename(d, n, e, m, flags) => {
            let (from, to) = ((model.dir(d), name(n)), (model.dir(e), name(m)));
            let flags_of = RenameFlags::from_bits(flags).unwrap();
            let real = errno(fs.rename(from.0, &from.1, to.0, &to.1, flags_of));
            assert_eq!(real, model.rename((from.0, &from.1), (to.0, &to.1), flags));
        }
        Op::Tmpfile(d, n) => {
            let (dir, name) = (model.dir(d), name(n));
            let ino = errno(fs.tmpfile(dir, &NewInode { umask: UMASK, ..FILE }, true)).unwrap().ino;
            let data = bytes(seed, 5000);
            assert_eq!(errno(fs.write(ino, 0, &data)), Ok(data.len()));
            let real = errno(fs.link(ino, dir, &name)).map(|attr| fs.forget(attr.ino, 1));
            let taken = model.find(dir, &name).is_some();
            assert_eq!(real, if taken { Err(EEXIST) } else { Ok(()) });
            if !taken {
                make(fs, model, dir, &name, FILE.mode, Content::File(vec![]), fs.lookup(dir, &name));
                model.write(ino, 0, &data).unwrap();
            }
            fs.forget(ino, 1);
        }
        Op::Open(f) => {
            let ino = model.any(f);
            assert_eq!(errno(fs.open(ino)), Ok(()));
            model.open.push(ino);
        }
        Op::Close(f) => {
            if !model.open.is_empty() {
                let ino = model.open.swap_remove(usize::from(f) % model.open.len());
                fs.release(ino);
                model.reap(ino);
            }
        }
        Op::Write(f, offset, len) => {
            let (ino, data) = (model.a_file(f), bytes(seed, len));
            let real = errno(fs.write(ino, offset, &data));
            assert_eq!(real, model.write(ino, offset as usize, &data).map(|()| len));
        }
        Op::Append(f, len) => {
            let (ino, data) = (model.a_file(f), bytes(seed, len));
            let end = model.file(ino).map(|file| file.len());
            let real = errno(fs.append(ino, &data));
            assert_eq!(real, end.map(|end| (end as u64, len)));
            if let Ok(end) = end {
                model.write(ino, end, &data).unwrap();
            }
        }
        Op::Truncate(f, size) => {
            let ino = model.a_file(f);
            let real = errno(fs.setattr(ino, &SetAttr { size: Some(size), ..SetAttr::default() }));
            assert_eq!(real.map(|attr| attr.size), model.resize(ino, size as usize).map(|()| size));
        }
        Op::Allocate(f, m, keep, offset, len) => {
            let ino = model.a_file(f);
            let modes = [AllocateMode::Allocate, AllocateMode::PunchHole, AllocateMode::ZeroRange];
            let mode = modes[usize::from(m)];
            let real = errno(fs.fallocate(ino, mode, keep, offset, len));
            let want = model.file(ino).map(|data| {
                let end = (offset + len) as usize;
                let grows = !keep && mode != AllocateMode::PunchHole;
                let size = if grows { data.len().max(end) } else { data.len() };
                data.resize(size, 0);
                if mode != AllocateMode::Allocate {
                    let start = size.min(offset as usize);
                    data[start..end.min(size)].fill(0);
                }
                size
            });
            if let Ok(size) = want {
                model.resize(ino, size).unwrap();
            }
            assert_eq!(real, want.map(|_| ()));
        }
        Op::Read(f, offset, len) => {
            let ino = model.a_file(f);
            let mut data = vec![0xee; len];
            let real = errno(fs.read(ino, offset, &mut data)).map(|read| data[..read].to_vec());
            let want = model.file(ino).map(|file| {
                let start = file.len().min(offset as usize);
                file[start..file.len().min(start + len)].to_vec()
            });
            assert_eq!(real, want);
        }
        Op::SetMode(f, mode) => {
            let ino = model.any(f);
            let real = errno(fs.setattr(ino, &SetAttr { mode: Some(mode), ..SetAttr::default() })).unwrap();
            let node = model.nodes.get_mut(&ino).unwrap();
            node.mode = node.mode & 0o170000 | mode & 0o7777;
            model_acl::follow(&mut node.xattrs, node.mode);
            assert_eq!(real.mode, node.mode);
        }
        Op::SetOwner(f, uid, gid) => {
            let ino = model.any(f);
            let set = SetAttr { uid: Some(uid), gid: Some(gid), ..SetAttr::default() };
            let real = errno(fs.setattr(ino, &set)).unwrap();
            let node = model.nodes.get_mut(&ino).unwrap();
            (node.uid, node.gid) = (uid, gid);
            assert_eq!((real.uid, real.gid), (uid, gid));
        }
        Op::SetXattr(f, n, len, m) => {
            let (ino, name, value) = (model.a_file(f), xattr_name(n), bytes(seed, len));
            let mode = [SetXattrMode::Any, SetXattrMode::Create, SetXattrMode::Replace][usize::from(m)];
            let xattrs = &mut model.nodes.get_mut(&ino).unwrap().xattrs;
            let want = match (mode, xattrs.contains_key(&name)) {
                _ if len > 65_535 => Err(7),
                (SetXattrMode::Create, true) => Err(EEXIST),
                (SetXattrMode::Replace, false) => Err(61),
                _ => {
                    xattrs.insert(name.clone(), value.clone());
                    Ok(())
                }
            };
            let how = SetXattr { mode, privileged: true, kill_sgid: false };
            assert_eq!(errno(fs.setxattr(ino, &name, &value, how)), want);
        }
        Op::SetAcl(f, access, which) => {
            let (ino, list) = (model.any(f), some_list(which));
            let name = if access { ACCESS } else { DEFAULT };
            let node = model.nodes.get_mut(&ino).unwrap();
            let want = match &node.content {
                // Whether it is a list is looked at first.
                _ if which == 4 => Err(EINVAL),
                Content::Link(_) => Err(95),
                Content::Dir(_) => Ok(()),
                _ if access => Ok(()),
                _ => Err(13),
            };
            if want.is_ok() {
                model_acl::set(&mut node.xattrs, &mut node.mode, name, list.clone());
            }
            assert_eq!(errno(fs.setxattr(ino, name, &list, SetXattrMode::Any)), want);
        }
        Op::RemoveXattr(f, n) => {
            let (ino, name) = (model.any(f), xattr_name(n));
            let had = model.nodes.get_mut(&ino).unwrap().xattrs.remove(&name);
            assert_eq!(errno(fs.removexattr(ino, &name, true)), had.map(|_| ()).ok_or(61));
        }
        Op::Fsync(f) => assert_eq!(errno(fs.fsync(model.any(f))), Ok(())),
        // Files that were open and unlinked are gone after both.
        Op::Remount | Op::SyncAndCrash => {
            if matches!(op, Op::Remount) {
                fs.remount();
            } else {
                fs.sync().unwrap();
                fs.crash();
            }
            model.open.clear();
            model.nodes.retain(|_, node| node.nlink > 0);
            model.check_search(fs);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_operations_answer_as_the_reference_does(ops in prop::collection::vec(any_op(), 1..120)) {
        let mut fs = TestFs::new();
        let mut model = Model::new();
        // As the reference does not know it.
        let root = &fs.node(ROOT_INO);
        prop_assert_eq!((root.mode, root.nlink, root.size), (0o040755, 2, 0));
        for (seed, op) in ops.iter().enumerate() {
            run(&mut fs, &mut model, op, seed as u64);
        }
        // Those that are open and unlinked are found as long as they are.
        model.check_search(&fs);
        for ino in core::mem::take(&mut model.open) {
            prop_assert_eq!(&fs.node(ino), &model.nodes[&ino]);
            fs.release(ino);
        }
        model.nodes.retain(|_, node| node.nlink > 0);
        model.check_search(&fs);
        prop_assert_eq!(&fs.verify(), &model.nodes);
        fs.remount();
        prop_assert_eq!(&fs.verify(), &model.nodes);
    }
}
