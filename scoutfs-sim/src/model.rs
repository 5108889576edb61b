// SPDX-License-Identifier: GPL-2.0-only
//! A small workload on two names in each of two directories, and what the tree must be after each of its operations.

use scoutfs_format::item::ROOT_INO;
use scoutfs_fs::data::AllocateMode;
use scoutfs_fs::dir::{NewInode, RenameFlags};
use scoutfs_fs::inode::SetAttr;
use scoutfs_fs::xattr::{SetXattr, SetXattrMode};
use scoutfs_fs::{Error, Fs};

use crate::rng::Rng;
use crate::tree::{Content, Node, Tree};

const DIRS: [&[u8]; 2] = [b"a", b"b"];
const NAMES: [&[u8]; 2] = [b"x", b"y"];
/// The second one is in the search index.
const XATTRS: [&[u8]; 2] = [b"user.one", b"scoutfs.srch.two"];
const FILE: NewInode = NewInode { mode: 0o100_644, umask: 0, uid: 0, gid: 0, rdev: 0 };
const DIR: NewInode = NewInode { mode: 0o040_755, umask: 0, uid: 0, gid: 0, rdev: 0 };
const LINK: NewInode = NewInode { mode: 0o120_777, umask: 0, uid: 0, gid: 0, rdev: 0 };

/// One of the names: which directory, which name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    dir: usize,
    name: usize,
}

impl Place {
    /// The name with this number, 0 or 1, in the directory with this number, 0 or 1.
    pub const fn new(dir: usize, name: usize) -> Place {
        Place { dir, name }
    }
}

/// An operation.
#[derive(Clone, Debug)]
// The names say it; each stands for the system call of that name.
#[allow(missing_docs)]
pub enum Op {
    Create(Place),
    Symlink(Place),
    Link(Place, Place),
    Unlink(Place),
    Rename(Place, Place),
    Exchange(Place, Place),
    Write(Place, u64, Vec<u8>),
    Truncate(Place, u64),
    SetXattr(Place, usize, Vec<u8>),
    RemoveXattr(Place, usize),
    Mkdir(Place),
    Rmdir(Place),
    Allocate(Place, u64),
}

/// The tree as it must be, and where the directories are.
#[derive(Clone, Debug)]
pub struct Model {
    /// The tree.
    pub tree: Tree,
    dirs: [u64; 2],
}

impl Model {
    /// Makes the two directories.
    pub fn set_up(fs: &Fs) -> Result<Model, Error> {
        let mut dirs = [0; 2];
        let mut root = std::collections::BTreeMap::new();
        let mut tree = Tree::new();
        for (ino, name) in dirs.iter_mut().zip(DIRS) {
            *ino = fs.mkdir(ROOT_INO, name, &DIR)?.ino;
            fs.forget(*ino, 1);
            root.insert(name.to_vec(), *ino);
            tree.insert(*ino, node(2, Content::Dir(Default::default())));
        }
        tree.insert(ROOT_INO, node(4, Content::Dir(root)));
        Ok(Model { tree, dirs })
    }

    fn entries(&mut self, dir: usize) -> &mut std::collections::BTreeMap<Vec<u8>, u64> {
        match self.tree.get_mut(&self.dirs[dir]).map(|node| &mut node.content) {
            Some(Content::Dir(entries)) => entries,
            _ => unreachable!("a directory that stays"),
        }
    }

    /// The inode that a name stands for.
    pub fn find(&self, at: Place) -> Option<u64> {
        match &self.tree[&self.dirs[at.dir]].content {
            Content::Dir(entries) => entries.get(NAMES[at.name]).copied(),
            _ => None,
        }
    }

    /// Whether a name stands for a directory.
    pub fn is_dir(&self, at: Place) -> bool {
        self.find(at).is_some_and(|ino| matches!(self.tree[&ino].content, Content::Dir(_)))
    }

    /// Bytes of the regular file that a name stands for.
    pub fn file_len(&self, at: Place) -> Option<u64> {
        match &self.tree[&self.find(at)?].content {
            Content::File(bytes) => Some(bytes.len() as u64),
            _ => None,
        }
    }

    /// Whether the inode that a name stands for has an attribute.
    pub fn has_xattr(&self, at: Place, which: usize) -> bool {
        self.find(at).is_some_and(|ino| self.tree[&ino].xattrs.contains_key(XATTRS[which]))
    }

