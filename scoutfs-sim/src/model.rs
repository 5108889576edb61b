// SPDX-License-Identifier: GPL-2.0-only
//! A small workload on two names in each of two directories, and what the tree must be after each of its operations.

use std::collections::BTreeMap;

use scoutfs_format::item::ROOT_INO;
use scoutfs_fs::{Error, Fs};

use crate::in_process::{RULES, carry_out};
use crate::reference::{
    Allocate, Answer, Call, Content, Data, Existing, Name, Node, Reference, Target, Value, Way,
};
use crate::rng::Rng;
use crate::tree::{self, Tree};

const DIRS: [&[u8]; 2] = [b"a", b"b"];
const NAMES: [&[u8]; 2] = [b"x", b"y"];
/// The second one is in the search index.
const XATTRS: [&[u8]; 2] = [b"user.one", b"scoutfs.srch.two"];

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
    Write(Place, u64, Data),
    Truncate(Place, u64),
    SetXattr(Place, usize, Data),
    RemoveXattr(Place, usize),
    Mkdir(Place),
    Rmdir(Place),
    Allocate(Place, u64),
}

/// The tree as it must be, and where the directories are.
#[derive(Clone)]
pub struct Model {
    reference: Reference,
    dirs: [u64; 2],
}

impl Model {
    /// Makes the two directories.
    pub fn set_up(fs: &Fs) -> Result<Model, Error> {
        let root = Node::new(0o040_755, 0, 0, 0, BTreeMap::new(), Content::Dir(vec![])).seen;
        let mut model = Model { reference: Reference::new(RULES, root), dirs: [0; 2] };
        for (n, name) in DIRS.into_iter().enumerate() {
            let call = Call::Mkdir((ROOT_INO, Name(name.to_vec())), 0o755);
            model.dirs[n] = model.carry_out(fs, &call)?.expect("a directory is made");
        }
        Ok(model)
    }

    /// The tree.
    pub fn tree(&self) -> Tree {
        let node = |node: &Node| tree::Node {
            nlink: node.seen.stat.nlink,
            xattrs: node.seen.xattrs.clone(),
            content: node.seen.content.clone(),
        };
        self.reference.nodes.iter().map(|(ino, n)| (*ino, node(n))).collect()
    }

    /// The inode that a name stands for.
    pub fn find(&self, at: Place) -> Option<u64> {
        self.reference.find(&self.name(at))
    }

    /// Whether a name stands for a directory.
    pub fn is_dir(&self, at: Place) -> bool {
        self.find(at).is_some_and(|ino| self.reference.is_dir(ino))
    }

    /// Bytes of the regular file that a name stands for.
    pub fn file_len(&self, at: Place) -> Option<u64> {
        self.reference.node(self.find(at)?).file().map(|bytes| bytes.len() as u64)
    }

    /// Whether the inode that a name stands for has an attribute.
    pub fn has_xattr(&self, at: Place, which: usize) -> bool {
        self.find(at).is_some_and(|ino| self.reference.node(ino).seen.xattrs.contains_key(XATTRS[which]))
    }

    /// Whether a name can replace another.
    pub fn can_rename(&self, from: Place, to: Place) -> bool {
        self.find(from).is_some() && (self.find(to).is_none() || self.is_dir(from) == self.is_dir(to))
    }

    fn name(&self, at: Place) -> (u64, Name) {
        (self.dirs[at.dir], Name(NAMES[at.name].to_vec()))
    }

