// SPDX-License-Identifier: GPL-2.0-only
//! What is asked of a filesystem and what it answers. Inodes go by their numbers.

use super::node::{Name, Time};
use crate::rng::Rng;

/// An errno, or an answer.
pub type Outcome<T> = Result<T, i32>;

/// Contents: as many bytes, none of them zero, that only this seed has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data {
    /// Stands for the contents.
    pub seed: u64,
    /// Bytes.
    pub len: usize,
}

impl Data {
    /// So many bytes of a seed.
    pub const fn new(seed: u64, len: usize) -> Data {
        Data { seed, len }
    }

    /// The contents themselves.
    pub fn bytes(self) -> Vec<u8> {
        let mut rng = Rng::new(self.seed);
        let mut bytes = Vec::with_capacity(self.len + 8);
        while bytes.len() < self.len {
            bytes.extend(rng.next_u64().to_le_bytes().map(|b| b | 1));
        }
        bytes.truncate(self.len);
        bytes
    }
}

/// How a program reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `pread` and `pwrite`.
    Buffered,
    /// The same, past the kernel's cache.
    Direct,
    /// By shared memory.
    Mapped,
}

/// What `fallocate` is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocate {
    /// Give blocks where there are none.
    Fill,
    /// Take blocks away.
    Punch,
    /// Make a range read as zeros, with blocks.
    Zero,
}

/// Whether an attribute may be there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
// The names say it.
#[allow(missing_docs)]
pub enum Existing {
    Any,
    MustNot,
    Must,
}

/// How a rename treats what has the new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
// The names say it.
#[allow(missing_docs)]
pub enum Target {
    Replace,
    NoReplace,
    Exchange,
}

/// A time that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewTime {
    /// It is not.
    Omit,
    /// The filesystem's.
    Now,
    /// This one.
    At(Time),
}

/// A directory and a name in it.
pub type Place = (u64, Name);

/// One call.
#[derive(Clone, Debug)]
// The names say it; each stands for the system call of that name.
#[allow(missing_docs)]
pub enum Call {
    /// A regular or special file.
    Create(Place, u32, u64),
    Mkdir(Place, u32),
    Symlink(Place, Data),
    Link(u64, Place),
    Unlink(Place),
    Rmdir(Place),
    Rename(Place, Place, Target),
    /// A file without a name is written to, then given one.
    Tmpfile(Place, Data),
    Open(u64),
    /// By its place among the open files; the last one takes its place.
    Close(usize),
    Write(u64, u64, Data, Way),
    Append(u64, Data),
    Truncate(u64, u64),
    Allocate(u64, Allocate, bool, u64, u64),
    /// From, offset, to, offset, length.
    Copy(u64, u64, u64, u64, usize),
    Read(u64, u64, usize, Way),
    /// The next data, or the next hole.
    Seek(u64, u64, bool),
    SetMode(u64, u32),
    SetOwner(u64, u32, u32),
    /// Of the last access and the last change of the contents.
    SetTimes(u64, NewTime, NewTime),
    SetXattr(u64, Name, Value, Existing),
    RemoveXattr(u64, Name),
    Fsync(u64),
    /// Of this filesystem alone.
    Syncfs,
    /// Of all.
    Sync,
    Remount,
    /// The death of the mount, with all that it had only in memory.
    Crash,
}

/// An attribute's value.
#[derive(Clone, Debug)]
pub enum Value {
    /// Any bytes.
    Data(Data),
    /// An access control list.
    List(Vec<u8>),
}

impl Value {
    /// The value itself.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Value::Data(data) => data.bytes(),
            Value::List(list) => list.clone(),
        }
    }
}

/// What a call answers when it succeeds.
#[derive(Clone, PartialEq, Eq)]
pub enum Answer {
    /// That it is done.
    Done,
    /// The number of a new inode.
    Made(u64),
    /// How many bytes, or an offset.
    Number(u64),
    /// What was read.
    Bytes(Vec<u8>),
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Answer::Done => f.write_str("done"),
            Answer::Made(ino) => write!(f, "inode {ino}"),
            Answer::Number(n) => write!(f, "{n}"),
            Answer::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
        }
    }
}

/// Those of Linux that the reference answers.
// Their names are their documentation.
#[allow(missing_docs)]
pub mod errno {
    pub const EPERM: i32 = 1;
    pub const ENOENT: i32 = 2;
    pub const ENXIO: i32 = 6;
    pub const E2BIG: i32 = 7;
    pub const EACCES: i32 = 13;
    pub const EEXIST: i32 = 17;
    pub const ENOTDIR: i32 = 20;
    pub const EISDIR: i32 = 21;
    pub const EINVAL: i32 = 22;
    pub const ENOTEMPTY: i32 = 39;
    pub const ENODATA: i32 = 61;
    pub const EOPNOTSUPP: i32 = 95;
}
