// SPDX-License-Identifier: GPL-2.0-only
//! The operations of a program, each recorded and judged.
//!
//! | module | what |
//! | --- | --- |
//! | `names` | names of one directory: create, remove, look up, rename |
//! | `contents` | files that are written, emptied, replaced by a rename, read, synced |
//! | `attrs` | extended attributes, and the size of a file |
//! | `log` | a file that is only appended to |
//! | `locks` | locks of files |
//! | `fill` | files that fill the volume, and go again |

mod attrs;
mod contents;
mod fill;
mod locks;
mod log;
mod names;

use std::ops::{Deref, DerefMut};

use scoutfs_env::IoBuf;
use scoutfs_env::sim::{self, Node};
use scoutfs_format::item::ROOT_INO;
use scoutfs_fs::{Error, Fs};

use super::host::World;
use super::lock;
use super::work::End;

/// The directory in which names come and go.
pub const COMMON: &[u8] = b"common";
/// The file whose size changes.
pub const SIZED: &[u8] = b"sized";
/// The file that is appended to.
pub const LOG: &[u8] = b"log";
/// The file that is locked.
pub const LOCKED: &[u8] = b"locked";
/// Names that come and go.
pub const NAMES: usize = 6;
/// Files that are written and read.
pub const FILES: usize = 4;
/// How large they are, in words of eight bytes.
pub const WORDS: [usize; FILES] = [10, 512, 1536, 1300];

/// The name of a file that is written and read.
pub fn content_name(n: usize) -> Vec<u8> {
    format!("content{n}").into_bytes()
}

/// Bytes in memory of which it is known whether it is aligned: what a mount does depends on it, and nothing in a run may depend
/// on where a buffer happens to be.
pub struct Bytes {
    buf: IoBuf,
    from: usize,
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buf[self.from..]
    }
}

impl DerefMut for Bytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.buf[self.from..]
    }
}

/// Bytes that tell one value, in aligned memory or not.
pub fn filled(value: u64, words: usize) -> Bytes {
    let from = if sim::below(2) == 0 { 0 } else { 8 };
    let mut bytes = Bytes { buf: IoBuf::zeroed(from + 8 * words).expect("memory"), from };
    bytes.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&value.to_le_bytes()));
    bytes
}

/// The words of bytes that were read, the last one perhaps short.
fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    })
}

/// A value that nobody else writes.
fn new_value() -> u64 {
    1 + sim::random() / 2
}

/// A program on a mount.
pub struct Program<'a> {
    /// All.
    pub world: &'a World,
    /// Its mount.
    pub node: Node,
    /// The same.
    pub fs: &'a Fs,
    /// The directory in which names come and go.
    pub common: u64,
    /// Which of the mount's programs it is.
    pub number: usize,
}

impl Program<'_> {
    /// Does something.
    pub fn step(&self) -> Result<(), End> {
        let (name, content) = (sim::below(NAMES as u64) as usize, sim::below(FILES as u64) as usize);
        match sim::below(32) {
            0..4 if self.world.is_small => self.fill(),
            0..4 => self.create(name),
            4..7 => self.remove(name),
            7..9 => self.find(name),
            9 => self.rename(name, sim::below(NAMES as u64) as usize),
            10..13 => self.write(content),
            13..17 => self.read(content),
            17 => self.write(content).and_then(|()| self.fsync(content)),
            18 => self.fsync(content),
            19 => self.sync(),
            20 => self.replace(content),
            21 => self.empty(content),
            22 => self.set_xattr(content),
            23 => self.remove_xattr(content),
            24 => self.get_xattr(content),
            25 => self.truncate(),
            26 => self.get_size(),
            27..29 => self.append(),
            29 => self.read_log(),
            _ => self.lock_file(),
        }
    }

    /// Reads everything.
    pub fn look(&self) -> Result<(), End> {
        for n in 0..NAMES {
            self.find(n)?;
        }
        for n in 0..FILES {
            self.read(n)?;
            self.get_xattr(n)?;
        }
        self.get_size()?;
        self.read_log()
    }

    fn find_in_root(&self, name: &[u8]) -> Result<u64, Error> {
        let ino = self.fs.lookup(ROOT_INO, name)?.ino;
        self.fs.forget(ino, 1);
        Ok(ino)
    }

    fn sync(&self) -> Result<(), End> {
        let began = sim::now_ns();
        self.fs.sync()?;
        sim::note(format_args!("sync"));
        lock(&self.world.history).synced(self.node, None, began);
        Ok(())
    }

    /// A mount that may be held up or fail on the way, or has no space, may write less than all.
    fn may_fail(&self) -> bool {
        self.world.is_small || lock(&self.world.history).is_suspect(self.node)
    }
}