    /// Whether a name can replace another.
    pub fn can_rename(&self, from: Place, to: Place) -> bool {
        self.find(from).is_some() && (self.find(to).is_none() || self.is_dir(from) == self.is_dir(to))
    }

    fn node(&mut self, at: Place) -> &mut Node {
        let ino = self.find(at).expect("a name that is there");
        self.tree.get_mut(&ino).expect("an inode with a name")
    }

    fn put(&mut self, at: Place, ino: u64) {
        self.entries(at.dir).insert(NAMES[at.name].to_vec(), ino);
        if self.is_dir(at) {
            self.dir_node(at.dir).nlink += 1;
        }
    }

    fn dir_node(&mut self, dir: usize) -> &mut Node {
        self.tree.get_mut(&self.dirs[dir]).expect("a directory that stays")
    }

    /// Takes a name away, and gives what it stood for.
    fn take_name(&mut self, at: Place) -> Option<u64> {
        if self.is_dir(at) {
            self.dir_node(at.dir).nlink -= 1;
        }
        self.entries(at.dir).remove(NAMES[at.name])
    }

    fn drop_name(&mut self, at: Place) {
        let is_dir = self.is_dir(at);
        if let Some(ino) = self.take_name(at)
            && let Some(node) = self.tree.get_mut(&ino)
        {
            node.nlink -= if is_dir { 2 } else { 1 };
            if node.nlink == 0 {
                self.tree.remove(&ino);
            }
        }
    }

    /// A random operation that succeeds.
    pub fn random_op(&self, rng: &mut Rng) -> Op {
        let place = |rng: &mut Rng| Place { dir: rng.below(2), name: rng.below(2) };
        let at = place(rng);
        let Some(ino) = self.find(at) else {
            return if rng.one_in(5) { Op::Symlink(at) } else { Op::Create(at) };
        };
        let Content::File(bytes) = &self.tree[&ino].content else {
            return if rng.one_in(2) { Op::Unlink(at) } else { Op::Rename(at, place(rng)) };
        };
        let other = place(rng);
        let which = rng.below(2);
        match rng.below(12) {
            0..4 => {
                let len = *rng.pick(&[10, 600, 4096, 9000]);
                let offset = *rng.pick(&[0, bytes.len() as u64, 4096, 5000]);
                Op::Write(at, offset, content(rng.next_u64(), len))
            }
            4 => Op::Unlink(at),
            5 | 6 if other != at => Op::Rename(at, other),
            7 if other != at && self.find(other).is_some() => Op::Exchange(at, other),
            7 | 8 if self.find(other).is_none() => Op::Link(at, other),
            9 => Op::Truncate(at, *rng.pick(&[0, 1, 700, 4096, 20_000])),
            10 if self.tree[&ino].xattrs.contains_key(XATTRS[which]) => Op::RemoveXattr(at, which),
            _ => {
                let len = *rng.pick(&[0, 30, 5000, 60_000]);
                Op::SetXattr(at, which, content(rng.next_u64(), len))
            }
        }
    }

    /// Does an operation on the filesystem and here. Gives the inode that it changed, if that still has a name.
    pub fn apply(&mut self, fs: &Fs, op: &Op) -> Result<Option<u64>, Error> {
        let made = self.run(fs, op)?;
        Ok(self.note(op, made))
    }

    /// Does an operation here alone. A new inode gets a number that no other has.
    pub fn apply_alone(&mut self, op: &Op) {
        let last = self.tree.last_key_value().map_or(0, |(ino, _)| *ino);
        self.note(op, last + 1);
    }

