// SPDX-License-Identifier: GPL-2.0-only
//! A small workload on two names in each of two directories, and what the tree must be after each of its operations.

use scoutfs_format::item::ROOT_INO;
use scoutfs_fs::dir::{NewInode, RenameFlags};
use scoutfs_fs::inode::SetAttr;
use scoutfs_fs::xattr::SetXattrMode;
use scoutfs_fs::{Error, Fs};

use crate::rng::Rng;
use crate::tree::{Content, Node, Tree};

const DIRS: [&[u8]; 2] = [b"a", b"b"];
const NAMES: [&[u8]; 2] = [b"x", b"y"];
const XATTRS: [&[u8]; 2] = [b"user.one", b"user.two"];
const FILE: NewInode = NewInode { mode: 0o100_644, uid: 0, gid: 0, rdev: 0 };
const DIR: NewInode = NewInode { mode: 0o040_755, uid: 0, gid: 0, rdev: 0 };
const LINK: NewInode = NewInode { mode: 0o120_777, uid: 0, gid: 0, rdev: 0 };

/// One of the names: which directory, which name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    dir: usize,
    name: usize,
}

/// An operation.
#[derive(Clone, Debug)]
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

    fn node(&mut self, at: Place) -> &mut Node {
        let ino = self.find(at).expect("a name that is there");
        self.tree.get_mut(&ino).expect("an inode with a name")
    }

    fn put(&mut self, at: Place, ino: u64) {
        self.entries(at.dir).insert(NAMES[at.name].to_vec(), ino);
    }

    fn drop_name(&mut self, at: Place) {
        if let Some(ino) = self.entries(at.dir).remove(NAMES[at.name])
            && let Some(node) = self.tree.get_mut(&ino)
        {
            node.nlink -= 1;
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
        let dirs = self.dirs;
        let at = |place: &Place| (dirs[place.dir], NAMES[place.name]);
        let changed = match op {
            Op::Create(place) => {
                let (dir, name) = at(place);
                let ino = fs.create(dir, name, &FILE)?.ino;
                fs.forget(ino, 1);
                self.tree.insert(ino, node(1, Content::File(Vec::new())));
                self.put(*place, ino);
                Some(ino)
            }
            Op::Symlink(place) => {
                let (dir, name) = at(place);
                let ino = fs.symlink(dir, name, b"target", &LINK)?.ino;
                fs.forget(ino, 1);
                self.tree.insert(ino, node(1, Content::Link(b"target".to_vec())));
                self.put(*place, ino);
                Some(ino)
            }
            Op::Link(from, to) => {
                let ino = self.find(*from).expect("a name that is there");
                let (dir, name) = at(to);
                fs.link(ino, dir, name)?;
                fs.forget(ino, 1);
                self.node(*from).nlink += 1;
                self.put(*to, ino);
                Some(ino)
            }
            Op::Unlink(place) => {
                let (dir, name) = at(place);
                fs.unlink(dir, name)?;
                self.drop_name(*place);
                None
            }
            Op::Rename(from, to) => {
                let ((dir, name), (to_dir, to_name)) = (at(from), at(to));
                fs.rename(dir, name, to_dir, to_name, RenameFlags::empty())?;
                let ino = self.find(*from).expect("a name that is there");
                // Two names of one inode both stay.
                if self.find(*to) != Some(ino) {
                    self.drop_name(*to);
                    self.entries(from.dir).remove(name);
                    self.put(*to, ino);
                }
                None
            }
            Op::Exchange(one, two) => {
                let ((dir, name), (to_dir, to_name)) = (at(one), at(two));
                fs.rename(dir, name, to_dir, to_name, RenameFlags::EXCHANGE)?;
                let inos = (self.find(*one), self.find(*two));
                self.put(*one, inos.1.expect("a name that is there"));
                self.put(*two, inos.0.expect("a name that is there"));
                None
            }
            Op::Write(place, offset, data) => {
                let ino = self.find(*place);
                let written = fs.write(ino.expect("a name that is there"), *offset, data)?;
                assert_eq!(written, data.len(), "a write on a volume with room");
                if let Content::File(bytes) = &mut self.node(*place).content {
                    let (start, end) = (*offset as usize, *offset as usize + data.len());
                    bytes.resize(bytes.len().max(end), 0);
                    bytes[start..end].copy_from_slice(data);
                }
                ino
            }
            Op::Truncate(place, size) => {
                let ino = self.find(*place);
                let set = SetAttr { size: Some(*size), ..SetAttr::default() };
                fs.setattr(ino.expect("a name that is there"), &set)?;
                if let Content::File(bytes) = &mut self.node(*place).content {
                    bytes.resize(*size as usize, 0);
                }
                ino
            }
            Op::SetXattr(place, which, value) => {
                let ino = self.find(*place);
                let name = XATTRS[*which];
                fs.setxattr(ino.expect("a name that is there"), name, value, SetXattrMode::Any)?;
                self.node(*place).xattrs.insert(name.to_vec(), value.clone());
                ino
            }
            Op::RemoveXattr(place, which) => {
                let ino = self.find(*place);
                fs.removexattr(ino.expect("a name that is there"), XATTRS[*which])?;
                self.node(*place).xattrs.remove(XATTRS[*which]);
                ino
            }
        };
        Ok(changed)
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
