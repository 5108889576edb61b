// SPDX-License-Identifier: GPL-2.0-only
//! An inode: what programs see of it, and what the reference knows besides.

use std::collections::BTreeMap;
use std::fmt;

use super::acl::Xattrs;

/// Bytes of a block of data.
pub const BLOCK: usize = 4096;

/// Seconds and nanoseconds since 1970.
pub type Time = (i64, u32);

/// When an inode was changed. The time of the last access is not compared: it may be told late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// The contents.
    pub mtime: Time,
    /// Anything.
    pub ctime: Time,
    /// It was made.
    pub btime: Time,
}

/// What `stat` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Type and permissions.
    pub mode: u32,
    /// Links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number: major in the high half.
    pub rdev: u64,
    /// Bytes.
    pub size: u64,
    /// Blocks of [`BLOCK`] bytes that the data occupy.
    pub blocks: u64,
    /// See there.
    pub times: Times,
}

/// What is in an inode.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// Names with inode numbers, in the order in which they are listed.
    Dir(Vec<(Name, u64)>),
    /// Of a regular file.
    File(Vec<u8>),
    /// Of a symbolic link.
    Link(Vec<u8>),
    /// Of anything else.
    Special,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::Dir(entries) => f.debug_map().entries(entries.iter().map(|(n, ino)| (n, ino))).finish(),
            Content::File(bytes) => write!(f, "a file of {} bytes", bytes.len()),
            Content::Link(target) => write!(f, "a link to {} bytes", target.len()),
            Content::Special => f.write_str("a special file"),
        }
    }
}

/// An inode as programs see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What `stat` shows.
    pub stat: Stat,
    /// Extended attributes, hidden ones too.
    pub xattrs: Xattrs,
    /// The rest.
    pub content: Content,
}

/// Whether a block that a file has was written; otherwise it reads as zeros.
pub type Blocks = BTreeMap<u64, bool>;

/// An inode of the reference.
#[derive(Clone, Debug)]
pub struct Node {
    /// What programs see.
    pub seen: Seen,
    /// The blocks of a regular file.
    pub blocks: Blocks,
}

impl Node {
    /// A new inode.
    pub fn new(mode: u32, uid: u32, gid: u32, rdev: u64, xattrs: Xattrs, content: Content) -> Node {
        let (nlink, size) = match &content {
            Content::Dir(_) => (2, 0),
            Content::Link(target) => (1, target.len() as u64),
            _ => (1, 0),
        };
        let stat = Stat { mode, nlink, uid, gid, rdev, size, blocks: 0, times: Times::default() };
        Node { seen: Seen { stat, xattrs, content }, blocks: Blocks::new() }
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self.seen.content, Content::Dir(_))
    }

    /// The bytes of a regular file.
    pub fn file(&self) -> Option<&Vec<u8>> {
        match &self.seen.content {
            Content::File(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// A name, or a part of one, that prints as text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(pub Vec<u8>);

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            0..40 => write!(f, "\"{}\"", self.0.escape_ascii()),
            len => write!(f, "\"{}...\" ({len} bytes)", self.0[..8].escape_ascii()),
        }
    }
}
