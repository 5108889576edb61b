// SPDX-License-Identifier: GPL-2.0-only
//! All that a mounted filesystem shows, to be compared.

use std::collections::{BTreeMap, BTreeSet};

use scoutfs_format::item::ROOT_INO;
use scoutfs_fs::inode::kind::FileType;
use scoutfs_fs::{Error, Fs};

use crate::reference::{Content, Name};

/// Longest content that is read of a file that says to be longer.
const MAX_CONTENT: u64 = 4 << 20;
/// Most directories that are read of a tree that may be damaged.
const MAX_DIRS: usize = 10_000;

/// An inode as programs see it, without what `stat` shows but for its links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Links.
    pub nlink: u32,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The rest.
    pub content: Content,
}

/// All inodes that names lead to.
pub type Tree = BTreeMap<u64, Node>;

/// Reads everything. Goes on after an error, which is given to `failed` with the inode's number.
pub fn read_tree(fs: &Fs, failed: &mut dyn FnMut(u64, Error)) -> Tree {
    let mut tree = Tree::new();
    let mut todo = vec![ROOT_INO];
    let mut seen = BTreeSet::from([ROOT_INO]);
    let mut dirs = 0;
    while let Some(ino) = todo.pop() {
        match read_node(fs, ino) {
            Ok(node) => {
                if let Content::Dir(entries) = &node.content {
                    dirs += 1;
                    if dirs < MAX_DIRS {
                        todo.extend(entries.iter().map(|(_, ino)| *ino).filter(|ino| seen.insert(*ino)));
                    }
                }
                tree.insert(ino, node);
            }
            Err(e) => failed(ino, e),
        }
    }
    tree
}

fn read_node(fs: &Fs, ino: u64) -> Result<Node, Error> {
    let attr = fs.getattr(ino)?;
    let content = match FileType::of_mode(attr.mode) {
        Some(FileType::Directory) => {
            let mut entries = vec![];
            fs.readdir(ino, 0, &mut |entry| {
                if entry.name != b"." && entry.name != b".." {
                    entries.push((Name(entry.name.to_vec()), entry.ino));
                }
                true
            })?;
            Content::Dir(entries)
        }
        Some(FileType::Regular) => {
            let mut bytes = vec![0; attr.size.min(MAX_CONTENT) as usize];
            let len = fs.read(ino, 0, &mut bytes)?;
            bytes.truncate(len);
            Content::File(bytes)
        }
        Some(FileType::Symlink) => Content::Link(fs.readlink(ino)?.to_vec()),
        _ => Content::Special,
    };
    Ok(Node { nlink: attr.nlink, xattrs: read_xattrs(fs, ino)?, content })
}

fn read_xattrs(fs: &Fs, ino: u64) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Error> {
    let mut names = vec![0; fs.listxattr(ino, &mut [])?];
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let len = fs.listxattr(ino, &mut names)?;
    names.truncate(len);
    let mut xattrs = BTreeMap::new();
    for name in names.split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; fs.getxattr(ino, name, &mut [])?];
        let len = fs.getxattr(ino, name, &mut value)?;
        value.truncate(len);
        xattrs.insert(name.to_vec(), value);
    }
    Ok(xattrs)
}
