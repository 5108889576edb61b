// SPDX-License-Identifier: GPL-2.0-only
//! Carrying out a call on the reference.

use super::call::{Answer, Call, Outcome};
use super::names::Reference;
use super::node::{Content, Node};

impl Reference {
    /// Does what a call asks and answers as a filesystem must. `made` is the number that the filesystem under test gave to what
    /// is new.
    pub fn apply(&mut self, call: &Call, made: Option<u64>) -> Outcome<Answer> {
        self.touched.clear();
        let done = |result: Outcome<()>| result.map(|()| Answer::Done);
        match call {
            Call::Create(place, mode, rdev) => {
                let content =
                    if mode & 0o170000 == 0o100000 { Content::File(vec![]) } else { Content::Special };
                self.make(place, *mode, *rdev, content, made).map(Answer::Made)
            }
            Call::Mkdir(place, mode) => self.mkdir(place, *mode, made).map(Answer::Made),
            Call::Symlink(place, target) => {
                self.make(place, 0o120777, 0, Content::Link(target.bytes()), made).map(Answer::Made)
            }
            Call::Tmpfile(place, data) => self.tmpfile(place, *data, made).map(Answer::Made),
            Call::Link(ino, place) => done(self.link(*ino, place)),
            Call::Unlink(place) => done(self.unlink(place)),
            Call::Rmdir(place) => done(self.rmdir(place)),
            Call::Rename(from, to, how) => done(self.rename(from, to, *how)),
            Call::Open(ino) => {
                self.open.push(*ino);
                Ok(Answer::Done)
            }
            Call::Close(which) => {
                let ino = self.open.swap_remove(*which);
                self.reap(ino);
                Ok(Answer::Done)
            }
            Call::Write(ino, offset, data, _) => self.write(*ino, *offset, &data.bytes()).map(Answer::Number),
            Call::Append(ino, data) => self.append(*ino, &data.bytes()).map(Answer::Number),
            Call::Truncate(ino, size) => done(self.truncate(*ino, *size)),
            Call::Allocate(ino, how, keep, offset, len) => {
                done(self.allocate(*ino, *how, *keep, *offset, *len))
            }
            Call::Copy(from, at, to, to_at, len) => {
                self.copy(*from, *at, *to, *to_at, *len).map(Answer::Number)
            }
            Call::Read(ino, offset, len, _) => self.read(*ino, *offset, *len).map(Answer::Bytes),
            Call::Seek(ino, offset, data) => self.seek(*ino, *offset, *data).map(Answer::Number),
            Call::SetMode(ino, mode) => done(self.set_mode(*ino, *mode)),
            Call::SetOwner(ino, uid, gid) => done(self.set_owner(*ino, *uid, *gid)),
            Call::SetTimes(ino, atime, mtime) => done(self.set_times(*ino, *atime, *mtime)),
            Call::SetXattr(ino, name, value, existing) => done(self.set_xattr(*ino, name, value, *existing)),
            Call::RemoveXattr(ino, name) => done(self.remove_xattr(*ino, name)),
            Call::Fsync(_) | Call::Syncfs | Call::Sync => Ok(Answer::Done),
            Call::Remount | Call::Crash => {
                self.close_all();
                Ok(Answer::Done)
            }
        }
    }
}

/// What the inode that a call writes to may be when only a part of the call has been committed: calls on the contents of a
/// file are carried out in several transactions.
pub(super) fn parts(call: &Call, before: &super::names::Nodes) -> Vec<(u64, Node)> {
    use super::node::BLOCK;
    let written = |ino: u64, offset: u64, data: Vec<u8>| {
        let start = &before[&ino];
        if start.file().is_none() {
            return vec![];
        }
        let first = BLOCK - offset as usize % BLOCK;
        let ends = (first..data.len()).step_by(BLOCK);
        ends.map(|end| {
            let mut node = Node::clone(start);
            node.write(offset, &data[..end]);
            (ino, node)
        })
        .collect()
    };
    match call {
        Call::Write(ino, offset, data, _) => written(*ino, *offset, data.bytes()),
        Call::Append(ino, data) => written(*ino, before[ino].seen.stat.size, data.bytes()),
        Call::Copy(from, at, to, to_at, len) => match before[from].file() {
            Some(source) => {
                let at = *at as usize;
                let end = source.len().min(at + len);
                written(*to, *to_at, source[at.min(end)..end].to_vec())
            }
            None => vec![],
        },
        Call::Allocate(ino, how, keep, offset, len) => {
            let mut node = Node::clone(&before[ino]);
            let mut parts = vec![];
            let mut step = 0;
            while node.file().is_some() && node.allocate_step(*how, *keep, *offset, *len, step) {
                parts.push((*ino, node.clone()));
                step += 1;
            }
            parts
        }
        _ => vec![],
    }
}
