// SPDX-License-Identifier: GPL-2.0-only
//! Files that are full of one value, or empty. A file is written in place, or another takes its name.

use std::collections::BTreeSet;

use scoutfs_env::sim;
use scoutfs_format::item::ROOT_INO;
use scoutfs_fs::Error;
use scoutfs_fs::dir::RenameFlags;
use scoutfs_fs::inode::{Drops, SetAttr};

use super::super::history::{Register, Seen};
use super::super::work::{End, file};
use super::{Program, WORDS, content_name, filled, lock, new_value, words};

/// The value of a file that is empty.
const EMPTY: u64 = u64::MAX;

/// Another host has put a new file in place of one that was looked up.
fn is_gone(e: &Error) -> bool {
    matches!(e, Error::NotFound | Error::StaleHandle)
}

impl Program<'_> {
    pub(super) fn content(&self, n: usize) -> Result<u64, Error> {
        self.find_in_root(&content_name(n))
    }

    pub(super) fn write(&self, n: usize) -> Result<(), End> {
        let value = new_value();
        let write = lock(&self.world.history).writes(self.node, Register::Content(n), Some(value));
        let bytes = filled(value, WORDS[n]);
        let written = self.content(n).and_then(|ino| {
            lock(&self.world.history).goes_to(write, ino);
            self.fs.write_later(ino, Some(0), &bytes, Drops::Nothing).map(|(_, written)| written)
        });
        let written = match written {
            Ok(written) => written,
            Err(e) if is_gone(&e) => {
                lock(&self.world.history).refused(write);
                return Ok(());
            }
            Err(e) => {
                lock(&self.world.history).failed(write);
                return Err(e.into());
            }
        };
        if written != bytes.len() {
            if self.may_fail() {
                lock(&self.world.history).failed(write);
                return Ok(());
            }
            sim::fail(format_args!("a write of {} bytes wrote {written}", bytes.len()));
        }
        sim::note(format_args!("wrote content{n}: {value:x}"));
        lock(&self.world.history).written(write, None);
        Ok(())
    }

    pub(super) fn empty(&self, n: usize) -> Result<(), End> {
        let write = lock(&self.world.history).writes(self.node, Register::Content(n), Some(EMPTY));
        let set = SetAttr { size: Some(0), ..SetAttr::default() };
        let done = self.content(n).and_then(|ino| {
            lock(&self.world.history).goes_to(write, ino);
            self.fs.setattr(ino, &set)
        });
        match done {
            Ok(_) => {
                sim::note(format_args!("emptied content{n}"));
                lock(&self.world.history).written(write, None);
                Ok(())
            }
            Err(e) if is_gone(&e) => {
                lock(&self.world.history).refused(write);
                Ok(())
            }
            Err(Error::NoSpace) => Err(End::Unexpected("a file cannot be emptied for want of space".into())),
            Err(e) => {
                lock(&self.world.history).failed(write);
                Err(e.into())
            }
        }
    }

    /// A new file takes the name, as editors do it: written, synced, renamed.
    pub(super) fn replace(&self, n: usize) -> Result<(), End> {
        let value = new_value();
        let name = format!("new{}.{}", self.node.number(), self.number).into_bytes();
        match self.fs.unlink(ROOT_INO, &name) {
            Ok(()) | Err(Error::NotFound) => {}
            Err(e) => return Err(e.into()),
        }
        let ino = self.fs.create(ROOT_INO, &name, &file())?.ino;
        let bytes = filled(value, WORDS[n]);
        let written = self.fs.write_later(ino, Some(0), &bytes, Drops::Nothing).map(|(_, written)| written);
        let synced = sim::below(2) == 0;
        let done = match written {
            Ok(len) if len == bytes.len() => {
                if synced {
                    self.fs.fsync(ino)
                } else {
                    Ok(())
                }
            }
            Ok(_) if self.may_fail() => Err(Error::NoSpace),
            Ok(len) => sim::fail(format_args!("a write of {} bytes to a new file wrote {len}", bytes.len())),
            Err(e) => Err(e),
        };
        self.fs.forget(ino, 1);
        match done {
            Err(Error::NoSpace) => return Ok(()),
            done => done?,
        }
        let (content, xattr) = {
            let mut history = lock(&self.world.history);
            let content = history.writes(self.node, Register::Content(n), Some(value));
            let xattr = history.writes(self.node, Register::Xattr(n), Some(0));
            history.goes_to(content, ino);
            history.goes_to(xattr, ino);
            if !synced {
                // The name may be durable before what is in the file.
                history.failed(content);
            }
            (content, xattr)
        };
        let renamed = self.fs.rename(ROOT_INO, &name, ROOT_INO, &content_name(n), RenameFlags::empty());
        let mut history = lock(&self.world.history);
        match renamed {
            Ok(()) => {
                sim::note(format_args!("replaced content{n}: {value:x}, inode {ino}"));
                history.written(content, None);
                history.written(xattr, None);
                Ok(())
            }
            Err(Error::NoSpace) => {
                history.refused(content);
                history.refused(xattr);
                Ok(())
            }
            Err(e) => Err(e.into()),
        }
    }

    pub(super) fn read(&self, n: usize) -> Result<(), End> {
        let began = sim::now_ns();
        let mut bytes = filled(u64::MAX, WORDS[n] + 1);
        let len = match self.content(n).and_then(|ino| self.fs.read(ino, 0, &mut bytes)) {
            Err(e) if is_gone(&e) => return Ok(()),
            len => len?,
        };
        let mut seen: BTreeSet<u64> = words(&bytes[..len]).collect();
        if len > 8 * WORDS[n] {
            sim::fail(format_args!("content{n} has {len} bytes and more"));
        }
        if len < 8 * WORDS[n] {
            seen.insert(EMPTY);
        }
        let seen: Vec<u64> = seen.into_iter().collect();
        sim::note(format_args!("read content{n}: {seen:x?}"));
        let mut history = lock(&self.world.history);
        match seen[..] {
            [value] => history.read(self.node, Register::Content(n), Seen::Value(value), began)?,
            _ => history.read_torn(self.node, Register::Content(n), &seen, began)?,
        }
        Ok(())
    }

    /// What was done to the file that has the name now.
    pub(super) fn fsync(&self, n: usize) -> Result<(), End> {
        let began = sim::now_ns();
        let ino = self.content(n)?;
        match self.fs.fsync(ino) {
            Err(e) if is_gone(&e) => return Ok(()),
            done => done?,
        }
        sim::note(format_args!("fsync of content{n}"));
        lock(&self.world.history).synced(self.node, Some(ino), began);
        Ok(())
    }
}
