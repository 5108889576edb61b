// SPDX-License-Identifier: GPL-2.0-only
//! Extended attributes, which have one value of any length, and the size of a file.

use std::collections::BTreeSet;

use scoutfs_env::sim;
use scoutfs_fs::Error;
use scoutfs_fs::inode::SetAttr;
use scoutfs_fs::xattr::SetXattrMode;

use super::super::history::{Register, Seen};
use super::super::work::End;
use super::{Program, SIZED, filled, lock, new_value, words};

const NAME: &[u8] = b"user.value";
/// Words of a value: in one item or in several.
const LENGTHS: [usize; 4] = [1, 40, 400, 2000];

impl Program<'_> {
    pub(super) fn set_xattr(&self, n: usize) -> Result<(), End> {
        let value = new_value();
        let bytes = filled(value, LENGTHS[sim::below(LENGTHS.len() as u64) as usize]);
        self.change_xattr(n, value, |ino| self.fs.setxattr(ino, NAME, &bytes, SetXattrMode::Any))
    }

    pub(super) fn remove_xattr(&self, n: usize) -> Result<(), End> {
        self.change_xattr(n, 0, |ino| self.fs.removexattr(ino, NAME, false))
    }

    fn change_xattr(
        &self,
        n: usize,
        value: u64,
        change: impl FnOnce(u64) -> Result<(), Error>,
    ) -> Result<(), End> {
        let began = sim::now_ns();
        let write = lock(&self.world.history).writes(self.node, Register::Xattr(n), Some(value));
        let done = self.content(n).and_then(|ino| {
            lock(&self.world.history).goes_to(write, ino);
            change(ino)
        });
        let mut history = lock(&self.world.history);
        match done {
            Ok(()) => {
                sim::note(format_args!("attribute of content{n}: {value:x}"));
                history.written(write, None);
                Ok(())
            }
            Err(Error::NoAttribute) => {
                history.refused(write);
                Ok(history.read(self.node, Register::Xattr(n), Seen::Value(0), began)?)
            }
            Err(Error::NotFound | Error::StaleHandle) => {
                history.refused(write);
                Ok(())
            }
            Err(Error::NoSpace) => {
                history.refused(write);
                Err(End::NoSpace)
            }
            Err(e) => Err(e.into()),
        }
    }

    /// A value is there whole or not at all, also after a crash.
    pub(super) fn get_xattr(&self, n: usize) -> Result<(), End> {
        let began = sim::now_ns();
        let mut bytes = filled(0, 2000);
        let value = match self.content(n).and_then(|ino| self.fs.getxattr(ino, NAME, &mut bytes)) {
            Ok(len) => {
                let seen: BTreeSet<u64> = words(&bytes[..len]).collect();
                match (seen.first(), seen.len()) {
                    (Some(value), 1) if LENGTHS.contains(&(len / 8)) => *value,
                    _ => sim::fail(format_args!("the attribute of content{n} has {len} bytes of {seen:x?}")),
                }
            }
            Err(Error::NoAttribute) => 0,
            Err(Error::NotFound | Error::StaleHandle) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        sim::note(format_args!("read attribute of content{n}: {value:x}"));
        Ok(lock(&self.world.history).read(self.node, Register::Xattr(n), Seen::Value(value), began)?)
    }

    /// Gives a file a size that it never had.
    pub(super) fn truncate(&self) -> Result<(), End> {
        let ino = self.find_in_root(SIZED)?;
        let size = 1 + sim::below(1 << 40);
        let write = lock(&self.world.history).writes(self.node, Register::Size, Some(size));
        lock(&self.world.history).goes_to(write, ino);
        let done = self.fs.setattr(ino, &SetAttr { size: Some(size), ..SetAttr::default() });
        let mut history = lock(&self.world.history);
        match done {
            Ok(_) => {
                sim::note(format_args!("size {size:x}"));
                history.written(write, None);
                Ok(())
            }
            Err(Error::NoSpace) => {
                history.refused(write);
                Err(End::NoSpace)
            }
            Err(e) => Err(e.into()),
        }
    }

    pub(super) fn get_size(&self) -> Result<(), End> {
        let began = sim::now_ns();
        let ino = self.find_in_root(SIZED)?;
        let size = self.fs.getattr(ino)?.size;
        sim::note(format_args!("saw size {size:x}"));
        Ok(lock(&self.world.history).read(self.node, Register::Size, Seen::Value(size), began)?)
    }
}