    /// A random operation that succeeds.
    pub fn random_op(&self, rng: &mut Rng) -> Op {
        let place = |rng: &mut Rng| Place { dir: rng.below(2), name: rng.below(2) };
        let at = place(rng);
        if self.find(at).is_none() {
            return if rng.one_in(5) { Op::Symlink(at) } else { Op::Create(at) };
        }
        let Some(end) = self.file_len(at) else {
            return if rng.one_in(2) { Op::Unlink(at) } else { Op::Rename(at, place(rng)) };
        };
        let other = place(rng);
        let which = rng.below(2);
        match rng.below(12) {
            0..4 => {
                let len = *rng.pick(&[10, 600, 4096, 9000]);
                let offset = *rng.pick(&[0, end, 4096, 5000]);
                Op::Write(at, offset, Data::new(rng.next_u64(), len))
            }
            4 => Op::Unlink(at),
            5 | 6 if other != at => Op::Rename(at, other),
            7 if other != at && self.find(other).is_some() => Op::Exchange(at, other),
            7 | 8 if self.find(other).is_none() => Op::Link(at, other),
            9 => Op::Truncate(at, *rng.pick(&[0, 1, 700, 4096, 20_000])),
            10 if self.has_xattr(at, which) => Op::RemoveXattr(at, which),
            _ => {
                let len = *rng.pick(&[0, 30, 5000, 60_000]);
                Op::SetXattr(at, which, Data::new(rng.next_u64(), len))
            }
        }
    }

    /// Does an operation on the filesystem and here. Gives the inode that it changed, if that still has a name.
    pub fn apply(&mut self, fs: &Fs, op: &Op) -> Result<Option<u64>, Error> {
        self.carry_out(fs, &self.call(op))
    }

    /// Does an operation here alone. A new inode gets a number that no other has.
    pub fn apply_alone(&mut self, op: &Op) {
        let made = self.reference.unused();
        let done = self.reference.apply(&self.call(op), Some(made));
        done.unwrap_or_else(|errno| panic!("{op:?}: errno {errno}"));
    }

    fn carry_out(&mut self, fs: &Fs, call: &Call) -> Result<Option<u64>, Error> {
        let answer = carry_out(fs, call)?;
        let made = if let Answer::Made(ino) = answer { Some(ino) } else { None };
        assert_eq!(self.reference.apply(call, made), Ok(answer), "{call:?}");
        Ok(match call {
            Call::Link(ino, _)
            | Call::Write(ino, ..)
            | Call::Truncate(ino, _)
            | Call::Allocate(ino, ..)
            | Call::SetXattr(ino, ..)
            | Call::RemoveXattr(ino, _) => Some(*ino),
            _ => made,
        })
    }

    /// The call that an operation is now.
    fn call(&self, op: &Op) -> Call {
        let name = |at: &Place| self.name(*at);
        let ino = |at: &Place| self.find(*at).expect("a name that is there");
        let xattr = |which: &usize| Name(XATTRS[*which].to_vec());
        match op {
            Op::Create(at) => Call::Create(name(at), 0o100_644, 0),
            Op::Symlink(at) => Call::Symlink(name(at), Data::new(0, 6)),
            Op::Mkdir(at) => Call::Mkdir(name(at), 0o755),
            Op::Link(from, to) => Call::Link(ino(from), name(to)),
            Op::Unlink(at) => Call::Unlink(name(at)),
            Op::Rmdir(at) => Call::Rmdir(name(at)),
            Op::Rename(from, to) => Call::Rename(name(from), name(to), Target::Replace),
            Op::Exchange(one, two) => Call::Rename(name(one), name(two), Target::Exchange),
            Op::Write(at, offset, data) => {
                // Some of those that do not make the file longer, as a kernel writes pages that it has.
                let inside = self.file_len(*at).is_some_and(|len| offset + data.len as u64 <= len);
                let way = if inside && data.seed % 4 != 0 { Way::Mapped } else { Way::Buffered };
                Call::Write(ino(at), *offset, *data, way)
            }
            Op::Truncate(at, size) => Call::Truncate(ino(at), *size),
            Op::Allocate(at, len) => Call::Allocate(ino(at), Allocate::Fill, false, 0, *len),
            Op::SetXattr(at, which, data) => {
                Call::SetXattr(ino(at), xattr(which), Value::Data(*data), Existing::Any)
            }
            Op::RemoveXattr(at, which) => Call::RemoveXattr(ino(at), xattr(which)),
        }
    }
}