    /// Does an operation on the filesystem alone. Gives the number of the inode that it made, if any.
    fn run(&self, fs: &Fs, op: &Op) -> Result<u64, Error> {
        let at = |place: &Place| (self.dirs[place.dir], NAMES[place.name]);
        let ino = |place: &Place| self.find(*place).expect("a name that is there");
        let made = match op {
            Op::Create(place) => {
                let (dir, name) = at(place);
                fs.create(dir, name, &FILE)?.ino
            }
            Op::Symlink(place) => {
                let (dir, name) = at(place);
                fs.symlink(dir, name, b"target", &LINK)?.ino
            }
            Op::Mkdir(place) => {
                let (dir, name) = at(place);
                fs.mkdir(dir, name, &DIR)?.ino
            }
            Op::Link(from, to) => {
                let (dir, name) = at(to);
                fs.link(ino(from), dir, name)?.ino
            }
            Op::Unlink(place) => {
                let (dir, name) = at(place);
                return fs.unlink(dir, name).map(|()| 0);
            }
            Op::Rmdir(place) => {
                let (dir, name) = at(place);
                return fs.rmdir(dir, name).map(|()| 0);
            }
            Op::Rename(from, to) => {
                let ((dir, name), (to_dir, to_name)) = (at(from), at(to));
                return fs.rename(dir, name, to_dir, to_name, RenameFlags::empty()).map(|()| 0);
            }
            Op::Exchange(one, two) => {
                let ((dir, name), (to_dir, to_name)) = (at(one), at(two));
                return fs.rename(dir, name, to_dir, to_name, RenameFlags::EXCHANGE).map(|()| 0);
            }
            Op::Write(place, offset, data) => {
                let written = fs.write(ino(place), *offset, data)?;
                assert_eq!(written, data.len(), "a write on a volume with room");
                return Ok(0);
            }
            Op::Truncate(place, size) => {
                let set = SetAttr { size: Some(*size), ..SetAttr::default() };
                return fs.setattr(ino(place), &set).map(|_| 0);
            }
            Op::Allocate(place, len) => {
                return fs.fallocate(ino(place), AllocateMode::Allocate, false, 0, *len).map(|()| 0);
            }
            Op::SetXattr(place, which, value) => {
                let how = SetXattr { privileged: true, ..SetXattrMode::Any.into() };
                return fs.setxattr(ino(place), XATTRS[*which], value, how).map(|()| 0);
            }
            Op::RemoveXattr(place, which) => {
                return fs.removexattr(ino(place), XATTRS[*which], true).map(|()| 0);
            }
        };
        fs.forget(made, 1);
        Ok(made)
    }

    /// Does an operation here alone; `made` is the number of the inode that it makes, if it makes one. Gives the inode
    /// that it changed, if that still has a name.
    fn note(&mut self, op: &Op, made: u64) -> Option<u64> {
        match op {
            Op::Create(place) | Op::Symlink(place) | Op::Mkdir(place) => {
                let new = match op {
                    Op::Create(_) => node(1, Content::File(Vec::new())),
                    Op::Symlink(_) => node(1, Content::Link(b"target".to_vec())),
                    _ => node(2, Content::Dir(Default::default())),
                };
                self.tree.insert(made, new);
                self.put(*place, made);
                Some(made)
            }
            Op::Link(from, to) => {
                let ino = self.find(*from).expect("a name that is there");
                self.node(*from).nlink += 1;
                self.put(*to, ino);
                Some(ino)
            }
            Op::Unlink(place) | Op::Rmdir(place) => {
                self.drop_name(*place);
                None
            }
            Op::Rename(from, to) => {
                let ino = self.find(*from).expect("a name that is there");
                // Two names of one inode both stay.
                if self.find(*to) != Some(ino) {
                    self.drop_name(*to);
                    self.take_name(*from);
                    self.put(*to, ino);
                }
                None
            }
            Op::Exchange(one, two) => {
                let (first, second) = (self.take_name(*one), self.take_name(*two));
                self.put(*one, second.expect("a name that is there"));
                self.put(*two, first.expect("a name that is there"));
                None
            }
            Op::Write(place, offset, data) => {
                if let Content::File(bytes) = &mut self.node(*place).content {
                    let (start, end) = (*offset as usize, *offset as usize + data.len());
                    bytes.resize(bytes.len().max(end), 0);
                    bytes[start..end].copy_from_slice(data);
                }
                self.find(*place)
            }
            Op::Truncate(place, size) => {
                if let Content::File(bytes) = &mut self.node(*place).content {
                    bytes.resize(*size as usize, 0);
                }
                self.find(*place)
            }
            Op::Allocate(place, len) => {
                if let Content::File(bytes) = &mut self.node(*place).content {
                    bytes.resize(bytes.len().max(*len as usize), 0);
                }
                self.find(*place)
            }
            Op::SetXattr(place, which, value) => {
                self.node(*place).xattrs.insert(XATTRS[*which].to_vec(), value.clone());
                self.find(*place)
            }
            Op::RemoveXattr(place, which) => {
                self.node(*place).xattrs.remove(XATTRS[*which]);
                self.find(*place)
            }
        }
    }
}

fn node(nlink: u32, content: Content) -> Node {
    Node { nlink, xattrs: Default::default(), content }
}

/// Bytes that differ from seed to seed.
pub fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    (0..len).map(|_| rng.next_u64() as u8 | 1).collect()
}
